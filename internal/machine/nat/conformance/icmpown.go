package conformance

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// RFC 5508 section 7: ICMP messages that the gateway sends itself.

func noPings(t *trial) {
	t.b.ICMP.NoPing = true
	b := t.bench(nil)
	ping := ip.AppendEcho(nil, addrY, ours, 64, ip.EchoRequest, id, 1, hello)
	for _, d := range b.send(nat.Outside, ping) {
		t.want(d.Kind != ip.EchoReply, "a ping is answered against policy")
	}
}

// lastHop is a UDP packet from x that does not get any further.
func lastHop() []byte { return ip.AppendUDP(nil, x, y1, 1, hello) }

func timeExceeded(t *trial) {
	b := t.bench(nil)
	external := b.udpOut(x, y1)
	d, ok := one(b.send(nat.Inside, lastHop()))
	t.want(ok && d.to == nat.Inside && isICMP(d, 11, 0) && d.Src.Addr() == insideOwn && d.Dst.Addr() == addrX, "no time exceeded to the inside")
	q, ok := quote(d)
	t.want(ok && q.Src == x && q.Dst == y1, "time exceeded quotes another packet")
	d, ok = one(b.send(nat.Outside, ip.AppendUDP(nil, y1, external, 1, hello)))
	t.want(ok && d.to == nat.Outside && isICMP(d, 11, 0) && d.Src.Addr() == ours && d.Dst.Addr() == addrY, "no time exceeded to the outside")
	q, ok = quote(d)
	t.want(ok && q.Src == y1 && q.Dst == external, "time exceeded quotes another packet")
	// One from the way on is translated.
	b.translated(icmp(addrR, ours, 11, 0, 0, b.sent().Data[:28]), 11, 0, x, y1)
}

func obsolete(t *trial) {
	b := t.bench(nil)
	t.want(len(b.send(nat.Outside, icmp(addrR, ours, 4, 0, 0, b.sent().Data[:28]))) == 0, "a source quench gets in")
	t.want(len(b.send(nat.Inside, icmp(addrX, addrY, 15, 0, id<<16, nil))) == 0, "an information request gets out")
	t.want(len(b.send(nat.Inside, icmp(addrX, ours, 15, 0, id<<16, nil))) == 0, "an information request is answered")
}

// classes: an error travels as well as what it is about.
func classes(t *trial) {
	b := t.bench(nil)
	for _, ds := range []byte{0, 0x28, 0xb8, 0xbb} { // best effort, AF11, EF, and that with ECN
		pkt := lastHop()
		pkt[1] = ds
		d, ok := one(b.send(nat.Inside, fixHeader(pkt)))
		t.want(ok && isICMP(d, 11, 0), "no time exceeded to the inside")
		t.want(d.Data[1]&0xfc == ds&0xfc, "an error has another diffserv class than the packet that it is about")
	}
}

func unanswerable(t *trial) {
	b := t.bench(nil)
	about := func(pkt []byte) {
		pkt[8] = 1 // TTL
		t.want(len(b.send(nat.Inside, fixHeader(pkt))) == 0, "an error is sent about a packet that must not have one")
	}
	about(unreachable(addrX, addrY, 3, udp(y1, x)))
	about(udp(x, ep(netip.MustParseAddr("224.0.1.1"), 5000)))
	about(udp(x, ep(netip.MustParseAddr("255.255.255.255"), 5000)))
	about(udp(ep(netip.IPv4Unspecified(), 5000), y1))
	about(cut(divisible(udp(x, y1), 3), 16)[1])
}

// sourceRoutes: they would tell of addresses inside.
func sourceRoutes(t *trial) {
	b := t.bench(nil)
	d, _ := b.answered()
	b.echo(addrX, addrY, id)
	for _, option := range []byte{131, 137} { // loose, strict
		route := []byte{option, 7, 8, 10, 0, 9, 9, 0}
		ping := withOptions(ip.AppendEcho(nil, addrX, addrY, 64, ip.EchoRequest, id, 2, hello), route)
		_, ok := b.out(ping)
		t.want(!ok, "a ping with a source route gets out")
		_, ok = b.out(withOptions(unreachable(addrX, addrY, 3, d.Data), route))
		t.want(!ok, "an error with a source route gets out")
		_, ok = b.out(unreachable(addrX, addrY, 3, withOptions(d.Data, route)))
		t.want(!ok, "an error that quotes a source route gets out")
	}
}

func rateLimit(t *trial) {
	b := t.bench(nil)
	n := 0
	const packets = 5000
	for range packets {
		n += len(b.send(nat.Inside, lastHop()))
	}
	t.want(n > 0, "no time exceeded to the inside")
	t.want(n < packets/2, "thousands of errors are sent in no time")
}
