package conformance

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Who is where. x and others are hosts inside, y and z outside, r is a router
// between the gateway and y.
var (
	addrX = netip.MustParseAddr("10.0.0.1")
	addrW = netip.MustParseAddr("10.0.0.2")
	addrY = netip.MustParseAddr("192.0.2.1")
	addrZ = netip.MustParseAddr("192.0.2.9")
	addrR = netip.MustParseAddr("203.0.113.254")

	insidePrefix = netip.MustParsePrefix("10.0.0.0/16")
	insideOwn    = netip.MustParseAddr("10.0.255.1")
	ours         = netip.MustParseAddr("198.51.100.1")
)

func ep(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// host is the n-th host inside: x, w and on.
func host(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, byte((n + 1) >> 8), byte(n + 1)})
}

// bench is a gateway with packets going in and out.
type bench struct {
	*trial
	g     gateway
	now   time.Time
	later []delivery // what came out by itself while time went on
}

// delivery is a packet that came out of the gateway.
type delivery struct {
	to  nat.Side
	own bool // the gateway's own packet, or one that it kept before
	ip.Packet
}

// bench starts a gateway; change may be nil.
func (t *trial) bench(change func(*nat.Config)) *bench {
	cfg := nat.Config{
		Behaviour: t.b,
		Inside:    []netip.Prefix{insidePrefix},
		Rand:      rand.NewPCG(4787, 5382),
	}
	cfg.Own[nat.Inside] = []netip.Addr{insideOwn}
	cfg.Own[nat.Outside] = []netip.Addr{ours}
	if change != nil {
		change(&cfg)
	}
	g, err := t.make(cfg)
	if err != nil {
		t.fail("there is no such gateway: %v", err)
	}
	return &bench{trial: t, g: g, now: begin}
}

// begin is when every trial does.
var begin = time.Unix(1_000_000, 0)

// send gives the gateway a packet and returns everything that comes out.
func (b *bench) send(from nat.Side, pkt []byte) []delivery {
	v := b.g.Handle(b.now, from, pkt, nat.Offload{})
	var out []delivery
	if v.Action == nat.Forward {
		out = append(out, b.take(v.To, pkt, false))
	}
	return append(out, b.poll()...)
}

func (b *bench) poll() (all []delivery) {
	for {
		o, ok := b.g.Poll()
		if !ok {
			return all
		}
		all = append(all, b.take(o.To, append([]byte(nil), o.Packet...), true))
	}
}

// take looks at a packet that comes out: no gateway may break checksums.
func (b *bench) take(to nat.Side, pkt []byte, own bool) delivery {
	d := delivery{to: to, own: own}
	if err := d.Decode(pkt); err != nil {
		b.fail("a packet comes out malformed: %v", err)
	}
	if err := sums(d.Data); err != nil {
		b.fail("%v", err)
	}
	return d
}

// wait lets time pass, with everything that is due in it.
func (b *bench) wait(d time.Duration) {
	end := b.now.Add(d)
	for {
		next, ok := b.g.NextTimeout()
		if !ok || next.After(end) {
			break
		}
		if next.After(b.now) {
			b.now = next
		}
		b.g.HandleTimeout(b.now)
		b.later = append(b.later, b.poll()...)
		if again, ok := b.g.NextTimeout(); ok && !again.After(b.now) {
			b.fail("the gateway is never done with what is due")
		}
	}
	b.now = end
	b.g.HandleTimeout(b.now)
	b.later = append(b.later, b.poll()...)
}

// one is the only packet that comes out for a packet that goes in.
func one(all []delivery) (d delivery, ok bool) {
	if len(all) != 1 {
		return delivery{}, false
	}
	return all[0], true
}

// out sends a packet from inside to outside, and returns what it became.
func (b *bench) out(pkt []byte) (delivery, bool) {
	d, ok := one(b.send(nat.Inside, pkt))
	return d, ok && d.to == nat.Outside && !(d.own && d.Kind == ip.Error)
}

// in sends a packet from outside, and returns what reaches the inside.
func (b *bench) in(pkt []byte) (delivery, bool) {
	d, ok := one(b.send(nat.Outside, pkt))
	return d, ok && d.to == nat.Inside
}

// hello is what UDP packets carry, unless something else is asked for.
var hello = []byte("hello, world")

func udp(src, dst netip.AddrPort) []byte { return ip.AppendUDP(nil, src, dst, 64, hello) }

// udpOut sends a packet from x to y, and returns its source outside.
func (b *bench) udpOut(x, y netip.AddrPort) netip.AddrPort {
	d, ok := b.out(udp(x, y))
	b.gets(ok, errNoUDP)
	b.want(d.Dst == y && string(d.Payload()) == string(hello), "a UDP packet comes out as another")
	return d.Src
}

// udpIn says whether a packet from y gets to x when sent to external.
func (b *bench) udpIn(y, external, x netip.AddrPort) bool {
	d, ok := b.in(udp(y, external))
	if !ok {
		return false
	}
	b.want(d.Src == y && d.Dst == x && string(d.Payload()) == string(hello), "a UDP packet gets to another host than it should")
	return true
}

// echo sends an ICMP query from x to y, and returns its identifier outside.
func (b *bench) echo(x, y netip.Addr, id uint16) netip.AddrPort {
	d, ok := b.out(ip.AppendEcho(nil, x, y, 64, ip.EchoRequest, id, 1, hello))
	b.gets(ok, errNoPing)
	b.want(d.Kind == ip.EchoRequest && d.Dst.Addr() == y, "a ping comes out as something else")
	return d.Src
}

// echoed says whether y's reply to a ping gets to x.
func (b *bench) echoed(y netip.Addr, external netip.AddrPort, x netip.Addr, id uint16) bool {
	d, ok := b.in(ip.AppendEcho(nil, y, external.Addr(), 64, ip.EchoReply, external.Port(), 1, hello))
	if !ok {
		return false
	}
	b.want(d.Kind == ip.EchoReply && d.Src.Addr() == y && d.Dst == ep(x, id), "an echo reply gets to another host than it should")
	return true
}

// sums checks the checksums of a whole packet, plainly.
func sums(pkt []byte) error {
	hl := int(pkt[0]&15) * 4
	if pkt[0]>>4 != 4 {
		return nil
	}
	if sum(pkt[:hl], 0) != 0xffff {
		return fmt.Errorf("a packet comes out with a wrong IP checksum")
	}
	if pkt[6]&0x3f != 0 || pkt[7] != 0 { // a fragment
		return nil
	}
	body := pkt[hl:]
	var pseudo uint32
	switch pkt[9] {
	case 6, 17:
		if pkt[9] == 17 && body[6] == 0 && body[7] == 0 {
			return nil
		}
		for i := 12; i < 20; i += 2 {
			pseudo += uint32(pkt[i])<<8 | uint32(pkt[i+1])
		}
		pseudo += uint32(pkt[9]) + uint32(len(body))
	case 1:
	default:
		return nil
	}
	if sum(body, pseudo) != 0xffff {
		return fmt.Errorf("a packet comes out with a wrong transport checksum")
	}
	return nil
}

// sum is the one's complement sum of RFC 1071.
func sum(b []byte, s uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}
