package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// outward translates a packet to the outside, or to an external address of the
// gateway's own.
func (g *Gateway) outward(from Side, p *ip.Packet) Verdict {
	hairpin := g.owner(p.Dst.Addr()) == Outside
	if hairpin && (g.policy(p.Proto).Hairpin == NoHairpin || !g.translates(p.Src.Addr())) {
		return drop(NoHairpinning)
	}
	internal := p.Src
	if p.Kind == ip.Error {
		if r := g.outboundError(p); r != None {
			return drop(r)
		}
	} else {
		f := flow{from: from, to: Outside, d: outbound}
		if r := g.open(&f, p); r != None {
			if r == TableFull {
				g.exhausted(from, p)
			}
			return drop(r)
		}
		if r := g.transit(&f, p); r != None {
			return drop(r)
		}
	}
	if !hairpin {
		return forward(Outside)
	}
	v := g.inward(from, p)
	if v.Action == Forward && g.policy(p.Proto).Hairpin == HairpinInternalSource && p.Kind != ip.Error {
		p.SetSrc(internal)
	}
	return v
}

// inward translates a packet to who is at its destination.
func (g *Gateway) inward(from Side, p *ip.Packet) Verdict {
	if p.Kind == ip.Error {
		to, r := g.inboundError(p)
		if r != None {
			return drop(r)
		}
		return forward(to)
	}
	f := flow{from: from, d: inbound, mapping: g.mappingAt(p.Proto, p.Dst)}
	r := NoMapping
	if p.Kind == ip.EchoRequest {
		r = Filtered
	} else if f.mapping != 0 {
		f.to = g.mappings[f.mapping].side
		r = g.admit(&f, p)
	}
	if r != None {
		return g.unsolicited(from, p, r)
	}
	if r := g.transit(&f, p); r != None {
		return drop(r)
	}
	return forward(f.to)
}

// transit follows, inspects and translates a packet of a session.
func (g *Gateway) transit(f *flow, p *ip.Packet) Reason {
	c, r := noClass, None
	if r = g.inspect(f, p); r == None && p.Proto == ip.TCP {
		c, r = g.follow(f, p)
	}
	if r != None {
		if f.fresh {
			g.dropSession(f.session)
		}
		return r
	}
	m := &g.mappings[f.mapping]
	if m.addr != identity {
		if f.d == outbound {
			p.SetSrc(g.external(m))
		} else {
			p.SetDst(m.internal)
		}
	}
	if g.cfg.ALG {
		g.rewrite(f, p)
	}
	if p.Proto == ip.TCP {
		switch c {
		case sameClass:
		case noClass:
			g.dropSession(f.session)
		default:
			g.touch(f.session, c)
		}
	}
	return None
}

// open finds or makes the session of an outbound packet.
func (g *Gateway) open(f *flow, p *ip.Packet) Reason {
	if p.Kind == ip.EchoReply {
		return NoMapping
	}
	f.mapping = g.mappingOf(p.Proto, p.Src, p.Dst)
	if p.Proto == ip.TCP && (f.mapping == 0 || g.sessionOf(f.mapping, p.Dst) == 0) && !opens(p) && !g.picksUp(p) {
		return NoMapping
	}
	made := f.mapping == 0
	if made {
		if f.mapping = g.newMapping(f.from, p.Proto, p.Src, p.Dst); f.mapping == 0 {
			return TableFull
		}
	}
	if !g.permit(f, p, p.Dst) {
		if made && g.mappings[f.mapping].sessions == 0 {
			g.dropMapping(f.mapping)
		}
		return TableFull
	}
	return None
}
