package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// TestMain is a holder's or a guard's main function when Start or a holder has
// re-executed the test.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == Verb {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := Hold(ctx)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 3 && os.Args[1] == GuardVerb {
		if err := Guard(os.Args[2], os.Args[3]); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // of holders: not a second's wait at their end
	goleak.VerifyTestMain(m)
}

const oneHost = "hosts:\n  s: {network: internet, address: 198.51.100.1/24}\n"

// home is a place for the labs of one test.
func home(t *testing.T) (dir string) {
	t.Helper()
	netns.Need(t)
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	return filepath.Join(run, "bodkin", "lab")
}

func up(t *testing.T, name string) *Client {
	t.Helper()
	if _, err := Start(t.Context(), Spec{Name: name, File: "x.yaml", Text: []byte(oneHost)}); err != nil {
		t.Fatal(err)
	}
	c, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func down(t *testing.T, c *Client) {
	t.Helper()
	if err := c.Down(); err != nil {
		t.Error(err)
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// TestInterrupted: a start that is given up at any moment leaves nothing, or a
// lab that is up.
func TestInterrupted(t *testing.T) {
	dir := home(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	given := 0
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.Int64N(int64(80*time.Millisecond))))
		_, err := Start(ctx, Spec{Name: "x", File: "x.yaml", Text: []byte(oneHost)})
		cancel()
		if err == nil {
			c, err := Open("x")
			if err != nil {
				t.Fatal(err)
			}
			down(t, c)
			c.Close()
		} else if given++; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given up with %v", err)
		}
		empty(t, dir)
	}
	t.Logf("%d of 20 starts were given up", given)
}

// reserved is the lock of a lab x that is to come, held.
func reserved(t *testing.T) (*dir, *os.File) {
	t.Helper()
	d, err := openDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	lock, err := d.reserve("x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	return d, lock
}

// TestGivenUpTooLate: who gives a start up when the lab is up already, and has
// said so, leaves nothing either.
func TestGivenUpTooLate(t *testing.T) {
	dir := home(t)
	d, lock := reserved(t)
	cmd, conn, err := launch(d, lock, Spec{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	var a started
	err = writeLine(conn, start{Name: "x", File: "x.yaml", Text: []byte(oneHost)})
	if err == nil {
		_, err = readLine(conn, maxAnswer, &a, 0)
	}
	if err != nil || a.Info == nil {
		t.Errorf("%+v, %v", a, err)
	}
	conn.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	empty(t, dir)
}

// TestOneName: of many who want a name at once, one gets it.
func TestOneName(t *testing.T) {
	dir := home(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 5 {
		wg.Go(func() {
			_, err := Start(t.Context(), Spec{Name: "x", File: "x.yaml", Text: []byte(oneHost)})
			mu.Lock()
			defer mu.Unlock()
			var e *Error
			switch {
			case err == nil:
				won++
			case !errors.As(err, &e) || e.Code != Clash:
				t.Errorf("instead of a clash: %v", err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Fatalf("%d labs have the name", won)
	}
	c, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	down(t, c)
	empty(t, dir)
}

// TestTied: the lab ends with who started it.
func TestTied(t *testing.T) {
	dir := home(t)
	s, err := Start(t.Context(), Spec{Name: "x", File: "x.yaml", Text: []byte(oneHost), Tied: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Release(); err != nil {
		t.Error(err)
	}
	if err := s.Release(); err != nil {
		t.Error(err)
	}
	empty(t, dir)
}

func connect(t *testing.T, c *Client) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.dir.at(c.Name + ".sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestHostile: nobody who says nonsense, too much or nothing is in the way of
// others.
func TestHostile(t *testing.T) {
	dir := home(t)
	c := up(t, "x")
	for range 2 * maxClients { // who says nothing, and stays
		connect(t, c)
	}
	for _, text := range []string{
		"\n", "{}\n", "null\n", "[]\n", "garbage\n", `{"op":"set"}` + "\n", `{"op":"set","change":{"node":"nobody"}}` + "\n",
		`{"op":"enter","node":"\u0000"}` + "\n", `{"op":"capture","network":"../../etc"}` + "\n", `{"op":"status","mappings":-1}` + "\n",
		`{"op":"set","change":{"node":"s","cut":["s"]}}` + "\n", `{"op":"set","change":{"node":"s","link":{"loss":-1}}}` + "\n",
		`{"op":"set","change":{"node":"s","link":{"mtu":1}}}` + "\n", `{"op":"set","change":{"node":"s","move":{"network":""}}}` + "\n",
		`{"op":"info","op":"` + strings.Repeat("x", maxRequest) + `"}` + "\n",
	} {
		conn := connect(t, c)
		io.WriteString(conn, text)
		var a answer
		if _, err := readLine(conn, maxAnswer, &a, 0); err != nil || a.Error == nil && !strings.Contains(text, "status") {
			t.Errorf("%.80q is answered with %+v, %v", text, a, err)
		}
	}
	// Half a request, and gone.
	conn := connect(t, c)
	io.WriteString(conn, `{"op":`)
	conn.Close()
	// Who asks and does not read the answer.
	for range maxClients / 2 {
		writeLine(connect(t, c), request{Op: opStatus, Mappings: 1000})
	}
	if _, err := c.Status(10); err != nil {
		t.Error(err)
	}
	// Who is on the way in, and stays there, only delays the end.
	if _, err := c.Enter("s"); err != nil {
		t.Error(err)
	}
	down(t, c)
	empty(t, dir)
}

// TestEnterAndDown: what enters while the lab ends does not outlive it.
func TestEnterAndDown(t *testing.T) {
	home(t)
	for range 5 {
		c := up(t, "x")
		space, err := c.Enter("s")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Down() }()
		select {
		case err := <-ended:
			t.Fatalf("the lab ended (%v) before the namespace was entered", err)
		case <-time.After(100 * time.Millisecond):
		}
		space.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestPlace: a directory that is not the user's alone is refused.
func TestPlace(t *testing.T) {
	for name, spoil := range map[string]func(string) error{
		"others may look": func(dir string) error { return os.Chmod(dir, 0o750) },
		"a link":          func(dir string) error { return errors.Join(os.Remove(dir), os.Symlink(t.TempDir(), dir)) },
		"a file":          func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			run := t.TempDir()
			t.Setenv("XDG_RUNTIME_DIR", run)
			d, err := openDir()
			if err != nil {
				t.Fatal(err)
			}
			d.Close()
			if err := spoil(filepath.Join(run, "bodkin", "lab")); err != nil {
				t.Fatal(err)
			}
			if d, err := openDir(); err == nil {
				d.Close()
				t.Error("it was taken")
			}
		})
	}
}

// TestFileThatCannotBe is named by the path that its user knows.
func TestFileThatCannotBe(t *testing.T) {
	lock := filepath.Join(home(t), "a.lock")
	if err := os.MkdirAll(lock, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Spec{Name: "a", File: "a.yaml", Text: []byte(oneHost)})
	if err == nil || !strings.Contains(err.Error(), lock) {
		t.Errorf("%v; want one about %s", err, lock)
	}
}

// TestStale: what a holder that is no more has left is cleared away, words
// about why are kept.
func TestStale(t *testing.T) {
	dir := home(t)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x.lock", "x.sock", "x.log", "not a name.lock"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("panic: words\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Open("")
	var e *Error
	if !errors.As(err, &e) || e.Code != NoLab || !strings.HasSuffix(e.Hint, "its last words are in "+dir+"/x.log") {
		t.Errorf("%+v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x.lock")); err == nil {
		t.Error("the lock is still there")
	}
	c := up(t, "x")
	down(t, c)
	if _, err := os.Stat(filepath.Join(dir, "x.log")); err == nil {
		t.Error("the words of the one before are still there")
	}
}

// TestHolderKeepsItsDescriptors: what the holder was started with is not closed
// again when the collector comes, by when the numbers are namespaces'.
func TestHolderKeepsItsDescriptors(t *testing.T) {
	home(t)
	c := up(t, "x")
	defer down(t, c)
	all, err := List()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	low := func() (links [10]string) {
		for fd := range links {
			links[fd], _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", all[0].PID, fd))
		}
		return links
	}
	before := low()
	for range 1000 { // garbage
		if _, err := c.Status(10); err != nil {
			t.Fatal(err)
		}
	}
	if after := low(); after != before {
		t.Errorf("were %q, are %q", before, after)
	}
}

// TestPartly: what the kernel refuses is told with what was done before.
func TestPartly(t *testing.T) {
	var did []string
	do := func(what string, err error) step {
		return step{what, func() error { did = append(did, what); return err }}
	}
	err := run([]step{do("the link of a", nil), do("cut from s", nil), do("the move", errors.New("netns: no more memory")), do("the reboot", nil)})
	var e *Error
	if !errors.As(err, &e) || e.Code != Failed || e.Message != "no more memory" || e.Hint != "done before that, and not taken back: the link of a, cut from s" {
		t.Errorf("%+v", err)
	}
	if len(did) != 3 {
		t.Errorf("did %q", did)
	}
	if err := run([]step{do("the move", errors.New("no"))}); !errors.As(err, &e) || e.Hint != "" {
		t.Errorf("%+v", err)
	}
}

// TestSetChecksTheLink: who speaks to the holder without flags is refused too.
func TestSetChecksTheLink(t *testing.T) {
	home(t)
	c := up(t, "x")
	defer down(t, c)
	delay, mtu := time.Second, 575
	var e *Error
	if err := c.Set(Change{Node: "s", Link: &LinkChange{Delay: &delay, MTU: &mtu}}); !errors.As(err, &e) || e.Code != BadRequest || e.Message != "s: the MTU is from 576 to 65535" {
		t.Errorf("%v", err)
	}
	if status, err := c.Status(0); err != nil || status.Hosts[0].Port.Link.Delay != 0 {
		t.Errorf("%+v, %v", status, err)
	}
}

// TestSnapshot: a status is the same on both sides of the socket.
func TestSnapshot(t *testing.T) {
	home(t)
	c := up(t, "x")
	defer down(t, c)
	delay := 7 * time.Millisecond
	if err := c.Set(Change{Node: "s", Link: &LinkChange{Delay: &delay}}); err != nil {
		t.Fatal(err)
	}
	status, err := c.Status(10)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(status.Hosts)
	if len(status.Hosts) != 1 || status.Hosts[0].Name != "s" || status.Hosts[0].Port.Link.Delay != delay ||
		status.Hosts[0].Port.Addrs[0].String() != "198.51.100.1/24" {
		t.Errorf("%s", text)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"a", "two-homes", "A.b_c-9", strings.Repeat("x", MaxName)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", ".", "..", "-a", "_", "a/b", "a b", "ä", "a\x00", strings.Repeat("x", MaxName+1)} {
		if CheckName(name) == nil {
			t.Errorf("%q is a name", name)
		}
	}
}
