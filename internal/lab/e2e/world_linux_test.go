package e2e

import (
	"bufio"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// patience is for what takes no time worth mentioning, on a busy machine.
const patience = 20 * time.Second

// world is a topology on the kernel with a server that runs on host s.
type world struct {
	t      testing.TB
	lab    *netns.Lab
	dir    string
	server string // the server string
	serve  *process
}

// newWorld builds a topology with the kernel's NATs and starts the server. It
// skips what the kernel cannot do, saying so.
func newWorld(t testing.TB, top scenario.Topology) *world {
	t.Helper()
	return newWorldOf(t, top, netns.Options{Kernel: true})
}

func newWorldOf(t testing.TB, top scenario.Topology, opt netns.Options) *world {
	t.Helper()
	netns.Need(t)
	if _, err := program(); err != nil {
		t.Fatal(err)
	}
	lab, err := netns.New(top, opt)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, lab: lab, dir: t.TempDir()}
	w.startServer()
	return w
}

// twoHomes is a world of two port-preserving NATs that filter by address and
// port, 20 ms from the middle.
func twoHomes(t testing.TB) *world {
	t.Helper()
	return newWorld(t, scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted))
}

// startServer starts the server, with the data of the one before if any.
func (w *world) startServer() {
	w.t.Helper()
	args := []string{"serve", "--verbose", "--data", filepath.Join(w.dir, "server")}
	for _, v4 := range []bool{true, false} {
		if addr := w.lab.Host("s").Addr(v4); addr.IsValid() {
			at := netip.AddrPortFrom(addr, 3478).String()
			args = append(args, "--udp", at, "--tcp", at)
		}
	}
	w.serve = w.bodkin("s", args...)
	out := bufio.NewReader(w.serve.stdout)
	text, err := out.ReadString('\n')
	if err != nil {
		w.t.Fatalf("server: %v", err)
	}
	text = strings.TrimSpace(text)
	if w.server != "" && w.server != text {
		w.t.Fatalf("server string %s, was %s", text, w.server)
	}
	w.server = text
}

// key is the file of the key of a name; a process on a host uses that of the
// host unless told otherwise.
func (w *world) key(name string) string { return filepath.Join(w.dir, name+".key") }

func (w *world) environment(host string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir,
		"BODKIN_SERVER=" + w.server, "BODKIN_KEY=" + w.key(host)}
}

// id is the id of the key of a name.
func (w *world) id(name string) string {
	w.t.Helper()
	path, _ := program()
	cmd := exec.Command(path, "id", "--key", w.key(name))
	cmd.Env = w.environment(name)
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("bodkin id: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// bodkin starts the command on a host.
func (w *world) bodkin(host string, args ...string) *process {
	w.t.Helper()
	path, _ := program()
	return w.command(host, path, args...).start()
}

// listen starts `bodkin listen --json` and waits until it is registered.
func (w *world) listen(host string, args ...string) *process {
	w.t.Helper()
	p := w.bodkin(host, append([]string{"listen", "--json"}, args...)...)
	p.awaitEvent("registered", 0, patience)
	return p
}

// connect starts `bodkin connect --json` to the key of a name.
func (w *world) connect(host, to string, args ...string) *process {
	w.t.Helper()
	return w.bodkin(host, append([]string{"connect", "--json", w.id(to)}, args...)...)
}

// carried is what the internet has carried from one address to another so far; an
// invalid address is any.
func (w *world) carried(src, dst netip.Addr) netns.Count {
	w.t.Helper()
	c, err := w.lab.Counters()
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Sum(netns.Flow{Network: scenario.Internet, Src: src, Dst: dst})
}
