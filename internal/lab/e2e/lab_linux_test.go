package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// labs runs `bodkin lab` with a directory of its own for what is up.
type labs struct {
	t    *testing.T
	path string
	run  string
}

func newLabs(t *testing.T) labs {
	t.Helper()
	netns.Need(t)
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return labs{t, path, t.TempDir()}
}

func (l labs) do(args ...string) string {
	l.t.Helper()
	cmd := exec.Command(l.path, append([]string{"lab"}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+l.run)
	var words strings.Builder
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		l.t.Fatalf("bodkin lab %q: %v\n%s", args, err, words.String())
	}
	return string(out)
}

// processes of these labs, by their environment.
func (l labs) processes() (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range all {
		if env, err := os.ReadFile(file); err == nil && strings.Contains(string(env), "XDG_RUNTIME_DIR="+l.run+"\x00") {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
			found = append(found, string(line))
		}
	}
	return found
}

const labFiles = "../../../docs/labs/"

// TestLabUpSixHostsThreeGateways: how long until a lab is there.
func TestLabUpSixHostsThreeGateways(t *testing.T) {
	l := newLabs(t)
	var times []time.Duration
	for range 5 {
		start := time.Now()
		l.do("up", labFiles+"six-hosts.yaml")
		times = append(times, time.Since(start))
		for _, host := range []string{"a", "e"} {
			l.do("exec", host, "--", "cat", "/proc/net/dev") // it can be entered
		}
		l.do("down")
	}
	slices.Sort(times)
	t.Logf("lab up with six hosts and three gateways: median %v, least %v, most %v",
		times[2].Round(time.Millisecond), times[0].Round(time.Millisecond), times[4].Round(time.Millisecond))
	if times[0] > time.Second {
		t.Errorf("no lab was up within a second: %v", times)
	}
}

// TestHundredLabsLeaveNothing: what was there before is there after, and
// nothing else.
func TestHundredLabsLeaveNothing(t *testing.T) {
	l := newLabs(t)
	count := 100
	if testing.Short() {
		count = 10
	}
	before := machine(t)
	start := time.Now()
	const atOnce = 5
	for i := range count / atOnce {
		var names []string
		for j := range atOnce {
			names = append(names, strings.TrimSpace(l.do("up", labFiles+"two-homes.yaml", "--name", fmt.Sprintf("lab-%d-%d", i, j))))
		}
		l.do("exec", "--name", names[0], "a", "--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
		if i%2 == 0 {
			l.do("down", "--all")
			continue
		}
		for _, name := range names {
			l.do("down", "--name", name)
		}
	}
	t.Logf("%d labs, up and down: %v each", count, (time.Since(start) / time.Duration(count)).Round(time.Millisecond))
	if left := l.processes(); len(left) > 0 {
		t.Errorf("left are the processes %q", left)
	}
	if files, _ := filepath.Glob(l.run + "/bodkin/lab/*"); len(files) > 0 {
		t.Errorf("left are the files %q", files)
	}
	if now := machine(t); now != before {
		t.Errorf("the machine before:\n%s\nafter:\n%s", before, now)
	}
}

// machine is what the machine's own namespace has of interfaces, routes and
// tables of nftables.
func machine(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	dev, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dev {
		fmt.Fprintln(&text, d.Index, d.Name)
	}
	routes, err := os.ReadFile("/proc/self/net/route")
	if err != nil {
		t.Fatal(err)
	}
	text.Write(routes)
	tables, err := new(nftables.Conn).ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		fmt.Fprintln(&text, table.Family, table.Name)
	}
	return text.String()
}
