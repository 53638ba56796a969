package netns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// leased is a home whose hosts a and c get their addresses by DHCP from a
// gateway that gets its own from a carrier's, and s on the internet.
func leased(link scenario.Link) scenario.Topology {
	none := scenario.Link{}
	dynamic := func(network string) scenario.Port { return scenario.Port{Network: network, DHCP: true, Link: link} }
	return scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: dynamic("home")},
			{Name: "c", Port: dynamic("home")},
			{Name: "s", Port: on(scenario.Internet, none, sAddr)},
		},
		Gateways: []scenario.Gateway{
			{Name: "g", NAT: linux, Inside: on("home", none, gaIn), Outside: dynamic("carrier"), DHCP: &dhcp.Pool{}},
			{Name: "carrier", NAT: linux, Inside: on("carrier", none, "100.64.0.1/24"), Outside: on(scenario.Internet, none, gaOut), DHCP: &dhcp.Pool{}},
		},
	}
}

func TestDHCP(t *testing.T) {
	t.Parallel()
	l := newLab(t, leased(scenario.Link{Delay: 5 * time.Millisecond}), Options{})
	home, carrier := netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("100.64.0.0/24")
	st := l.Status()
	seen := map[netip.Addr]bool{ip(gaIn): true}
	for _, h := range st.Hosts[:2] {
		if len(h.Port.Addrs) != 1 || h.Port.Addrs[0].Masked() != home || seen[h.Port.Addrs[0].Addr()] ||
			h.Lease == nil || h.Lease.Addr != h.Port.Addrs[0].Addr() {
			t.Fatalf("%+v", h)
		}
		seen[h.Port.Addrs[0].Addr()] = true
	}
	g := st.Gateways[0]
	if len(g.Outside.Addrs) != 1 || g.Outside.Addrs[0].Masked() != carrier || len(g.Leases) != 2 || !slices.Contains([]string{"a", "c"}, g.Leases[0].Host) {
		t.Fatalf("%+v", g)
	}
	a, c, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("c"), 4000), udp(t, l.Host("s"), 3478)
	if from := mapped(a, s, ip(sAddr)); from != netip.AddrPortFrom(ip(gaOut), 4000) {
		t.Errorf("a is seen as %v", from)
	}
	c.send(netip.AddrPortFrom(l.Host("a").Addr(true), 4000), "neighbour")
	a.mustReceive("neighbour")
	// What runs on the gateway itself has its lease's address too.
	self := udp(t, l.Host("g"), 4001)
	if from := mapped(self, s, ip(sAddr)); from.Addr() != ip(gaOut) {
		t.Errorf("the gateway is seen as %v", from)
	}
}

// TestNewLease gives every kind of owner another address.
func TestNewLease(t *testing.T) {
	t.Parallel()
	l := newLab(t, leased(scenario.Link{}), Options{})
	s := udp(t, l.Host("s"), 3478)
	for _, name := range []string{"a", "g", "carrier"} {
		old := l.Host(name).Addr(true)
		a := udp(t, l.Host("a"), 4000)
		was := mapped(a, s, ip(sAddr))
		a.Close()
		if err := l.NewLease(name); err != nil {
			t.Fatal(err)
		}
		await(t, name+" has another address", func() bool {
			now := l.Host(name).Addr(true)
			return now.IsValid() && now != old
		})
		await(t, "traffic again", func() bool {
			a := udp(t, l.Host("a"), 4000)
			defer a.Close()
			if _, err := a.WriteToUDPAddrPort([]byte(name), netip.AddrPortFrom(ip(sAddr), 3478)); err != nil {
				return false // its address is being changed
			}
			got, from, ok := s.receive(100 * time.Millisecond)
			if name == "carrier" && ok && from.Addr() == was.Addr() {
				t.Errorf("seen as %v still", from)
			}
			return ok && got == name
		})
	}
	if err := l.NewLease("s"); err == nil || !strings.Contains(err.Error(), "fixed") {
		t.Errorf("a fixed address: %v", err)
	}
	if err := l.NewLease("nobody"); err == nil {
		t.Error("nobody got one")
	}
}

// await waits for what must come soon.
func await(t testing.TB, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s", what)
		}
	}
}

// TestMoveLeased moves a host between a network with DHCP and one without.
func TestMoveLeased(t *testing.T) {
	t.Parallel()
	l := newLab(t, leased(scenario.Link{}), Options{})
	s := udp(t, l.Host("s"), 3478)
	if err := l.Move("a", scenario.Internet, []netip.Prefix{netip.MustParsePrefix(xAddr)}); err != nil {
		t.Fatal(err)
	}
	a := udp(t, l.Host("a"), 4000)
	if from := mapped(a, s, ip(sAddr)); from.Addr() != ip(xAddr) {
		t.Errorf("seen as %v", from)
	}
	if err := l.Move("a", scenario.Internet, nil); err == nil {
		t.Error("DHCP on the internet")
	}
	for network, prefix := range map[string]string{"carrier": "100.64.0.0/24", "home": "192.168.1.0/24"} {
		if err := l.Move("a", network, nil); err != nil {
			t.Fatal(err)
		}
		await(t, "an address of "+network, func() bool {
			now := l.Host("a").Addr(true)
			return now.IsValid() && netip.MustParsePrefix(prefix).Contains(now)
		})
	}
	await(t, "traffic again", func() bool {
		if _, err := a.WriteToUDPAddrPort([]byte("back"), netip.AddrPortFrom(ip(sAddr), 3478)); err != nil {
			return false
		}
		_, from, ok := s.receive(100 * time.Millisecond)
		return ok && from.Addr() == ip(gaOut)
	})
}

// TestPoolTooSmall: a lab whose file has fewer addresses than ports comes up
// as quickly as others, and says who has none.
func TestPoolTooSmall(t *testing.T) {
	t.Parallel()
	top := leased(scenario.Link{})
	top.Gateways[0].DHCP = &dhcp.Pool{First: netip.MustParseAddr("192.168.1.7"), Last: netip.MustParseAddr("192.168.1.7")}
	start := time.Now()
	l := newLab(t, top, Options{})
	if took := time.Since(start); took > patience { // what it would wait for the other address
		t.Errorf("up in %v", took)
	}
	lucky, other := "a", "c"
	if !l.Host(lucky).Addr(true).IsValid() {
		lucky, other = other, lucky
	}
	want := []string{other + " has no address: gateway g has none left (addresses to lend: 1, wanted: 2)"}
	if l.Host(lucky).Addr(true) != netip.MustParseAddr("192.168.1.7") || !slices.Equal(l.Warnings(), want) {
		t.Errorf("%s has %v; warnings %q, want %q", lucky, l.Host(lucky).Addrs(), l.Warnings(), want)
	}
	// A program that asks for itself is not waited for.
	if l := newLab(t, top, Options{Unconfigured: []string{"a"}}); len(l.Warnings()) > 0 || !l.Host("c").Addr(true).IsValid() {
		t.Errorf("%q", l.Warnings())
	}
}

// TestNobodyLends: who gets no answer is waited for, but not for ever.
func TestNobodyLends(t *testing.T) {
	t.Parallel()
	top := leased(scenario.Link{})
	top.Hosts[0].Port.Link.Loss = 1
	l := newLab(t, top, Options{})
	if want := []string{"a has no address: gateway g has not answered"}; !slices.Equal(l.Warnings(), want) {
		t.Errorf("%q, want %q", l.Warnings(), want)
	}
}

// TestLostBroadcast: a client has its answer, and another address, before its
// question has reached everyone; then it is lost.
func TestLostBroadcast(t *testing.T) {
	t.Parallel()
	top := leased(scenario.Link{})
	top.Hosts[0].Port.Link.Loss = 1
	l := newLab(t, top, Options{Unconfigured: []string{"a"}})
	c, err := l.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Sum(Flow{Network: "home", Dst: limitedBroadcast, Protocol: UDP}); got.DroppedPackets < 4 {
		t.Errorf("%+v", got)
	}
}

// besideTheWayOut is a home with DHCP, in which a plain router leads to a
// network that is not on the way out.
func besideTheWayOut(kernel bool) scenario.Topology {
	none := scenario.Link{}
	return scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: scenario.Port{Network: "home", DHCP: true}},
			{Name: "d", Port: on("deep", none, "10.9.0.2/24")},
			{Name: "s", Port: on(scenario.Internet, none, sAddr)},
		},
		Gateways: []scenario.Gateway{
			{Name: "g", NAT: linux, Inside: on("home", none, gaIn), Outside: on(scenario.Internet, none, gaOut), DHCP: &dhcp.Pool{}},
			{Name: "inner", Kernel: kernel, NAT: nat.Behaviour{Mode: nat.Open}, Inside: on("deep", none, "10.9.0.1/24"), Outside: on("home", none, "192.168.1.5/24")},
		},
	}
}

// TestLeasedRoutes: who has its address by DHCP finds what is behind a gateway
// beside the way out, and the way out, before and after it gets another lease.
func TestLeasedRoutes(t *testing.T) {
	t.Parallel()
	for _, kernel := range []bool{false, true} {
		l := newLab(t, besideTheWayOut(kernel), Options{})
		d, s := udp(t, l.Host("d"), 4000), udp(t, l.Host("s"), 3478)
		for range 2 {
			a := udp(t, l.Host("a"), 4000)
			a.send(netip.AddrPortFrom(ip("10.9.0.2/24"), 4000), "there")
			if from := d.mustReceive("there"); from.Addr() != l.Host("a").Addr(true) {
				t.Errorf("from %v", from)
			}
			d.send(netip.AddrPortFrom(l.Host("a").Addr(true), 4000), "and back")
			a.mustReceive("and back")
			if from := mapped(a, s, ip(sAddr)); from.Addr() != ip(gaOut) {
				t.Errorf("outside a is seen as %v", from)
			}
			a.Close()
			old := l.Host("a").Addr(true)
			if err := l.NewLease("a"); err != nil {
				t.Fatal(err)
			}
			await(t, "another address", func() bool {
				now := l.Host("a").Addr(true)
				return now.IsValid() && now != old
			})
		}
	}
}
