package sim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// leasing is a and b behind a home gateway and c behind another, with both
// behind their provider's: every address is leased but those of the ways out
// and of s. IPv6 addresses are fixed.
func leasing(home, carrier nat.Behaviour) scenario.Topology {
	lent := func(network string, fixed ...string) scenario.Port {
		p := at(network, delay, fixed...)
		p.DHCP = true
		return p
	}
	pool := func(first, last string) *dhcp.Pool {
		return &dhcp.Pool{First: addr(first), Last: addr(last), Lease: 10 * time.Minute}
	}
	return scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: lent("home-a", "2001:db8:a::2/64")},
			{Name: "b", Port: lent("home-a", "2001:db8:a::3/64")},
			{Name: "c", Port: lent("home-c", "2001:db8:c::2/64")},
			{Name: "s", Port: at(scenario.Internet, delay, "192.0.2.1/24", "2001:db8:1::1/64")},
		},
		Gateways: []scenario.Gateway{
			{Name: "ga", NAT: home, DHCP: pool("10.0.0.10", "10.0.0.19"), Inside: at("home-a", scenario.Link{}, "10.0.0.1/24", "2001:db8:a::1/64"),
				Outside: lent("isp", "2001:db8:f::a/64")},
			{Name: "gc", NAT: home, DHCP: pool("10.0.2.10", "10.0.2.19"), Inside: at("home-c", scenario.Link{}, "10.0.2.1/24", "2001:db8:c::1/64"),
				Outside: lent("isp", "2001:db8:f::c/64")},
			{Name: "carrier", NAT: carrier, DHCP: pool("100.64.0.10", "100.64.0.99"), Inside: at("isp", scenario.Link{}, "100.64.0.1/24", "2001:db8:f::1/64"),
				Outside: at(scenario.Internet, delay, "203.0.113.50/24", "2001:db8:1::50/64")},
		},
	}
}

// leased is a bubble with everything configured.
func leased(t *testing.T, home, carrier nat.Behaviour, f func(t *testing.T, n *Network)) {
	t.Helper()
	inBubble(t, leasing(home, carrier), func(t *testing.T, n *Network) {
		configured(t, n)
		f(t, n)
	})
}

func configured(t *testing.T, n *Network) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Ready(ctx); err != nil {
		t.Fatalf("%v; so far: %v", err, n.Events())
	}
}

// ipv4 is the IPv4 address that a host has; invalid: none.
func ipv4(n *Network, host string) netip.Addr {
	addrs, _ := n.Host(host).Addrs()
	if len(addrs) > 0 && addrs[0].Is4() {
		return addrs[0]
	}
	return netip.Addr{}
}

// happened counts the events of a name with all these words.
func happened(n *Network, name string, words ...string) (count int) {
	for _, e := range n.Events() {
		if e.Name == name && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.Text, w) }) {
			count++
		}
	}
	return count
}

func TestDHCPEverywhere(t *testing.T) {
	leased(t, portRestricted, nat.Behaviour{Hairpin: nat.HairpinExternalSource}, func(t *testing.T, n *Network) {
		for host, prefix := range map[string]string{"a": "10.0.0.0/24", "b": "10.0.0.0/24", "c": "10.0.2.0/24"} {
			if a := ipv4(n, host); !netip.MustParsePrefix(prefix).Contains(a) {
				t.Errorf("%s has %v", host, a)
			}
			if addrs, _ := n.Host(host).Addrs(); len(addrs) != 2 {
				t.Errorf("%s has %v", host, addrs)
			}
		}
		if ipv4(n, "a") == ipv4(n, "b") {
			t.Error("a and b have one address")
		}
		for _, g := range []string{"ga", "gc"} {
			if out := n.Gateway(g).External(); len(out) != 2 || !netip.MustParsePrefix("100.64.0.0/24").Contains(out[0]) {
				t.Errorf("%s has %v outside", g, out)
			}
		}
		s, a, b := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("b"), 7)
		c := listenUDP(t, n.Host("c"), 7)
		start := time.Now()
		send(t, a, "192.0.2.1:1", "hello")
		expect(t, s, "hello", "203.0.113.50:7")
		if took := time.Since(start); took != 20*time.Millisecond {
			t.Errorf("took %v", took)
		}
		send(t, s, "203.0.113.50:7", "answer")
		expect(t, a, "answer", "192.0.2.1:1")
		send(t, a, netip.AddrPortFrom(ipv4(n, "b"), 7).String(), "neighbour")
		expect(t, b, "neighbour", netip.AddrPortFrom(ipv4(n, "a"), 7).String())
		// Two homes of one provider reach each other by its hairpin.
		send(t, c, "192.0.2.1:1", "hello")
		_, atC := receive(t, s)
		send(t, c, "203.0.113.50:7", "punch")
		send(t, a, atC, "through the hairpin")
		expect(t, c, "through the hairpin", "203.0.113.50:7")
		send(t, c, "[2001:db8:a::2]:7", "punch")
		send(t, a, "[2001:db8:c::2]:7", "through firewalls")
		expect(t, c, "through firewalls", "[2001:db8:a::2]:7")
	})
}

// A host is no one before it has an address: it can say nothing, and nothing
// is said to it.
func TestNoAddressYet(t *testing.T) {
	inBubble(t, leasing(fullCone, fullCone), func(t *testing.T, n *Network) {
		a := listenUDP(t, n.Host("a"), 7)
		if _, err := a.WriteTo(nil, udp("192.0.2.1:1")); !errors.Is(err, syscall.ENETUNREACH) {
			t.Error(err)
		}
		if _, err := n.Host("a").DialTCP(context.Background(), 0, end("192.0.2.1:1")); !errors.Is(err, syscall.ENETUNREACH) {
			t.Error(err)
		}
		if ipv4(n, "a").IsValid() {
			t.Error("it has one")
		}
		if err := n.Ready(func() context.Context { c, cancel := context.WithCancel(context.Background()); cancel(); return c }()); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		configured(t, n)
		send(t, a, "192.0.2.1:1", "")
	})
}

// renewals counts what a host sends to DHCP servers, and how much of it is for
// everyone.
func renewals(n *Network, network, host string, f func()) (all, broadcasts int64) {
	count := func() (int64, int64) {
		a := ipv4(n, host)
		return n.Counters(network, a, netip.Addr{}).Packets, n.Counters(network, a, broadcast).Packets
	}
	before, beforeB := count()
	f()
	after, afterB := count()
	return after - before, afterB - beforeB
}

func TestLeaseIsRenewed(t *testing.T) {
	leased(t, fullCone, fullCone, func(t *testing.T, n *Network) {
		had, outside := ipv4(n, "a"), n.Gateway("ga").External()
		all, broadcasts := renewals(n, "home-a", "a", func() { time.Sleep(time.Hour) })
		if all != 12 && all != 11 || broadcasts != 0 { // every five minutes
			t.Errorf("%d packets, %d of them for everyone", all, broadcasts)
		}
		if got := ipv4(n, "a"); got != had || !slices.Equal(n.Gateway("ga").External(), outside) {
			t.Errorf("a had %v and has %v", had, got)
		}
	})
}

// Without a way to the server itself the host asks everyone, from 7/8 of the
// lease on.
func TestLeaseIsRebound(t *testing.T) {
	leased(t, fullCone, fullCone, func(t *testing.T, n *Network) {
		had := ipv4(n, "a")
		restore := n.Cut(Rule{At: "home-a", A: had, B: addr("10.0.0.1"), OneWay: true})
		_, broadcasts := renewals(n, "home-a", "a", func() { time.Sleep(20 * time.Minute) })
		if broadcasts < 1 || broadcasts > 3 {
			t.Errorf("%d broadcasts in two leases", broadcasts)
		}
		if ipv4(n, "a") != had {
			t.Errorf("a had %v and has %v", had, ipv4(n, "a"))
		}
		restore()
		if _, broadcasts := renewals(n, "home-a", "a", func() { time.Sleep(time.Hour) }); broadcasts > 1 {
			t.Errorf("%d broadcasts after the way is back", broadcasts)
		}
	})
}

// When the lease ends the address goes, and what had it is silent. It is the
// same one again when the server is back.
func TestLeaseEnds(t *testing.T) {
	leased(t, fullCone, fullCone, func(t *testing.T, n *Network) {
		had, a := ipv4(n, "a"), listenUDP(t, n.Host("a"), 7)
		restore := n.Cut(Rule{At: "home-a"})
		time.Sleep(5 * time.Minute)
		send(t, a, "192.0.2.1:1", "still there")
		time.Sleep(6 * time.Minute)
		if ipv4(n, "a").IsValid() || happened(n, "a", "has lost", had.String()) != 1 {
			t.Errorf("a has %v; %v", ipv4(n, "a"), n.Events())
		}
		if _, err := a.WriteTo(nil, udp("192.0.2.1:1")); !errors.Is(err, syscall.ENETUNREACH) {
			t.Error(err)
		}
		restore()
		time.Sleep(2 * time.Minute)
		if ipv4(n, "a") != had {
			t.Errorf("a had %v and has %v", had, ipv4(n, "a"))
		}
		send(t, a, "192.0.2.1:1", "back")
	})
}

// On another network the old address is refused and a new one given. Back home
// the old one is still there.
func TestOutdatedAddressIsRefused(t *testing.T) {
	leased(t, fullCone, fullCone, func(t *testing.T, n *Network) {
		had := ipv4(n, "a")
		a := listenUDP(t, n.Host("a"), 7)
		move(t, n, "a", "home-c")
		if ipv4(n, "a").IsValid() {
			t.Errorf("on the move a has %v", ipv4(n, "a"))
		}
		configured(t, n)
		if got := ipv4(n, "a"); !netip.MustParsePrefix("10.0.2.0/24").Contains(got) || happened(n, "gc", "refused") == 0 {
			t.Errorf("a has %v; %v", got, n.Events())
		}
		send(t, a, "192.0.2.1:1", "from the other home")
		move(t, n, "a", "home-a")
		configured(t, n)
		if ipv4(n, "a") != had {
			t.Errorf("back home a has %v", ipv4(n, "a"))
		}
	})
}

// Who uses the address that another host has leased is noticed and said.
func TestThiefIsNoticed(t *testing.T) {
	leased(t, fullCone, fullCone, func(t *testing.T, n *Network) {
		b := listenUDP(t, n.Host("b"), 7)
		if happened(n, "ga", "stolen") != 0 {
			t.Fatal(n.Events())
		}
		victim := ipv4(n, "a")
		move(t, n, "b", "home-a", netip.PrefixFrom(victim, 24).String())
		for range 10 {
			send(t, b, "192.0.2.1:1", "I am not a")
		}
		time.Sleep(time.Second)
		if happened(n, "ga", "stolen", victim.String()) != 1 {
			t.Errorf("%v", n.Events())
		}
	})
}

// An address that somebody has taken is not offered by a server that pings
// first, if he can be pinged. The client declines it if he only has it.
func TestTakenAddresses(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		top := leasing(fullCone, fullCone)
		top.Hosts[1].Port = at("home-a", scenario.Link{}, "10.0.0.2/24")
		top.Hosts[1].Name = "thief"
		if hidden {
			top.Hosts[1].Firewall = &nat.Behaviour{Mode: nat.Firewall, Filtering: nat.AddressAndPortDependent}
		}
		for i := range top.Gateways {
			pool := top.Gateways[i].DHCP
			pool.Last, pool.Probe = pool.First.Next(), true
		}
		inBubble(t, top, func(t *testing.T, n *Network) {
			move(t, n, "thief", "home-a", "10.0.0.10/24")
			configured(t, n)
			if got := ipv4(n, "a"); got != addr("10.0.0.11") {
				t.Errorf("hidden %v: a has %v", hidden, got)
			}
			occupied, declined := happened(n, "ga", "occupied"), happened(n, "a", "declines 10.0.0.10")
			if hidden && declined != 1 || !hidden && (occupied != 1 || declined != 0) {
				t.Errorf("hidden %v: %v", hidden, n.Events())
			}
		})
	}
}

// A new lease gives the gateway another address, and nobody is at the old one
// any more: mappings to it are gone.
func TestNewLeaseOfAGateway(t *testing.T) {
	leased(t, fullCone, fullCone, func(t *testing.T, n *Network) {
		s, a := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7)
		send(t, a, "192.0.2.1:1", "hello")
		expect(t, s, "hello", "203.0.113.50:7")
		g, had := n.Gateway("ga"), n.Gateway("ga").External()[0]
		if len(g.Mappings()) != 1 {
			t.Errorf("%v", g.Mappings())
		}
		if err := n.NewLease("ga"); err != nil {
			t.Fatal(err)
		}
		configured(t, n)
		time.Sleep(10 * time.Second)
		if got := g.External()[0]; got == had || !got.Is4() {
			t.Errorf("it had %v and has %v", had, got)
		}
		if len(g.Mappings()) != 0 {
			t.Errorf("%v", g.Mappings())
		}
		send(t, s, "203.0.113.50:7", "for the old address")
		expect(t, a, "", "")
		send(t, a, "192.0.2.1:1", "again") // the carrier has the port mapped to the old address
		msg, from := receive(t, s)
		if msg != "again" || from == "203.0.113.50:7" {
			t.Errorf("%q from %q", msg, from)
		}
		send(t, s, from, "answer")
		expect(t, a, "answer", "192.0.2.1:1")
	})
}

// So does a provider that renumbers its customers.
func TestNewAddressOfAGateway(t *testing.T) {
	inBubble(t, behind(fullCone, fullCone), func(t *testing.T, n *Network) {
		s, a := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7)
		send(t, a, "192.0.2.1:1", "hello")
		expect(t, s, "hello", "198.51.100.1:7")
		if err := n.NewLease("ga"); err == nil {
			t.Error("a lease of a fixed address")
		}
		if err := n.NewLease("ga", prefixes("198.51.100.77/24")...); err != nil {
			t.Fatal(err)
		}
		send(t, s, "198.51.100.1:7", "for the old address")
		expect(t, a, "", "")
		send(t, a, "192.0.2.1:1", "again")
		expect(t, s, "again", "198.51.100.77:7")
		send(t, s, "198.51.100.77:7", "answer")
		expect(t, a, "answer", "192.0.2.1:1")
	})
}

func TestNewLeaseOfAHost(t *testing.T) {
	leased(t, fullCone, fullCone, func(t *testing.T, n *Network) {
		had := ipv4(n, "a")
		if err := n.NewLease("a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if got := ipv4(n, "a"); got == had || !got.IsValid() {
			t.Errorf("a had %v and has %v; %v", had, got, n.Events())
		}
		if err := n.NewLease("s"); err == nil {
			t.Error("a lease of a fixed address")
		}
		if err := n.NewLease("x"); err == nil {
			t.Error("a lease of nobody")
		}
	})
}

// A reboot forgets mappings and no leases.
func TestRebootKeepsLeases(t *testing.T) {
	leased(t, fullCone, fullCone, func(t *testing.T, n *Network) {
		before := fmt.Sprint(ipv4(n, "a"), ipv4(n, "b"), n.Gateway("ga").External())
		for _, g := range []string{"ga", "carrier"} {
			if err := n.RebootGateway(g); err != nil {
				t.Fatal(err)
			}
			configured(t, n)
			time.Sleep(30 * time.Minute)
			if after := fmt.Sprint(ipv4(n, "a"), ipv4(n, "b"), n.Gateway("ga").External()); after != before {
				t.Errorf("%s; now %s", before, after)
			}
			send(t, listenUDP(t, n.Host("a"), 0), "192.0.2.1:1", "")
		}
	})
}

// TestPoolTooSmall: nobody waits for an address that there is not.
func TestPoolTooSmall(t *testing.T) {
	top := leasing(nat.Behaviour{}, nat.Behaviour{})
	top.Gateways[0].DHCP.Last = top.Gateways[0].DHCP.First
	inBubble(t, top, func(t *testing.T, n *Network) {
		configured(t, n)
		a, _ := n.Host("a").Addrs()
		b, _ := n.Host("b").Addrs()
		if len(a)+len(b) != 3 { // with those of IPv6
			t.Errorf("a has %v, b %v", a, b)
		}
	})
}

// What is behind a gateway beside the way out is found by who has its address by
// DHCP, and told to it.
func TestLeasedRoutes(t *testing.T) {
	top := scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: scenario.Port{Network: "home", DHCP: true}},
			{Name: "d", Port: at("deep", delay, "10.9.0.2/24")},
		},
		Gateways: []scenario.Gateway{
			{Name: "g", NAT: portRestricted, DHCP: &dhcp.Pool{}, Inside: at("home", scenario.Link{}, "10.0.0.1/24"), Outside: at(scenario.Internet, delay, "203.0.113.50/24")},
			{Name: "inner", NAT: nat.Behaviour{Mode: nat.Open}, Inside: at("deep", scenario.Link{}, "10.9.0.1/24"), Outside: at("home", scenario.Link{}, "10.0.0.5/24")},
		},
	}
	inBubble(t, top, func(t *testing.T, n *Network) {
		configured(t, n)
		g, _ := n.Host("a").at.(*outlet).lease.client.Grant()
		if len(g.Routes) != 1 || g.Routes[0] != (dhcp.Route{To: netip.MustParsePrefix("10.9.0.0/24"), Via: addr("10.0.0.5")}) || g.Router != addr("10.0.0.1") {
			t.Errorf("a was told %+v", g)
		}
		a, d := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("d"), 9)
		send(t, a, "10.9.0.2:9", "there")
		if msg, from := receive(t, d); msg != "there" || from != netip.AddrPortFrom(ipv4(n, "a"), 7).String() {
			t.Errorf("%q from %v", msg, from)
		}
		send(t, d, netip.AddrPortFrom(ipv4(n, "a"), 7).String(), "and back")
		if msg, _ := receive(t, a); msg != "and back" {
			t.Errorf("%q", msg)
		}
	})
}

// Of the MTU of a link and the one that DHCP tells of, a host takes the smaller
// one; IPv6 has 1280 at least.
func TestLeasedMTU(t *testing.T) {
	top := leasing(portRestricted, portRestricted)
	top.Gateways[0].DHCP.MTU = 1000
	inBubble(t, top, func(t *testing.T, n *Network) {
		configured(t, n)
		for _, c := range []struct{ link, v4, v6 int }{{0, 1000, 1280}, {1300, 1000, 1280}, {900, 900, 900}} {
			if err := n.SetLink("a", scenario.Link{MTU: c.link}); err != nil {
				t.Fatal(err)
			}
			h := n.Host("a")
			if v4, v6 := h.mtu(addr("192.0.2.1")), h.mtu(addr("2001:db8:1::1")); v4 != c.v4 || v6 != c.v6 {
				t.Errorf("on a link with an MTU of %d it has %d and %d", c.link, v4, v6)
			}
		}
	})
}
