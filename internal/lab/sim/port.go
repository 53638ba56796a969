package sim

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
	"github.com/bodkin-net/bodkin/internal/machine/router"
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
	mac     router.MAC
	node    node
	segment *segment
	addrs   []netip.Addr
	link    scenario.Link
	out, in lane

	sent, received snapshot.Count
}

// lane is one direction of a port's link.
type lane struct {
	p    *port
	rnd  *rand.Rand
	busy int64 // until when packets are being sent
}

func newPort(n *Network, name string, s *segment, l scenario.Link) *port {
	p := &port{n: n, name: name, mac: scenario.HardwareAddr(name), segment: s, link: l}
	p.out = lane{p: p, rnd: n.rand(name + ">")}
	p.in = lane{p: p, rnd: n.rand(name + "<")}
	s.ports = append(s.ports, p)
	n.ports[name] = p
	return p
}

// setAddrs gives the port other addresses. Those that it keeps it does not
// announce again.
func (p *port) setAddrs(addrs []netip.Addr) {
	for _, a := range p.addrs {
		if !slices.Contains(addrs, a) {
			p.segment.disclaim(a, p)
		}
	}
	for _, a := range addrs {
		if !slices.Contains(p.addrs, a) {
			p.segment.claim(a, p)
		}
	}
	p.addrs = slices.Clone(addrs)
}

// moveTo takes the port to another segment, without any address.
func (p *port) moveTo(s *segment) {
	p.setAddrs(nil)
	p.segment.ports = slices.DeleteFunc(p.segment.ports, func(q *port) bool { return q == p })
	p.segment = s
	s.ports = append(s.ports, p)
}

// change gives the port another link. What waits for its turn keeps its time,
// but nobody waits for that longer than a faster link takes to send it.
func (p *port) change(to scenario.Link) {
	for _, l := range []*lane{&p.out, &p.in} {
		switch was := p.link.Rate; {
		case to.Rate == 0:
			l.busy = 0
		case to.Rate > was:
			l.busy = p.n.now + int64(float64(max(0, l.busy-p.n.now))*float64(was)/float64(to.Rate))
		}
	}
	p.link = to
}

func (p *port) mtu() int {
	if p.link.MTU == 0 {
		return defaultMTU
	}
	return p.link.MTU
}

// addr is the port's first address of one family.
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
	passedOn := pkt.on != nil
	pkt.from, pkt.on = p, s
	p.sent.Add(1, len(pkt.b))
	src, dst := addresses(pkt.b)
	s.count(src, dst, len(pkt.b))
	n.trace(Sent, p, pkt.b, "")
	if n.cut(s.name, pkt.b, src, dst) {
		n.lose(p, pkt, "cut")
		return
	}
	switch {
	case s.forAll(dst) && passedOn: // RFC 2644: no router makes broadcasts
		n.lose(p, pkt, "broadcast from another network")
		return
	case s.forAll(dst):
		s.flood(p, pkt)
		return
	}
	to := s.next(dst)
	if to == nil || to == p {
		if o, ok := p.node.(*outlet); ok && to == nil && len(s.onLink) > 0 {
			o.noNeighbour(pkt)
		}
		n.lose(p, pkt, "no route")
		return
	}
	if s.hops > 0 {
		left := int(ttl(pkt.b)) - s.hops
		if left <= 0 {
			s.expired(p, pkt)
			return
		}
		setTTL(pkt.b, uint8(left))
	}
	p.carry(to, pkt)
}

// carry takes a packet through the links of both ports.
func (p *port) carry(to *port, pkt *buffer) {
	if p.out.repeats() {
		p.carryOnce(to, p.n.duplicate(pkt))
	}
	p.carryOnce(to, pkt)
}

func (p *port) carryOnce(to *port, pkt *buffer) {
	delay, why := p.out.pass(len(pkt.b))
	switch {
	case why != "":
		p.n.lose(p, pkt, why)
	case to.link.Rate > 0: // whose turn it is there is known on arrival only
		p.n.schedule(p.n.now+delay, &to.in, pkt)
	default:
		to.in.arrive(pkt, delay)
	}
}

// fire: a packet has reached the link of the receiving port.
func (l *lane) fire(pkt *buffer) { l.arrive(pkt, 0) }

// arrive: a packet reaches the receiving port's link after so much time.
func (l *lane) arrive(pkt *buffer, after int64) {
	if l.repeats() {
		l.arriveOnce(l.p.n.duplicate(pkt), after)
	}
	l.arriveOnce(pkt, after)
}

func (l *lane) arriveOnce(pkt *buffer, after int64) {
	n := l.p.n
	l.p.received.Add(1, len(pkt.b))
	delay, why := l.pass(len(pkt.b))
	if why != "" {
		l.p.received.Drop(1, len(pkt.b))
		n.lose(l.p, pkt, why)
		return
	}
	n.schedule(n.now+after+delay, l.p, pkt)
}

// fire: a packet has arrived, if the port is still where it was sent to.
func (p *port) fire(pkt *buffer) {
	if pkt.on != p.segment {
		p.received.Drop(1, len(pkt.b))
		p.n.lose(p, pkt, "moved away")
		return
	}
	p.node.receive(p, pkt)
}

func (l *lane) repeats() bool { return l.p.link.Repeat > 0 && l.rnd.Float64() < l.p.link.Repeat }

// pass is how long a packet of size bytes takes, or why it is lost.
func (l *lane) pass(size int) (delay int64, lost string) {
	link := &l.p.link
	if size > l.p.mtu() {
		return 0, "too big"
	}
	if link.Loss > 0 && l.rnd.Float64() < link.Loss { // before it has taken any of the rate, as in namespaces
		return 0, "lost"
	}
	now := l.p.n.now
	if link.Rate > 0 {
		start := max(now, l.busy)
		waiting := time.Duration(start-now).Seconds() * float64(link.Rate) / 8
		if waiting+float64(size) > max(minQueue, queueTime.Seconds()*float64(link.Rate)/8) {
			return 0, "queue full"
		}
		l.busy = start + int64(size)*8e9/link.Rate
		delay = l.busy - now
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

// lose drops a packet that is on its way, and counts it for its sender.
func (n *Network) lose(p *port, pkt *buffer, why string) {
	if pkt.from != nil {
		pkt.from.sent.Drop(1, len(pkt.b))
	}
	n.drop(p, pkt, why)
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
