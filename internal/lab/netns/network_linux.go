package netns

import "net/netip"

// receive takes a packet that port p sent at now. buf is good until it returns.
func (w *wire) receive(p *wirePort, now int64, buf []byte) {
	v, ok := parse(buf)
	if !ok {
		return
	}
	net := p.network
	flow := Flow{net.name, v.src, v.dst, v.proto}
	if p.count == nil || p.flow != flow {
		p.flow, p.count = flow, net.flow(flow)
	}
	packets, size := v.onWire()
	p.count.Packets += uint64(packets)
	p.count.Bytes += uint64(size)
	if net.capture != nil {
		net.capture.add(p.index, &v, w.scratch)
	}
	if w.isCut(flow) {
		p.count.drop(packets, size)
		return
	}
	if v.dst.IsMulticast() {
		for _, q := range net.ports {
			if q != p {
				w.send(p, q, now, &v, p.count)
			}
		}
		return
	}
	to := net.lookup(v.dst)
	if to == nil || to == p.port {
		p.count.drop(packets, size)
		return
	}
	if net.hops > 0 && !v.hop(net.hops) {
		p.count.drop(packets, size)
		w.expire(p, now, &v)
		return
	}
	w.send(p, net.ports[to.index], now, &v, p.count)
}

// send passes the up lane of from and leaves the down lane of to for later.
func (w *wire) send(from, to *wirePort, now int64, v *view, count *Count) {
	if v.gsoSize == 0 || from.up.plain() && to.down.plain() {
		packets, size := v.onWire()
		w.admit(from, to, now, v.buf, packets, size, v.largest(), count)
		return
	}
	v.segments(w.scratch, func(segment []byte) {
		size := len(segment) - vnetLen
		w.admit(from, to, now, segment, 1, size, size, count)
	})
}

func (w *wire) admit(from, to *wirePort, now int64, buf []byte, packets, size, largest int, count *Count) {
	at, ok := from.up.admit(now, size, largest, w.rng)
	down := ok && to.down.link.Rate == 0
	if down {
		// What arrives later at a transmitter without a queue meets no other.
		at, ok = to.down.admit(at, size, largest, w.rng)
	}
	if !ok {
		count.drop(packets, size)
		return
	}
	if down && at <= now {
		to.write(buf)
		return
	}
	q := w.take(buf)
	q.to, q.count, q.down = to, count, down
	q.n, q.size, q.large = packets, size, largest
	w.queue.push(at, q)
}

// expire answers for a router on the way that had to drop v.
func (w *wire) expire(p *wirePort, now int64, v *view) {
	finishChecksum(v.buf)
	buf := v.timeExceeded()
	if buf == nil {
		return
	}
	icmp, ok := parse(buf)
	if !ok {
		return
	}
	count := p.network.flow(Flow{p.network.name, icmp.src, icmp.dst, icmp.proto})
	packets, size := icmp.onWire()
	count.Packets += uint64(packets)
	count.Bytes += uint64(size)
	if p.network.capture != nil {
		p.network.capture.add(p.index, &icmp, w.scratch)
	}
	// The packet crossed the up lane before it met the router.
	at, ok := p.up.admit(now, size, size, w.rng)
	if !ok {
		count.drop(packets, size)
		return
	}
	q := w.take(buf)
	q.to, q.count, q.n, q.size, q.large = p, count, packets, size, size
	w.queue.push(at, q)
}

func (n *network) flow(f Flow) *Count {
	c := n.flows[f]
	if c == nil {
		c = new(Count)
		n.flows[f] = c
	}
	return c
}

func (w *wire) isCut(f Flow) bool {
	for _, c := range w.cuts {
		if c.proto != AnyProtocol && c.proto != f.Protocol {
			continue
		}
		if c.joins(f.Src, f.Dst) || c.joins(f.Dst, f.Src) {
			return true
		}
	}
	return false
}

func (c cut) joins(a, b netip.Addr) bool {
	return (!c.a.IsValid() || c.a == a) && (!c.b.IsValid() || c.b == b)
}
