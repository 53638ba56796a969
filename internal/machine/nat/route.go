package nat

import (
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// route finds out where a packet goes, and what that takes.
func (g *Gateway) route(from Side, p *ip.Packet) Verdict {
	src, dst := g.sideOf(p.Src.Addr()), g.sideOf(p.Dst.Addr())
	if from == Local {
		return g.fromLocal(p, dst)
	}
	if src != from { // RFC 2827
		return drop(BadAddress)
	}
	if side := g.owner(p.Dst.Addr()); side != Local && (side == from || side == Outside) {
		if p.Kind == ip.EchoRequest && g.ping(from, p) {
			return drop(Kept)
		}
		if side != Outside {
			return forward(Local)
		}
		dst = Outside
	}
	if g.cfg.BlockUDP && p.Proto == ip.UDP {
		return drop(Blocked)
	}
	if p.TTL <= 1 && !g.cfg.KeepTTL {
		g.outlived(from, p)
		return drop(Expired)
	}
	if g.cfg.Mode == Open {
		return g.plain(from, dst, p)
	}
	if p.Fragment {
		return g.fragment(from, dst, p)
	}
	return g.through(from, dst, p)
}

// through takes a packet through the gateway.
func (g *Gateway) through(from, dst Side, p *ip.Packet) Verdict {
	if p.Proto == ip.Other || p.Proto == ip.ICMP && p.Kind == ip.Plain {
		return drop(Unsupported)
	}
	if g.cfg.ICMP.DropQueries && p.Proto == ip.ICMP && p.Kind != ip.Error {
		return drop(Filtered)
	}
	switch {
	case from == Outside:
		return g.inward(from, p)
	case from == Local:
		return g.outward(from, p)
	case dst != Outside:
		return drop(BadAddress)
	}
	return g.outward(from, p)
}

// plain routes and does nothing else.
func (g *Gateway) plain(from, to Side, p *ip.Packet) Verdict {
	if from == to {
		return drop(BadAddress)
	}
	switch g.rule(from, to, p, p.Src, p.Dst) {
	case rejected:
		g.refused(from, p)
		return drop(Ruled)
	case discarded:
		return drop(Ruled)
	}
	return forward(to)
}

// fromLocal routes what the gateway's own stack sends.
func (g *Gateway) fromLocal(p *ip.Packet, to Side) Verdict {
	if g.owner(p.Src.Addr()) == Local || g.owner(p.Dst.Addr()) != Local {
		return drop(BadAddress)
	}
	if to != Outside || g.cfg.Mode == Open {
		return forward(to)
	}
	if p.Fragment {
		return g.fragment(Local, to, p)
	}
	return g.through(Local, to, p)
}

// sideOf is the side on which an address is.
func (g *Gateway) sideOf(a netip.Addr) Side {
	switch {
	case within(g.cfg.Inside, a):
		return Inside
	case within(g.cfg.DMZ, a):
		return DMZ
	}
	return Outside
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// owner is the side on which an address is the gateway's own; Local: it is not.
func (g *Gateway) owner(a netip.Addr) Side {
	for side := range g.cfg.Own {
		if slices.Contains(g.cfg.Own[side], a) {
			return Side(side)
		}
	}
	return Local
}
