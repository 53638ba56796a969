package bodkin_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/sim"
)

// One side's wish binds both: the one who listens may insist on the relay, or
// on a direct path, as well as the one who dials.
func TestListenerDecidesToo(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*bodkin.Config)
		kind   bodkin.Kind
	}{
		"relay only":  {func(c *bodkin.Config) { c.RelayOnly = true }, bodkin.Relay},
		"direct only": {func(c *bodkin.Config) { c.DirectOnly = true }, bodkin.Direct},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, twoHomes, 1, func(t *testing.T, w *world) {
				a, b := w.node("a"), w.node("b", c.change)
				defer a.Close()
				defer b.Close()
				ca, cb := connect(t, a, b)
				exchange(t, ca, cb, 50_000)
				exchange(t, cb, ca, 50_000)
				time.Sleep(20 * time.Second)
				if p := ca.Path(); p.Kind != c.kind {
					t.Errorf("path %v", p)
				}
				peerToPeer := w.net.Counters(scenario.Internet, scenario.GatewayAAddr, scenario.GatewayBAddr)
				if c.kind == bodkin.Relay && peerToPeer.Packets > 0 {
					t.Errorf("%d packets went from peer to peer", peerToPeer.Packets)
				}
			})
		})
	}
}

// A direct path that dies on one address family is replaced by the other, and
// the better one is taken again when it is back.
func TestBetterPathWins(t *testing.T) {
	virtual(t, scenario.DualStack(scenario.PortRestricted, scenario.PortRestricted), 1, func(t *testing.T, w *world) {
		six := sim.Rule{A: netip.MustParseAddr("2001:db8:a::2"), B: netip.MustParseAddr("2001:db8:b::2")}
		restore := w.net.Cut(six)
		a, b := w.node("a"), w.node("b")
		defer a.Close()
		defer b.Close()
		ca, cb := connect(t, a, b)
		waitPath(t, ca, bodkin.Direct)
		if p := ca.Path(); p.Technique != "udp-punch" {
			t.Errorf("path %v while IPv6 is cut", p)
		}
		restore()
		defer w.net.Cut(sim.Rule{A: scenario.GatewayAAddr, B: scenario.GatewayBAddr})()
		exchange(t, ca, cb, 50_000)
		time.Sleep(30 * time.Second)
		if p := ca.Path(); p.Technique != "udp-ipv6" {
			t.Errorf("path %v with IPv4 cut and IPv6 back", p)
		}
		exchange(t, cb, ca, 50_000)
	})
}
