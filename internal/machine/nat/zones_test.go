package nat

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// A host and a server in the DMZ, the latter with a public address where there
// is translation, and the gateway's addresses.
var (
	d       = ep("172.16.0.1:5000")
	server  = ep("172.16.0.9:80")
	public  = ep("198.51.100.9:80")
	ownIn   = ep("10.0.0.254:53")
	ownDMZ  = ep("172.16.0.254:53")
	ownOut  = netip.AddrPortFrom(ours, 6000)
	gateway = [Local][]netip.Addr{Inside: {ownIn.Addr()}, Outside: {ours}, DMZ: {ownDMZ.Addr()}}
)

func newZones(t *testing.T, b Behaviour) *bench {
	t.Helper()
	cfg := Config{
		Behaviour: b, Own: gateway, Rand: rand.NewPCG(1, 2),
		Inside: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
		DMZ:    []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24")},
	}
	if b.Mode == Translate {
		cfg.Static = []Static{{server.Addr(), public.Addr()}}
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{Gateway: g, t: t, now: time.Unix(1000, 0)}
}

// goes sends a packet from a side and says what becomes of it.
func (b *bench) goes(from Side, pkt []byte) (src, dst netip.AddrPort, v Verdict) {
	b.t.Helper()
	v = b.Handle(b.now, from, pkt, Offload{})
	var p ip.Packet
	if err := p.Decode(pkt); err != nil || !p.ChecksumOK() {
		b.t.Fatalf("%x: %v", pkt, err)
	}
	return p.Src, p.Dst, v
}

// becomes compares with what should become of a UDP packet: a zero Reason is
// that it goes on.
func (b *bench) becomes(from Side, src, dst netip.AddrPort, want Verdict, wantSrc, wantDst netip.AddrPort) {
	b.t.Helper()
	gotSrc, gotDst, v := b.goes(from, udpPacket(src, dst))
	if v != want || v.Action == Forward && (gotSrc != wantSrc || gotDst != wantDst) {
		b.t.Errorf("from %v, %v > %v: %+v, %v > %v; want %+v, %v > %v", from, src, dst, v, gotSrc, gotDst, want, wantSrc, wantDst)
	}
}

func TestZonesOfATranslator(t *testing.T) {
	g := newZones(t, Behaviour{Hairpin: HairpinExternalSource})
	at := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(ours, a.Port()) }
	// The inside opens to the DMZ untranslated, and not the other way.
	g.becomes(DMZ, d, x, drop(NoMapping), d, x)
	g.becomes(Inside, x, d, forward(DMZ), x, d)
	g.becomes(DMZ, d, x, forward(Inside), d, x)
	g.becomes(DMZ, server, x, drop(Filtered), server, x)
	// What the outside may answer to, the DMZ may not use, nor the other way.
	g.becomes(Inside, x2, y1, forward(Outside), netip.AddrPortFrom(ours, 5000), y1)
	g.becomes(DMZ, d, x2, drop(NoMapping), d, x2)
	g.becomes(Outside, y1, x2, drop(NoMapping), y1, x2)
	// The DMZ is translated towards the outside; its server has an address of
	// its own, and is reached at it.
	g.becomes(DMZ, netip.AddrPortFrom(d.Addr(), 7000), y1, forward(Outside), netip.AddrPortFrom(ours, 7000), y1)
	g.becomes(Outside, z1, netip.AddrPortFrom(ours, 7000), forward(DMZ), z1, netip.AddrPortFrom(d.Addr(), 7000))
	g.becomes(Outside, y1, public, forward(DMZ), y1, server)
	g.becomes(DMZ, server, y1, forward(Outside), public, y1)
	g.becomes(DMZ, netip.AddrPortFrom(server.Addr(), 1234), z1, forward(Outside), netip.AddrPortFrom(public.Addr(), 1234), z1)
	g.becomes(Outside, y1, netip.AddrPortFrom(ours, 81), drop(NoMapping), y1, server)
	// Hairpins to the server's public address, from all sides.
	g.becomes(Inside, netip.AddrPortFrom(x.Addr(), 7001), public, forward(DMZ), at(ep("10.0.0.1:7001")), server)
	g.becomes(DMZ, netip.AddrPortFrom(d.Addr(), 7002), public, forward(DMZ), at(ep("10.0.0.1:7002")), server)
	// Nobody pretends to be elsewhere.
	g.becomes(Outside, x, public, drop(BadAddress), x, public)
	g.becomes(DMZ, x, y1, drop(BadAddress), x, y1)
	g.becomes(Inside, d, y1, drop(BadAddress), d, y1)
	g.becomes(Outside, d, public, drop(BadAddress), d, public)
}

// Between the DMZ and the inside rules decide as they do of a firewall, whatever
// the gateway does towards the outside.
func TestRulesFromDMZToInside(t *testing.T) {
	for _, mode := range []Mode{Translate, Firewall} {
		from, to := SidesOf(DMZ), SidesOf(Inside)
		g := newZones(t, Behaviour{Mode: mode, Rules: []Rule{
			{Action: Accept, From: from, To: to, DstPorts: []PortRange{{80, 80}}},
			{Action: Reject, From: from, To: to, DstPorts: []PortRange{{81, 81}}},
			{Action: Discard, From: from, To: to, DstPorts: []PortRange{{82, 82}}},
		}})
		inside := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(x.Addr(), port) }
		g.becomes(DMZ, d, inside(80), forward(Inside), d, inside(80))
		g.becomes(Inside, inside(80), d, forward(DMZ), inside(80), d)
		g.becomes(DMZ, d, inside(81), drop(Ruled), d, inside(81))
		if out, ok := g.Poll(); !ok || out.To != DMZ {
			t.Errorf("mode %v: what is rejected is not answered", mode)
		}
		g.becomes(DMZ, d, inside(82), drop(Ruled), d, inside(82))
		g.becomes(DMZ, d, inside(83), drop(NoMapping), d, inside(83))
		g.silent()
		// What the DMZ may, the outside may not.
		g.becomes(Outside, y1, inside(80), drop(NoMapping), y1, inside(80))
	}
}

func TestZonesOfAFirewall(t *testing.T) {
	g := newZones(t, Behaviour{Mode: Firewall, Filtering: AddressAndPortDependent, Rules: []Rule{
		{Action: Accept, From: SidesOf(Outside), To: SidesOf(DMZ), DstPorts: []PortRange{{80, 80}}},
	}})
	g.becomes(Outside, y1, server, forward(DMZ), y1, server)
	g.becomes(DMZ, server, y1, forward(Outside), server, y1)
	g.becomes(Outside, y1, d, drop(NoMapping), y1, d)
	g.becomes(DMZ, d, y1, forward(Outside), d, y1)
	g.becomes(Outside, y1, d, forward(DMZ), y1, d)
	g.becomes(Outside, y2, d, drop(Filtered), y2, d)
	g.becomes(Inside, x, server, forward(DMZ), x, server)
	g.becomes(DMZ, server, x, forward(Inside), server, x)
	g.becomes(DMZ, server, x2, drop(NoMapping), server, x2)
	g.becomes(Outside, y1, x, drop(NoMapping), y1, x)
}

// A rule may open the inside to those whom it reaches untranslated.
func TestRulesFromUntranslated(t *testing.T) {
	g := newZones(t, Behaviour{Filtering: AddressAndPortDependent, Untranslated: []Remotes{{Prefix: netip.PrefixFrom(z1.Addr(), 32)}}, Rules: []Rule{
		{Action: Accept, From: SidesOf(Outside), To: SidesOf(Inside)},
	}})
	g.becomes(Outside, z1, x2, forward(Inside), z1, x2)
	g.becomes(Inside, x2, z1, forward(Outside), x2, z1)
	g.becomes(Outside, y1, x, drop(NoMapping), y1, x)
}

// Basic NAT (RFC 2663 section 4.1.1): whatever the port, from either side.
func TestStatic(t *testing.T) {
	g := newZones(t, Behaviour{Filtering: AddressAndPortDependent})
	for _, port := range []uint16{1, 80, 65535} {
		g.becomes(Outside, y1, netip.AddrPortFrom(public.Addr(), port), forward(DMZ), y1, netip.AddrPortFrom(server.Addr(), port))
	}
	// Queries from outside, and their answers.
	_, dst, v := g.goes(Outside, ip.AppendEcho(nil, y1.Addr(), public.Addr(), 64, ip.EchoRequest, 7, 1, nil))
	if v != forward(DMZ) || dst.Addr() != server.Addr() {
		t.Errorf("a ping: %+v to %v", v, dst)
	}
	src, dst, v := g.goes(DMZ, ip.AppendEcho(nil, server.Addr(), y1.Addr(), 64, ip.EchoReply, 7, 1, nil))
	if v != forward(Outside) || src.Addr() != public.Addr() || dst.Port() != 7 {
		t.Errorf("its answer: %+v from %v to %v", v, src, dst)
	}
	if _, _, v := g.goes(DMZ, ip.AppendEcho(nil, server.Addr(), y1.Addr(), 64, ip.EchoReply, 8, 1, nil)); v != drop(NoMapping) {
		t.Errorf("an answer to no question: %+v", v)
	}
	// And protocols that nobody follows.
	gre := udpPacket(y1, public)
	gre[9] = 47
	sum(gre)
	if _, dst, v := g.goes(Outside, gre); v != forward(DMZ) || dst.Addr() != server.Addr() {
		t.Errorf("GRE in: %+v to %v", v, dst)
	}
	gre = udpPacket(server, y1)
	gre[9] = 47
	sum(gre)
	if src, _, v := g.goes(DMZ, gre); v != forward(Outside) || src.Addr() != public.Addr() {
		t.Errorf("GRE out: %+v from %v", v, src)
	}
	gre = udpPacket(d, y1)
	gre[9] = 47
	sum(gre)
	if _, _, v := g.goes(DMZ, gre); v != drop(Unsupported) {
		t.Errorf("GRE of another: %+v", v)
	}
	in, out := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("198.51.100.9")
	for _, bad := range [][]Static{{{out, in}}, {{in, out}, {in, ours}}, {{in, out}, {netip.MustParseAddr("10.0.0.2"), out}}, {{x6.Addr(), y6.Addr()}}} {
		cfg := Config{Rand: rand.NewPCG(1, 1), Static: bad, Inside: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		if _, err := New(cfg); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

// The gateway's own stack.
func TestLocal(t *testing.T) {
	g := newZones(t, Behaviour{Filtering: AddressAndPortDependent})
	g.becomes(Inside, x, ownIn, forward(Local), x, ownIn)
	g.becomes(Local, ownIn, x, forward(Inside), ownIn, x)
	g.becomes(DMZ, d, ownDMZ, forward(Local), d, ownDMZ)
	g.becomes(Local, ownDMZ, d, forward(DMZ), ownDMZ, d)
	g.becomes(Inside, x, ownDMZ, drop(BadAddress), x, ownDMZ)
	g.becomes(DMZ, d, ownIn, drop(BadAddress), d, ownIn)
	g.becomes(Outside, y1, ownIn, drop(BadAddress), y1, ownIn)
	// To the outside it has mappings like others, and ports that others have
	// are not its own.
	g.becomes(Outside, y1, ownOut, drop(NoMapping), y1, ownOut)
	g.becomes(Local, ownOut, y1, forward(Outside), ownOut, y1)
	g.becomes(Outside, y1, ownOut, forward(Local), y1, ownOut)
	g.becomes(Outside, y2, ownOut, drop(Filtered), y2, ownOut)
	g.becomes(Inside, netip.AddrPortFrom(x.Addr(), 6000), y1, forward(Outside), netip.AddrPortFrom(ours, 6001), y1)
	g.becomes(Local, netip.AddrPortFrom(ours, 6001), y1, forward(Outside), netip.AddrPortFrom(ours, 6002), y1)
	g.becomes(Outside, y1, netip.AddrPortFrom(ours, 6002), forward(Local), y1, netip.AddrPortFrom(ours, 6001))
	g.becomes(Local, x, y1, drop(BadAddress), x, y1)
	g.becomes(Local, ownIn, y1, drop(BadAddress), ownIn, y1)

	g = newZones(t, Behaviour{Rules: []Rule{{Action: Discard, To: SidesOf(Local)}}})
	g.becomes(Inside, x, ownIn, drop(Ruled), x, ownIn)
}

// A new lease: what was mapped to the old address is gone.
func TestSetOwn(t *testing.T) {
	other := netip.MustParseAddr("198.51.100.77")
	g := newZones(t, Behaviour{Ports: Ports{HoldDown: time.Minute}})
	g.becomes(Inside, x, y1, forward(Outside), netip.AddrPortFrom(ours, 5000), y1)
	g.becomes(Outside, y1, public, forward(DMZ), y1, server)
	if err := g.SetOwn(g.now, Outside, []netip.Addr{other}); err != nil {
		t.Fatal(err)
	}
	g.becomes(Outside, y1, netip.AddrPortFrom(ours, 5000), drop(BadAddress), y1, x)
	g.becomes(Outside, y1, public, forward(DMZ), y1, server)
	g.becomes(Inside, x, y1, forward(Outside), netip.AddrPortFrom(other, 5000), y1)
	if err := g.SetOwn(g.now, Outside, nil); err != nil {
		t.Fatal(err)
	}
	g.becomes(Inside, x, y1, drop(TableFull), x, y1)
	if err := g.SetOwn(g.now, Outside, []netip.Addr{ours}); err != nil {
		t.Fatal(err)
	}
	g.becomes(Inside, x2, y1, forward(Outside), netip.AddrPortFrom(ours, 5000), y1)
	if err := g.SetOwn(g.now, Local, nil); err == nil {
		t.Error("the gateway has addresses on no side")
	}
}

// With another address outside, no part of a packet goes on from or to the old
// one, and no answer that waits comes from there.
func TestNothingFromAnOldAddress(t *testing.T) {
	next := []netip.Addr{netip.MustParseAddr("198.51.100.77")}
	out := cutUp(t, ip.AppendUDP(nil, x, y1, 64, make([]byte, 3000)), 1, 1500)
	in := cutUp(t, ip.AppendUDP(nil, y1, netip.AddrPortFrom(ours, x.Port()), 64, make([]byte, 3000)), 2, 1500)
	for _, first := range []int{0, 1} { // which part is seen before
		g := newBench(t, Behaviour{})
		g.leaves(x, y1)
		g.give(Inside, out[first:first+1])
		g.give(Outside, in[first:first+1])
		if err := g.SetOwn(g.now, Outside, next); err != nil {
			t.Fatal(err)
		}
		if left, _ := g.give(Outside, in[1-first:]); len(left) > 0 {
			t.Errorf("in: %x", left)
		}
		left, _ := g.give(Inside, out[1-first:])
		for _, b := range left {
			if netip.AddrFrom4([4]byte(b[12:16])) != next[0] {
				t.Errorf("out, after part %d: % x", first, b[:20])
			}
		}
	}

	g := newBench(t, strict(Unsolicited{TCP: Unreachable, After: time.Second}))
	g.tcpIn(y1, netip.AddrPortFrom(ours, x.Port()), syn)
	g.SetOwn(g.now, Outside, next)
	g.now = g.now.Add(time.Minute)
	g.HandleTimeout(g.now)
	g.silent()
	if _, ok := g.NextTimeout(); ok {
		t.Error("something is due")
	}

	// What is not for here is not answered, whatever the answer to strangers.
	for _, how := range []Answer{Reset, Unreachable, Prohibited} {
		g := newBench(t, strict(Unsolicited{TCP: how, Other: how}))
		g.SetOwn(g.now, Outside, next)
		for _, to := range []netip.Addr{ours, z1.Addr()} {
			for _, pkt := range [][]byte{tcpPacket(y1, netip.AddrPortFrom(to, 80), syn), udpPacket(y1, netip.AddrPortFrom(to, 80)),
				ip.AppendEcho(nil, y1.Addr(), to, 64, ip.EchoRequest, 1, 1, nil)} {
				if v := g.Inbound(g.now, pkt); v.Reason != BadAddress {
					t.Errorf("to %v: %+v", to, v)
				}
				g.silent()
			}
		}
	}
}
