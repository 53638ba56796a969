package nat

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

var dependences = []Dependence{EndpointIndependent, AddressDependent, AddressAndPortDependent}

func ep(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// Inside and outside endpoints that the tests use. Y and Z are remote hosts.
var (
	x    = ep("10.0.0.1:5000")
	x2   = ep("10.0.0.2:5000")
	y1   = ep("192.0.2.1:1111")
	y2   = ep("192.0.2.1:2222")
	z1   = ep("192.0.2.9:1111")
	ours = netip.MustParseAddr("198.51.100.1")

	x6 = ep("[2001:db8:1::1]:5000")
	y6 = ep("[2001:db8:2::1]:1111")
	z6 = ep("[2001:db8:3::1]:1111")
)

// bench is a gateway on a test bench.
type bench struct {
	*Gateway
	t   testing.TB
	now time.Time
	out []byte // the last packet that came out
}

func newBench(t testing.TB, b Behaviour) *bench { return newBenchOf(t, Config{Behaviour: b}) }

func newBenchOf(t testing.TB, cfg Config) *bench {
	t.Helper()
	cfg.Inside = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("2001:db8:1::/64")}
	if cfg.Own[Outside] == nil {
		cfg.Own[Outside] = []netip.Addr{ours}
	}
	cfg.Rand = rand.NewPCG(1, 2)
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{Gateway: g, t: t, now: time.Unix(1000, 0)}
}

func (b *bench) Outbound(now time.Time, pkt []byte) Verdict {
	return b.Handle(now, Inside, pkt, Offload{})
}

func (b *bench) Inbound(now time.Time, pkt []byte) Verdict {
	return b.Handle(now, Outside, pkt, Offload{})
}

func udpPacket(src, dst netip.AddrPort) []byte {
	return ip.AppendUDP(nil, src, dst, 64, []byte("payload"))
}

func tcpPacket(src, dst netip.AddrPort, flags uint8) []byte {
	return ip.AppendTCP(nil, src, dst, 64, &ip.Segment{Flags: flags})
}

// pass gives the gateway a packet and decodes what comes out of it.
func (b *bench) pass(f func(time.Time, []byte) Verdict, pkt []byte) (p ip.Packet, v Verdict) {
	b.t.Helper()
	b.out = pkt
	v = f(b.now, pkt)
	if err := p.Decode(pkt); err != nil {
		b.t.Fatal(err)
	}
	if !p.ChecksumOK() {
		b.t.Fatalf("wrong checksum in %x", pkt)
	}
	if want := uint8(63); v.Action != Drop && p.TTL != want {
		b.t.Fatalf("TTL is %d", p.TTL)
	}
	return p, v
}

// leaves sends a UDP packet out and returns its source outside.
func (b *bench) leaves(src, dst netip.AddrPort) netip.AddrPort {
	b.t.Helper()
	p, v := b.pass(b.Outbound, udpPacket(src, dst))
	if v.Action != Forward {
		b.t.Fatalf("%v to %v: %v", src, dst, v.Reason)
	}
	return p.Src
}

// enters reports where a UDP packet from outside gets to; invalid is nowhere.
func (b *bench) enters(src, dst netip.AddrPort) netip.AddrPort {
	b.t.Helper()
	p, v := b.pass(b.Inbound, udpPacket(src, dst))
	if v.Action == Drop {
		return netip.AddrPort{}
	}
	return p.Dst
}

// tcp passes a segment; it returns whether it came through.
func (b *bench) tcpOut(src, dst netip.AddrPort, flags uint8) (netip.AddrPort, bool) {
	b.t.Helper()
	p, v := b.pass(b.Outbound, tcpPacket(src, dst, flags))
	return p.Src, v.Action == Forward
}

func (b *bench) tcpIn(src, dst netip.AddrPort, flags uint8) bool {
	b.t.Helper()
	_, v := b.pass(b.Inbound, tcpPacket(src, dst, flags))
	return v.Action == Forward
}

// combinations runs a test for every pair of policies.
func combinations(t *testing.T, f func(t *testing.T, b Behaviour)) {
	for _, m := range dependences {
		for _, fl := range dependences {
			t.Run("mapping "+m.String()+" filtering "+fl.String(), func(t *testing.T) {
				f(t, Behaviour{Mapping: m, Filtering: fl})
			})
		}
	}
}

// RFC 4787 section 4.1, REQ-1: which packets share a mapping.
func TestRFC4787REQ1Mapping(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		g := newBench(t, b)
		first := g.leaves(x, y1)
		if got := g.leaves(x, y1); got != first {
			t.Errorf("the same flow got %v, then %v", first, got)
		}
		if got := g.leaves(x, y2); (got == first) != (b.Mapping < AddressAndPortDependent) {
			t.Errorf("towards another port: %v, at first %v", got, first)
		}
		if got := g.leaves(x, z1); (got == first) != (b.Mapping == EndpointIndependent) {
			t.Errorf("towards another address: %v, at first %v", got, first)
		}
		if got := g.leaves(x2, y1); got == first {
			t.Errorf("two hosts share %v", got)
		}
	})
}

// RFC 4787 section 5, REQ-8: who may answer.
func TestRFC4787REQ8Filtering(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		g := newBench(t, b)
		at := g.leaves(x, y1)
		for _, c := range []struct {
			from netip.AddrPort
			pass bool
		}{
			{y1, true},
			{y2, b.Filtering <= AddressDependent},
			{z1, b.Filtering == EndpointIndependent},
		} {
			got := g.enters(c.from, at)
			if got.IsValid() != c.pass || c.pass && got != x {
				t.Errorf("from %v: got to %v", c.from, got)
			}
		}
		if got := g.enters(y1, netip.AddrPortFrom(ours, at.Port()+1)); got.IsValid() {
			t.Errorf("an unmapped port leads to %v", got)
		}
	})
}

// RFC 4787 REQ-2: "IP address pooling" behaviour of "Paired".
func TestRFC4787REQ2PairedPooling(t *testing.T) {
	addrs := []netip.Addr{ours, netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.3")}
	g := newBenchOf(t, Config{Behaviour: Behaviour{Mapping: AddressAndPortDependent}, Own: [Local][]netip.Addr{Outside: addrs}})
	seen := make(map[netip.Addr]bool)
	for host := byte(1); host < 50; host++ {
		in := netip.AddrFrom4([4]byte{10, 0, 0, host})
		first := g.leaves(netip.AddrPortFrom(in, 1000), y1).Addr()
		seen[first] = true
		for port := uint16(2000); port < 2010; port++ {
			if got := g.leaves(netip.AddrPortFrom(in, port), z1).Addr(); got != first {
				t.Fatalf("%v is %v and %v", in, first, got)
			}
		}
	}
	if len(seen) != len(addrs) {
		t.Errorf("only %v are in use", seen)
	}
}

// RFC 4787 REQ-3: no port overloading; well-known ports stay well-known.
func TestRFC4787REQ3NoOverloading(t *testing.T) {
	for _, how := range []Allocation{PreserveNext, Sequential, Random} {
		g := newBench(t, Behaviour{Mapping: AddressAndPortDependent, Ports: Ports{Allocation: how}})
		seen := make(map[netip.AddrPort]bool)
		for i := range 3000 {
			to := netip.AddrPortFrom(y1.Addr(), uint16(i+1))
			got := g.leaves(x, to)
			if seen[got] {
				t.Fatalf("allocation %d: %v is used twice", how, got)
			}
			if got.Port() < 1024 {
				t.Fatalf("allocation %d: %v", how, got)
			}
			seen[got] = true
		}
		if how == PreserveNext {
			if got := g.leaves(netip.AddrPortFrom(x.Addr(), 80), y1); got.Port() != 80 {
				t.Errorf("port 80 became %v", got)
			}
			if got := g.leaves(netip.AddrPortFrom(x2.Addr(), 80), y1); got.Port() != 81 {
				t.Errorf("the next port 80 became %v", got)
			}
		}
	}
}

func TestAllocation(t *testing.T) {
	g := newBench(t, Behaviour{Ports: Ports{Allocation: PreserveNext}})
	if a, b := g.leaves(x, y1), g.leaves(x2, y1); a.Port() != 5000 || b.Port() != 5001 {
		t.Errorf("preserve: %v and %v", a, b)
	}
	g = newBench(t, Behaviour{Ports: Ports{Allocation: Sequential}, Mapping: AddressAndPortDependent})
	a, b := g.leaves(x, y1), g.leaves(x, y2)
	if b.Port() != a.Port()+1 {
		t.Errorf("sequential: %v and %v", a, b)
	}
	if c, _ := g.tcpOut(x, y1, ip.SYN); c.Port() == b.Port()+1 {
		t.Errorf("sequential: TCP continues UDP's ports")
	}
	g = newBench(t, Behaviour{Ports: Ports{Allocation: Random}, Mapping: AddressAndPortDependent})
	if a, b, c := g.leaves(x, y1).Port(), g.leaves(x, y2).Port(), g.leaves(x, z1).Port(); b == a+1 && c == b+1 {
		t.Errorf("random: %d %d %d", a, b, c)
	}
}

func TestAllPortsTaken(t *testing.T) {
	for _, how := range []Allocation{PreserveNext, PreserveRandom, Sequential, Random} {
		p := &pool{}
		last := uint16(1023)
		d := draw{
			how: how, internal: 2000, delta: 1, preserve: portRange{1, 65535}, within: portRange{1024, 65535},
			mask: allPorts, last: &last,
		}
		r := rand.New(rand.NewPCG(1, 1))
		seen := make(map[uint16]bool)
		for range 65536 - 1024 {
			port, ok := p.choose(&d, r)
			if !ok || port < 1024 || seen[port] {
				t.Fatalf("%v: after %d: %d, %v", how, len(seen), port, ok)
			}
			seen[port] = true
			p.take(port, 1)
		}
		if port, ok := p.choose(&d, r); ok {
			t.Fatalf("%v gave out %d again", how, port)
		}
		p.release(4711)
		if port, ok := p.choose(&d, r); port != 4711 || !ok {
			t.Fatalf("%v: %d, %v instead of the only free port", how, port, ok)
		}
	}
}

// RFC 4787 REQ-5: five minutes by default. REQ-6: outbound packets refresh,
// inbound ones do not.
func TestRFC4787REQ5Timer(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		for _, timeout := range []time.Duration{0, 20 * time.Second} {
			b.Timers.UDP = timeout
			want := timeout
			if want == 0 {
				want = 5 * time.Minute
			}
			g := newBench(t, b)
			at := g.leaves(x, y1)
			g.now = g.now.Add(want - 1)
			g.leaves(x, y1) // refreshes
			g.now = g.now.Add(want - 1)
			if !g.enters(y1, at).IsValid() { // does not
				t.Error("forgotten too early")
			}
			if next, ok := g.NextTimeout(); !ok || !next.Equal(g.now.Add(1)) {
				t.Errorf("next timeout in %v", next.Sub(g.now))
			}
			g.now = g.now.Add(1)
			if g.enters(y1, at).IsValid() {
				t.Error("remembered too long")
			}
			if s := g.Stats(); s.Mappings != 0 || s.Sessions != 0 {
				t.Errorf("left: %d mappings, %d sessions", s.Mappings, s.Sessions)
			}
			if _, ok := g.NextTimeout(); ok {
				t.Error("there is a timeout")
			}
		}
	})
}

// Timed by session, each remote has its own timer, and the mapping lives as
// long as any.
func TestTimersOfSessions(t *testing.T) {
	g := newBench(t, Behaviour{Filtering: AddressAndPortDependent, Timers: Timers{UDP: time.Minute, PerSession: true}})
	at := g.leaves(x, y1)
	g.now = g.now.Add(40 * time.Second)
	if got := g.leaves(x, z1); got != at {
		t.Fatalf("%v, then %v", at, got)
	}
	g.now = g.now.Add(40 * time.Second)
	if g.enters(y1, at).IsValid() {
		t.Error("y is remembered")
	}
	if g.enters(z1, at) != x {
		t.Error("z is forgotten")
	}
}

// RFC 4787 REQ-9: hairpinning shows the external source.
func TestRFC4787REQ9Hairpin(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		for _, b.Hairpin = range []Hairpin{NoHairpin, HairpinInternalSource, HairpinExternalSource} {
			g := newBench(t, b)
			at2 := g.leaves(x2, y1)
			p, v := g.pass(g.Outbound, udpPacket(x, at2))
			if want := b.Hairpin != NoHairpin && b.Filtering == EndpointIndependent; (v.Action == Forward && v.To == Inside) != want {
				t.Fatalf("hairpin %d, unasked: %+v", b.Hairpin, v)
			}
			if b.Hairpin == NoHairpin {
				if v.Reason != NoHairpinning {
					t.Fatalf("%v", v.Reason)
				}
				continue
			}
			at := ep("198.51.100.1:5000")
			for _, m := range g.Mappings(g.now) {
				if m.Internal == x {
					at = m.External
				}
			}
			// x2 has now sent to x's endpoint, if by the mapping it is known at.
			_, v = g.pass(g.Outbound, udpPacket(x2, at))
			if b.Mapping != EndpointIndependent && b.Filtering != EndpointIndependent {
				return // no punching there
			}
			if v.Action != Forward || v.To != Inside {
				t.Fatalf("hairpin %d, asked: %+v", b.Hairpin, v)
			}
			p, v = g.pass(g.Outbound, udpPacket(x, at2))
			if v.To != Inside || p.Dst != x2 {
				t.Fatalf("hairpin %d: %+v to %v", b.Hairpin, v, p.Dst)
			}
			if want := b.Hairpin == HairpinInternalSource; (p.Src == x) != want || !want && p.Src.Addr() != ours {
				t.Errorf("hairpin %d: from %v", b.Hairpin, p.Src)
			}
		}
	})
}

// RFC 4787 REQ-12, RFC 5382 REQ-10: ICMP errors pass and end nothing. RFC 5508
// REQ-3 to 5: they are translated by what they quote.
func TestRFC4787REQ12ICMPErrors(t *testing.T) {
	router := netip.MustParseAddr("203.0.113.77")
	combinations(t, func(t *testing.T, b Behaviour) {
		for _, proto := range []ip.Proto{ip.UDP, ip.TCP, ip.ICMP} {
			g := newBench(t, b)
			var pkt []byte
			switch proto {
			case ip.UDP:
				pkt = udpPacket(x, y1)
			case ip.TCP:
				pkt = tcpPacket(x, y1, ip.SYN)
			case ip.ICMP:
				pkt = ip.AppendEcho(nil, x.Addr(), y1.Addr(), 64, ip.EchoRequest, 77, 1, nil)
			}
			out, v := g.pass(g.Outbound, pkt)
			if v.Action != Forward {
				t.Fatalf("%v: %v", proto, v.Reason)
			}
			before := g.Stats().Sessions
			e, v := g.pass(g.Inbound, ip.AppendError(nil, router, ip.TimeExceeded, g.out))
			if v.Action != Forward {
				t.Fatalf("%v: error: %v", proto, v.Reason)
			}
			var q ip.Packet
			if err := e.Quoted(&q); err != nil || e.Dst.Addr() != x.Addr() || e.Src.Addr() != router || q.Src.Addr() != x.Addr() || q.Dst != out.Dst {
				t.Errorf("%v: error to %v quotes %v > %v, %v", proto, e.Dst, q.Src, q.Dst, err)
			}
			if proto != ip.ICMP && q.Src != x || proto == ip.ICMP && q.Src.Port() != 77 {
				t.Errorf("%v: quotes %v", proto, q.Src)
			}
			if got := g.Stats().Sessions; got != before {
				t.Errorf("%v: %d sessions became %d", proto, before, got)
			}
		}

		// Errors about what was never sent are forged.
		g := newBench(t, b)
		at := g.leaves(x, y1)
		if b.Filtering != EndpointIndependent || b.Mapping != EndpointIndependent {
			if _, v := g.pass(g.Inbound, ip.AppendError(nil, router, ip.PortUnreachable, udpPacket(at, z1))); v.Action != Drop {
				t.Error("a forged error passed")
			}
		}
		broken := ip.AppendError(nil, router, ip.PortUnreachable, udpPacket(at, y1))
		broken[len(broken)-1] ^= 1
		if v := g.Inbound(g.now, broken); v.Action != Drop {
			t.Error("a damaged error passed")
		}

		// And outwards.
		in := udpPacket(y1, at)
		if v := g.Inbound(g.now, in); v.Action != Forward {
			t.Fatal(v.Reason)
		}
		e, v := g.pass(g.Outbound, ip.AppendError(nil, x.Addr(), ip.PortUnreachable, in))
		var q ip.Packet
		if err := e.Quoted(&q); v.Action != Forward || err != nil || e.Src.Addr() != ours || q.Dst != at || q.Src != y1 {
			t.Errorf("outwards: %+v from %v quoting %v > %v, %v", v, e.Src, q.Src, q.Dst, err)
		}
		if g.enters(y1, at) != x {
			t.Error("the error ended the mapping")
		}
	})
}

// RFC 5508 REQ-1, REQ-2: echo is translated by its identifier.
func TestRFC5508Echo(t *testing.T) {
	g := newBench(t, Behaviour{Filtering: AddressAndPortDependent})
	echo := func(src netip.Addr, id uint16) ip.Packet {
		p, v := g.pass(g.Outbound, ip.AppendEcho(nil, src, y1.Addr(), 64, ip.EchoRequest, id, 1, []byte("ping")))
		if v.Action != Forward {
			t.Fatal(v.Reason)
		}
		return p
	}
	a, b := echo(x.Addr(), 7), echo(x2.Addr(), 7)
	if a.Src == b.Src {
		t.Fatal("two hosts share an identifier")
	}
	reply := func(from netip.Addr) (ip.Packet, Verdict) {
		return g.pass(g.Inbound, ip.AppendEcho(nil, from, ours, 64, ip.EchoReply, b.Src.Port(), 1, []byte("ping")))
	}
	if p, v := reply(y1.Addr()); v.Action != Forward || p.Dst != netip.AddrPortFrom(x2.Addr(), 7) {
		t.Errorf("%+v to %v", v, p.Dst)
	}
	if _, v := reply(z1.Addr()); v.Reason != Filtered {
		t.Errorf("from elsewhere: %+v", v)
	}
	if _, v := g.pass(g.Inbound, ip.AppendEcho(nil, y1.Addr(), ours, 64, ip.EchoRequest, 7, 1, nil)); v.Action != Drop {
		t.Error("a request came in")
	}
	g.now = g.now.Add(time.Minute)
	if _, v := reply(y1.Addr()); v.Reason != NoMapping {
		t.Errorf("after a minute: %+v", v)
	}

	// Nor does a request come in that could be taken for a reply.
	g = newBench(t, Behaviour{})
	g.pass(g.Outbound, ip.AppendEcho(nil, x6.Addr(), y6.Addr(), 64, ip.EchoRequest, 0, 1, nil))
	if _, v := g.pass(g.Inbound, ip.AppendEcho(nil, y6.Addr(), x6.Addr(), 64, ip.EchoRequest, 0, 1, nil)); v.Reason != Filtered {
		t.Errorf("IPv6 request: %+v", v)
	}
}

func TestBlockUDP(t *testing.T) {
	for _, mode := range []Mode{Translate, Open} {
		g := newBench(t, Behaviour{BlockUDP: true, Mode: mode})
		if _, v := g.pass(g.Outbound, udpPacket(x, y1)); v.Reason != Blocked {
			t.Errorf("out: %+v", v)
		}
		if _, v := g.pass(g.Inbound, udpPacket(y1, x)); v.Reason != Blocked {
			t.Errorf("in: %+v", v)
		}
		if _, ok := g.tcpOut(x, y1, ip.SYN); !ok {
			t.Error("TCP is blocked")
		}
	}
}

func TestOpen(t *testing.T) {
	g := newBench(t, Behaviour{Mode: Open})
	if got := g.enters(y1, x); got != x {
		t.Errorf("in: %v", got)
	}
	if got := g.leaves(x, y1); got != x {
		t.Errorf("out: %v", got)
	}
}

// A firewall filters like a gateway and translates nothing; IPv6 is never
// translated.
func TestFirewall(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		for _, c := range []struct{ x, y, z netip.AddrPort }{{x, y1, z1}, {x6, y6, z6}} {
			if c.x.Addr().Is4() {
				b.Mode = Firewall
			}
			g := newBench(t, b)
			if g.enters(c.y, c.x).IsValid() {
				t.Fatal("came in unasked")
			}
			if got := g.leaves(c.x, c.y); got != c.x {
				t.Fatalf("%v became %v", c.x, got)
			}
			if got := g.enters(c.y, c.x); got != c.x {
				t.Errorf("the answer got to %v", got)
			}
			if got := g.enters(c.z, c.x); got.IsValid() != (b.Filtering == EndpointIndependent) {
				t.Errorf("another's packet got to %v", got)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	g := newBench(t, Behaviour{})
	for _, c := range []struct {
		what string
		f    func(time.Time, []byte) Verdict
		pkt  []byte
		want Reason
	}{
		{"empty", g.Outbound, nil, Malformed},
		{"garbage", g.Inbound, []byte{0x45, 1, 2}, Malformed},
		{"port 0", g.Outbound, udpPacket(x, ep("192.0.2.1:0")), Malformed},
		{"last hop", g.Outbound, ip.AppendUDP(nil, x, y1, 1, nil), Expired},
		{"foreign source", g.Outbound, udpPacket(z1, y1), BadAddress},
		{"inside source from outside", g.Inbound, udpPacket(x, netip.AddrPortFrom(ours, 5000)), BadAddress},
		{"inside destination", g.Outbound, udpPacket(x, x2), BadAddress},
		{"echo reply", g.Outbound, ip.AppendEcho(nil, x.Addr(), y1.Addr(), 64, ip.EchoReply, 1, 1, nil), NoMapping},
		{"middle of a connection", g.Outbound, tcpPacket(x, y1, ip.ACK), NoMapping},
	} {
		if v := c.f(g.now, c.pkt); v != (Verdict{Action: Drop, Reason: c.want}) {
			t.Errorf("%s: %+v", c.what, v)
		}
	}
	if s := g.Stats(); s.Mappings+s.Sessions != 0 {
		t.Errorf("they left %+v", s)
	}
}

// Tables are bounded, and strangers cannot fill them up.
func TestTablesAreBounded(t *testing.T) {
	g := newBenchOf(t, Config{MaxMappings: 10})
	for i := range uint16(20) {
		p := udpPacket(netip.AddrPortFrom(x.Addr(), 1000+i), y1)
		if v := g.Outbound(g.now, p); (v.Action == Forward) != (i < 10) || i >= 10 && v.Reason != TableFull {
			t.Fatalf("mapping %d: %+v", i, v)
		}
	}
	g.now = g.now.Add(5 * time.Minute)
	at, _ := g.tcpOut(x, y1, ip.SYN)
	for i := range uint16(100) {
		g.tcpIn(netip.AddrPortFrom(z1.Addr(), 1000+i), at, ip.SYN)
	}
	if got := g.Stats().Sessions; got < 18 || got > 20 {
		t.Errorf("strangers got %d of 40 sessions", got-1)
	}
	if _, ok := g.tcpOut(x, y2, ip.SYN); !ok {
		t.Error("nothing is left for us")
	}
}

func TestReset(t *testing.T) {
	g := newBench(t, Behaviour{})
	at := g.leaves(x, y1)
	g.Reset()
	if g.enters(y1, at).IsValid() {
		t.Error("remembered")
	}
	if _, ok := g.NextTimeout(); ok {
		t.Error("a timer runs")
	}
	g.leaves(x, y1)
}

func TestNewRefuses(t *testing.T) {
	inside := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, cfg := range []Config{
		{},
		{Rand: rand.NewPCG(0, 0), Inside: inside},
		{Rand: rand.NewPCG(0, 0), Behaviour: Behaviour{Mapping: 9}},
		{Rand: rand.NewPCG(0, 0), Behaviour: Behaviour{Timers: Timers{UDP: -1}}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
