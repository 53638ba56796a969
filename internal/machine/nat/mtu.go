package nat

import (
	"bytes"
	"fmt"
	"math"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

const (
	defaultMTU = 1500
	leastMTU   = 68 // RFC 791 section 3.2
)

func soundMTU(mtu int) bool { return mtu == 0 || mtu >= leastMTU && mtu <= 65535 }

func (g *Gateway) mtu(side Side) int {
	if side < Local && g.cfg.MTU[side] != 0 {
		return g.cfg.MTU[side]
	}
	return defaultMTU
}

// SetMTU changes the MTU of a side, zero being 1500 again.
func (g *Gateway) SetMTU(side Side, mtu int) error {
	if side >= Local || !soundMTU(mtu) {
		return fmt.Errorf("nat: an MTU of %d on side %v", mtu, side)
	}
	g.cfg.MTU[side] = mtu
	g.mtus[side] = g.mtu(side)
	return nil
}

// depart does what is left to do for a packet that leaves.
func (g *Gateway) depart(from Side, v Verdict, p *ip.Packet) Verdict {
	if v.Action == Drop {
		return v
	}
	if g.costsHop(from, v.To) {
		p.DecrementTTL()
	}
	if r := g.fit(from, v.To, p); r != None {
		return drop(r)
	}
	return v
}

func (g *Gateway) costsHop(from, to Side) bool {
	return from != Local && to != Local && !g.cfg.KeepTTL
}

// fit makes a packet fit the side that it leaves by. Kept: it was emitted, in
// pieces or as another in its place.
func (g *Gateway) fit(from, to Side, p *ip.Packet) Reason {
	mtu := g.mtu(to)
	n := len(p.Data)
	if g.offload.Segment > 0 {
		n = min(n, n-len(p.Payload())+g.offload.Segment)
	}
	switch {
	case n <= mtu || to == Local:
		switch {
		case !g.replaced:
			return None
		case g.offload.Segment > 0 && len(p.Data) > mtu:
			g.emitSegments(to, mtu, g.offload.Segment, p)
		default:
			g.emit(to, bytes.Clone(p.Data))
		}
	case g.grown(p) > 0 && g.cameSize <= mtu && p.Proto == ip.TCP:
		g.emitSegments(to, mtu, mtu-(n-len(p.Payload())), p)
	case !p.MayCut():
		if g.costsHop(from, to) {
			p.ReturnHop()
		}
		g.tooBig(from, max(mtu-g.grown(p), leastMTU), p)
		return TooBig
	case g.offload.Segment == 0:
		p.FinishChecksum()
		g.emitParts(to, mtu, p)
	default:
		g.emitSegments(to, mtu, g.offload.Segment, p)
	}
	return Kept
}

// grown is by how much the text that was put into a packet is longer than what
// it replaced. Its sender, who has to fit, does not know.
func (g *Gateway) grown(p *ip.Packet) int {
	if !g.replaced || g.offload.Segment > 0 {
		return 0
	}
	return max(len(p.Data)-g.cameSize, 0)
}

// emitSegments emits what a device would have cut a large packet into.
func (g *Gateway) emitSegments(to Side, mtu, size int, p *ip.Packet) {
	for next := 0; ; {
		var segment []byte
		segment, next = p.AppendSegment(nil, size, next)
		var s ip.Packet
		if s.Decode(segment) == nil {
			g.emitParts(to, mtu, &s)
		}
		if next == 0 {
			return
		}
	}
}

func (g *Gateway) emitParts(to Side, mtu int, p *ip.Packet) {
	for next := 0; ; {
		var part []byte
		part, next = p.AppendPart(nil, mtu, next)
		g.emit(to, part)
		if next == 0 {
			return
		}
	}
}

// tooBig says which MTU the way on has (RFC 1191 section 4, RFC 8201), about
// the packet as it came.
func (g *Gateway) tooBig(from Side, mtu int, p *ip.Packet) {
	g.restore(p)
	p.FinishChecksum()
	g.say(from, ip.AppendTooBig(nil, g.router(from, p), mtu, p.Data))
}

// handleSegments cuts a large UDP packet before anything else is done: text of
// another length may come into each datagram.
func (g *Gateway) handleSegments(from Side, pkt []byte, off Offload) Verdict {
	var whole ip.Packet
	if whole.Decode(pkt) != nil || !whole.HeaderOK() || whole.Proto != ip.UDP || whole.Fragment {
		v := g.handle(from, pkt, off)
		g.release(from)
		return g.count(from, v)
	}
	for next := 0; ; {
		var segment []byte
		segment, next = whole.AppendSegment(nil, off.Segment, next)
		v := g.count(from, g.handle(from, segment, Offload{}))
		if v.Action == Forward {
			g.emit(v.To, segment)
		}
		if next == 0 {
			return drop(Kept)
		}
	}
}

// overdue does what waits for its time beside the timers of sessions, and says
// when there is more.
func (g *Gateway) overdue() {
	g.answerLate()
	g.soon = math.MaxInt64
	if due, ok := g.late.next(); ok {
		g.soon = due
	}
	for side := range g.cut {
		t := &g.cut[side]
		t.expire(g.now)
		if due, ok := t.next(); ok {
			g.soon = min(g.soon, due)
		}
	}
}
