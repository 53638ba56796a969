package sim

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

const (
	defaultMTU = 1500
	// A link with a rate queues what it can send in queueTime, and minQueue
	// bytes at least.
	queueTime = 100 * time.Millisecond
	minQueue  = 64 << 10
)

// node is what a port belongs to.
type node interface {
	receive(p *port, pkt *buffer)
}

// port attaches a node to a segment by an access link.
type port struct {
	n       *Network
	name    string
	node    node
	segment *segment
	addrs   []netip.Addr
	link    scenario.Link
	out, in lane
}

// lane is one direction of a port's link.
type lane struct {
	p    *port
	rnd  *rand.Rand
	busy int64 // until when packets are being sent
}

// segment is a network: ports that reach each other, and the ways out.
type segment struct {
	name    string
	ports   []*port
	onLink  []netip.Prefix // empty on the internet
	byAddr  map[netip.Addr]*port
	routes  []route
	gateway *port // the default route; nil on the internet
	counts  map[pair]*Count
}

type route struct {
	prefix netip.Prefix
	via    *port
}

func (s *segment) next(dst netip.Addr) *port {
	if p := s.byAddr[dst]; p != nil {
		return p
	}
	for _, p := range s.onLink {
		if p.Contains(dst) {
			return nil
		}
	}
	for _, r := range s.routes {
		if r.prefix.Contains(dst) {
			return r.via
		}
	}
	return s.gateway
}

func (p *port) mtu() int {
	if p.link.MTU == 0 {
		return defaultMTU
	}
	return p.link.MTU
}

// addr is the port's address of one family.
func (p *port) addr(v4 bool) netip.Addr {
	for _, a := range p.addrs {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}

// send puts a packet on the network.
func (p *port) send(pkt *buffer) {
	n, s := p.n, p.segment
	src, dst := addresses(pkt.b)
	s.count(src, dst, len(pkt.b))
	n.trace(Sent, p, pkt.b, "")
	if n.cut(s.name, pkt.b, src, dst) {
		n.drop(p, pkt, "cut")
		return
	}
	to := s.next(dst)
	if to == nil || to == p {
		n.drop(p, pkt, "no route")
		return
	}
	delay, why := p.out.pass(len(pkt.b))
	if why != "" {
		n.drop(p, pkt, why)
		return
	}
	if to.link.Rate > 0 { // whose turn it is there is known on arrival only
		n.schedule(n.now+delay, &to.in, pkt)
		return
	}
	more, why := to.in.pass(len(pkt.b))
	if why != "" {
		n.drop(to, pkt, why)
		return
	}
	n.schedule(n.now+delay+more, to, pkt)
}

// fire: a packet has reached the link of the receiving port.
func (l *lane) fire(pkt *buffer) {
	delay, why := l.pass(len(pkt.b))
	if why != "" {
		l.p.n.drop(l.p, pkt, why)
		return
	}
	l.p.n.schedule(l.p.n.now+delay, l.p, pkt)
}

// fire: a packet has arrived.
func (p *port) fire(pkt *buffer) { p.node.receive(p, pkt) }

// pass is how long a packet of size bytes takes, or why it is lost.
func (l *lane) pass(size int) (delay int64, lost string) {
	link := &l.p.link
	if size > l.p.mtu() {
		return 0, "too big"
	}
	now := l.p.n.now
	if link.Rate > 0 {
		start := max(now, l.busy)
		waiting := (start - now) * link.Rate / 8e9
		if waiting+int64(size) > max(minQueue, int64(queueTime)*link.Rate/8e9) {
			return 0, "queue full"
		}
		l.busy = start + int64(size)*8e9/link.Rate
		delay = l.busy - now
	}
	if link.Loss > 0 && l.rnd.Float64() < link.Loss {
		return 0, "lost"
	}
	if link.Reorder > 0 && l.rnd.Float64() < link.Reorder {
		return delay, ""
	}
	delay += int64(link.Delay)
	if link.Jitter > 0 {
		delay += l.rnd.Int64N(int64(link.Jitter) + 1)
	}
	return delay, ""
}

func (n *Network) drop(p *port, pkt *buffer, why string) {
	n.trace(Dropped, p, pkt.b, why)
	n.give(pkt)
}

// addresses reads those of a packet that was built here.
func addresses(b []byte) (src, dst netip.Addr) {
	if b[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	}
	return netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
}
