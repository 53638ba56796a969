package conformance

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// RFC 5508: ICMP.
var icmpRules = []Requirement{
	{Number: "REQ-1", Level: Must, Text: "queries get out, and their answers in", check: queries},
	{Number: "REQ-1a", Level: Should, Text: "an identifier's mapping is the same for every remote host", check: queryMapping},
	{Number: "REQ-2", Level: Must, Text: "a query's session lives for 60 seconds", check: queryLives},
	{Number: "REQ-2a", Level: Should, Text: "that time can be configured", check: queryConfigured},
	{Number: "REQ-3", Level: Should, Text: "an error with a wrong checksum is dropped", check: wrongSum},
	{Number: "REQ-3a", Level: Should, Text: "so is one that quotes a packet with a wrong IP checksum", check: wrongQuotedSum},
	{Number: "REQ-3b", Level: Must, Text: "IP options in the quoted packet are skipped", check: quotedOptions},
	{Number: "REQ-3c", Level: Should, Text: "the quoted packet's transport checksum is not judged", check: quotedTransportSum},
	{Number: "REQ-3d", Level: Must, Text: "extensions behind the quoted packet are left out of its checksum", check: extensions},
	{Number: "REQ-4", Level: Should, Text: "an error from outside about nothing that is known is dropped", check: strangeErrorIn},
	{Number: "REQ-4a", Level: Must, Text: "in one that is let in, the quoted packet is as it was sent", check: errorIn},
	{Number: "REQ-4b", Level: Must, Text: "type and code stay", check: errorIn},
	{Number: "REQ-4c", Level: Must, Text: "it goes to who sent the quoted packet", check: errorIn},
	{Number: "REQ-5", Level: Should, Text: "an error from inside about nothing that is known is dropped", check: strangeErrorOut},
	{Number: "REQ-5a", Level: Must, Text: "in one that is let out, the quoted packet is as it was sent", check: errorOut},
	{Number: "REQ-5b", Level: Must, Text: "type and code stay", check: errorOut},
	{Number: "REQ-5c", Level: Must, Text: "its source is the gateway, or with Basic NAT the external address of who sent it", check: errorOutSource},
	{Number: "REQ-6", Level: Must, Text: "an error about a query neither refreshes nor ends its session", check: errorAboutQuery},
	{Number: "REQ-7", Level: Must, Text: "errors about hairpinned packets come back, with Basic NAT queries are hairpinned too", check: hairpinnedError},
	{Number: "REQ-7a", Level: Must, Text: "such an error goes to who sent the quoted packet", check: hairpinnedError},
	{Number: "REQ-8", Level: Should, Text: "who gets no session for lack of room is told: administratively prohibited", check: noRoom},
	{Number: "REQ-9", Level: May, Text: "policy can keep ICMP from some interfaces", check: noPings},
	{Number: "REQ-10a.1", Level: Must, Text: "destination unreachable is supported", check: udpUnreachable},
	{Number: "REQ-10a.2", Level: Must, Text: "time exceeded is", check: timeExceeded},
	{Number: "REQ-10a.3", Level: Must, Text: "echo requests and replies are, as REQ-1 wants them", check: queries},
	{Number: "REQ-10b", Level: May, Text: "redirects, timestamps, source routes, address masks, parameter problems, router discovery",
		Why: "a permission; of these, only parameter problems are translated"},
	{Number: "section 7.3", Level: Should, Text: "who does not translate source routes lets no ICMP out that has one, or quotes one", check: sourceRoutes},
	{Number: "REQ-10c", Level: Should, Text: "source quench and information requests are not supported", check: obsolete},
	{Number: "REQ-10d", Level: Should, Text: "the gateway's errors have the diffserv class of what they are about", check: classes},
	{Number: "REQ-10e", Level: Should, Text: "no errors about errors, multicast and later parts", check: unanswerable},
	{Number: "REQ-10f", Level: Should, Text: "the gateway's errors are limited in rate", check: rateLimit},
	{Number: "REQ-11", Level: May, Text: "other ICMP messages may be dropped", Why: "a permission; they are dropped"},
}

const id = 4242

func queries(t *trial) {
	b := t.bench(nil)
	external := b.echo(addrX, addrY, id)
	t.want(b.echoed(addrY, external, addrX, id), "the reply to a ping does not get in")
}

func queryMapping(t *trial) {
	b := t.bench(nil)
	t.want(b.echo(addrX, addrY, id) == b.echo(addrX, addrZ, id), "another remote host gets another mapping")
}

func queryLives(t *trial) {
	b := t.bench(nil)
	external := b.echo(addrX, addrY, id)
	b.wait(time.Minute - moment)
	t.want(b.echoed(addrY, external, addrX, id), "a query's session is gone before 60 seconds are over")
}

func queryConfigured(t *trial) {
	t.b.Timers.ICMP = 10 * time.Minute
	b := t.bench(nil)
	external := b.echo(addrX, addrY, id)
	b.wait(10*time.Minute - moment)
	t.want(b.echoed(addrY, external, addrX, id), "a query's session dies before its time")
	b.wait(10*time.Minute + moment)
	t.want(!b.echoed(addrY, external, addrX, id), "a query's session outlives its time")
}

// sent is a UDP packet as it left.
func (b *bench) sent() delivery {
	d, ok := b.out(udp(x, y1))
	b.gets(ok, errNoUDP)
	return d
}

func wrongSum(t *trial) {
	b := t.bench(nil)
	e := unreachable(addrR, ours, 3, b.sent().Data)
	e[22] ^= 1
	t.want(len(b.send(nat.Outside, e)) == 0, "an error with a wrong checksum gets in")
}

func wrongQuotedSum(t *trial) {
	b := t.bench(nil)
	quoted := slices.Clone(b.sent().Data)
	quoted[10] ^= 1
	t.want(len(b.send(nat.Outside, unreachable(addrR, ours, 3, quoted))) == 0, "an error that quotes a wrong IP checksum gets in")
}

func quotedOptions(t *trial) {
	b := t.bench(nil)
	quoted := withOptions(b.sent().Data, []byte{7, 7, 4, 0, 0, 0, 0, 0}) // an empty record of the route
	b.translated(unreachable(addrR, ours, 3, quoted), 3, 3, x, y1)
}

func quotedTransportSum(t *trial) {
	b := t.bench(nil)
	quoted := slices.Clone(b.sent().Data)
	quoted[26] ^= 0x55
	b.translated(unreachable(addrR, ours, 3, quoted), 3, 3, x, y1)
	b.translated(icmp(addrR, ours, 3, 3, 0, quoted), 3, 3, x, y1) // the whole packet, where it could be judged
}

// extensions: RFC 4884 pads the quoted packet to 128 bytes and puts extensions
// behind it.
func extensions(t *trial) {
	b := t.bench(nil)
	payload := []byte("a payload of 24 bytes...")
	d, ok := b.out(ip.AppendUDP(nil, x, y1, 64, payload))
	t.gets(ok, errNoUDP)
	object := []byte{0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0x3e, 0x81, 0xff} // an MPLS label stack (RFC 4950)
	binary.BigEndian.PutUint16(object[2:], ^sum(object, 0))
	body := slices.Concat(d.Data, make([]byte, 128-len(d.Data)), object)
	e := b.translated(icmp(addrR, ours, 11, 0, 32<<16, body), 11, 0, x, y1)
	in := e.Transport()[8:]
	t.want(len(in) == len(body) && string(in[128:]) == string(object), "the extensions of an error are changed")
	quoted := in[:52]
	t.want(sums(quoted) == nil, "an error quotes a packet with a wrong transport checksum")
}

func strangeErrorIn(t *trial) {
	b := t.bench(nil)
	b.sent()
	for _, quoted := range [][]byte{
		udp(ep(ours, 44444), y1),
		ip.AppendTCP(nil, ep(ours, 44444), web1, 64, &ip.Segment{Flags: ip.SYN}),
		ip.AppendEcho(nil, ours, addrY, 64, ip.EchoRequest, 44444, 1, hello),
	} {
		t.want(len(b.send(nat.Outside, unreachable(addrR, ours, 3, quoted))) == 0, "an error about a packet that nobody sent is not dropped")
	}
}

func errorIn(t *trial) {
	b := t.bench(nil)
	d := b.sent()
	for _, m := range [][2]byte{{3, 1}, {3, 3}, {3, 13}, {11, 0}, {11, 1}, {12, 0}} {
		b.translated(icmp(addrR, ours, m[0], m[1], 0, d.Data[:28]), m[0], m[1], x, y1)
	}
	external := b.echo(addrX, addrY, id)
	ping := ip.AppendEcho(nil, ours, addrY, 60, ip.EchoRequest, external.Port(), 1, hello)
	e, ok := b.in(unreachable(addrR, ours, 1, ping))
	t.want(ok && isICMP(e, 3, 1) && e.Dst.Addr() == addrX, "an error about a ping does not get in")
	q, ok := quote(e)
	t.want(ok && q.Src == ep(addrX, id) && q.Dst.Addr() == addrY, "an error quotes a ping that its receiver never sent")
}

func strangeErrorOut(t *trial) {
	b := t.bench(nil)
	t.want(len(b.send(nat.Inside, unreachable(addrX, addrY, 3, udp(y1, x)))) == 0, "an error about a packet that never came is not dropped")
}

// answered is a packet from y as it reached x, and x's external endpoint.
func (b *bench) answered() (delivery, netip.AddrPort) {
	external := b.udpOut(x, y1)
	d, ok := b.in(udp(y1, external))
	b.want(ok, "the answer does not come in")
	return d, external
}

func errorOut(t *trial) {
	b := t.bench(nil)
	d, external := b.answered()
	for _, m := range [][2]byte{{3, 3}, {3, 1}, {11, 1}, {12, 0}} {
		e, ok := b.out(icmp(addrX, addrY, m[0], m[1], 0, d.Data[:28]))
		t.want(ok && isICMP(e, m[0], m[1]) && e.Dst.Addr() == addrY, "an error about a packet that came in does not get out")
		q, ok := quote(e)
		t.want(ok && q.Src == y1 && q.Dst == external, "an error quotes a packet that its receiver never sent")
		t.want(sum(q.Data[:20], 0) == 0xffff, "an error quotes a packet with a wrong checksum")
	}
}

func errorOutSource(t *trial) {
	b := t.bench(nil)
	d, _ := b.answered()
	for _, from := range []netip.Addr{addrX, host(50)} { // the receiver, and a router before it
		e, ok := b.out(unreachable(from, addrY, 1, d.Data))
		t.want(ok && e.Src.Addr() == ours, "an error leaves with another source than the gateway's address")
	}
	public := netip.MustParseAddr("198.51.100.50")
	b = t.bench(func(c *nat.Config) {
		c.Static = []nat.Static{{Internal: host(50), External: public}}
	})
	d, _ = b.answered()
	e, ok := b.out(unreachable(host(50), addrY, 1, d.Data))
	t.want(ok && e.Src.Addr() == public, "an error of a host with an external address of its own has another source")
}

func errorAboutQuery(t *trial) {
	life := t.b.Timers.ICMP
	if life == 0 {
		life = time.Minute
	}
	b := t.bench(nil)
	external := b.echo(addrX, addrY, id)
	about := unreachable(addrR, ours, 1, ip.AppendEcho(nil, ours, addrY, 60, ip.EchoRequest, external.Port(), 1, hello))
	b.wait(life * 9 / 10)
	b.send(nat.Outside, slices.Clone(about))
	t.want(b.echoed(addrY, external, addrX, id), "an error ends a query's session")

	b = t.bench(nil)
	external = b.echo(addrX, addrY, id)
	b.wait(life * 9 / 10)
	b.send(nat.Outside, slices.Clone(about))
	b.wait(life * 2 / 10)
	t.want(!b.echoed(addrY, external, addrX, id), "an error keeps a query's session alive")
}

// hairpinnedError: x sends to w by its external endpoint, w answers with an
// error.
func hairpinnedError(t *trial) {
	b := t.bench(nil)
	target := b.udpOut(w, y1)
	mine := b.udpOut(x, y1)
	b.send(nat.Inside, udp(w, mine))
	d, ok := one(b.send(nat.Inside, udp(x, target)))
	t.want(ok && d.to == nat.Inside && d.Dst == w, "no hairpinning")
	if d.Src.Addr() == ours { // otherwise the error goes straight to x
		e, ok := one(b.send(nat.Inside, unreachable(addrW, ours, 3, d.Data)))
		t.want(ok && e.to == nat.Inside && isICMP(e, 3, 3) && e.Dst.Addr() == addrX, "an error about a hairpinned packet does not come back")
		q, ok := quote(e)
		t.want(ok && q.Src == x && q.Dst == target, "an error about a hairpinned packet quotes another")
	}

	public := netip.MustParseAddr("198.51.100.50")
	b = t.bench(func(c *nat.Config) { c.Static = []nat.Static{{Internal: addrW, External: public}} })
	d, ok = one(b.send(nat.Inside, ip.AppendEcho(nil, addrX, public, 64, ip.EchoRequest, id, 1, hello)))
	t.want(ok && d.to == nat.Inside && d.Kind == ip.EchoRequest && d.Dst.Addr() == addrW, "a ping is not hairpinned to a host with an external address of its own")
	d, ok = one(b.send(nat.Inside, ip.AppendEcho(nil, addrW, d.Src.Addr(), 64, ip.EchoReply, d.Src.Port(), 1, hello)))
	t.want(ok && d.to == nat.Inside && d.Kind == ip.EchoReply && d.Dst == ep(addrX, id), "the reply to a hairpinned ping does not come back")
}

func noRoom(t *trial) {
	b := t.bench(func(c *nat.Config) { c.MaxMappings = 2 })
	b.udpOut(x, y1)
	b.udpOut(ep(addrX, 5002), y1)
	for _, pkt := range [][]byte{
		udp(ep(addrX, 5004), y1),
		ip.AppendTCP(nil, ep(addrX, 5004), y1, 64, &ip.Segment{Flags: ip.SYN, Window: 1000}),
		ip.AppendEcho(nil, addrX, addrY, 64, ip.EchoRequest, 5004, 1, hello),
	} {
		d, ok := one(b.send(nat.Inside, pkt))
		t.want(ok && d.to == nat.Inside && d.Dst.Addr() == addrX, "who gets no session is not told")
		// RFC 6888 REQ-11b has another code for carrier NATs.
		t.want(isICMP(d, 3, 13) || isICMP(d, 3, 1) && Carrier(t.b), "who gets no session is told something else")
		q, ok := quote(d)
		t.want(ok && q.Src == ep(addrX, 5004) && q.Dst.Addr() == addrY, "who gets no session is told about another packet")
	}
}
