package nat

import (
	"net/netip"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// RFC 5508 REQ-3: an error with a wrong checksum, or quoting an IP header with
// one, is dropped; options in that header are no obstacle, nor is a wrong
// checksum of the quoted transport header, nor that only eight bytes of it are
// quoted.
func TestRFC5508REQ3Quotes(t *testing.T) {
	withOptions := func(pkt []byte) []byte {
		b := append(append([]byte{}, pkt[:20]...), 1, 1, 1, 1)
		b = append(b, pkt[20:]...)
		b[0]++
		b[3] += 4
		sum(b)
		return b
	}
	for _, proto := range []ip.Proto{ip.UDP, ip.TCP} {
		for _, c := range []struct {
			what   string
			n      int // bytes quoted behind the IP header
			change func(quoted []byte) []byte
			damage func(e []byte)
			want   Reason
		}{
			{"whole", 100, nil, nil, None},
			{"eight bytes", 8, nil, nil, None},
			{"seven bytes", 7, nil, nil, Malformed},
			{"options", 8, withOptions, nil, None},
			{"a wrong transport checksum", 100, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, nil, None},
			{"a wrong header checksum", 100, func(b []byte) []byte { b[10] ^= 1; return b }, nil, Malformed},
			{"a wrong checksum", 100, nil, func(e []byte) { e[len(e)-1] ^= 1 }, Malformed},
			{"a changed TTL", 8, func(b []byte) []byte { b[8] = 1; sum(b); return b }, nil, None},
			{"a first part", 8, func(b []byte) []byte { b[6] = 0x20; sum(b); return b }, nil, None},
			{"a later part", 8, func(b []byte) []byte { b[6], b[7] = 0, 9; sum(b); return b }, nil, Malformed},
		} {
			g := newBench(t, Behaviour{Filtering: AddressAndPortDependent})
			pkt := udpPacket(x, y1)
			if proto == ip.TCP {
				pkt = tcpPacket(x, y1, ip.SYN)
			}
			g.pass(g.Outbound, pkt)
			if c.change != nil {
				pkt = c.change(pkt)
			}
			e := errorQuoting(ip.PortUnreachable, pkt, min(len(pkt), int(pkt[0]&15)*4+c.n))
			if c.damage != nil {
				c.damage(e)
			}
			var p, q ip.Packet
			v := g.Inbound(g.now, e)
			if v.Reason != c.want {
				t.Errorf("%v, %s: %+v", proto, c.what, v)
				continue
			}
			if c.want == None {
				if err := p.Decode(e); err != nil || !p.ChecksumOK() || p.Quoted(&q) != nil || !q.HeaderOK() || q.Src != x || q.Dst != y1 || p.Dst.Addr() != x.Addr() {
					t.Errorf("%v, %s: quotes %v > %v, %v", proto, c.what, q.Src, q.Dst, err)
				}
			}
		}
	}
}

// RFC 5508 REQ-4, REQ-5: errors about what has no mapping are dropped.
func TestRFC5508REQ4And5NoMapping(t *testing.T) {
	g := newBench(t, Behaviour{})
	at := g.leaves(x, y1)
	for _, c := range []struct {
		what string
		from Side
		pkt  []byte
	}{
		{"in", Outside, ip.AppendError(nil, y1.Addr(), ip.PortUnreachable, udpPacket(netip.AddrPortFrom(ours, at.Port()+1), y1))},
		{"in, TCP", Outside, ip.AppendError(nil, y1.Addr(), ip.PortUnreachable, tcpPacket(at, y1, syn))},
		{"out", Inside, ip.AppendError(nil, x.Addr(), ip.PortUnreachable, udpPacket(y1, x2))},
		{"in, of an error", Outside, errorQuoting(ip.PortUnreachable, ip.AppendError(nil, ours, ip.PortUnreachable, udpPacket(y1, at)), 28)},
	} {
		if v := g.Handle(g.now, c.from, c.pkt, Offload{}); v.Action != Drop {
			t.Errorf("%s: %+v", c.what, v)
		}
	}
}

// RFC 5508 REQ-7: errors about hairpinned packets are translated both ways.
func TestRFC5508REQ7HairpinError(t *testing.T) {
	for _, cause := range []ip.Cause{ip.PortUnreachable, ip.TimeExceeded, ip.TooBig} {
		g := newBench(t, Behaviour{Hairpin: HairpinExternalSource})
		at2 := g.leaves(x2, y1)
		in, v := g.pass(g.Outbound, udpPacket(x, at2))
		if v != forward(Inside) {
			t.Fatalf("%+v", v)
		}
		at := in.Src
		e, v := g.pass(g.Outbound, ip.AppendError(nil, x2.Addr(), cause, in.Data))
		var q ip.Packet
		if err := e.Quoted(&q); v != forward(Inside) || err != nil || !q.HeaderOK() ||
			e.Src.Addr() != ours || e.Dst.Addr() != x.Addr() || q.Src != x || q.Dst != at2 {
			t.Errorf("cause %d: %+v, %v > %v quotes %v > %v, %v; %v outside", cause, v, e.Src, e.Dst, q.Src, q.Dst, err, at)
		}
	}
}

// Type, code and what they carry pass as they are: the MTU for path MTU
// discovery above all.
func TestErrorsKeepMTU(t *testing.T) {
	g := newBench(t, Behaviour{Filtering: AddressAndPortDependent})
	at := g.leaves(x, y1)
	e, v := g.pass(g.Inbound, ip.AppendTooBig(nil, z1.Addr(), 1280, udpPacket(at, y1)))
	if v.Action != Forward || e.MTU() != 1280 {
		t.Errorf("%+v, MTU %d", v, e.MTU())
	}
	g.leaves(x6, y6)
	e, v = g.pass(g.Inbound, ip.AppendTooBig(nil, z6.Addr(), 1280, udpPacket(x6, y6)))
	if v.Action != Forward || e.MTU() != 1280 {
		t.Errorf("IPv6: %+v, MTU %d", v, e.MTU())
	}
}

func TestICMPBehaviour(t *testing.T) {
	about := func(g *bench) ([]byte, netip.AddrPort) {
		at := g.leaves(x, y1)
		return ip.AppendError(nil, z1.Addr(), ip.TimeExceeded, udpPacket(at, y1)), at
	}
	g := newBench(t, Behaviour{ICMP: ICMP{DropErrors: true}})
	e, _ := about(g)
	if v := g.Inbound(g.now, e); v != drop(Filtered) {
		t.Errorf("DropErrors, in: %+v", v)
	}
	if v := g.Outbound(g.now, ip.AppendError(nil, x.Addr(), ip.PortUnreachable, udpPacket(y1, x))); v != drop(Filtered) {
		t.Errorf("DropErrors, out: %+v", v)
	}

	g = newBench(t, Behaviour{ICMP: ICMP{KeepQuote: true}})
	e, at := about(g)
	var q ip.Packet
	if p, v := g.pass(g.Inbound, e); v.Action != Forward || p.Dst.Addr() != x.Addr() || p.Quoted(&q) != nil || q.Src != at {
		t.Errorf("KeepQuote: %+v, quotes %v", v, q.Src)
	}

	g = newBench(t, Behaviour{ICMP: ICMP{DropQueries: true}})
	if v := g.Outbound(g.now, ip.AppendEcho(nil, x.Addr(), y1.Addr(), 64, ip.EchoRequest, 1, 1, nil)); v != drop(Filtered) {
		t.Errorf("DropQueries: %+v", v)
	}
	e, _ = about(g)
	if v := g.Inbound(g.now, e); v.Action != Forward {
		t.Errorf("DropQueries, an error: %+v", v)
	}
}

// An error comes to who sent what it quotes, and to nobody else: a session of
// one host's opens no way to another, nor one to a remote that has nothing to do
// with it.
func TestErrorsGoToTheSender(t *testing.T) {
	readdress := func(e []byte, to netip.Addr) []byte {
		if to.Is4() {
			copy(e[16:20], to.AsSlice())
			sum(e)
			return e
		}
		copy(e[24:40], to.AsSlice())
		var p ip.Packet
		if err := p.Decode(e); err != nil {
			t.Fatal(err)
		}
		p.ResetICMPChecksum()
		return e
	}
	neighbour6 := ep("[2001:db8:1::2]:5000")
	for _, c := range []struct {
		what        string
		mode        Mode
		src, dst    netip.AddrPort
		from        Side
		right, away netip.AddrPort // whom the error is for
	}{
		{"firewall, in", Firewall, x, y1, Outside, x, x2},
		{"firewall, out", Firewall, x, y1, Inside, y1, z1},
		{"firewall, IPv6, in", Firewall, x6, y6, Outside, x6, neighbour6},
		{"firewall, IPv6, out", Firewall, x6, y6, Inside, y6, z6},
		{"NAT, out", Translate, x, y1, Inside, y1, z1},
		{"NAT, IPv6, in", Translate, x6, y6, Outside, x6, neighbour6},
	} {
		g := newBench(t, Behaviour{Mode: c.mode, Filtering: AddressAndPortDependent})
		g.leaves(c.src, c.dst)
		about, speaker := udpPacket(c.src, c.dst), c.dst.Addr()
		if c.from == Inside {
			about, speaker = udpPacket(c.dst, c.src), c.src.Addr()
		}
		for _, to := range []netip.AddrPort{c.right, c.away} {
			e := readdress(ip.AppendError(nil, speaker, ip.PortUnreachable, about), to.Addr())
			if v := g.Handle(g.now, c.from, e, Offload{}); (v.Action == Forward) != (to == c.right) {
				t.Errorf("%s: to %v: %+v", c.what, to, v)
			}
		}
	}

	// Of two external addresses it is the one that the packet left from.
	other := netip.MustParseAddr("198.51.100.2")
	g := newBenchOf(t, Config{Own: [Local][]netip.Addr{Outside: {ours, other}}})
	at := g.leaves(x, y1)
	if at.Addr() == other {
		other = ours
	}
	e := readdress(ip.AppendError(nil, y1.Addr(), ip.PortUnreachable, udpPacket(at, y1)), other)
	if v := g.Inbound(g.now, e); v != drop(BadAddress) {
		t.Errorf("about %v to %v: %+v", at, other, v)
	}
}

// The checksum of an error that is left to a device stays so.
func TestErrorWithPartialSum(t *testing.T) {
	g := newBench(t, Behaviour{})
	at := g.leaves(x, y1)
	e := ip.AppendError(nil, y1.Addr(), ip.PortUnreachable, udpPacket(at, y1))
	e[22], e[23] = 0, 0 // ICMP has no pseudo-header
	var p, q ip.Packet
	v := g.Handle(g.now, Outside, e, Offload{PartialSum: true})
	if err := p.Decode(e); v.Action != Forward || err != nil {
		t.Fatalf("%+v, %v", v, err)
	}
	p.Partial = true
	p.FinishChecksum()
	if !p.ChecksumOK() || p.Quoted(&q) != nil || q.Src != x {
		t.Errorf("% x quotes %v", e, q.Src)
	}
}

// Errors about protocols that are not followed come back where their packets
// get out: translated for static pairs, and without translation where a rule lets
// the packets pass.
func TestErrorsAboutOtherProtocols(t *testing.T) {
	gre := func(src, dst netip.AddrPort) []byte {
		pkt := udpPacket(src, dst)
		if pkt[0]>>4 == 6 {
			pkt[6] = 47
		} else {
			pkt[9] = 47
			sum(pkt)
		}
		return pkt
	}
	public := netip.MustParseAddr("198.51.100.9")
	rules := []Rule{{Action: Accept, From: SidesOf(Inside), To: SidesOf(Outside)}, {Action: Accept, From: SidesOf(Outside), To: SidesOf(Inside)}}
	for _, c := range []struct {
		what     string
		b        Behaviour
		src, dst netip.AddrPort
		at       netip.Addr // the host outside
		want     Reason
	}{
		{"a static pair", Behaviour{}, x, y1, public, None},
		{"a static pair that a rule is against", Behaviour{Rules: []Rule{{Action: Discard}}}, x, y1, public, Ruled},
		{"a host without one", Behaviour{}, x2, y1, ours, NoMapping},
		{"a firewall", Behaviour{Mode: Firewall}, x, y1, x.Addr(), NoMapping},
		{"a firewall with a rule", Behaviour{Mode: Firewall, Rules: rules}, x, y1, x.Addr(), None},
		{"IPv6", Behaviour{}, x6, y6, x6.Addr(), NoMapping},
		{"IPv6 with a rule", Behaviour{Rules: rules}, x6, y6, x6.Addr(), None},
	} {
		cfg := Config{Behaviour: c.b}
		if c.b.Mode == Translate {
			cfg.Static = []Static{{x.Addr(), public}}
		}
		g := newBenchOf(t, cfg)
		router := z1.Addr()
		if c.src.Addr().Is6() {
			router = z6.Addr()
		}
		var q ip.Packet
		e := ip.AppendTooBig(nil, router, 1300, gre(netip.AddrPortFrom(c.at, 0), c.dst))
		if v := g.Inbound(g.now, e); v.Reason != c.want {
			t.Errorf("%s, in: %+v, want %v", c.what, v, c.want)
		} else if c.want == None {
			var p ip.Packet
			if err := p.Decode(e); err != nil || !p.ChecksumOK() || p.Quoted(&q) != nil || !q.HeaderOK() ||
				p.Dst.Addr() != c.src.Addr() || q.Src.Addr() != c.src.Addr() || q.Dst.Addr() != c.dst.Addr() || p.MTU() != 1300 || v != forward(Inside) {
				t.Errorf("%s, in: %+v %v > %v quotes %v > %v", c.what, v, p.Src, p.Dst, q.Src, q.Dst)
			}
		}
		e = ip.AppendError(nil, c.src.Addr(), ip.PortUnreachable, gre(c.dst, c.src))
		if v := g.Outbound(g.now, e); v.Reason != c.want {
			t.Errorf("%s, out: %+v, want %v", c.what, v, c.want)
		} else if c.want == None {
			var p ip.Packet
			if err := p.Decode(e); err != nil || !p.ChecksumOK() || p.Quoted(&q) != nil || !q.HeaderOK() ||
				p.Src.Addr() != c.at || q.Src.Addr() != c.dst.Addr() || q.Dst.Addr() != c.at || v != forward(Outside) {
				t.Errorf("%s, out: %+v %v > %v quotes %v > %v", c.what, v, p.Src, p.Dst, q.Src, q.Dst)
			}
		}
	}
}

// What is from or for an address that is good on one link alone stays there
// (RFC 4291 section 2.5.6, RFC 3927 section 7).
func TestLinkLocalStays(t *testing.T) {
	near, near6 := ep("169.254.1.1:1111"), ep("[fe80::1]:1111")
	all := []Rule{{Action: Accept, From: SidesOf(Inside), To: SidesOf(Outside)}, {Action: Accept, From: SidesOf(Outside), To: SidesOf(Inside)}}
	for _, c := range []struct{ host, remote, near netip.AddrPort }{{x, y1, near}, {x6, y6, near6}} {
		for _, proto := range []byte{17, 47} {
			g := newBench(t, Behaviour{Mode: Firewall, Rules: all})
			send := func(from Side, src, dst netip.AddrPort) Verdict {
				pkt := udpPacket(src, dst)
				if src.Addr().Is4() {
					pkt[9] = proto
					sum(pkt)
				} else {
					pkt[6] = proto
				}
				return g.Handle(g.now, from, pkt, Offload{})
			}
			if v := send(Inside, c.host, c.remote); v.Action != Forward {
				t.Errorf("out: %+v", v)
			}
			if v := send(Inside, c.host, c.near); v.Action == Forward {
				t.Errorf("protocol %d to %v: %+v", proto, c.near, v)
			}
			if v := send(Outside, c.near, c.host); v.Action == Forward {
				t.Errorf("protocol %d from %v: %+v", proto, c.near, v)
			}
			if v := g.Inbound(g.now, ip.AppendError(nil, c.near.Addr(), ip.TimeExceeded, udpPacket(c.host, c.remote))); v.Action == Forward {
				t.Errorf("an error from %v: %+v", c.near, v)
			}
		}
	}
}
