package bodkin_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// withCafe adds a network behind a NAT of its own to a topology.
func withCafe(top scenario.Topology) scenario.Topology {
	home := top.Gateways[0]
	home.Name = "gc"
	home.Inside = scenario.Port{Network: "cafe", Addrs: []netip.Prefix{netip.MustParsePrefix("10.3.0.1/24")}}
	home.Outside.Addrs = []netip.Prefix{netip.MustParsePrefix("198.51.100.13/24")}
	top.Gateways = append(top.Gateways, home)
	return top
}

// TestSessionSurvivesHostMove: a host goes to another network, as when a laptop
// leaves its home for a cafe, and back. Its sockets stay and its addresses
// change; the session finds a relay and a hole again, and no byte is lost.
func TestSessionSurvivesHostMove(t *testing.T) {
	for _, c := range []struct{ name, host, back string }{
		{"who dialled", "a", "10.1.0.2/24"},
		{"who listened", "b", "10.2.0.2/24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtual(t, withCafe(scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted)), 1, func(t *testing.T, w *world) {
				a, b := w.node("a"), w.node("b")
				defer a.Close()
				defer b.Close()
				ready(t, a, b)
				ca, cb := connect(t, a, b)
				waitPath(t, ca, bodkin.Direct)
				move := func(network, addr string) {
					t.Helper()
					start := time.Now()
					if err := w.net.Move(c.host, network, []netip.Prefix{netip.MustParsePrefix(addr)}); err != nil {
						t.Fatal(err)
					}
					exchange(t, ca, cb, 100_000)
					waitPath(t, ca, bodkin.Direct)
					if took := time.Since(start); took > 10*time.Second {
						t.Errorf("on %s: direct after %v only", network, took)
					}
					exchange(t, cb, ca, 100_000)
				}
				move("cafe", "10.3.0.7/24")
				move(map[string]string{"a": "home-a", "b": "home-b"}[c.host], c.back)
			})
		})
	}
}
