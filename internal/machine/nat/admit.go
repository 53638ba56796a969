package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// admit finds the session of a packet that comes to the external endpoint of
// a mapping, or makes it where the packet may open one.
func (g *Gateway) admit(f *flow, p *ip.Packet) Reason {
	src := g.lookup(p.Src)
	f.mapping = g.locate(f, p, src)
	if f.mapping != 0 {
		m := g.mapping(f.mapping)
		f.to = m.side
		if f.session = g.sessionOf(f.mapping, m, g.scope(m, src)); f.session != 0 {
			g.refresh(f, p)
			return None
		}
	}
	return g.enter(f, p)
}

// locate finds the mapping at a packet's destination.
func (g *Gateway) locate(f *flow, p *ip.Packet, src endpoint) uint32 {
	code := p.Proto
	if p.Kind == ip.EchoRequest {
		code = served
	}
	if i := g.dst.external; i != identity {
		if e := &g.externals[i]; e.static() {
			inner := g.lookup(netip.AddrPortFrom(e.inner, p.Dst.Port()))
			return g.mappingOf(keyOf(code, Outside, inner), 0)
		}
		if code == served {
			return 0
		}
		return g.holder(p.Proto, i, p.Dst.Port(), src)
	}
	return g.bareListed(keyOf(code, g.far(f, p.Src), g.lookup(p.Dst)))
}

// enter decides about the first packet of a session that comes from outside.
func (g *Gateway) enter(f *flow, p *ip.Packet) Reason {
	w := wish{proto: p.Proto, code: p.Proto, far: g.far(f, p.Src), external: identity, most: g.cfg.MaxMappings / 2}
	if p.Kind == ip.EchoRequest {
		w.code = served
	}
	if g.dst.external != identity { // also where it is a hairpin from the DMZ
		w.far = Outside
	}
	reason, allowed := NoMapping, false
	var internal netip.AddrPort
	if f.mapping != 0 {
		m := g.mapping(f.mapping)
		internal, reason = g.internal(m), Filtered
		w.side = m.side
		allowed = g.invited(f.mapping, p.Src)
	} else {
		internal = p.Dst
		if i := g.dst.external; i != identity {
			if internal, allowed = netip.AddrPortFrom(g.externals[i].inner, p.Dst.Port()), true; !internal.Addr().IsValid() {
				return g.nobody(p)
			}
		} else if g.dst.side != Local || f.from == Outside && g.translates(p.Dst.Addr()) {
			return g.nobody(p) // between the DMZ and the inside nothing is translated
		}
		// A hairpin to a static pair comes from the side that it goes to.
		if w.side = g.sideOf(internal.Addr()); w.side == Outside || w.side == f.from && !allowed {
			return BadAddress
		}
		f.to = w.side
		if w.code == served && !allowed {
			reason = Filtered
		}
	}
	w.addr = internal.Addr()
	if !opens(p) || p.Kind == ip.EchoReply || !routable(p.Src.Addr()) {
		return reason
	}
	switch g.rule(f.from, f.to, p, p.Src, internal) {
	case rejected:
		g.refused(f.from, p)
		return Ruled
	case discarded:
		return Ruled
	case undecided:
		if !allowed {
			return reason
		}
	}
	// Strangers may fill half of the tables at most.
	if !g.hasRoom(g.maxSessions / 2) {
		return TableFull
	}
	var ok, okToo bool
	w.internal, ok = g.hold(internal)
	w.remote, okToo = g.hold(p.Src)
	if ok && okToo {
		if f.mapping == 0 {
			f.mapping = g.newMapping(&w)
		}
		g.join(f, p, w.remote)
	}
	if ok {
		g.letGo(w.internal)
	}
	if okToo {
		g.letGo(w.remote)
	}
	if f.session == 0 {
		return TableFull
	}
	g.welcome(f, w.remote)
	return None
}

// nobody is the reason where there can be no mapping.
func (g *Gateway) nobody(p *ip.Packet) Reason {
	if p.Kind == ip.EchoRequest {
		return Filtered
	}
	return NoMapping
}

// invited reports whether the filtering policy lets a new remote come to a
// mapping.
func (g *Gateway) invited(at uint32, remote netip.AddrPort) bool {
	m := g.mapping(at)
	if m.flags&fixed != 0 || m.flags&explicit != 0 && g.grants[at].admits(remote) {
		return true
	}
	switch m.filtering() {
	case EndpointIndependent:
		return true
	case AddressDependent:
		return g.sessionOf(at, m, g.lookup(remote).address()) != 0
	}
	return false
}

// at finds the mapping at an external endpoint, for packets from a remote one,
// and what it remembers of that.
func (g *Gateway) at(from Side, proto ip.Proto, external, remote netip.AddrPort) (mapping, session uint32) {
	src := g.lookup(remote)
	r := g.roles.of(external.Addr())
	switch {
	case r.external != identity && !g.externals[r.external].static():
		mapping = g.holder(proto, r.external, external.Port(), src)
	default:
		if r.external != identity {
			external = netip.AddrPortFrom(g.externals[r.external].inner, external.Port())
		}
		f := flow{from: from, d: inbound}
		if r.external != identity {
			mapping = g.listed(keyOf(proto, Outside, g.lookup(external)))
		} else {
			mapping = g.bareListed(keyOf(proto, g.far(&f, remote), g.lookup(external)))
		}
	}
	return mapping, g.knows(mapping, src)
}

// listed finds the mapping of an internal endpoint that has only one.
func (g *Gateway) listed(key endpoint) uint32 {
	ref := g.mappingOf(key, 0)
	if ref == 0 && g.wides > 0 {
		ref = g.mappingOf(key|keyForMap, 0)
	}
	return ref
}

// bareListed is listed for packets to the internal endpoint itself: those that
// are to be translated come to the external one.
func (g *Gateway) bareListed(key endpoint) uint32 {
	ref := g.listed(key)
	if ref != 0 && g.mapping(ref).addr != identity {
		return 0
	}
	return ref
}

// toRemote finds the mapping that packets from an internal endpoint to a
// remote one use, and what it remembers of that.
func (g *Gateway) toRemote(from, to Side, proto ip.Proto, internal, remote netip.AddrPort) (mapping, session uint32) {
	dst := g.lookup(remote)
	f := flow{from: from, to: to, d: outbound}
	mapping = g.toward(&wish{proto: proto, code: proto, side: from, far: g.far(&f, remote), addr: internal.Addr(), internal: g.lookup(internal), remote: dst})
	return mapping, g.knows(mapping, dst)
}

// knows finds what a mapping, if it is one, remembers of a remote endpoint.
func (g *Gateway) knows(at uint32, remote endpoint) uint32 {
	if at == 0 {
		return 0
	}
	m := g.mapping(at)
	if !g.exact[m.proto] && !m.isFor(remote) {
		return 0
	}
	return g.sessionOf(at, m, g.scope(m, remote))
}
