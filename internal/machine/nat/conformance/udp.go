package conformance

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// RFC 4787: UDP.
var udpRules = []Requirement{
	{Number: "REQ-1", Level: Must, Text: "one mapping for a host's port, whomever it sends to", check: udpMapping},
	{Number: "REQ-2", Level: Should, Text: "a host gets the same external address for everything", check: udpPooling},
	{Number: "REQ-3", Level: Must, Text: "no two hosts' ports share an external port", check: udpOverloading},
	{Number: "REQ-3a", Level: Should, Text: "well-known ports stay below 1024, others above", check: portRanges},
	{Number: "REQ-4", Level: Should, Text: "even ports stay even, odd ones odd", check: parity},
	{Number: "REQ-5", Level: Must, Text: "a mapping lives for two minutes without packets", check: udpLives(2 * time.Minute)},
	{Number: "REQ-5a", Level: May, Text: "shorter for well-known destination ports", Why: "a permission that this gateway does not use"},
	{Number: "REQ-5b", Level: May, Text: "that time can be configured", check: udpConfigured},
	{Number: "REQ-5c", Level: Should, Text: "it is five minutes or more", check: udpLives(5 * time.Minute)},
	{Number: "REQ-6", Level: Must, Text: "packets from inside keep a mapping alive", check: outboundRefresh},
	{Number: "REQ-6a", Level: May, Text: "so may packets from outside", check: inboundRefresh},
	{Number: "REQ-7", Level: Must, Text: "inside and outside prefixes do not conflict, or conflicts are translated",
		Why: "about how a router chooses its prefix; a topology with such prefixes is refused"},
	{Number: "REQ-8", Level: Should, Text: "the filter is endpoint-independent, or address-dependent", check: udpFiltering},
	{Number: "REQ-8a", Level: May, Text: "the filter can be configured", check: udpFilters},
	{Number: "REQ-9", Level: Must, Text: "hosts inside reach each other by external endpoints", check: udpHairpin(false)},
	{Number: "REQ-9a", Level: Must, Text: "and see each other's external endpoints", check: udpHairpin(true)},
	{Number: "REQ-10", Level: Should, Text: "no application level gateway meddles with payloads", check: udpPayload},
	{Number: "REQ-10a", Level: Should, Text: "each application level gateway can be switched alone", Why: "there is only one; alg switches it"},
	{Number: "REQ-11", Level: Must, Text: "mapping and filtering are the same at all times", check: deterministic},
	{Number: "REQ-12", Level: Must, Text: "no ICMP message ends a mapping", check: udpSurvivesICMP},
	{Number: "REQ-12a", Level: Should, Text: "ICMP is not filtered by its source address", check: udpErrorFromRouter},
	{Number: "REQ-12b", Level: Should, Text: "ICMP destination unreachable is translated", check: udpUnreachable},
	{Number: "REQ-13", Level: Must, Text: "who sends too large a packet that must not be cut is told so", check: tooBig},
	{Number: "REQ-13a", Level: Must, Text: "a packet that may be cut is cut, and leaves in order", check: cuts},
	{Number: "REQ-14", Level: Must, Text: "parts of packets pass in whatever order they come", check: partsInAnyOrder},
	{Number: "REQ-14a", Level: Must, Text: "a flood of parts does not keep others from passing", check: floodOfParts},
}

var (
	x  = ep(addrX, 5000)
	w  = ep(addrW, 5000) // another host, the same port
	y1 = ep(addrY, 3478)
	y2 = ep(addrY, 3479)
	z1 = ep(addrZ, 3478)
)

func udpMapping(t *trial) {
	b := t.bench(nil)
	first := b.udpOut(x, y1)
	t.want(b.udpOut(x, y1) == first, "the next packet to the same endpoint gets another mapping")
	t.want(b.udpOut(x, y2) == first, "another port gets another mapping")
	t.want(b.udpOut(x, z1) == first, "another address gets another mapping")
}

// pooled is a bench with several external addresses, with gaps between them.
func (t *trial) pooled(change func(*nat.Config)) (*bench, []netip.Addr) {
	var all []netip.Addr
	for i := range 5 {
		all = append(all, netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + 11*i)}))
	}
	return t.bench(func(c *nat.Config) {
		c.Own[nat.Outside] = all
		if change != nil {
			change(c)
		}
	}), all
}

func udpPooling(t *trial) {
	b, _ := t.pooled(nil)
	for n := range 20 {
		first := b.udpOut(ep(host(n), 6000), y1).Addr()
		for port := range uint16(10) {
			t.want(b.udpOut(ep(host(n), 7000+port), z1).Addr() == first, "a host gets several external addresses")
		}
	}
}

func udpOverloading(t *trial) {
	b := t.bench(nil)
	holder := map[netip.AddrPort]netip.AddrPort{}
	for n := range 20 {
		for port := range uint16(3) {
			in := ep(host(n), 5000+port)
			for _, to := range []netip.AddrPort{ep(addrY, 3478+uint16(n)), ep(addrZ, 3478+uint16(n))} {
				external := b.udpOut(in, to)
				if other, held := holder[external]; held && other != in {
					t.fail("two hosts share an external port")
				}
				holder[external] = in
			}
		}
	}
}

func portRanges(t *trial) {
	b := t.bench(nil)
	for n := range 3 { // the second host's ports are taken already
		t.want(b.udpOut(ep(host(n), 500), y1).Port() < 1024, "a well-known port becomes another")
		t.want(b.udpOut(ep(host(n), 5000), y1).Port() >= 1024, "a port above 1023 becomes a well-known one")
	}
}

func parity(t *trial) {
	b := t.bench(nil)
	for n := range 10 {
		for port := range uint16(4) {
			t.want(b.udpOut(ep(host(n), 5000+port), y1).Port()%2 == port%2, "an even port becomes odd, or an odd one even")
		}
	}
}

func udpLives(d time.Duration) func(*trial) {
	return func(t *trial) {
		b := t.bench(nil)
		external := b.udpOut(x, y1)
		b.wait(d - time.Millisecond)
		t.want(b.udpIn(y1, external, x), "the mapping is gone before "+say(d)+" are over")
	}
}

func say(d time.Duration) string {
	switch d {
	case time.Minute:
		return "60 seconds"
	case 2 * time.Minute:
		return "two minutes"
	case 4 * time.Minute:
		return "four minutes"
	case 5 * time.Minute:
		return "five minutes"
	}
	return d.String()
}

func udpConfigured(t *trial) {
	t.b.Timers.UDP, t.b.Timers.UDPRefresh = 20*time.Minute, nat.RefreshOutbound
	b := t.bench(nil)
	external := b.udpOut(x, y1)
	b.udpIn(y1, external, x) // for who tells answered mappings from others
	b.wait(20*time.Minute - time.Millisecond)
	t.want(b.udpIn(y1, external, x), "a mapping dies before its time")
	b.wait(2 * time.Millisecond)
	t.want(!b.udpIn(y1, external, x), "a mapping outlives its time")
}

func outboundRefresh(t *trial) {
	b := t.bench(nil)
	external := b.udpOut(x, y1)
	for range 60 {
		b.wait(15 * time.Second)
		t.want(b.udpOut(x, y1) == external, "a mapping dies though its host sends")
	}
	t.want(b.udpIn(y1, external, x), "a mapping dies though its host sends")
}

func inboundRefresh(t *trial) {
	t.b.Timers.UDPRefresh = nat.RefreshBoth
	b := t.bench(nil)
	external := b.udpOut(x, y1)
	for range 60 {
		b.wait(15 * time.Second)
		t.want(b.udpIn(y1, external, x), "a mapping dies though it gets packets")
	}
}

func udpFiltering(t *trial) {
	b := t.bench(nil)
	external := b.udpOut(x, y1)
	t.want(b.udpIn(y1, external, x), "the answer does not come in")
	t.want(b.udpIn(y2, external, x), "another port of an address that was sent to does not come in")
}

// filters tries every filter; open says whether z, and another port of y, get
// through one.
func (t *trial) filters(set func(nat.Dependence), open func() (stranger, otherPort bool)) {
	for _, d := range []nat.Dependence{nat.EndpointIndependent, nat.AddressDependent, nat.AddressAndPortDependent} {
		set(d)
		stranger, otherPort := open()
		t.want(stranger == (d == nat.EndpointIndependent) && otherPort == (d != nat.AddressAndPortDependent),
			"a filter that is set is not the one that filters")
	}
}

func udpFilters(t *trial) {
	t.b.Ports.Overload = false // which wants a strict filter
	t.filters(func(d nat.Dependence) { t.b.Filtering = d }, func() (bool, bool) {
		b := t.bench(nil)
		external := b.udpOut(x, y1)
		return b.udpIn(z1, external, x), b.udpIn(y2, external, x)
	})
}

func udpHairpin(source bool) func(*trial) {
	return func(t *trial) {
		b := t.bench(nil)
		target := b.udpOut(w, y1)
		mine := b.udpOut(x, y1)
		b.send(nat.Inside, udp(w, mine)) // opens the filter, if there is one
		d, ok := one(b.send(nat.Inside, udp(x, target)))
		t.want(ok && d.to == nat.Inside && d.Dst == w && string(d.Payload()) == string(hello), "no hairpinning")
		if source {
			t.want(d.Src.Addr() == ours, "the source is the internal one")
		}
	}
}

// mentions is a payload with internal endpoints in it, in binary and as text.
func mentions(in netip.AddrPort, external netip.AddrPort) string {
	text := in.String() + " " + external.String()
	for _, e := range []netip.AddrPort{in, external} {
		a := e.Addr().As4()
		text += string(a[:]) + string([]byte{byte(e.Port() >> 8), byte(e.Port())})
	}
	return text
}

func udpPayload(t *trial) {
	b := t.bench(nil)
	external := b.udpOut(x, y1)
	payload := []byte(mentions(x, external))
	d, ok := b.out(ip.AppendUDP(nil, x, y1, 64, payload))
	t.want(ok && string(d.Payload()) == string(payload), "a payload that names an endpoint is changed on its way out")
	d, ok = b.in(ip.AppendUDP(nil, y1, external, 64, payload))
	t.want(ok && string(d.Payload()) == string(payload), "a payload that names an endpoint is changed on its way in")
}

// kind is which packets share a mapping, and who may answer.
type kind struct{ port, address, otherPort, stranger bool }

func (b *bench) kind(x netip.AddrPort) (k kind) {
	first := b.udpOut(x, y1)
	k.otherPort, k.stranger = b.udpIn(y2, first, x), b.udpIn(z1, first, x)
	k.port = b.udpOut(x, y2) == first
	k.address = b.udpOut(x, z1) == first
	return k
}

func deterministic(t *trial) {
	b := t.bench(nil)
	first := b.kind(x)
	t.want(b.kind(w) == first, "the second host with the same port gets another kind of mapping")
	b.wait(24 * time.Hour)
	t.want(b.kind(x) == first, "a day later the mapping is of another kind")
}

// icmpAbout are ICMP messages about a packet, most of them errors.
func icmpAbout(from, to netip.Addr, pkt []byte) (all [][]byte) {
	quoted := pkt[:28]
	for code := range byte(16) {
		all = append(all, icmp(from, to, 3, code, 0, quoted))
	}
	for _, m := range [][2]byte{{4, 0}, {5, 1}, {11, 0}, {11, 1}, {12, 0}, {13, 0}, {15, 0}, {17, 0}} {
		all = append(all, icmp(from, to, m[0], m[1], 0, quoted))
	}
	return all
}

func udpSurvivesICMP(t *trial) {
	b := t.bench(nil)
	d, ok := b.out(udp(x, y1))
	t.gets(ok, errNoUDP)
	external := d.Src
	for _, from := range []netip.Addr{addrR, addrY} {
		for _, m := range icmpAbout(from, ours, d.Data) {
			b.send(nat.Outside, m)
		}
	}
	t.want(b.udpIn(y1, external, x) && b.udpOut(x, y1) == external, "an ICMP message ends a mapping")
}

func udpErrorFromRouter(t *trial) {
	b := t.bench(nil)
	d, ok := b.out(udp(x, y1))
	t.gets(ok, errNoUDP)
	for _, from := range []netip.Addr{addrR, addrZ, addrY} {
		e, ok := b.in(unreachable(from, ours, 1, d.Data))
		t.want(ok && e.Src.Addr() == from, "an error from a router on the way does not get in")
	}
}

func udpUnreachable(t *trial) {
	b := t.bench(nil)
	d, ok := b.out(udp(x, y1))
	t.gets(ok, errNoUDP)
	for code := range byte(16) {
		b.translated(unreachable(addrR, ours, code, d.Data), 3, code, x, y1)
	}
}

// translated: an ICMP error reaches the sender of the packet that it quotes,
// which looks as when it was sent.
func (b *bench) translated(pkt []byte, typ, code byte, x, y netip.AddrPort) delivery {
	d, ok := b.in(pkt)
	b.want(ok && isICMP(d, typ, code) && d.Dst.Addr() == x.Addr(), "an ICMP error does not get in")
	q, ok := quote(d)
	b.want(ok && q.Src == x && q.Dst == y, "an ICMP error quotes a packet that its receiver never sent")
	b.want(sum(q.Data[:int(q.Data[0]&15)*4], 0) == 0xffff, "an ICMP error quotes a packet with a wrong checksum")
	return d
}
