package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// outward handles a packet to another side that is not behind the gateway, or
// to an external address of the gateway's own.
func (g *Gateway) outward(from, to Side, p *ip.Packet) Verdict {
	hairpin := g.dst.side == Outside
	if hairpin && (g.policy(p.Proto).Hairpin == NoHairpin || g.dst.external == identity) {
		return drop(NoHairpinning)
	}
	// RFC 5508 section 7.3: it would tell of addresses inside.
	if p.Proto == ip.ICMP && to == Outside && g.translates(p.Src.Addr()) && p.SourceRouted() {
		return drop(Unsupported)
	}
	internal := p.Src
	f := flow{from: from, to: to, d: outbound}
	switch {
	case p.Kind == ip.Error:
		if r := g.outboundError(from, to, p); r != None {
			return drop(r)
		}
	case p.Proto == ip.Other:
		if r := g.bare(&f, p); r != None {
			return drop(r)
		}
	default:
		r := g.open(&f, p)
		if r == None {
			r = g.transit(&f, p)
		}
		if r == TableFull {
			g.exhausted(from, p)
		}
		if r != None {
			return drop(r)
		}
	}
	if !hairpin {
		return forward(to)
	}
	v := g.inward(from, p)
	if v.Action == Forward && g.policy(p.Proto).Hairpin == HairpinInternalSource && p.Kind != ip.Error {
		p.SetSrc(internal)
	}
	return v
}

// inward handles a packet to who is at its destination.
func (g *Gateway) inward(from Side, p *ip.Packet) Verdict {
	f := flow{from: from, d: inbound}
	r := None
	switch {
	case p.Kind == ip.Error:
		to, r := g.inboundError(from, p)
		if r != None {
			return drop(r)
		}
		return forward(to)
	case p.Proto == ip.Other:
		r = g.bare(&f, p)
	default:
		r = g.admit(&f, p)
	}
	if r != None {
		return g.unsolicited(from, p, r)
	}
	if p.Proto != ip.Other {
		if r := g.transit(&f, p); r != None {
			return drop(r)
		}
	}
	return forward(f.to)
}

// transit follows, inspects and translates a packet of a session.
func (g *Gateway) transit(f *flow, p *ip.Packet) Reason {
	c, r := noClass, g.inspect(f, p)
	if r == None && p.Proto == ip.TCP {
		c, r = g.follow(f, p)
	}
	if r != None {
		if f.fresh {
			g.dropSession(f.session)
		}
		return r
	}
	if m := g.mapping(f.mapping); m.addr != identity {
		if f.d == outbound {
			p.SetSrc(g.external(m))
			g.number(p)
		} else {
			p.SetDst(g.internal(m))
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

// bare translates the addresses of a packet whose protocol is not followed:
// only those of static pairs, and without translation only where a rule lets
// each packet pass.
func (g *Gateway) bare(f *flow, p *ip.Packet) Reason {
	if !routable(p.Src.Addr()) || !routable(p.Dst.Addr()) {
		return BadAddress
	}
	allowed := false
	src, dst := p.Src, p.Dst
	if f.d == outbound {
		if g.translates(src.Addr()) && f.to == Outside {
			i, static := g.fixed[src.Addr()]
			if !static {
				return Unsupported
			}
			src, allowed = netip.AddrPortFrom(g.externals[i].addr, 0), true
		}
	} else {
		if i := g.dst.external; i != identity {
			if dst, allowed = netip.AddrPortFrom(g.externals[i].inner, 0), true; !dst.Addr().IsValid() {
				return Unsupported
			}
		} else if g.dst.side != Local || g.translates(dst.Addr()) && f.from == Outside {
			return Unsupported
		}
		if f.to = g.sideOf(dst.Addr()); f.to == Outside || f.to == f.from && !allowed {
			return BadAddress
		}
	}
	switch g.rule(f.from, f.to, p, p.Src, dst) {
	case rejected:
		g.refused(f.from, p)
		return Ruled
	case discarded:
		return Ruled
	case undecided:
		if !allowed {
			return Unsupported
		}
	}
	if src != p.Src {
		p.SetSrc(src)
	}
	if dst != p.Dst {
		p.SetDst(dst)
	}
	return None
}
