package netns

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	build "github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// receive takes what a device has sent, which lies in the wire's buffer.
func (w *wire) receive(d *device, now int64, buf []byte) {
	if d.gateway != nil {
		w.handle(d.gateway, nat.Local, now, buf)
		return
	}
	p := d.port
	switch etherType(buf) {
	case typeARP:
		w.resolve(p, now, buf)
	case typeIPv4, typeIPv6:
		v, ok := parse(buf)
		if !ok {
			return
		}
		if v.src != p.flow.Src {
			p.network.learn(p, v.src, etherSrc(buf), false)
		}
		if target, ok := v.solicited(); ok && w.advertise(p, &v, target) {
			return
		}
		if p.firewall == nil || w.letOut(p, now, &v) {
			w.carry(p, now, &v)
		}
		if p.firewall != nil {
			w.pollFirewall(p, now)
		}
	}
}

// carry takes a packet that a port gives to its network. Without a destination
// in the Ethernet header the network finds one.
func (w *wire) carry(p *wirePort, now int64, v *view) {
	n := p.network
	flow := Flow{n.name, v.src, v.dst, v.proto}
	if p.count == nil || p.flow != flow {
		p.flow, p.count = flow, n.flow(flow)
	}
	count := p.count // the port's next packet may be on its way before this one has arrived
	packets, size := v.onWire()
	count.Add(packets, size)
	p.sent.Add(packets, size)
	hw := etherDst(v.buf)
	var to *wirePort
	group := isGroup(hw) || isEveryone(v.dst)
	if group && !isGroup(hw) {
		hw = groupMAC(v.dst)
	} else if !group {
		to, hw = p.wayTo(hw, v.dst)
	}
	copy(v.buf[vnetLen:], hw[:])
	if n.capture != nil {
		n.capture.add(p, v, w.scratch)
	}
	switch {
	case w.isCut(flow), group && n.name == scenario.Internet && !v.managesLinks(): // no router passes those on
		p.drop(count, packets, size)
	case group:
		w.flood(p, count, now, v)
	case to == nil || to == p:
		p.drop(count, packets, size)
	case n.hops > 0 && !v.dst.IsLinkLocalUnicast() && !v.hop(n.hops):
		p.drop(count, packets, size)
		w.expire(p, now, v)
	default:
		w.send(transit{from: p, to: to, on: n, count: count}, now, v)
	}
}

// flood sends a packet to everyone else.
func (w *wire) flood(p *wirePort, count *Count, now int64, v *view) {
	for _, q := range p.network.ports {
		switch {
		case q == p:
		case q.gateway == nil:
			w.send(transit{from: p, to: q, on: p.network, count: count}, now, v)
		default: // who edits what it gets
			c := w.take(v.buf)
			if copied, ok := parse(c.buf); ok {
				w.send(transit{from: p, to: q, on: p.network, count: count}, now, &copied)
			}
			w.recycle(c)
		}
	}
}

// send passes the up lane of who sends and leaves the down lane of who receives
// for later.
func (w *wire) send(q transit, now int64, v *view) {
	up, down, largest := &q.from.up, &q.to.down, v.largest()
	if up.ideal(largest) && down.ideal(largest) {
		q.n, q.size = v.onWire()
		w.arrive(&q, now, v.buf)
		return
	}
	// Of a burst that is too large, the last may fit.
	if v.gsoSize == 0 || up.plain() && down.plain() && largest <= min(up.mtu(), down.mtu()) {
		q.n, q.size = v.onWire()
		q.large = largest
		w.admit(now, v.buf, q)
		return
	}
	v.segments(w.scratch, func(segment []byte) {
		q.n, q.size = 1, len(segment)-room
		q.large = q.size
		w.admit(now, segment, q)
	})
}

func (w *wire) admit(now int64, buf []byte, q transit) {
	out, times := q.from.up.admit(now, q.size, q.large, w.rng)
	if times == 0 {
		q.drop()
	}
	for i, at := range out[:times] {
		switch {
		case q.to.down.link.Rate != 0:
			w.hold(at, buf, q)
		// What arrives later at a transmitter without a queue meets no other.
		case i == times-1:
			w.admitDown(at, now, buf, q)
		default: // who gets it may edit it
			c := w.take(buf)
			w.admitDown(at, now, c.buf, q)
			w.recycle(c)
		}
	}
}

// admitDown passes the down lane at a time that need not have come.
func (w *wire) admitDown(at, now int64, buf []byte, q transit) {
	in, times := q.to.down.admit(at, q.size, q.large, w.rng)
	if times == 0 {
		q.miss()
	}
	q.down = true
	for i, at := range in[:times] {
		if at > now || i < times-1 { // the last may be edited where it is
			w.hold(at, buf, q)
		} else {
			w.arrive(&q, now, buf)
		}
	}
}

func (w *wire) hold(at int64, buf []byte, q transit) {
	p := w.take(buf)
	p.transit = q
	w.queue.push(at, p)
}

// arrive hands a packet to whom it is for.
func (w *wire) arrive(q *transit, now int64, buf []byte) {
	p := q.to
	p.received.Add(q.n, q.size)
	switch {
	case p.gateway != nil:
		w.handle(p.gateway, p.side, now, buf)
	case p.client != nil && w.answered(p, now, buf):
	case p.firewall != nil:
		if w.letIn(p, now, buf) {
			w.put(p.device, buf)
		}
		w.pollFirewall(p, now)
	default:
		w.put(p.device, buf)
	}
}

// expire answers for a router on the way that had to drop v.
func (w *wire) expire(p *wirePort, now int64, v *view) {
	finishChecksum(v.buf)
	v.setTTL(1) // as the last router has got it
	router := routerIPv6
	if v.ip[0]>>4 == 4 {
		router = routerIPv4
	}
	buf := build.AppendError(make([]byte, room, room+1280), router, build.TimeExceeded, v.ip)
	icmp, ok := parse(buf)
	if !ok { // RFC 1122 and RFC 4443 forbid one
		return
	}
	setEther(buf, p.hw, wireMAC, etherTypeOf(icmp.ip))
	if p.network.capture != nil {
		p.network.capture.add(p, &icmp, w.scratch)
	}
	// The packet crossed the up lane before it met the router.
	q := transit{to: p, on: p.network, count: p.network.flow(Flow{p.network.name, icmp.src, icmp.dst, icmp.proto})}
	q.n, q.size = icmp.onWire()
	q.large = q.size
	q.count.Add(q.n, q.size)
	out, times := p.up.admit(now, q.size, q.size, w.rng)
	if times == 0 {
		q.drop()
	}
	for _, at := range out[:times] {
		w.hold(at, buf, q)
	}
}

// drop counts what a port has sent in vain.
func (p *wirePort) drop(flow *Count, packets, bytes int) {
	flow.Drop(packets, bytes)
	p.sent.Drop(packets, bytes)
}

func (w *wire) isCut(f Flow) bool {
	for _, c := range w.cuts {
		if c.Protocol != AnyProtocol && c.Protocol != f.Protocol {
			continue
		}
		if joins(c, f.Src, f.Dst) || joins(c, f.Dst, f.Src) {
			return true
		}
	}
	return false
}

func joins(c CutStatus, a, b netip.Addr) bool {
	return (!c.A.IsValid() || c.A == a) && (!c.B.IsValid() || c.B == b)
}
