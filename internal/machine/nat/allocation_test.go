package nat

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// symmetricTo is a port-restricted gateway with a mapping for each remote.
func symmetricTo(p Ports) Behaviour {
	return Behaviour{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, Ports: p}
}

// remote is the i-th of many remote endpoints.
func remoteAt(i int) netip.AddrPort { return netip.AddrPortFrom(y1.Addr(), uint16(1000+i)) }

func (b *bench) portTo(src, dst netip.AddrPort) uint16 {
	b.t.Helper()
	return b.leaves(src, dst).Port()
}

// full sends a UDP packet out for which there must be no room.
func (b *bench) full(src, dst netip.AddrPort) {
	b.t.Helper()
	if _, v := b.pass(b.Outbound, udpPacket(src, dst)); v.Reason != TableFull {
		b.t.Errorf("%v to %v: %+v", src, dst, v)
	}
}

func TestPreserve(t *testing.T) {
	g := newBench(t, Behaviour{Ports: Ports{Allocation: Preserve}})
	if got := g.portTo(x, y1); got != 5000 {
		t.Errorf("port %d", got)
	}
	g.full(x2, y1)

	g = newBench(t, Behaviour{Ports: Ports{Allocation: PreserveRandom, First: 40000, Last: 50000}})
	if got := g.portTo(x, y1); got != 5000 {
		t.Errorf("port %d", got)
	}
	if got := g.portTo(x2, y1); got < 40000 || got > 50000 {
		t.Errorf("the second has port %d", got)
	}
}

// RFC 4787 REQ-3a: well-known ports become well-known ones.
func TestRFC4787REQ3WellKnown(t *testing.T) {
	for _, how := range []Allocation{PreserveNext, PreserveRandom} {
		g := newBench(t, Behaviour{Ports: Ports{Allocation: how}})
		web := netip.AddrPortFrom(x.Addr(), 80)
		if got := g.portTo(web, y1); got != 80 {
			t.Errorf("%v: port %d", how, got)
		}
		if got := g.portTo(netip.AddrPortFrom(x2.Addr(), 80), y1); got >= 1024 || got == 80 {
			t.Errorf("%v: the second has port %d", how, got)
		}
	}
}

func TestSequentialDelta(t *testing.T) {
	for _, delta := range []int{0, 1, 2, 5, -1, -3} {
		g := newBench(t, symmetricTo(Ports{Allocation: Sequential, Delta: delta, First: 10000, Last: 10099}))
		want := delta
		if delta == 0 {
			want = 1
		}
		last := g.portTo(x, remoteAt(0))
		for i := range 15 {
			got := g.portTo(x, remoteAt(1+i))
			if int(got) != 10000+((int(last)-10000+want)%100+100)%100 {
				t.Fatalf("delta %d: %d after %d", delta, got, last)
			}
			last = got
		}
	}
}

// All ports of a range are given out, and then none.
func TestPortRange(t *testing.T) {
	for how := PreserveNext; how <= Random; how++ {
		if how == Preserve {
			continue
		}
		g := newBench(t, symmetricTo(Ports{Allocation: how, Delta: 2, First: 10000, Last: 10099}))
		seen := make(map[uint16]bool)
		for i := range 100 {
			got := g.portTo(netip.AddrPortFrom(x.Addr(), 10007), remoteAt(i))
			if seen[got] || got < 10000 || got > 10099 {
				t.Fatalf("%v: port %d", how, got)
			}
			seen[got] = true
		}
		g.full(netip.AddrPortFrom(x.Addr(), 10007), remoteAt(100))
	}
}

// RFC 4787 REQ-4.
func TestRFC4787REQ4Parity(t *testing.T) {
	for how := PreserveNext; how <= Random; how++ {
		g := newBench(t, Behaviour{Mapping: AddressAndPortDependent, Ports: Ports{Allocation: how, Parity: true, First: 10000, Last: 10099}})
		for i := range 10 {
			for _, port := range []uint16{10010, 10011} {
				p, v := g.pass(g.Outbound, udpPacket(netip.AddrPortFrom(x.Addr(), port), remoteAt(i)))
				if v.Action == Forward && p.Src.Port()%2 != port%2 || v.Action == Drop && how != Preserve {
					t.Errorf("%v: %d became %d", how, port, p.Src.Port())
				}
			}
		}
	}
}

// RFC 6888 section 5: each subscriber has a block of ports of its own.
func TestBlocks(t *testing.T) {
	for how := PreserveNext; how <= Random; how++ {
		if how == Preserve {
			continue
		}
		g := newBench(t, symmetricTo(Ports{Allocation: how, First: 10000, Last: 10099, Block: 25}))
		block := func(host byte, i int) int {
			src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), 5000)
			return (int(g.portTo(src, remoteAt(i))) - 10000) / 25
		}
		taken := make(map[int]bool)
		for host := byte(1); host <= 4; host++ {
			first := block(host, 0)
			if taken[first] {
				t.Fatalf("%v: two hosts share block %d", how, first)
			}
			taken[first] = true
			for i := range 24 {
				if got := block(host, 1+i); got != first {
					t.Fatalf("%v: a port of block %d, then of %d", how, first, got)
				}
			}
			g.full(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), 5000), remoteAt(25))
		}
		g.full(ep("10.0.0.5:5000"), y1)
		g.now = g.now.Add(5 * time.Minute)
		block(5, 0) // somebody's is free again
	}
}

// RFC 4787 section 4.2.1: two hosts share a port, as long as the remote tells
// them apart.
func TestOverload(t *testing.T) {
	g := newBench(t, symmetricTo(Ports{Allocation: PreserveRandom, Overload: true}))
	a, b := g.leaves(x, y1), g.leaves(x2, y2)
	if a.Port() != 5000 || b != a {
		t.Fatalf("%v and %v", a, b)
	}
	if got := g.enters(y1, a); got != x {
		t.Errorf("from %v to %v", y1, got)
	}
	if got := g.enters(y2, a); got != x2 {
		t.Errorf("from %v to %v", y2, got)
	}
	if got := g.enters(z1, a); got.IsValid() {
		t.Errorf("from %v to %v", z1, got)
	}
	if c := g.leaves(x2, y1); c == a {
		t.Error("two hosts share a port towards the same remote")
	}
	for _, bad := range []Behaviour{
		{Ports: Ports{Overload: true}},
		{Mapping: AddressAndPortDependent, Ports: Ports{Overload: true}},
		{Mapping: AddressDependent, Filtering: AddressDependent, Ports: Ports{Overload: true, HoldDown: 1}},
		{Mapping: AddressDependent, Filtering: AddressDependent, Ports: Ports{Overload: true}, SymmetricOnConflict: true},
	} {
		if _, err := New(Config{Behaviour: bad, Rand: g.cfg.Rand}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// A port that hosts share is not given to the gateway's own stack, whose mapping
// is for any remote; and one that Map opened is not used towards a remote that
// another host has by it: nobody could tell whose the answers are.
func TestOverloadTellsAnswersApart(t *testing.T) {
	for _, mapping := range []Dependence{AddressDependent, AddressAndPortDependent} {
		g := newBench(t, Behaviour{Mapping: mapping, Filtering: AddressAndPortDependent, Ports: Ports{Allocation: PreserveRandom, Overload: true}})
		at := g.leaves(x, y1)
		pkt := udpPacket(netip.AddrPortFrom(ours, x.Port()), y1)
		var p ip.Packet
		if v := g.Handle(g.now, Local, pkt, Offload{}); v.Action != Forward || p.Decode(pkt) != nil || p.Src == at {
			t.Errorf("the gateway's own: %+v at %v, and %v at %v", v, p.Src, x, at)
		}
		if v := g.Inbound(g.now, udpPacket(y1, p.Src)); v != forward(Local) {
			t.Errorf("an answer to the gateway: %+v", v)
		}

		g = newBench(t, g.cfg.Behaviour)
		at = g.leaves(x, y1)
		if m, err := g.Map(g.now, Request{Proto: ip.UDP, Internal: x2, External: at}); err != nil || m.External != at {
			t.Fatalf("%+v, %v", m, err)
		}
		for range 2 {
			other := g.leaves(x2, y1)
			if other == at {
				t.Errorf("%v and %v are both %v towards %v", x, x2, at, y1)
			}
			if got := g.enters(y1, other); got != x2 {
				t.Errorf("an answer to %v gets to %v", x2, got)
			}
			if got := g.leaves(x2, z1); got != at {
				t.Errorf("%v is %v towards %v", x2, got, z1)
			}
		}
		if g.enters(y1, at) != x || g.enters(z1, at) != x2 {
			t.Error("answers get to the wrong hosts")
		}
		g.now = g.now.Add(time.Hour) // what came about by itself is gone
		if got := g.leaves(x2, y1); got != at {
			t.Errorf("%v is %v when nobody else has the port", x2, got)
		}
	}
}

// RFC 6888 REQ-8: a port rests before somebody else gets it.
func TestRFC6888REQ8HoldDown(t *testing.T) {
	g := newBench(t, Behaviour{Ports: Ports{HoldDown: 2 * time.Minute}})
	g.leaves(x, y1)
	g.now = g.now.Add(5*time.Minute + 2*time.Minute - 1)
	if got := g.portTo(x2, y1); got != 5001 {
		t.Errorf("port %d after less than two minutes", got)
	}
	g.now = g.now.Add(1)
	if got := g.portTo(netip.AddrPortFrom(x2.Addr(), 5000), y2); got != 5001 {
		t.Errorf("the mapping moved to %d", got)
	}
	if got := g.portTo(ep("10.0.0.3:5000"), y1); got != 5000 {
		t.Errorf("port %d after two minutes", got)
	}
}

// It rests from the end of the last session on, also when nothing happened for
// long and all of them are found to have ended at once.
func TestHoldDownBegins(t *testing.T) {
	g := newBench(t, Behaviour{Ports: Ports{HoldDown: 2 * time.Minute}})
	var last time.Time
	for i := range 20 {
		g.now = g.now.Add(time.Duration(i*7%11) * 100 * time.Millisecond)
		g.tcpOut(x, remoteAt(i), ip.SYN)
		last = g.now
	}
	g.now = last.Add(6*time.Minute - 1)
	if got, _ := g.tcpOut(x2, y1, ip.SYN); got.Port() != 5001 {
		t.Errorf("port %d after less than two minutes", got.Port())
	}
	g.now = last.Add(6 * time.Minute)
	if got, _ := g.tcpOut(ep("10.0.0.3:5000"), y1, ip.SYN); got.Port() != 5000 {
		t.Errorf("port %d after two minutes", got.Port())
	}
}

// A port that has rested long enough counts no more among those that may rest,
// whether or not anybody asked in between.
func TestHoldDownBound(t *testing.T) {
	for _, asked := range []bool{true, false} {
		g := newBench(t, Behaviour{Ports: Ports{HoldDown: 2 * time.Minute, Held: 1}})
		start := g.now
		g.leaves(x, y1) // ends after 5 minutes, rests until 7
		g.now = start.Add(3 * time.Minute)
		g.leaves(ep("10.0.0.1:6000"), y1) // ends after 8, rests until 10
		if asked {
			g.now = start.Add(7*time.Minute + time.Second)
			g.HandleTimeout(g.now)
		}
		g.now = start.Add(9 * time.Minute)
		if got := g.portTo(ep("10.0.0.2:6000"), y1); got != 6001 {
			t.Errorf("asked %t: port %d", asked, got)
		}
	}
}

// RFC 6888 REQ-4: a subscriber cannot take all.
func TestRFC6888REQ4PerHost(t *testing.T) {
	g := newBench(t, symmetricTo(Ports{PerHost: 3}))
	for i := range 3 {
		g.leaves(x, remoteAt(i))
	}
	g.full(x, remoteAt(3))
	g.leaves(x2, y1)
	g.now = g.now.Add(5 * time.Minute)
	g.leaves(x, remoteAt(3))
}

// The rate of a host's mappings binds also one whose mappings end at once, and
// hosts are not kept for it for longer than it takes, nor in any number.
func TestRateOfShortMappings(t *testing.T) {
	b := Behaviour{Ports: Ports{Rate: 4, HoldDown: time.Millisecond, Held: 1}, Timers: Timers{UDP: time.Millisecond}}
	for _, mode := range []Mode{Translate, Firewall} {
		b.Mode = mode
		if mode == Firewall {
			b.Ports.HoldDown = 0
		}
		g := newBenchOf(t, Config{Behaviour: b, MaxMappings: 10})
		made := 0
		for i := range 200 { // for ten seconds
			if v := g.Outbound(g.now, udpPacket(netip.AddrPortFrom(x.Addr(), uint16(5000+i)), y1)); v.Action == Forward {
				made++
			}
			g.now = g.now.Add(50 * time.Millisecond)
		}
		if made < 40 || made > 44 {
			t.Errorf("mode %v: %d mappings in ten seconds", mode, made)
		}
		for i := range byte(200) {
			g.leaves(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, i}), 5000), y1)
			g.now = g.now.Add(2 * time.Millisecond)
			if n := g.hosts.slab.used; n > 11 {
				t.Fatalf("mode %v: %d hosts", mode, n)
			}
		}
		g.now = g.now.Add(time.Second)
		g.HandleTimeout(g.now)
		if n := g.hosts.slab.used; n != 0 || len(g.held) != 0 || g.pacing != 0 {
			t.Errorf("mode %v: %d hosts are left, %d rest", mode, n, len(g.held))
		}
	}
}

// Strangers who come to a host that everyone may come to leave it half of its
// bound, and all of its rate.
func TestStrangersLeaveRoomToHosts(t *testing.T) {
	public := netip.MustParseAddr("198.51.100.9")
	for _, ports := range []Ports{{PerHost: 8}, {PerHost: 1}, {Rate: 4}, {PerHost: 8, Rate: 4}} {
		g := newBenchOf(t, Config{Behaviour: Behaviour{Ports: ports}, Static: []Static{{x.Addr(), public}}})
		came := 0
		for i := range 100 {
			if g.enters(remoteAt(i), netip.AddrPortFrom(public, uint16(1000+i))).IsValid() {
				came++
			}
		}
		if want := (ports.PerHost + 1) / 2; ports.PerHost > 0 && came != want || ports.PerHost == 0 && came != 100 {
			t.Errorf("%+v: %d strangers came in", ports, came)
		}
		for i := range max(ports.PerHost/2, ports.Rate) {
			if v := g.Outbound(g.now, udpPacket(netip.AddrPortFrom(x.Addr(), uint16(5000+i)), y1)); v.Action != Forward {
				t.Errorf("%+v: packet %d of the host: %+v", ports, i, v)
			}
		}
	}
}

func TestArbitraryPooling(t *testing.T) {
	all := []netip.Addr{ours, netip.MustParseAddr("198.51.100.2")}
	b := symmetricTo(Ports{Allocation: Preserve})
	b.Pooling = Arbitrary
	g := newBenchOf(t, Config{Behaviour: b, Own: [Local][]netip.Addr{Outside: all}})
	seen := make(map[netip.Addr]bool)
	for port := range uint16(50) {
		seen[g.leaves(netip.AddrPortFrom(x.Addr(), 2000+port), y1).Addr()] = true
	}
	if len(seen) != 2 {
		t.Errorf("a host has the addresses %v", seen)
	}
	for port := range uint16(50) { // where one has no such port, the other does
		g.leaves(netip.AddrPortFrom(x2.Addr(), 2000+port), y1)
	}
}

// Ford, Srisuresh and Kegel 2005 section 6.3: a NAT that is well-behaved until
// two hosts use the same port.
func TestSymmetricOnConflict(t *testing.T) {
	g := newBench(t, Behaviour{SymmetricOnConflict: true})
	first := g.leaves(x, y1)
	if got := g.leaves(x, z1); got != first {
		t.Errorf("without a conflict: %v, then %v", first, got)
	}
	a, b := g.leaves(x2, y1), g.leaves(x2, z1)
	if a == b || a.Port() == 5001 && b.Port() == 5002 {
		t.Errorf("in conflict: %v, then %v", a, b)
	}
	if got := g.leaves(x2, y1); got != a {
		t.Errorf("the flow at %v moved to %v", a, got)
	}
	if got := g.leaves(netip.AddrPortFrom(x2.Addr(), 7000), y1); got.Port() != 7000 {
		t.Errorf("another port: %v", got)
	}
	// When the first host has gone, the conflict has.
	g.now = g.now.Add(4 * time.Minute)
	g.leaves(x2, y1)
	g.now = g.now.Add(2 * time.Minute)
	if got := g.portTo(x2, z1); got != 5000 {
		t.Errorf("port %d without a conflict", got)
	}
	if got := g.leaves(x2, y1); got != a {
		t.Errorf("the flow at %v moved to %v", a, got)
	}
}

func (b *bench) syn(src, dst netip.AddrPort, seq uint32) netip.AddrPort {
	b.t.Helper()
	p, v := b.pass(b.Outbound, ip.AppendTCP(nil, src, dst, 64, &ip.Segment{Flags: ip.SYN, Seq: seq}))
	if v.Action != Forward {
		b.t.Fatalf("SYN %v to %v: %v", src, dst, v.Reason)
	}
	return p.Src
}

// A mapping for each connection: also for the next one between the same
// endpoints.
func TestPerConnection(t *testing.T) {
	b := symmetricTo(Ports{Allocation: Sequential})
	b.Mapping = PerConnection
	g := newBench(t, b)
	first := g.syn(x, y1, 100)
	if got := g.syn(x, y1, 100); got != first {
		t.Errorf("the same SYN again: %v, then %v", first, got)
	}
	second := g.syn(x, y1, 200)
	if second.Port() != first.Port()+1 {
		t.Errorf("another SYN: %v, then %v", first, second)
	}
	if !g.tcpIn(y1, second, ip.SYN|ip.ACK) {
		t.Error("its answer is filtered")
	}
	if got, ok := g.tcpOut(x, y1, ip.ACK); got != second || !ok {
		t.Errorf("the connection went on at %v", got)
	}
	g.tcpOut(x, y1, ip.FIN|ip.ACK)
	if !g.tcpIn(y1, second, ip.FIN|ip.ACK) {
		t.Error("its FIN is filtered")
	}
	if got, _ := g.tcpOut(x, y1, ip.ACK); got != second {
		t.Errorf("its last ACK left at %v", got)
	}
	if third := g.syn(x, y1, 200); third.Port() != second.Port()+1 {
		t.Errorf("after the end: %v, then %v", second, third)
	}
	if a, b := g.leaves(x, y1), g.leaves(x, y1); a != b {
		t.Errorf("UDP: %v, then %v", a, b)
	}
}
