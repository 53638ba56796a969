package nat

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

func strict(u Unsolicited) Behaviour {
	return Behaviour{Filtering: AddressAndPortDependent, Unsolicited: u}
}

func TestUnsolicited(t *testing.T) {
	at := ep("198.51.100.1:5000")
	type what struct {
		flags uint8 // of TCP
		cause ip.Cause
		icmp  bool
	}
	for _, c := range []struct {
		what string
		u    Unsolicited
		pkt  []byte
		want *what
	}{
		{"SYN, silent", Unsolicited{}, tcpPacket(y1, at, syn), nil},
		{"SYN, reset", Unsolicited{TCP: Reset}, tcpPacket(y1, at, syn), &what{flags: rst | ack}},
		{"SYN-ACK, reset", Unsolicited{TCP: Reset}, tcpPacket(y1, at, synAck), &what{flags: rst}},
		{"RST, reset", Unsolicited{TCP: Reset}, tcpPacket(y1, at, rst), nil},
		{"RST, unreachable", Unsolicited{TCP: Unreachable}, tcpPacket(y1, at, rst), nil},
		{"SYN, unreachable", Unsolicited{TCP: Unreachable}, tcpPacket(y1, at, syn), &what{cause: ip.PortUnreachable, icmp: true}},
		{"SYN, prohibited", Unsolicited{TCP: Prohibited}, tcpPacket(y1, at, syn), &what{cause: ip.AdminProhibited, icmp: true}},
		{"UDP, TCP reset", Unsolicited{TCP: Reset}, udpPacket(y1, at), nil},
		{"UDP, reset", Unsolicited{Other: Reset}, udpPacket(y1, at), nil},
		{"UDP, unreachable", Unsolicited{Other: Unreachable}, udpPacket(y1, at), &what{cause: ip.PortUnreachable, icmp: true}},
		{"UDP, prohibited", Unsolicited{Other: Prohibited}, udpPacket(y1, at), &what{cause: ip.AdminProhibited, icmp: true}},
		{"an echo reply", Unsolicited{Other: Prohibited}, ip.AppendEcho(nil, y1.Addr(), ours, 64, ip.EchoReply, 5, 1, nil), nil},
		{"an error", Unsolicited{Other: Prohibited}, ip.AppendError(nil, y1.Addr(), ip.PortUnreachable, udpPacket(at, y1)), nil},
		{"from nowhere", Unsolicited{Other: Unreachable}, udpPacket(ep("0.0.0.0:1"), at), nil},
		{"from everywhere", Unsolicited{Other: Unreachable}, udpPacket(ep("255.255.255.255:1"), at), nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			g := newBench(t, strict(c.u))
			if v := g.Inbound(g.now, c.pkt); v.Action != Drop || v.Reason != NoMapping && v.Reason != BadAddress {
				t.Fatalf("%+v", v)
			}
			if c.want == nil {
				g.silent()
				return
			}
			p := g.said(Outside)
			if p.Dst.Addr() != y1.Addr() || p.Src.Addr() != ours {
				t.Errorf("%v > %v", p.Src, p.Dst)
			}
			if !c.want.icmp {
				if p.TCPFlags() != c.want.flags || p.Src != at || p.Dst != y1 {
					t.Errorf("%v > %v, flags %#x", p.Src, p.Dst, p.TCPFlags())
				}
				return
			}
			var q ip.Packet
			if cause, ok := p.Cause(); !ok || cause != c.want.cause || p.Quoted(&q) != nil || q.Src != y1 || q.Dst != at {
				t.Errorf("cause %d %v, quotes %v > %v", cause, ok, q.Src, q.Dst)
			}
		})
	}

	// A filtered packet is answered as one for nobody is.
	g := newBench(t, strict(Unsolicited{TCP: Reset}))
	g.tcpOut(x, y1, syn)
	g.tcpIn(z1, at, syn)
	if p := g.said(Outside); p.Src != at || p.Dst != z1 {
		t.Errorf("%v > %v", p.Src, p.Dst)
	}
	// And one from inside, to an outer endpoint.
	b := strict(Unsolicited{TCP: Reset})
	b.Hairpin = HairpinExternalSource
	g = newBench(t, b)
	to := ep("198.51.100.1:7777")
	g.tcpOut(x, to, syn)
	if p := g.said(Inside); p.Src != to || p.Dst != x {
		t.Errorf("hairpin: %v > %v", p.Src, p.Dst)
	}
}

// A firewall answers for those behind it.
func TestUnsolicitedFirewall(t *testing.T) {
	b := strict(Unsolicited{TCP: Reset, Other: Unreachable})
	b.Mode = Firewall
	for _, c := range []struct{ src, dst netip.AddrPort }{{y1, x}, {y6, x6}} {
		g := newBench(t, b)
		g.tcpIn(c.src, c.dst, syn)
		if p := g.said(Outside); p.Src != c.dst || p.Dst != c.src || p.TCPFlags()&rst == 0 {
			t.Errorf("%v > %v", p.Src, p.Dst)
		}
		g.enters(c.src, c.dst)
		if p := g.said(Outside); p.Kind != ip.Error || p.Dst.Addr() != c.src.Addr() {
			t.Errorf("kind %d to %v", p.Kind, p.Dst)
		}
	}
}

// RFC 5382 REQ-4: a SYN is answered after 6 s at the earliest, and not at all
// when the inside sends one to there meanwhile.
func TestRFC5382REQ4HeldSYN(t *testing.T) {
	u := Unsolicited{TCP: Unreachable, After: 6 * time.Second}
	at := ep("198.51.100.1:5000")
	start := func() *bench {
		g := newBench(t, strict(u))
		if g.tcpIn(y1, at, syn) {
			t.Fatal("it came in")
		}
		g.now = g.now.Add(time.Second)
		g.tcpIn(y1, at, syn) // sent again: still one answer
		if next, ok := g.NextTimeout(); !ok || !next.Equal(g.now.Add(5*time.Second)) {
			t.Errorf("next timeout in %v, %v", next.Sub(g.now), ok)
		}
		g.now = g.now.Add(5*time.Second - 1)
		g.HandleTimeout(g.now)
		g.silent()
		return g
	}
	g := start()
	g.now = g.now.Add(1)
	g.HandleTimeout(g.now)
	p := g.said(Outside)
	if c, ok := p.Cause(); !ok || c != ip.PortUnreachable {
		t.Errorf("cause %d, %v", c, ok)
	}
	if _, ok := g.NextTimeout(); ok {
		t.Error("there is another timeout")
	}
	g.tcpIn(y1, at, syn) // a new one is held again
	g.now = g.now.Add(6 * time.Second)
	g.HandleTimeout(g.now)
	g.said(Outside)

	g = start()
	if got, ok := g.tcpOut(x, y1, syn); !ok || got != at {
		t.Fatalf("out: %v %v", got, ok)
	}
	if !g.tcpIn(y1, at, syn) {
		t.Error("now it does not come in")
	}
	g.now = g.now.Add(time.Second)
	g.HandleTimeout(g.now)
	g.silent()

	// Not about that SYN.
	g = start()
	g.tcpOut(x, y2, syn)
	g.now = g.now.Add(1)
	g.HandleTimeout(g.now)
	g.said(Outside)

	// Two hosts behind the same gateway open to each other.
	b := strict(u)
	b.Hairpin = HairpinExternalSource
	g = newBench(t, b)
	atX, _ := g.tcpOut(x, y1, syn)
	atX2, _ := g.tcpOut(x2, y1, syn)
	if _, ok := g.tcpOut(x, atX2, syn); ok {
		t.Error("a hairpin came in")
	}
	if _, ok := g.tcpOut(x2, atX, syn); !ok {
		t.Error("the hairpin back does not come in")
	}
	g.now = g.now.Add(6 * time.Second)
	g.HandleTimeout(g.now)
	g.silent()

	// Nothing but a SYN is held, or answered.
	g = newBench(t, strict(u))
	g.tcpIn(y1, at, ack)
	g.tcpIn(y1, at, synAck)
	if _, ok := g.NextTimeout(); ok {
		t.Error("held")
	}
	g.silent()
}

// A flood makes the gateway speak no faster than its rate, and remember no
// more than its bounds.
func TestAnswersAreLimited(t *testing.T) {
	g := newBench(t, strict(Unsolicited{TCP: Reset}))
	flood := func(n int) (answers int) {
		for i := range n {
			g.tcpIn(netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 99), ep("198.51.100.1:5000"), syn)
		}
		for {
			if _, ok := g.Poll(); !ok {
				return answers
			}
			answers++
		}
	}
	if got := flood(5000); got != answersAtOnce {
		t.Errorf("%d answers at once", got)
	}
	g.now = g.now.Add(100 * time.Millisecond)
	if got := flood(5000); got != answersPerSecond/10 {
		t.Errorf("%d answers in 100 ms", got)
	}
	g = newBench(t, strict(Unsolicited{TCP: Unreachable, After: 6 * time.Second}))
	flood(5000)
	if n := len(g.late.queue); n != maxLate || len(g.late.by) != maxLate {
		t.Errorf("%d answers wait", n)
	}
	g.now = g.now.Add(6 * time.Second)
	g.HandleTimeout(g.now)
	if g.late.queue != nil || len(g.late.by) != 0 {
		t.Error("some still wait")
	}
}

// RFC 5508 REQ-8: what begins and finds no room is told so.
func TestRFC5508REQ8Exhausted(t *testing.T) {
	g := newBenchOf(t, Config{MaxMappings: 1})
	g.leaves(x, y1)
	if v := g.Outbound(g.now, udpPacket(x2, y1)); v.Reason != TableFull {
		t.Fatalf("%+v", v)
	}
	p := g.said(Inside)
	if c, ok := p.Cause(); !ok || c != ip.AdminProhibited || p.Dst.Addr() != x2.Addr() {
		t.Errorf("cause %d, %v, to %v", c, ok, p.Dst)
	}
}

// newSides is a gateway with addresses on every side.
func newSides(t testing.TB, cfg Config) *bench {
	cfg.Own[Inside] = []netip.Addr{netip.MustParseAddr("10.0.0.254"), netip.MustParseAddr("2001:db8:1::fe")}
	cfg.Own[Outside] = []netip.Addr{ours, netip.MustParseAddr("2001:db8:2::fe")}
	return newBenchOf(t, cfg)
}

// TestRulesBindPings: a rule about the gateway itself counts for its pings.
func TestRulesBindPings(t *testing.T) {
	g := newBench(t, Behaviour{Rules: []Rule{{Action: Discard, To: SidesOf(Local)}}})
	if v := g.Inbound(g.now, ip.AppendEcho(nil, y1.Addr(), ours, 64, ip.EchoRequest, 7, 1, nil)); v != drop(Ruled) {
		t.Errorf("%+v", v)
	}
	if out, ok := g.Poll(); ok {
		t.Errorf("answered by %x", out.Packet)
	}
}

func TestPing(t *testing.T) {
	for _, c := range []struct {
		what     string
		icmp     ICMP
		from     Side
		src, dst string
		answered bool
	}{
		{"from outside", ICMP{}, Outside, "192.0.2.1", "198.51.100.1", true},
		{"from outside, hidden", ICMP{NoPing: true}, Outside, "192.0.2.1", "198.51.100.1", false},
		{"from inside", ICMP{NoPing: true}, Inside, "10.0.0.1", "10.0.0.254", true},
		{"from inside to outside", ICMP{}, Inside, "10.0.0.1", "198.51.100.1", true},
		{"IPv6", ICMP{}, Outside, "2001:db8:9::1", "2001:db8:2::fe", true},
		{"IPv6 inside", ICMP{}, Inside, "2001:db8:1::1", "2001:db8:1::fe", true},
	} {
		t.Run(c.what, func(t *testing.T) {
			g := newSides(t, Config{Behaviour: Behaviour{Filtering: AddressAndPortDependent, ICMP: c.icmp}})
			src, dst := netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
			pkt := ip.AppendEcho(nil, src, dst, 64, ip.EchoRequest, 7, 9, []byte("ping"))
			v := g.Handle(g.now, c.from, pkt, Offload{})
			if !c.answered {
				if v.Action != Drop || v.Reason == Kept {
					t.Errorf("%+v", v)
				}
				g.silent()
				return
			}
			if v != drop(Kept) {
				t.Errorf("%+v", v)
			}
			p := g.said(c.from)
			if p.Kind != ip.EchoReply || p.Src.Addr() != dst || p.Dst != netip.AddrPortFrom(src, 7) || string(p.Payload()) != "ping" {
				t.Errorf("%v > %v: %q", p.Src, p.Dst, p.Payload())
			}
			pkt = ip.AppendEcho(nil, src, dst, 64, ip.EchoRequest, 7, 9, []byte("ping"))
			pkt[len(pkt)-1] ^= 1
			g.Handle(g.now, c.from, pkt, Offload{})
			g.silent()
		})
	}
}

// A packet whose TTL ends here is answered from the side it came from, about
// itself as it came.
func TestTimeExceeded(t *testing.T) {
	g := newSides(t, Config{})
	g.leaves(x, y1)
	for _, c := range []struct {
		from     Side
		src, dst netip.AddrPort
		speaker  string
	}{
		{Inside, x, y1, "10.0.0.254"},
		{Inside, x6, y6, "2001:db8:1::fe"},
		{Outside, y1, ep("198.51.100.1:5000"), "198.51.100.1"},
		{Inside, x, ep("198.51.100.1:5000"), "10.0.0.254"}, // a hairpin
	} {
		pkt := ip.AppendUDP(nil, c.src, c.dst, 1, []byte("x"))
		if v := g.Handle(g.now, c.from, pkt, Offload{}); v.Reason != Expired {
			t.Errorf("%+v", v)
		}
		p := g.said(c.from)
		var q ip.Packet
		if cause, ok := p.Cause(); !ok || cause != ip.TimeExceeded || p.Src.Addr().String() != c.speaker || p.Quoted(&q) != nil || q.Src != c.src || q.Dst != c.dst {
			t.Errorf("cause %d from %v about %v > %v", cause, p.Src, q.Src, q.Dst)
		}
	}
	// Not about an error.
	e := ip.AppendError(nil, x.Addr(), ip.PortUnreachable, udpPacket(y1, x))
	e[8] = 1
	sum(e)
	g.Handle(g.now, Inside, e, Offload{})
	g.silent()
}

// RFC 1812 section 5.3.1: what is for the gateway itself is not discarded for
// its TTL. What is for nobody at its address is no exception: who is to hear
// nothing of it does not hear that time was exceeded either.
func TestLastHopIsTheGateway(t *testing.T) {
	at := ep("198.51.100.1:5000")
	give := func(g *bench, src, dst netip.AddrPort) Verdict {
		return g.Handle(g.now, Outside, ip.AppendUDP(nil, src, dst, 1, []byte("x")), Offload{})
	}
	for _, mode := range []Mode{Translate, Firewall} {
		g := newBench(t, Behaviour{Mode: mode, Filtering: AddressAndPortDependent})
		if v := give(g, y1, at); v.Reason != NoMapping {
			t.Errorf("mode %v: for nobody: %+v", mode, v)
		}
		g.silent()
		if v := g.Handle(g.now, Local, udpPacket(at, y1), Offload{}); v.Action != Forward {
			t.Fatalf("%+v", v)
		}
		if v := give(g, y1, at); v != forward(Local) {
			t.Errorf("mode %v: for its own stack: %+v", mode, v)
		}
		if v := give(g, z1, at); v.Reason != Filtered {
			t.Errorf("mode %v: from another: %+v", mode, v)
		}
		g.silent()
	}
	if v := give(newBench(t, Behaviour{Mode: Open}), y1, at); v != forward(Local) {
		t.Errorf("a plain router: %+v", v)
	}
	// An error is for a host behind it, whatever its port seems to be.
	g := newBench(t, Behaviour{})
	e := ip.AppendError(nil, y1.Addr(), ip.PortUnreachable, udpPacket(g.leaves(x, y1), y1))
	e[8] = 1
	sum(e)
	if v := g.Inbound(g.now, e); v.Reason != Expired {
		t.Errorf("an error: %+v", v)
	}
}

// An unfinished checksum is finished in what is quoted.
func TestQuoteOfUnfinished(t *testing.T) {
	g := newSides(t, Config{})
	pkt := ip.AppendUDP(nil, x, y1, 1, []byte("x"))
	var p ip.Packet
	p.Decode(pkt)
	right := [2]byte(pkt[26:28])
	pkt[26], pkt[27] = 0, 0
	var s uint32 // of the pseudo-header
	for i := 12; i < 20; i += 2 {
		s += uint32(pkt[i])<<8 | uint32(pkt[i+1])
	}
	s += 17 + uint32(len(pkt)-20)
	s = s>>16 + s&0xffff
	pkt[26], pkt[27] = byte(s>>8), byte(s)
	g.Handle(g.now, Inside, pkt, Offload{PartialSum: true})
	e := g.said(Inside)
	if got := [2]byte(e.Data[28+26 : 28+28]); got != right {
		t.Errorf("quoted checksum %x, want %x", got, right)
	}
}
