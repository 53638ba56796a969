package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bodkin-net/bodkin/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for what takes no time worth mentioning, on a busy machine.
const patience = 10 * time.Second

const twoHomes = "../docs/labs/two-homes.yaml"

// echo answers datagrams on a node until the test ends.
func echo(t *testing.T, n *lab.Node) netip.AddrPort {
	t.Helper()
	c, err := n.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			k, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo([]byte(fmt.Sprintf("%s from %s", buf[:k], from)), from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return netip.AddrPortFrom(n.Addr(), uint16(c.LocalAddr().(*net.UDPAddr).Port))
}

// ask sends a datagram and returns the answer, if one comes in time.
func ask(t *testing.T, c net.Conn, word string, limit time.Duration) (string, bool) {
	t.Helper()
	if _, err := c.Write([]byte(word)); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(limit))
	for {
		buf := make([]byte, 2048)
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "", false
		}
		if err != nil {
			t.Fatal(err)
		}
		if text := string(buf[:n]); strings.HasPrefix(text, word+" ") {
			return text, true
		}
	}
}

// TestAcrossNATs is a test as a user would write it.
func TestAcrossNATs(t *testing.T) {
	l := lab.StartFile(t, twoHomes)
	server := echo(t, l.Host("s"))
	conn, err := l.Host("a").Dial(t.Context(), "udp", server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	answer, ok := ask(t, conn, "hello", patience)
	if !ok || !strings.HasPrefix(answer, "hello from 198.51.100.11:") {
		t.Fatalf("%q: the server does not see the NAT", answer)
	}
	if rtt := time.Since(start); rtt < 80*time.Millisecond {
		t.Errorf("a round trip of %v over links of 80 ms", rtt)
	}

	if err := l.Cut("a", "s"); err != nil {
		t.Fatal(err)
	}
	if answer, ok := ask(t, conn, "cut", 300*time.Millisecond); ok {
		t.Errorf("%q through a cut", answer)
	}
	if err := l.Restore("s", "a"); err != nil {
		t.Fatal(err)
	}
	if _, ok := ask(t, conn, "restored", patience); !ok {
		t.Error("nothing after the cut was restored")
	}
	if err := l.SetLink("ga/outside", lab.Link{Delay: 120 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if _, ok := ask(t, conn, "far", patience); !ok || time.Since(start) < 280*time.Millisecond {
		t.Errorf("a round trip of %v over links of 280 ms", time.Since(start))
	}
	if err := l.BlockUDP("ga", true); err != nil {
		t.Fatal(err)
	}
	if answer, ok := ask(t, conn, "blocked", time.Second); ok {
		t.Errorf("%q where UDP is blocked", answer)
	}
}

// TestReboot: who is inside keeps its socket, and gets another mapping.
func TestReboot(t *testing.T) {
	topology, err := lab.Load(twoHomes)
	if err != nil {
		t.Fatal(err)
	}
	topology.Gateways[0].NAT = lab.PresetByName("symmetric")
	l := lab.Start(t, topology)
	server := echo(t, l.Host("s"))
	conn, err := l.Host("a").Dial(t.Context(), "udp", server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	endpoint := func() string {
		answer, ok := ask(t, conn, "x", patience)
		if !ok {
			t.Fatal("no answer")
		}
		return answer
	}
	before := endpoint()
	if again := endpoint(); again != before {
		t.Fatalf("%s, then %s without a reboot", before, again)
	}
	if got := l.Status().Gateways[0]; len(got.Mappings) != 1 || got.Mappings[0].External.Addr() != netip.MustParseAddr("198.51.100.11") {
		t.Errorf("mappings %+v", got.Mappings)
	}
	if err := l.Reboot("ga"); err != nil {
		t.Fatal(err)
	}
	if after := endpoint(); after == before {
		t.Errorf("the same endpoint %s after a reboot: a chance of 1 in 64,512", after)
	}
}

func TestTCP(t *testing.T) {
	l := lab.StartFile(t, twoHomes)
	listener, err := l.Host("s").Listen("tcp", "s:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	sent := make(chan error, 1)
	go func() {
		c, err := listener.Accept()
		if err == nil {
			_, err = io.WriteString(c, "from inside the lab")
			c.Close()
		}
		sent <- err
	}()
	conn, err := l.Host("a").Dial(t.Context(), "tcp", "s:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := io.ReadAll(conn)
	if err := errors.Join(err, <-sent); err != nil || string(got) != "from inside the lab" {
		t.Errorf("%q, %v", got, err)
	}
	// Nobody from outside gets in.
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if c, err := l.Host("s").Dial(ctx, "tcp", "ga:7000"); err == nil {
		c.Close()
		t.Error("a connection to a NAT without a mapping")
	}
}

func TestNames(t *testing.T) {
	l := lab.StartFile(t, twoHomes)
	for _, address := range []string{"nobody:1", "example.org:80", "s", "s:1:2"} {
		if c, err := l.Host("a").Dial(t.Context(), "udp", address); err == nil {
			c.Close()
			t.Errorf("%s was found", address)
		}
	}
	if _, err := l.Host("a").Dial(t.Context(), "udp6", "s:1"); err == nil {
		t.Error("s has no IPv6 address")
	}
	if err := l.Cut("a", "nobody"); err == nil {
		t.Error("nobody was cut")
	}
	if err := l.Restore("a", "b"); err == nil {
		t.Error("restored what was not cut")
	}
	defer func() {
		if why := fmt.Sprint(recover()); !strings.Contains(why, `no host or gateway "nobody"; there are`) {
			t.Errorf("panics with %s", why)
		}
	}()
	l.Host("nobody")
}

func TestCommand(t *testing.T) {
	l := lab.StartFile(t, twoHomes)
	a := l.Host("a")
	out, err := a.Command(t.Context(), "cat", "/proc/self/net/fib_trie").Output()
	if err != nil || !bytes.Contains(out, []byte("10.1.0.2")) {
		t.Errorf("the addresses of a are %q, %v", out, err)
	}
	out, err = a.Command(t.Context(), "sh", "-c", "echo words >&2; echo data").CombinedOutput()
	if err != nil || string(out) != "words\ndata\n" {
		t.Errorf("%q, %v", out, err)
	}
	_, err = a.Command(t.Context(), "sh", "-c", "echo words >&2; exit 3").Output()
	var failed *exec.ExitError
	if !errors.As(err, &failed) || failed.ExitCode() != 3 || string(failed.Stderr) != "words\n" {
		t.Errorf("%v", err)
	}
	if err := a.Command(t.Context(), "no such program").Run(); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%v", err)
	}
	// What still runs ends with the lab.
	sleeper := a.Command(context.Background(), "sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Wait(); err == nil {
		t.Error("sleep ended by itself")
	}
}

func TestCapture(t *testing.T) {
	l := lab.StartFile(t, twoHomes)
	file := filepath.Join(t.TempDir(), "internet.pcapng")
	if err := l.Capture(lab.Internet, file); err != nil {
		t.Fatal(err)
	}
	server := echo(t, l.Host("s"))
	conn, err := l.Host("a").Dial(t.Context(), "udp", server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, ok := ask(t, conn, "look at this", patience); !ok {
		t.Fatal("no answer")
	}
	if err := l.StopCapture(lab.Internet); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || bytes.Count(text, []byte("look at this")) != 2 || !bytes.HasPrefix(text, []byte("\n\r\r\n")) {
		t.Errorf("%v: the question and its answer are not in the capture of %d bytes", err, len(text))
	}
}

func TestDrawn(t *testing.T) {
	l := lab.StartFile(t, twoHomes)
	if text := l.String(); !strings.Contains(text, "[ga] port-restricted") || !strings.Contains(text, "198.51.100.1") {
		t.Errorf("drawn as\n%s", text)
	}
	if picture := l.SVG(); !strings.HasPrefix(picture, "<svg") || !strings.Contains(picture, "home-a") {
		t.Errorf("drawn as\n%s", picture)
	}
}

// TestFaults: what cannot be is refused before anything is built.
func TestFaults(t *testing.T) {
	if _, err := lab.Parse("x.yaml", []byte("hosts:\n  a: {network: internet, adress: 198.51.100.1/24}\n")); err == nil || !strings.HasPrefix(err.Error(), "x.yaml:2: hosts.a.adress: ") {
		t.Errorf("a typo: %v", err)
	}
	if _, err := lab.Load("no-such.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	topology := lab.Topology{Hosts: []lab.Host{{Name: "a", Port: lab.Port{Network: "nowhere", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}}}}}
	if err := lab.Check(topology); err == nil {
		t.Error("a network without a gateway was let through")
	}
	if len(lab.Presets()) == 0 {
		t.Error("no presets")
	}
}

// fake is a test that fails or skips without doing so.
type fake struct {
	testing.TB
	cleanup func()
	said    []string
}

func (f *fake) Helper()                   {}
func (f *fake) Cleanup(c func())          { f.cleanup = c }
func (f *fake) Failed() bool              { return true }
func (f *fake) Logf(s string, a ...any)   { f.said = append(f.said, fmt.Sprintf(s, a...)) }
func (f *fake) Errorf(s string, a ...any) { f.said = append(f.said, fmt.Sprintf(s, a...)) }

// TestFailureShowsLab: the log of a failed test has the lab as it was.
func TestFailureShowsLab(t *testing.T) {
	topology, err := lab.Load(twoHomes)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{TB: t}
	lab.Start(f, topology)
	f.cleanup()
	if len(f.said) != 1 || !strings.Contains(f.said[0], "198.51.100.11") {
		t.Errorf("the log says %q", f.said)
	}
}

// TestExamples builds every file of docs/labs.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../docs/labs/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			l := lab.StartFile(t, file)
			t.Log("\n" + l.String())
			for _, h := range l.Status().Hosts {
				if !l.Host(h.Name).Addr().IsValid() {
					t.Errorf("%s has no address", h.Name)
				}
			}
		})
	}
}

// TestDHCP: hosts have their leases when the lab is there, and get others.
func TestDHCP(t *testing.T) {
	l := lab.StartFile(t, "../docs/labs/home.yaml")
	laptop := l.Host("laptop")
	before := laptop.Addr()
	if !netip.MustParsePrefix("192.168.1.0/24").Contains(before) {
		t.Fatalf("the laptop has %v", before)
	}
	server := echo(t, l.Host("server"))
	conn, err := laptop.Dial(t.Context(), "udp", server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, ok := ask(t, conn, "by DHCP", patience); !ok {
		t.Fatal("no answer")
	}
	if err := l.NewLease("laptop"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); laptop.Addr() == before || !laptop.Addr().IsValid(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the laptop has %v, as before", laptop.Addr())
		}
	}
	again, err := laptop.Dial(t.Context(), "udp", server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, ok := ask(t, again, "by another lease", patience); !ok {
		t.Error("no answer to the new address")
	}
}

func TestMove(t *testing.T) {
	l := lab.StartFile(t, twoHomes)
	if err := l.Move("a", "home-b", netip.MustParsePrefix("10.2.0.3/24")); err != nil {
		t.Fatal(err)
	}
	neighbour := echo(t, l.Host("b"))
	conn, err := l.Host("a").Dial(t.Context(), "udp", neighbour.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if answer, ok := ask(t, conn, "hello", patience); !ok || !strings.HasPrefix(answer, "hello from 10.2.0.3:") {
		t.Errorf("%q from the new neighbour", answer)
	}
	if err := l.Move("a", "nowhere"); err == nil {
		t.Error("moved to nowhere")
	}
}

// TestWarnings: a pool that is too small is told to who asks, and in the log.
func TestWarnings(t *testing.T) {
	topology, err := lab.Parse("x.yaml", []byte("hosts: {a: home, b: home}\n"+
		"gateways: {g: {inside: {network: home, address: 10.0.0.1/30}, outside: internet, dhcp: true}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{TB: t}
	l := lab.Start(f, topology)
	defer f.cleanup()
	if w := l.Warnings(); len(w) != 1 || !strings.HasSuffix(w[0], " has no address: gateway g has none left (addresses to lend: 1, wanted: 2)") || !slices.Equal(f.said, []string{"warning: " + w[0]}) {
		t.Errorf("%q, and logged %q", w, f.said)
	}
}
