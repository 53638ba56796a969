package nat

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

func (b *bench) mapped(want Request) Mapping {
	b.t.Helper()
	m, err := b.Map(b.now, want)
	if err != nil {
		b.t.Fatalf("%+v: %v", want, err)
	}
	if !m.Explicit {
		b.t.Errorf("%+v is not explicit", m)
	}
	return m
}

func wanted(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.Addr{}, port) }

// Map opens a port for everyone, for its lifetime and however idle.
func TestMap(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		g := newBench(t, b)
		m := g.mapped(Request{Proto: ip.UDP, Internal: x, External: wanted(7777), Lifetime: time.Hour})
		at := netip.AddrPortFrom(ours, 7777)
		if m.External != at || m.Until != g.now.Add(time.Hour) {
			t.Fatalf("%+v", m)
		}
		g.now = g.now.Add(50 * time.Minute)
		if got := g.enters(z1, at); got != x {
			t.Errorf("from outside to %v", got)
		}
		if got := g.leaves(x, z1); got != at {
			t.Errorf("the answer left at %v", got)
		}
		if got := g.leaves(x, y1); got != at {
			t.Errorf("what begins inside left at %v", got)
		}
		g.mapped(Request{Proto: ip.UDP, Internal: x, External: wanted(7777), Lifetime: time.Hour})
		g.now = g.now.Add(time.Hour - 1)
		if got := g.enters(z1, at); got != x {
			t.Errorf("renewed, from outside to %v", got)
		}
		g.now = g.now.Add(6 * time.Minute)
		if got := g.enters(z1, at); got.IsValid() {
			t.Errorf("after its lifetime, from outside to %v", got)
		}
		if s := g.Stats(); s.Mappings+s.Sessions != 0 {
			t.Errorf("left: %+v", s)
		}
	})
}

func TestMapForTCP(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		g := newBench(t, b)
		at := g.mapped(Request{Proto: ip.TCP, Internal: x, External: wanted(80)}).External
		if at.Port() != 80 || !g.tcpIn(y1, at, ip.SYN) {
			t.Fatalf("at %v", at)
		}
		if got, ok := g.tcpOut(x, y1, ip.SYN|ip.ACK); !ok || got != at {
			t.Fatalf("SYN-ACK left at %v", got)
		}
		// The connection outlives the mapping; no other is made.
		if !g.Unmap(g.now, ip.TCP, at) || g.Unmap(g.now, ip.TCP, at) {
			t.Error("unmapped never, or twice")
		}
		if !g.tcpIn(y1, at, ip.ACK) || g.tcpIn(z1, at, ip.SYN) {
			t.Error("the connection ended, or another began")
		}
		if got, ok := g.tcpOut(x, y1, ip.ACK); !ok || got != at {
			t.Errorf("the connection goes on at %v", got)
		}
	})
}

func TestMapRemotes(t *testing.T) {
	for filtering := EndpointIndependent; filtering <= AddressAndPortDependent; filtering++ {
		g := newBench(t, Behaviour{Filtering: filtering})
		at := g.mapped(Request{Proto: ip.UDP, Internal: x, Remotes: []Remotes{{netip.PrefixFrom(y1.Addr(), 32), y1.Port()}}}).External
		if got := g.enters(y1, at); got != x {
			t.Errorf("to %v", got)
		}
		if g.enters(y2, at).IsValid() || g.enters(z1, at).IsValid() {
			t.Error("others come in")
		}
		g.leaves(x, z1)
		if got := g.enters(z1, at); got != x {
			t.Errorf("who was asked gets to %v", got)
		}
	}
}

// Of two ports of a host the second takes what Map gave the first, and what
// went through it ends, at once and though ports rest.
func TestMapReplaces(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		b.Ports.HoldDown = 2 * time.Minute
		g := newBench(t, b)
		at := netip.AddrPortFrom(ours, 7777)
		first := netip.AddrPortFrom(x.Addr(), 6001)
		second := netip.AddrPortFrom(x.Addr(), 6002)
		g.mapped(Request{Proto: ip.UDP, Internal: first, External: wanted(7777)})
		if got := g.enters(z1, at); got != first {
			t.Fatalf("from outside to %v", got)
		}
		for _, want := range []Request{
			{Proto: ip.UDP, Internal: second, External: wanted(7777)},
			{Proto: ip.UDP, Internal: x2, External: wanted(7777), Replace: true},
		} {
			if _, err := g.Map(g.now, want); !errors.Is(err, ErrTaken) {
				t.Errorf("%+v: %v", want, err)
			}
		}
		if m := g.mapped(Request{Proto: ip.UDP, Internal: second, External: wanted(7777), Replace: true}); m.External != at || len(m.Sessions) != 0 {
			t.Fatalf("%+v", m)
		}
		if got := g.enters(z1, at); got != second {
			t.Errorf("from outside to %v", got)
		}
		if got := g.leaves(second, z1); got != at {
			t.Errorf("the answer left at %v", got)
		}
		if got := g.leaves(first, z1); got == at {
			t.Errorf("the port that had it before still leaves at %v", got)
		}
		// Also when Unmap was there, and only what goes on keeps the mapping.
		g.Unmap(g.now, ip.UDP, at)
		g.mapped(Request{Proto: ip.UDP, Internal: netip.AddrPortFrom(x.Addr(), 6003), External: wanted(7777), Replace: true})
		if got := g.enters(z1, at); got.Port() != 6003 {
			t.Errorf("from outside to %v", got)
		}
		// What came about by itself is not Map's to give.
		own := g.leaves(netip.AddrPortFrom(x.Addr(), 6004), z1)
		if _, err := g.Map(g.now, Request{Proto: ip.UDP, Internal: second, External: own, Replace: true}); b.Ports.Overload == false && !errors.Is(err, ErrTaken) {
			t.Errorf("another's mapping: %v", err)
		}
	})
}

func TestMapTaken(t *testing.T) {
	g := newBench(t, Behaviour{})
	if at := g.mapped(Request{Proto: ip.UDP, Internal: x}).External; at.Port() != 5000 {
		t.Errorf("any port is %v", at)
	}
	if _, err := g.Map(g.now, Request{Proto: ip.UDP, Internal: x2, External: wanted(5000)}); !errors.Is(err, ErrTaken) {
		t.Errorf("a taken port: %v", err)
	}
	if at := g.mapped(Request{Proto: ip.UDP, Internal: x2, External: wanted(5000), Any: true}).External; at.Port() == 5000 {
		t.Errorf("a taken port: %v", at)
	}
	again := g.mapped(Request{Proto: ip.UDP, Internal: x2, External: wanted(5000), Any: true}).External
	if s := g.Stats(); s.Mappings != 2 {
		t.Errorf("asked again, it has %v, and there are %d mappings", again, s.Mappings)
	}
	for _, want := range []Request{
		{Proto: ip.ICMP, Internal: x}, {Proto: ip.UDP, Internal: y1}, {Proto: ip.UDP, Internal: netip.AddrPortFrom(x.Addr(), 0)},
		{Proto: ip.UDP, Internal: x, Lifetime: -1},
	} {
		if _, err := g.Map(g.now, want); err == nil {
			t.Errorf("%+v was granted", want)
		}
	}
	if got := g.portTo(ep("10.0.0.3:5000"), y1); got == 5000 {
		t.Error("the port was given to another")
	}
}

// What came about by itself becomes explicit, and stays where it is.
func TestMapAdopts(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		g := newBench(t, b)
		at, _ := g.tcpOut(x, y1, ip.SYN)
		g.tcpIn(y1, at, ip.SYN|ip.ACK)
		if m := g.mapped(Request{Proto: ip.TCP, Internal: x, External: wanted(at.Port())}); m.External != at {
			t.Fatalf("%v became %v", at, m.External)
		}
		if !g.tcpIn(z1, at, ip.SYN) || !g.tcpIn(y1, at, ip.ACK) {
			t.Error("a new connection, or the old one, is filtered")
		}
		if got, ok := g.tcpOut(x, y1, ip.ACK); !ok || got != at {
			t.Errorf("the connection goes on at %v", got)
		}
		if s := g.Stats(); s.Mappings != 1 {
			t.Errorf("%d mappings", s.Mappings)
		}
	})
}

// Two ports for one internal endpoint: an answer leaves where the question
// came in.
func TestMapTwice(t *testing.T) {
	for _, proto := range []ip.Proto{ip.UDP, ip.TCP} {
		g := newBench(t, Behaviour{Filtering: AddressAndPortDependent})
		a := g.mapped(Request{Proto: proto, Internal: x, External: wanted(7001)}).External
		b := g.mapped(Request{Proto: proto, Internal: x, External: wanted(7002)}).External
		for _, c := range []struct{ from, at netip.AddrPort }{{y1, a}, {z1, b}} {
			pkt, answer := udpPacket(c.from, c.at), udpPacket(x, c.from)
			if proto == ip.TCP {
				pkt, answer = tcpPacket(c.from, c.at, ip.SYN), tcpPacket(x, c.from, ip.SYN|ip.ACK)
			}
			if _, v := g.pass(g.Inbound, pkt); v.Action != Forward {
				t.Fatalf("%v at %v: %v", proto, c.at, v.Reason)
			}
			if p, v := g.pass(g.Outbound, answer); v.Action != Forward || p.Src != c.at {
				t.Errorf("%v: the answer of %v left at %v", proto, c.at, p.Src)
			}
		}
		g.Unmap(g.now, proto, a)
		g.now = g.now.Add(time.Hour)
		if p, v := g.pass(g.Outbound, map[ip.Proto][]byte{ip.UDP: udpPacket(x, y2), ip.TCP: tcpPacket(x, y2, ip.SYN)}[proto]); v.Action != Forward || p.Src != b {
			t.Errorf("%v: with one of them gone, packets leave at %v", proto, p.Src)
		}
	}
}

// Without translation Map is a pinhole in a firewall.
func TestMapPinhole(t *testing.T) {
	g := newBench(t, Behaviour{Filtering: AddressAndPortDependent})
	if g.enters(y6, x6).IsValid() {
		t.Fatal("it is open")
	}
	if m := g.mapped(Request{Proto: ip.UDP, Internal: x6, Lifetime: time.Minute}); m.External != x6 {
		t.Errorf("at %v", m.External)
	}
	if got := g.enters(y6, x6); got != x6 {
		t.Error("it is not open")
	}
	g.now = g.now.Add(10 * time.Minute)
	if g.enters(y6, x6).IsValid() {
		t.Error("it is still open")
	}
}

func TestExternal(t *testing.T) {
	g := newZones(t, Behaviour{})
	if got := g.External(x.Addr()); got != ours {
		t.Errorf("%v", got)
	}
	if got := g.External(server.Addr()); got != public.Addr() {
		t.Errorf("static: %v", got)
	}
	g.SetOwn(g.now, Outside, nil)
	if got := g.External(x.Addr()); got.IsValid() {
		t.Errorf("without an address: %v", got)
	}
}

// UDP mappings are kept by the packets that the behaviour names.
func TestUDPRefresh(t *testing.T) {
	for refresh := RefreshOutbound; refresh <= RefreshBoth; refresh++ {
		for _, perSession := range []bool{false, true} {
			for _, out := range []bool{false, true} {
				g := newBench(t, Behaviour{Filtering: AddressAndPortDependent, Timers: Timers{UDP: time.Minute, UDPRefresh: refresh, PerSession: perSession}})
				at := g.leaves(x, y1)
				g.leaves(x, z1)
				g.now = g.now.Add(40 * time.Second)
				if out {
					g.leaves(x, y1)
				} else {
					g.enters(y1, at)
				}
				g.now = g.now.Add(40 * time.Second)
				kept := refresh == RefreshBoth || out == (refresh == RefreshOutbound)
				if got := g.enters(y1, at) == x; got != kept {
					t.Errorf("%v, per session %t, outbound %t: kept: %t", refresh, perSession, out, got)
				}
				if got := g.enters(z1, at) == x; got != (kept && !perSession) {
					t.Errorf("%v, per session %t, outbound %t: the other remote is kept: %t", refresh, perSession, out, got)
				}
			}
		}
	}
}

// What is listed says whom Map lets in.
func TestMappingsTellRemotes(t *testing.T) {
	g := newBench(t, Behaviour{})
	only := []Remotes{{Prefix: netip.PrefixFrom(z1.Addr(), 32), Port: z1.Port()}}
	m := g.mapped(Request{Proto: ip.UDP, Internal: x, Remotes: only})
	if all := g.Mappings(g.now); len(all) != 1 || !slices.Equal(all[0].Remotes, only) || !slices.Equal(m.Remotes, only) {
		t.Errorf("%+v, %+v", m, all)
	}
	g.mapped(Request{Proto: ip.UDP, Internal: x})
	if all := g.Mappings(g.now); len(all) != 1 || all[0].Remotes != nil {
		t.Errorf("%+v", all)
	}
}
