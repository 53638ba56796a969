package sim

import (
	"net"
	"net/netip"
	"testing"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Hosts of a zone between the inside and the world are reached from inside, and
// by a static pair from outside; they reach the world and not the inside.
func TestDMZ(t *testing.T) {
	top := behind(fullCone, portRestricted)
	dmz := at("dmz", scenario.Link{}, "10.9.0.1/24")
	top.Gateways[0].DMZ = &dmz
	top.Gateways[0].Static = []nat.Static{{Internal: addr("10.9.0.2"), External: addr("198.51.100.9")}}
	top.Hosts = append(top.Hosts, scenario.Host{Name: "web", Port: at("dmz", scenario.Link{}, "10.9.0.2/24")},
		scenario.Host{Name: "db", Port: at("dmz", scenario.Link{}, "10.9.0.3/24")})
	inBubble(t, top, func(t *testing.T, n *Network) {
		a, s := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("s"), 1)
		web, db := listenUDP(t, n.Host("web"), 80), listenUDP(t, n.Host("db"), 80)
		for _, c := range []struct {
			what     string
			from, to net.PacketConn
			at, seen string // seen: where it comes from; empty: it does not arrive
		}{
			{"the zone to the inside", db, a, "10.0.0.2:7", ""},
			{"the inside to the zone", a, web, "10.9.0.2:80", "10.0.0.2:7"},
			{"the answer", web, a, "10.0.0.2:7", "10.9.0.2:80"},
			{"the world to a static address", s, web, "198.51.100.9:80", "192.0.2.1:1"},
			{"the answer of a static address", web, s, "192.0.2.1:1", "198.51.100.9:80"},
			{"the world to another", s, db, "198.51.100.1:80", ""},
			{"the zone to the world", db, s, "192.0.2.1:1", "198.51.100.1:80"},
			{"the world's answer", s, db, "198.51.100.1:80", "192.0.2.1:1"},
			{"the world by a private address", s, db, "10.9.0.3:80", ""},
		} {
			send(t, c.from, c.at, "hello")
			if _, got := receive(t, c.to); got != c.seen {
				t.Errorf("%s: seen from %q, want %q", c.what, got, c.seen)
			}
		}
	})
}

// Whom a gateway does not translate to sees the hosts' own addresses, and knows
// the way back.
func TestUntranslatedFindTheWayBack(t *testing.T) {
	top := behind(nat.Behaviour{Untranslated: []nat.Remotes{{Prefix: netip.MustParsePrefix("192.0.2.1/32")}}}, fullCone)
	top.Hosts = append(top.Hosts, scenario.Host{Name: "other", Port: at(scenario.Internet, scenario.Link{}, "192.0.2.77/24")})
	inBubble(t, top, func(t *testing.T, n *Network) {
		a, s, other := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("other"), 1)
		for _, c := range []struct {
			what     string
			from, to net.PacketConn
			at, seen string
		}{
			{"not translated", a, s, "192.0.2.1:1", "10.0.0.2:7"},
			{"its answer", s, a, "10.0.0.2:7", "192.0.2.1:1"},
			{"translated", a, other, "192.0.2.77:1", "198.51.100.1:7"},
			{"its answer", other, a, "198.51.100.1:7", "192.0.2.77:1"},
			{"unasked", other, a, "10.0.0.2:7", ""},
		} {
			send(t, c.from, c.at, "hello")
			if _, got := receive(t, c.to); got != c.seen {
				t.Errorf("%s: seen from %q, want %q", c.what, got, c.seen)
			}
		}
	})
}

// A gateway with several addresses outside translates to all of them, and gets
// the answers at each.
func TestSeveralOutsideAddresses(t *testing.T) {
	top := behind(nat.Behaviour{Pooling: nat.Arbitrary, Ports: nat.Ports{Allocation: nat.Random}}, fullCone)
	out := &top.Gateways[0].Outside
	out.Addrs = append(out.Addrs, netip.MustParsePrefix("198.51.100.2/24"), netip.MustParsePrefix("198.51.100.3/24"))
	inBubble(t, top, func(t *testing.T, n *Network) {
		s := listenUDP(t, n.Host("s"), 1)
		seen := make(map[netip.Addr]int)
		for range 60 {
			a := listenUDP(t, n.Host("a"), 0)
			send(t, a, "192.0.2.1:1", "hello")
			_, from := receive(t, s)
			seen[end(from).Addr()]++
			send(t, s, from, "answer")
			expect(t, a, "answer", "192.0.2.1:1")
			a.Close()
		}
		for _, a := range n.Gateway("ga").External() {
			if a.Is4() && seen[a] < 5 {
				t.Errorf("%v: %d of 60", a, seen[a])
			}
		}
	})
}
