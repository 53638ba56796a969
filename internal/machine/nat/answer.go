package nat

import (
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// What the gateway says itself. Answers that nobody asked for, errors and
// resets, are limited in rate (RFC 1812 section 4.3.2.8, RFC 4443 section
// 2.4f), so that it is no great help in flooding others. Each side has a rate of
// its own, or strangers could use up what tells the inside of a small MTU.
const (
	answersPerSecond = 1000
	answersAtOnce    = 200
)

// allowance is a token bucket; a token is an answer.
type allowance struct {
	tokens int64 // in nanoseconds of waiting
	at     int64
}

func (a *allowance) take(now int64) bool {
	const price = int64(time.Second) / answersPerSecond
	a.tokens = min(a.tokens+now-a.at, answersAtOnce*price)
	a.at = now
	if a.tokens < price {
		return false
	}
	a.tokens -= price
	return true
}

// unsolicited answers a packet from outside that is let in for the reason
// given to nobody. The packet is as it came, but for its source when it is a
// hairpin.
func (g *Gateway) unsolicited(from Side, p *ip.Packet, r Reason) Verdict {
	if r != NoMapping && r != Filtered {
		return drop(r)
	}
	how, after := g.cfg.Unsolicited.Other, time.Duration(0)
	flags := p.TCPFlags()
	switch p.Proto {
	case ip.TCP:
		how, after = g.cfg.Unsolicited.TCP, g.cfg.Unsolicited.After
		if flags&ip.RST != 0 || after > 0 && flags&(ip.SYN|ip.ACK) != ip.SYN {
			return drop(r)
		}
	case ip.ICMP:
		if p.Kind != ip.EchoRequest {
			return drop(r)
		}
	}
	if how == Silent {
		return drop(r)
	}
	waits := pair{p.Dst, p.Src} // of a hairpin, both outside
	g.restore(p)
	answer := g.answer(from, p, how)
	switch {
	case answer == nil:
	case after > 0:
		due := g.now + int64(after)
		g.late.add(waits, due, Out{from, answer})
		g.soon = min(g.soon, due)
	default:
		g.say(from, answer)
	}
	return drop(r)
}

// refused answers a packet that a rule with Reject dropped.
func (g *Gateway) refused(from Side, p *ip.Packet) {
	how := Prohibited
	if p.Proto == ip.TCP {
		how = Reset
	}
	g.restore(p)
	g.say(from, g.answer(from, p, how))
}

// outlived answers a packet whose TTL is over.
func (g *Gateway) outlived(from Side, p *ip.Packet) {
	p.FinishChecksum()
	g.say(from, ip.AppendError(nil, g.router(from, p), ip.TimeExceeded, p.Data))
}

// exhausted answers a packet from inside that begins what there is no room for
// (RFC 5508 REQ-8). A carrier NAT says something that lets TCP try again (RFC
// 6888 REQ-11b).
func (g *Gateway) exhausted(from Side, p *ip.Packet) {
	if g.cfg.Ports.PerHost == 0 && g.cfg.Ports.Block == 0 {
		g.say(from, g.answer(from, p, Prohibited))
		return
	}
	p.FinishChecksum()
	g.say(from, ip.AppendError(nil, g.router(from, p), ip.HostUnreachable, p.Data))
}

// ping answers an echo request to an address of the gateway's, if it is one.
func (g *Gateway) ping(from Side, p *ip.Packet) bool {
	if p.Fragment || !p.Answerable() || g.cfg.ICMP.NoPing && g.owner(p.Dst.Addr()) == Outside {
		return false
	}
	p.FinishChecksum()
	if p.ChecksumOK() {
		g.emit(from, ip.AppendPong(nil, p))
	}
	return true
}

// answer is nil where none is due.
func (g *Gateway) answer(from Side, p *ip.Packet, how Answer) []byte {
	if !p.Answerable() {
		return nil
	}
	p.FinishChecksum()
	switch how {
	case Reset:
		return ip.AppendReset(nil, p)
	case Unreachable:
		return ip.AppendError(nil, g.speaker(from, p), ip.PortUnreachable, p.Data)
	case Prohibited:
		return ip.AppendError(nil, g.speaker(from, p), ip.AdminProhibited, p.Data)
	}
	return nil
}

// say emits an answer, if it is one and the rate allows it.
func (g *Gateway) say(to Side, answer []byte) {
	if len(answer) > 0 && g.answers[to].take(g.now) {
		g.emit(to, answer)
	}
}

// speaker is the address that p is refused from: the destination, where that is
// the gateway's own.
func (g *Gateway) speaker(side Side, p *ip.Packet) netip.Addr {
	if to := p.Dst.Addr(); side == Local || g.owner(to) != Local {
		return to
	}
	return g.router(side, p)
}

// router is the address that errors about p come from where it was only on its
// way, be it back to the side that it came from: one of the gateway's on that
// side (RFC 1812 section 4.3.2.4).
func (g *Gateway) router(side Side, p *ip.Packet) netip.Addr {
	to := p.Dst.Addr()
	if side == Local {
		return to
	}
	for _, a := range g.cfg.Own[side] {
		if a.Is4() == to.Is4() {
			return a
		}
	}
	return to // a firewall without addresses speaks for whom it protects
}

// restore gives the packet at hand the endpoints and the numbers back that it
// came with, to be quoted.
func (g *Gateway) restore(p *ip.Packet) {
	if g.tracking && p.Proto == ip.TCP && !p.Headless {
		p.SetSeq(g.cameSeq)
		p.SetAck(g.cameAck)
	}
	if p.Is4() {
		if p.Src != g.cameFrom {
			p.SetSrc(g.cameFrom)
		}
		if p.Dst != g.cameTo {
			p.SetDst(g.cameTo)
		}
	}
}

// pair is a connection, as seen outside.
type pair struct{ external, remote netip.AddrPort }

// maxLate bounds the answers that wait.
const maxLate = 1024

// lateAnswers wait for their time, in the order in which they will be given
// (RFC 5382 REQ-4).
type lateAnswers struct {
	queue []lateAnswer
	gone  uint64 // how many are no longer in queue
	by    map[pair]uint64
}

type lateAnswer struct {
	pair
	due int64
	out Out // without Packet: withdrawn
}

// add holds one answer for each pair.
func (l *lateAnswers) add(p pair, due int64, out Out) {
	if _, waits := l.by[p]; waits || len(l.queue) == maxLate {
		return
	}
	if l.by == nil {
		l.by = make(map[pair]uint64)
	}
	l.by[p] = l.gone + uint64(len(l.queue))
	l.queue = append(l.queue, lateAnswer{p, due, out})
}

// withdraw: the inside wants the connection now.
func (l *lateAnswers) withdraw(p pair) {
	if at, waits := l.by[p]; waits {
		l.queue[at-l.gone].out.Packet = nil
		delete(l.by, p)
	}
}

// abandon withdraws what would come from addresses that are no longer ours.
func (l *lateAnswers) abandon(gone []netip.Addr) {
	for i := range l.queue {
		var p ip.Packet
		if a := &l.queue[i]; a.out.Packet != nil && p.Decode(a.out.Packet) == nil && slices.Contains(gone, p.Src.Addr()) {
			l.withdraw(a.pair)
		}
	}
}

// next is the one that is due first.
func (l *lateAnswers) next() (due int64, ok bool) {
	if len(l.queue) == 0 {
		return 0, false
	}
	return l.queue[0].due, true
}

func (l *lateAnswers) take() Out {
	first := l.queue[0]
	l.queue[0] = lateAnswer{}
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		l.queue = nil
	}
	l.gone++
	if first.out.Packet != nil {
		delete(l.by, first.pair)
	}
	return first.out
}

// answerLate gives the answers whose time has come.
func (g *Gateway) answerLate() {
	for {
		due, ok := g.late.next()
		if !ok || due > g.now {
			return
		}
		out := g.late.take()
		g.say(out.To, out.Packet)
	}
}
