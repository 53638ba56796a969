package e2e

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// TestServerKilled: once the direct path stands the server is not needed.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	w := twoHomes(t)
	b := w.listen("b")
	got := hashOf(b.stdout)
	b.stdin.Close()
	a := w.connect("a", "b")
	pace := paced{w: a.stdin, chunk: 64 << 10, rate: 4_000_000, end: make(chan struct{})}
	sent := feed(pace, 3, 1<<40)
	a.awaitPath("direct", 0, patience)
	w.serve.kill()
	// Longer than any timer that misses the server.
	<-time.After(20 * time.Second)
	close(pace.end)
	in, out := <-sent, <-got
	a.mustExit(patience)
	b.mustExit(patience)
	if in.err != errPaceEnds || out.err != nil || in.sum != out.sum || in.bytes != out.bytes {
		t.Errorf("sent %+v, received %+v", in, out)
	}
	t.Logf("%d bytes, the server gone for 20 s", out.bytes)
	checkOutcome(t, a, scenario.Outcome{Kind: "direct", Transport: "udp", To: scenario.GatewayBAddr})
}

// TestServerRestarted: idle listeners are registered again within 5 s of the
// server's coming back, and can be connected to, though nobody tells them.
func TestServerRestarted(t *testing.T) {
	t.Parallel()
	for _, blocked := range []bool{false, true} {
		t.Run(map[bool]string{false: "UDP", true: "UDP blocked"}[blocked], func(t *testing.T) {
			t.Parallel()
			top := scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted)
			top.Gateways[0].NAT.BlockUDP, top.Gateways[1].NAT.BlockUDP = blocked, blocked
			testServerRestarted(t, newWorld(t, top))
		})
	}
}

func testServerRestarted(t *testing.T, w *world) {
	const limit = 5 * time.Second
	listeners := []*process{w.listen("a", "--keep"), w.listen("b", "--keep")}
	<-time.After(2 * time.Second) // idle
	w.serve.kill()
	<-time.After(time.Second)
	seen := []int{len(listeners[0].said()), len(listeners[1].said())}
	w.startServer()
	up := time.Now()
	for i, l := range listeners {
		e, _ := l.awaitEvent("registered", seen[i], limit-time.Since(up))
		t.Logf("%s: registered again %v after the server was up", l.name, e.Time.Sub(up).Round(time.Millisecond))
	}
	// Each host connects to the other's listener, with another key.
	for i, l := range listeners {
		from, to := []string{"b", "a"}[i], []string{"a", "b"}[i]
		c := w.bodkin(from, "connect", "--json", "--key", w.key("second "+from), w.id(to))
		talk(t, c, l, "after the restart")
		c.kill()
	}
}

// TestListenKilled and TestConnectKilled: when one end is killed the other
// ends with an error within 10 s, whatever it was doing and by which path.
func TestListenKilled(t *testing.T)  { testKilled(t, "listen") }
func TestConnectKilled(t *testing.T) { testKilled(t, "connect") }

func testKilled(t *testing.T, victim string) {
	t.Parallel()
	const limit = 10 * time.Second
	for _, path := range []string{"direct", "relay", "stream relay"} {
		for _, sending := range []bool{false, true} {
			name := path + ", idle"
			if sending {
				name = path + ", sending"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				top := scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted)
				flags := []string{}
				switch path {
				case "relay":
					flags = []string{"--relay-only"}
				case "stream relay":
					top.Gateways[0].NAT.BlockUDP, top.Gateways[1].NAT.BlockUDP = true, true
				}
				w := newWorld(t, top)
				b := w.bodkin("b", append([]string{"listen"}, flags...)...)
				b.awaitWords("^registered ", patience)
				a := w.bodkin("a", append(append([]string{"connect"}, flags...), w.id("b"))...)
				talk(t, a, b, "hello")
				talk(t, b, a, "hello")
				kind := strings.Fields(path)
				a.awaitWords("^path: "+kind[len(kind)-1], patience)
				b.awaitWords("^path: "+kind[len(kind)-1], patience)
				left, gone := a, b
				if victim == "connect" {
					left, gone = b, a
				}
				if sending {
					done := feed(left.stdin, 9, 1<<40)
					io.CopyN(io.Discard, gone.stdout, 3_000_000)
					defer func() {
						left.stdin.Close()
						<-done
					}()
				} else {
					<-time.After(3 * time.Second)
				}
				gone.kill()
				killed := time.Now()
				code := left.exit(2 * limit)
				took := time.Since(killed)
				var errors []string
				for _, l := range left.said() {
					if strings.HasPrefix(l.text, "error: ") {
						errors = append(errors, l.text)
					}
				}
				t.Logf("exit code %d after %v: %q", code, took.Round(time.Millisecond), errors)
				if code == 0 || took > limit || len(errors) != 1 {
					t.Errorf("want an exit code other than 0 and one error line within %v", limit)
				}
			})
		}
	}
}
