package nat

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

func prefixes(all ...string) (ps []netip.Prefix) {
	for _, s := range all {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestRuleMatches(t *testing.T) {
	udp, tcp := udpPacket(x, y1), tcpPacket(x, y1, ip.SYN)
	echo := ip.AppendEcho(nil, x.Addr(), y1.Addr(), 64, ip.EchoRequest, 80, 1, nil)
	udp6 := udpPacket(x6, y6)
	for _, c := range []struct {
		what  string
		rule  Rule
		pkt   []byte
		match bool
	}{
		{"anything", Rule{}, udp, true},
		{"the way", Rule{From: SidesOf(Inside), To: SidesOf(Outside, DMZ)}, udp, true},
		{"another way", Rule{From: SidesOf(DMZ)}, udp, false},
		{"another way out", Rule{To: SidesOf(Inside, DMZ, Local)}, udp, false},
		{"the protocol", Rule{Protocol: ip.UDP}, udp, true},
		{"another protocol", Rule{Protocol: ip.UDP}, tcp, false},
		{"the source", Rule{Src: prefixes("192.168.0.0/16", "10.0.0.77/24")}, udp, true},
		{"another source", Rule{Src: prefixes("10.0.1.0/24")}, udp, false},
		{"the destination", Rule{Dst: prefixes("192.0.2.1/32")}, udp, true},
		{"another destination", Rule{Dst: prefixes("192.0.2.2/32", "2001:db8::/32")}, udp, false},
		{"IPv6", Rule{Dst: prefixes("192.0.2.2/32", "2001:db8::/32")}, udp6, true},
		{"the port", Rule{DstPorts: []PortRange{{80, 80}, {1000, 1111}}}, tcp, true},
		{"another port", Rule{DstPorts: []PortRange{{80, 80}, {1112, 2000}}}, tcp, false},
		{"the source port", Rule{SrcPorts: []PortRange{{5000, 5000}}}, tcp, true},
		{"another source port", Rule{SrcPorts: []PortRange{{1111, 1111}}}, tcp, false},
		{"all ports", Rule{SrcPorts: []PortRange{{}}}, udp, true},
		{"an echo has no port", Rule{SrcPorts: []PortRange{{80, 80}}}, echo, false},
		{"nor any", Rule{SrcPorts: []PortRange{{}}}, echo, false},
		{"an echo", Rule{Protocol: ip.ICMP}, echo, true},
	} {
		g := newBench(t, Behaviour{Rules: []Rule{{Action: Reject, From: SidesOf(Outside)}, c.rule, {Action: Discard}}})
		var p ip.Packet
		p.Decode(c.pkt)
		want := discarded
		if c.match {
			want = accepted
		}
		if got := g.rule(Inside, Outside, &p, p.Src, p.Dst); got != want {
			t.Errorf("%s: ruling %d, want %d", c.what, got, want)
		}
	}
	g := newBench(t, Behaviour{})
	var p ip.Packet
	p.Decode(udp)
	if got := g.rule(Inside, Outside, &p, p.Src, p.Dst); got != undecided {
		t.Errorf("no rule: %d", got)
	}
}

// The first rule that matches decides, about later parts by addresses alone.
func TestRulesInModeOpen(t *testing.T) {
	g := newBench(t, Behaviour{Mode: Open, Rules: []Rule{
		{Action: Accept, Protocol: ip.UDP, DstPorts: []PortRange{{53, 53}}},
		{Action: Discard, Protocol: ip.UDP},
		{Action: Reject, Protocol: ip.TCP, Dst: prefixes("192.0.2.0/24")},
	}})
	dns, other := ep("192.0.2.1:53"), ep("192.0.2.1:54")
	later := udpPacket(x, other)
	later[6], later[7] = 0, 9
	sum(later)
	for _, c := range []struct {
		what string
		pkt  []byte
		want Verdict
	}{
		{"DNS", udpPacket(x, dns), forward(Outside)},
		{"other UDP", udpPacket(x, other), drop(Ruled)},
		{"a later part", later, forward(Outside)},
		{"TCP", tcpPacket(x, y1, ip.SYN), drop(Ruled)},
		{"TCP elsewhere", tcpPacket(x, ep("203.0.113.9:1"), ip.SYN), forward(Outside)},
	} {
		if v := g.Handle(g.now, Inside, c.pkt, Offload{}); v != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, v, c.want)
		}
	}
	p := g.said(Inside)
	if p.TCPFlags() != ip.RST|ip.ACK || p.Dst != x || p.Src != y1 {
		t.Errorf("Reject said %v > %v, flags %#x", p.Src, p.Dst, p.TCPFlags())
	}
}

// sum computes the IPv4 header checksum anew.
func sum(pkt []byte) {
	pkt[10], pkt[11] = 0, 0
	var s uint32
	for i := 0; i+1 < min(int(pkt[0]&15)*4, len(pkt)); i += 2 {
		s += uint32(pkt[i])<<8 | uint32(pkt[i+1])
	}
	s = s>>16 + s&0xffff
	s = ^(s>>16 + s&0xffff)
	pkt[10], pkt[11] = byte(s>>8), byte(s)
}

// said is the one packet that waits for Poll.
func (b *bench) said(to Side) (p ip.Packet) {
	b.t.Helper()
	o, ok := b.Poll()
	if !ok {
		b.t.Fatal("nothing was said")
	}
	if err := p.Decode(o.Packet); err != nil || !p.ChecksumOK() || o.To != to {
		b.t.Fatalf("to side %d: %x, %v", o.To, o.Packet, err)
	}
	b.silent()
	return p
}

func (b *bench) silent() {
	b.t.Helper()
	if o, ok := b.Poll(); ok {
		b.t.Fatalf("said %x", o.Packet)
	}
}

func TestNewRefusesRules(t *testing.T) {
	for _, r := range []Rule{
		{Action: 9},
		{Protocol: 9},
		{Src: []netip.Prefix{{}}},
		{Protocol: ip.TCP, DstPorts: []PortRange{{80, 79}}},
		{Protocol: ip.ICMP, DstPorts: []PortRange{{80, 80}}},
	} {
		if _, err := compileRules(Firewall, []Rule{r}); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
}

// A side that a rule names for nothing is a mistake.
func TestNewRefusesIdleSides(t *testing.T) {
	any := Sides(0)
	for _, c := range []struct {
		mode     Mode
		from, to Sides
		good     bool
	}{
		{Translate, SidesOf(Local), SidesOf(Inside), false},
		{Translate, SidesOf(Local), SidesOf(DMZ, Local), false},
		{Translate, SidesOf(Local, DMZ), SidesOf(Inside), false},
		{Translate, SidesOf(Outside), SidesOf(Outside), false},
		{Translate, SidesOf(Outside), SidesOf(Inside, Outside), false},
		{Open, SidesOf(Local), any, false},
		{Open, SidesOf(DMZ), SidesOf(DMZ), false},
		{Translate, SidesOf(Local), SidesOf(Outside), true},
		{Translate, SidesOf(Local, Inside), SidesOf(Outside, DMZ), true},
		{Translate, SidesOf(Local), any, true},
		{Translate, any, SidesOf(Local), true},
		{Translate, SidesOf(Inside), SidesOf(Inside), true}, // hairpins
		{Open, SidesOf(Inside), SidesOf(Local), true},
		{Open, any, any, true},
	} {
		_, err := compileRules(c.mode, []Rule{{From: c.from, To: c.to}})
		if r, ok := errors.AsType[*RuleError](err); ok == c.good || !c.good && r.Rule != 0 {
			t.Errorf("%v, from %v to %v: %v", c.mode, c.from, c.to, err)
		}
	}
}
