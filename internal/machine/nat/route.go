package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// route finds out where a packet goes, and what that takes.
func (g *Gateway) route(from Side, p *ip.Packet) Verdict {
	if from == Local {
		return g.fromLocal(p)
	}
	// RFC 2827, and nobody else speaks for the gateway: hairpins would look so.
	if g.sideOf(p.Src.Addr()) != from || from == Outside && martian(p.Src.Addr()) || g.owner(p.Src.Addr()) != Local {
		return drop(BadAddress)
	}
	g.dst = g.roles.of(p.Dst.Addr())
	to := Outside
	switch g.dst.side {
	case Local:
		to = g.sideOf(p.Dst.Addr())
	case from, Outside:
		if p.Kind == ip.EchoRequest && g.dst.mine(g) {
			if !g.permitted(from, Local, p) {
				return drop(Ruled)
			}
			if g.ping(from, p) {
				return drop(Kept)
			}
		}
		if g.dst.side != Outside {
			return g.toLocal(from, p)
		}
	default:
		return drop(BadAddress)
	}
	if g.cfg.BlockUDP && p.Proto == ip.UDP {
		return drop(Blocked)
	}
	if p.TTL <= 1 && !g.cfg.KeepTTL && !g.endsHere(from, p) {
		g.outlived(from, p)
		return drop(Expired)
	}
	if g.cfg.Mode == Open {
		return g.plain(from, to, p)
	}
	if p.Fragment {
		return g.fragment(from, to, p)
	}
	return g.through(from, to, p)
}

// endsHere reports whether a packet to an address of the gateway's outside goes
// no further, so that it needs no hop more (RFC 1812 section 5.3.1): it is for
// the gateway's own stack, or for nobody.
func (g *Gateway) endsHere(from Side, p *ip.Packet) bool {
	switch {
	case g.dst.side != Outside || !g.dst.mine(g):
		return false
	case g.cfg.Mode == Open:
		return true
	case from != Outside || p.Kind == ip.Error || p.Headless:
		return false
	}
	f := flow{from: from, d: inbound}
	at := g.locate(&f, p, g.lookup(p.Src))
	return at == 0 || g.mapping(at).side == Local
}

// through takes a whole packet from a side to another.
func (g *Gateway) through(from, to Side, p *ip.Packet) Verdict {
	switch {
	case p.Proto == ip.ICMP && p.Kind == ip.Plain:
		return drop(Unsupported)
	case g.cfg.ICMP.DropQueries && p.Proto == ip.ICMP && p.Kind != ip.Error:
		return drop(Filtered)
	case from == Outside, from == DMZ && to == Inside:
		return g.inward(from, p)
	case from == to:
		return drop(BadAddress)
	}
	return g.outward(from, to, p)
}

// plain routes and does nothing else.
func (g *Gateway) plain(from, to Side, p *ip.Packet) Verdict {
	if g.dst.side == Outside {
		return g.toLocal(from, p)
	}
	if from == to || !routable(p.Src.Addr()) || !routable(p.Dst.Addr()) {
		return drop(BadAddress)
	}
	if !g.permitted(from, to, p) {
		return drop(Ruled)
	}
	return g.glance(to, p)
}

// permitted tells whether no rule is against a packet as it is, and answers
// what is rejected.
func (g *Gateway) permitted(from, to Side, p *ip.Packet) bool {
	says := g.rule(from, to, p, p.Src, p.Dst)
	if says == rejected {
		g.refused(from, p)
	}
	return says != rejected && says != discarded
}

// toLocal hands a packet to the gateway's own stack.
func (g *Gateway) toLocal(from Side, p *ip.Packet) Verdict {
	if !g.permitted(from, Local, p) {
		return drop(Ruled)
	}
	return forward(Local)
}

// fromLocal routes what the gateway's own stack sends.
func (g *Gateway) fromLocal(p *ip.Packet) Verdict {
	g.dst = g.roles.of(p.Dst.Addr())
	if g.owner(p.Src.Addr()) == Local || g.dst.side != Local {
		return drop(BadAddress)
	}
	to := g.sideOf(p.Dst.Addr())
	if to != Outside || g.cfg.Mode == Open {
		return forward(to)
	}
	if g.owner(p.Src.Addr()) != Outside {
		return drop(BadAddress)
	}
	if p.Fragment {
		return g.fragment(Local, Outside, p)
	}
	return g.through(Local, Outside, p)
}

// owner is the side on which an address is the gateway's own; Local: it is not.
func (g *Gateway) owner(a netip.Addr) Side { return g.roles.of(a).side }

// mine reports whether an address is the gateway's, and not that of a static
// pair.
func (r role) mine(g *Gateway) bool {
	return r.side != Local && (r.external == identity || !g.externals[r.external].static())
}
