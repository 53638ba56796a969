package bodkin_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
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

// TestSessionSurvivesNewAddress: the provider gives a home another address.
func TestSessionSurvivesNewAddress(t *testing.T) {
	for _, gateway := range []string{"ga", "gb"} {
		t.Run(gateway, func(t *testing.T) {
			virtual(t, scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted), 1, func(t *testing.T, w *world) {
				a, b := w.node("a"), w.node("b")
				defer a.Close()
				defer b.Close()
				ready(t, a, b)
				ca, cb := connect(t, a, b)
				waitPath(t, ca, bodkin.Direct)
				start := time.Now()
				if err := w.net.NewLease(gateway, netip.MustParsePrefix("198.51.100.77/24")); err != nil {
					t.Fatal(err)
				}
				exchange(t, ca, cb, 100_000)
				waitPath(t, ca, bodkin.Direct)
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("direct after %v only", took)
				}
				exchange(t, cb, ca, 100_000)
			})
		})
	}
}

// TestDHCPEverywhere: both nodes start before their hosts and gateways have
// addresses, behind a home and a carrier NAT each, and find each other.
func TestDHCPEverywhere(t *testing.T) {
	lent := func(network string) scenario.Port {
		return scenario.Port{Network: network, DHCP: true, Link: scenario.Link{Delay: 5 * time.Millisecond}}
	}
	top := scenario.TwoLevels(scenario.PortRestricted, scenario.PortRestricted)
	top.Gateways[2].NAT.Hairpin = nat.HairpinExternalSource
	for i := range top.Gateways {
		top.Gateways[i].DHCP = &dhcp.Pool{}
	}
	for i := range 2 {
		top.Hosts[i+1].Port = lent(top.Hosts[i+1].Port.Network)
		top.Gateways[i].Outside = lent("provider")
	}
	virtual(t, top, 1, func(t *testing.T, w *world) {
		a, b := w.node("a"), w.node("b")
		defer a.Close()
		defer b.Close()
		if addrs, err := w.net.Host("a").Addrs(); len(addrs) != 0 || err != nil {
			t.Errorf("a has %v, %v", addrs, err)
		}
		ready(t, a, b)
		ca, cb := connect(t, a, b)
		exchange(t, ca, cb, 100_000)
		want := scenario.Outcome{Kind: "direct", Transport: "udp", Technique: "udp-hairpin", To: scenario.GatewayAAddr}
		checkOutcome(t, outcome(t, ca, want), want)
		exchange(t, cb, ca, 100_000)
	})
}
