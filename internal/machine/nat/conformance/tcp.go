package conformance

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// RFC 5382: TCP.
var tcpRules = []Requirement{
	{Number: "REQ-1", Level: Must, Text: "one mapping for a host's port, whomever it connects to", check: tcpMapping},
	{Number: "REQ-2", Level: Must, Text: "every sequence of segments that makes, uses and ends a connection passes", check: sequences},
	{Number: "REQ-2a", Level: Must, Text: "simultaneous open does", check: simultaneousOpen},
	{Number: "REQ-3", Level: Should, Text: "the filter is endpoint-independent, or address-dependent", check: tcpFiltering},
	{Number: "REQ-3a", Level: May, Text: "the filter can be configured", check: tcpFilters},
	{Number: "REQ-3b", Level: May, Text: "apart from that of UDP", check: tcpFiltersApart},
	{Number: "REQ-4", Level: Must, Text: "an unsolicited SYN is not answered for six seconds, and never if a SYN goes out meanwhile", check: patience},
	{Number: "REQ-4 answer", Level: Should, Text: "then the answer is ICMP port unreachable, unless policy wants silence", check: lateAnswer},
	{Number: "REQ-4a", Level: Must, Text: "policy can want silence", check: silence},
	{Number: "REQ-5 established", Level: Must, Text: "an idle connection lives for 2 hours 4 minutes", check: tcpLives},
	{Number: "REQ-5 transitory", Level: Must, Text: "one that is opening or closing lives for four minutes", check: transitoryLives},
	{Number: "REQ-5a", Level: May, Text: "those times can be configured", check: tcpConfigured},
	{Number: "REQ-6", Level: Should, Text: "no application level gateway meddles with payloads", check: tcpPayload},
	{Number: "REQ-7", Level: Must, Text: "no two hosts' ports share an external port", check: tcpOverloading},
	{Number: "REQ-8", Level: Must, Text: "hosts inside reach each other by external endpoints", check: tcpHairpin(false)},
	{Number: "REQ-8a", Level: Must, Text: "and see each other's external endpoints", check: tcpHairpin(true)},
	{Number: "REQ-9", Level: Should, Text: "ICMP destination unreachable is translated", check: tcpUnreachable},
	{Number: "REQ-10", Level: Must, Text: "no ICMP message ends a mapping or a connection", check: tcpSurvivesICMP},
}

var (
	web1 = ep(addrY, port1)
	web2 = ep(addrY, port2)
	webZ = ep(addrZ, port1)
)

const (
	established = 2*time.Hour + 4*time.Minute
	transitory  = 4 * time.Minute
	moment      = time.Millisecond
)

func tcpMapping(t *trial) {
	b := t.bench(nil)
	first := b.connect(x, web1).external
	t.want(b.connect(x, web2).external == first, "another port gets another mapping")
	t.want(b.connect(x, webZ).external == first, "another address gets another mapping")
}

func sequences(t *trial) {
	b := t.bench(nil)
	for port, end := range []func(s *stream) bool{
		// x closes first, y has more to say.
		func(s *stream) bool {
			return s.out(ip.FIN|ip.ACK, "") && s.in(ip.ACK, "") && s.in(ip.ACK, "more") && s.out(ip.ACK, "") &&
				s.in(ip.FIN|ip.ACK, "") && s.out(ip.ACK, "")
		},
		// y does.
		func(s *stream) bool {
			return s.in(ip.FIN|ip.ACK, "") && s.out(ip.ACK, "") && s.out(ip.ACK, "more") && s.in(ip.ACK, "") &&
				s.out(ip.FIN|ip.ACK, "") && s.in(ip.ACK, "")
		},
		// Both at once.
		func(s *stream) bool {
			first, second := s.xs.segment(ip.FIN|ip.ACK, nil), s.ys.segment(ip.FIN|ip.ACK, nil)
			d, ok := s.bench.out(ip.AppendTCP(nil, s.x, s.y, 64, first))
			if !ok {
				return false
			}
			e, ok := s.bench.in(ip.AppendTCP(nil, s.y, s.external, 64, second))
			if !ok {
				return false
			}
			s.ys.sees(d)
			s.xs.sees(e)
			return s.out(ip.ACK, "") && s.in(ip.ACK, "")
		},
		func(s *stream) bool { return s.out(ip.RST|ip.ACK, "") },
		func(s *stream) bool { return s.in(ip.RST|ip.ACK, "") },
	} {
		s := b.connect(ep(addrX, 6000+uint16(port)), web1)
		t.want(end(s), "a segment of a connection that ends does not get through")
	}
	b.crash(ep(addrX, 7000), web1)
	// A connection from outside, as far as the filter lets it in.
	external := b.syn(x, web1).external
	for _, from := range []netip.AddrPort{web2, webZ} {
		s := b.stream(x, from)
		s.external = external
		if s.in(ip.SYN, "") {
			t.want(s.out(ip.SYN|ip.ACK, "") && s.in(ip.ACK, "") && s.talks(), "a connection from outside is let in, and then fails")
		}
	}
}

// crash: x has lost its connection and begins again, of which y knows nothing
// (RFC 793 figure 10). A gateway that gives x another port spares them that.
func (b *bench) crash(x, y netip.AddrPort) {
	s := b.connect(x, y)
	old := s.xs
	again := b.stream(x, y)
	again.xs.seq, again.ys.seq = old.seq+100_000, s.ys.seq+100_000
	syn, ok := b.out(ip.AppendTCP(nil, x, y, 64, again.xs.segment(ip.SYN, nil)))
	b.want(ok, "who lost its connection cannot begin another")
	if syn.Src == s.external {
		b.want(s.in(ip.ACK, ""), "who lost its connection cannot find out that the other end has it")
		s.xs = old
		b.want(s.out(ip.RST, ""), "an RST does not get out")
		again.xs.seq--
		b.want(again.out(ip.SYN, ""), "who lost its connection cannot begin another")
	} else {
		again.external = syn.Src
		again.ys.sees(syn)
	}
	b.want(again.in(ip.SYN|ip.ACK, "") && again.out(ip.ACK, "") && again.talks(), "who lost its connection gets no other")
}

// both opens a connection from both ends at once, as far as it needs to be.
func (b *bench) both(x, y netip.AddrPort) *stream {
	s := b.syn(x, y)
	d, ok := b.in(ip.AppendTCP(nil, s.y, s.external, 64, s.ys.segment(ip.SYN, nil)))
	b.want(ok, "the SYN of the other end does not get in")
	s.xs.sees(d)
	// Both answer with the sequence number of their SYN again.
	s.xs.seq--
	s.ys.seq--
	b.want(s.out(ip.SYN|ip.ACK, ""), "the SYN-ACK does not get out")
	b.want(s.in(ip.SYN|ip.ACK, ""), "the SYN-ACK of the other end does not get in")
	return s
}

func simultaneousOpen(t *trial) {
	s := t.bench(nil).both(x, web1)
	t.want(s.out(ip.ACK, "") && s.in(ip.ACK, "") && s.talks(), "simultaneous open makes no connection")
}

// knock is a SYN from outside.
func (b *bench) knock(from, external netip.AddrPort) bool {
	s := b.stream(x, from)
	s.external = external
	return s.in(ip.SYN, "")
}

func tcpFiltering(t *trial) {
	b := t.bench(nil)
	external := b.connect(x, web1).external
	t.want(b.knock(web2, external), "another port of an address that was connected to does not come in")
}

func tcpFilters(t *trial) {
	t.b.Ports.Overload = false // which wants a strict filter
	t.filters(func(d nat.Dependence) {
		t.b.TCPPolicy = &nat.Policy{Mapping: nat.EndpointIndependent, Filtering: d}
	}, func() (bool, bool) {
		b := t.bench(nil)
		external := b.syn(x, web1).external
		return b.knock(webZ, external), b.knock(web2, external)
	})
}

func tcpFiltersApart(t *trial) {
	t.b.Ports.Overload = false // which wants a strict filter for both
	t.b.Filtering = nat.AddressAndPortDependent
	t.b.TCPPolicy = &nat.Policy{Filtering: nat.EndpointIndependent}
	b := t.bench(nil)
	t.want(b.knock(webZ, b.syn(x, web1).external), "TCP has not its own filter")
	t.b.Filtering = nat.EndpointIndependent
	t.b.TCPPolicy = &nat.Policy{Filtering: nat.AddressAndPortDependent}
	b = t.bench(nil)
	t.want(!b.knock(webZ, b.syn(x, web1).external), "TCP has not its own filter")
}

// knocked sends a SYN that nobody waits for, and says what is answered, and
// when; d is nil if nothing is.
func (b *bench) knocked(from, external netip.AddrPort) (answer *delivery, after time.Duration) {
	for _, d := range b.send(nat.Outside, ip.AppendTCP(nil, from, external, 64, &ip.Segment{Seq: 99, Flags: ip.SYN, Window: 1000})) {
		if d.to == nat.Outside {
			return &d, 0
		}
		b.fail("a SYN that nobody waits for gets in")
	}
	start := b.now
	for b.now.Sub(start) < time.Minute {
		b.later = nil
		b.wait(10 * moment)
		for _, d := range b.later {
			if d.to == nat.Outside {
				return &d, b.now.Sub(start)
			}
		}
	}
	return nil, 0
}

func patience(t *trial) {
	b := t.bench(nil)
	answer, after := b.knocked(web1, ep(ours, 7000))
	t.want(answer == nil || after >= 6*time.Second, "an unsolicited SYN is answered within six seconds")
	// A SYN out while the other's SYN waits for its answer.
	b = t.bench(nil)
	knock := ip.AppendTCP(nil, web1, ep(ours, x.Port()), 64, &ip.Segment{Seq: 99, Flags: ip.SYN, Window: 1000})
	t.want(len(b.send(nat.Outside, knock)) == 0, "an unsolicited SYN is answered within six seconds")
	b.wait(2 * time.Second)
	s := b.syn(x, web1)
	b.wait(time.Minute)
	for _, d := range b.later {
		t.want(d.to != nat.Outside, "an unsolicited SYN is answered though a SYN went out after it")
	}
	t.want(s.in(ip.SYN|ip.ACK, ""), "a three-way handshake fails")
	// What the filter stops is unsolicited too.
	b = t.bench(nil)
	b.strict(func(external netip.AddrPort) {
		answer, after = b.knocked(webZ, external)
		t.want(answer == nil || after >= 6*time.Second, "a SYN that is filtered is answered within six seconds")
	})
}

// strict calls do with the external endpoint of a connection of x's to y, if the
// gateway has a filter that keeps others out.
func (b *bench) strict(do func(external netip.AddrPort)) {
	policy := b.b.Filtering
	if p := b.b.TCPPolicy; p != nil {
		policy = p.Filtering
	}
	if policy != nat.EndpointIndependent {
		do(b.connect(x, web1).external)
	}
}

func lateAnswer(t *trial) {
	b := t.bench(nil)
	if t.b.Unsolicited.TCP == nat.Silent {
		answer, _ := b.knocked(web1, ep(ours, 7000))
		t.want(answer == nil, "an unsolicited SYN is answered against policy")
		return
	}
	answer, _ := b.knocked(web1, ep(ours, 7000))
	t.want(answer != nil, "an unsolicited SYN is never answered")
	q, ok := quote(*answer)
	t.want(ok && isICMP(*answer, 3, 3) && answer.Dst.Addr() == addrY && q.Src == web1 && q.Dst == ep(ours, 7000),
		"an unsolicited SYN is answered by something else than ICMP port unreachable")
}

func silence(t *trial) {
	t.b.Unsolicited = nat.Unsolicited{}
	b := t.bench(nil)
	answer, _ := b.knocked(web1, ep(ours, 7000))
	t.want(answer == nil, "an unsolicited SYN is answered against policy")
}

func tcpLives(t *trial) {
	b := t.bench(nil)
	s := b.connect(x, web1)
	b.wait(established - moment)
	t.want(s.in(ip.ACK, ""), "an idle connection dies before 2 hours 4 minutes are over")

	// Both ends have sent an ACK, so it is established (section 5).
	s = b.both(ep(addrX, 6000), web1)
	b.wait(established - moment)
	t.want(s.in(ip.ACK, ""), "an idle connection from a simultaneous open dies before 2 hours 4 minutes are over")
}

func transitoryLives(t *trial) {
	b := t.bench(nil)
	s := b.syn(x, web1)
	b.wait(transitory - moment)
	t.want(s.in(ip.SYN|ip.ACK, ""), "a half-open connection dies before four minutes are over")

	s = b.connect(ep(addrX, 6000), web1)
	s.out(ip.FIN|ip.ACK, "")
	s.in(ip.ACK, "")
	s.in(ip.FIN|ip.ACK, "")
	b.wait(transitory - moment)
	t.want(s.out(ip.ACK, "") && s.in(ip.ACK, ""), "a closing connection dies before four minutes are over")
}

func tcpConfigured(t *trial) {
	t.b.Timers.Established, t.b.Timers.Transitory = 10*time.Hour, 20*time.Minute
	b := t.bench(nil)
	s := b.connect(x, web1)
	b.wait(10*time.Hour - moment)
	t.want(s.in(ip.ACK, ""), "an idle connection dies before its time")
	b.wait(10*time.Hour + moment)
	t.want(!s.in(ip.ACK, ""), "an idle connection outlives its time")
	s = b.syn(x, web1)
	b.wait(20*time.Minute - moment)
	t.want(s.in(ip.SYN|ip.ACK, ""), "a half-open connection dies before its time")
	s = b.syn(ep(addrX, 6000), web1)
	b.wait(20*time.Minute + moment)
	t.want(!s.in(ip.SYN|ip.ACK, ""), "a half-open connection outlives its time")
}

func tcpPayload(t *trial) {
	b := t.bench(nil)
	s := b.connect(x, web2)
	payload := request[:len(request)-2] + "X: " + mentions(x, s.external) + "\r\n\r\n"
	d, ok := b.out(ip.AppendTCP(nil, s.x, s.y, 64, s.xs.segment(ip.PSH|ip.ACK, []byte(payload))))
	t.want(ok && string(d.Payload()) == payload, "a payload that names an endpoint is changed on its way out")
	s.ys.sees(d)
	d, ok = b.in(ip.AppendTCP(nil, s.y, s.external, 64, s.ys.segment(ip.PSH|ip.ACK, []byte(payload))))
	t.want(ok && string(d.Payload()) == payload, "a payload that names an endpoint is changed on its way in")
}

func tcpOverloading(t *trial) {
	b := t.bench(nil)
	holder := map[netip.AddrPort]netip.AddrPort{}
	for n := range 20 {
		in := ep(host(n), 5000)
		to := netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + n)})
		for _, port := range []uint16{port1, port2} {
			external := b.syn(in, ep(to, port)).external
			if other, held := holder[external]; held && other != in {
				t.fail("two hosts share an external port")
			}
			holder[external] = in
		}
	}
}

// tcpHairpin: x connects to w, by w's external endpoint. w has opened the
// filter for x before, if there is one.
func tcpHairpin(source bool) func(*trial) {
	return func(t *trial) {
		b := t.bench(nil)
		wOut := ep(addrW, port1) // so that those who let only the web out let this
		target := b.syn(wOut, web1).external
		mine := b.syn(x, web1).external
		b.send(nat.Inside, ip.AppendTCP(nil, wOut, mine, 64, &ip.Segment{Seq: 5, Flags: ip.SYN, Window: 1000}))
		d, ok := one(b.send(nat.Inside, ip.AppendTCP(nil, x, target, 64, &ip.Segment{Seq: 7000, Flags: ip.SYN, Window: 1000})))
		t.want(ok && d.to == nat.Inside && d.Dst == wOut && d.TCPFlags() == ip.SYN, "no hairpinning")
		if source {
			t.want(d.Src.Addr() == ours, "the source is the internal one")
		}
		var syn ip.Segment
		d.Segment(&syn)
		reply := &ip.Segment{Seq: 5, Ack: syn.Seq + 1, Flags: ip.SYN | ip.ACK, Window: 1000}
		if !source && d.Src.Addr() != ours {
			return // the answer goes straight to x
		}
		d, ok = one(b.send(nat.Inside, ip.AppendTCP(nil, wOut, d.Src, 64, reply)))
		t.want(ok && d.to == nat.Inside && d.Src == target && d.Dst == x && d.TCPFlags() == ip.SYN|ip.ACK, "no hairpinning of the answer")
	}
}

func tcpUnreachable(t *trial) {
	b := t.bench(nil)
	d, ok := b.out(ip.AppendTCP(nil, x, web1, 64, &ip.Segment{Seq: 7000, Flags: ip.SYN, Window: 1000}))
	t.gets(ok, errNoTCP)
	for code := range byte(16) {
		b.translated(unreachable(addrR, ours, code, d.Data), 3, code, x, web1)
	}
}

func tcpSurvivesICMP(t *trial) {
	b := t.bench(nil)
	s := b.stream(x, web1)
	d, ok := b.out(ip.AppendTCP(nil, x, web1, 64, s.xs.segment(ip.SYN, nil)))
	t.gets(ok, errNoTCP)
	s.external = d.Src
	s.ys.sees(d)
	storm := func() {
		for _, from := range []netip.Addr{addrR, addrY} {
			for _, m := range icmpAbout(from, ours, d.Data) {
				b.send(nat.Outside, m)
			}
		}
	}
	storm()
	t.want(s.in(ip.SYN|ip.ACK, "") && s.out(ip.ACK, ""), "an ICMP message ends a connection that is opening")
	storm()
	t.want(s.talks(), "an ICMP message ends a connection")
	t.want(b.knock(web1, s.external) || s.talks(), "an ICMP message ends a mapping")
}
