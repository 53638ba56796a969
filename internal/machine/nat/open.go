package nat

import (
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// open finds or makes the session of a packet that is on its way out.
func (g *Gateway) open(f *flow, p *ip.Packet) Reason {
	code := p.Proto
	if p.Kind == ip.EchoReply {
		code = served
	}
	w := wish{proto: p.Proto, code: code, side: f.from, far: g.far(f, p.Dst), addr: p.Src.Addr(), external: identity}
	w.internal, w.remote = g.lookup(p.Src), g.lookup(p.Dst)
	if f.mapping = g.toward(&w); f.mapping != 0 && !g.mapping(f.mapping).isFor(w.remote) {
		f.mapping = g.afterGuest(&w, f.mapping, p)
	}
	if f.mapping != 0 {
		m := g.mapping(f.mapping)
		f.session = g.sessionOf(f.mapping, m, g.scope(m, w.remote))
		if f.session != 0 && !g.anew(&w, m, f.session, p) {
			g.refresh(f, p)
			return None
		}
	}
	return g.begin(f, p, &w)
}

// toward finds the mapping that a packet from inside uses: the explicit one
// that it has been through, else the one that came about by itself, else the
// first explicit one. What answers a guest uses that which the guest came by.
func (g *Gateway) toward(w *wish) uint32 {
	key, whom := keyOf(w.code, w.far, w.internal), endpoint(0)
	if w.far == Outside && g.translates(w.addr) && !g.isStatic(w) {
		if whom = g.whom(w); g.symmetrics > 0 && whom != w.remote {
			if ref := g.mappingOf(key, w.remote); ref != 0 && g.mapping(ref).flags&symmetric != 0 {
				return ref
			}
		}
	}
	first := uint32(0) // explicit one
	if g.wides > 0 {
		ref, at := g.wideOf(key, 0)
		for ; ref != 0; ref, at = g.wideOf(key, at) {
			m := g.mapping(ref)
			if g.sessionOf(ref, m, g.scope(m, w.remote)) != 0 {
				return ref
			}
			if first == 0 && m.flags&explicit != 0 {
				first = ref
			}
		}
	}
	ref := g.mappingOf(key, whom)
	if len(g.guests) > 0 {
		if back := g.back(key, w.remote, ref); back != 0 {
			return back
		}
	}
	if ref != 0 {
		return ref
	}
	return first
}

// wideOf goes through the mappings that Map made for an internal endpoint, in
// the order in which it did.
func (g *Gateway) wideOf(key endpoint, at int) (ref uint32, next int) {
	if at == 0 {
		return g.mappingOf(key|keyForMap, 0), 1
	}
	for ; at <= len(g.seconds); at++ {
		if ref := g.seconds[at-1]; g.mapping(ref).key == key {
			return ref, at + 1
		}
	}
	return 0, at
}

func (g *Gateway) isStatic(w *wish) bool {
	if len(g.fixed) == 0 {
		return false
	}
	_, static := g.fixed[w.addr]
	return static
}

// perConnection reports whether the mapping wished for is for one connection.
func (g *Gateway) perConnection(w *wish) bool {
	return w.proto == ip.TCP && g.tcpPolicy.Mapping == PerConnection && w.side != Local && w.far == Outside &&
		g.translates(w.addr) && !g.isStatic(w)
}

// anew reports whether p begins another connection than that of the session,
// which needs a mapping of its own.
func (g *Gateway) anew(w *wish, m *mapping, session uint32, p *ip.Packet) bool {
	return w.proto == ip.TCP && g.tcpPolicy.Mapping == PerConnection && p.TCPFlags()&(ip.SYN|ip.ACK|ip.RST) == ip.SYN &&
		m.flags&wide == 0 && g.perConnection(w) && m.isFor(w.remote) && (g.session(session).tcp.closed() || m.isn != p.Seq())
}

// begin makes a session for the first packet of one, and a mapping if need be.
func (g *Gateway) begin(f *flow, p *ip.Packet, w *wish) Reason {
	if !opens(p) && !g.picksUp(p) || p.Kind == ip.EchoReply {
		return NoMapping
	}
	if !routable(p.Dst.Addr()) {
		return BadAddress
	}
	switch g.rule(f.from, f.to, p, p.Src, p.Dst) {
	case rejected:
		g.refused(f.from, p)
		return Ruled
	case discarded:
		return Ruled
	}
	if !g.hasRoom(g.maxSessions) {
		return TableFull
	}
	var ok, okToo bool
	w.internal, ok = g.hold(p.Src)
	w.remote, okToo = g.hold(p.Dst)
	if ok && okToo {
		if f.mapping != 0 && g.crosses(f.mapping, w.remote) {
			f.mapping = 0
		}
		if f.mapping != 0 && g.perConnection(w) && g.mapping(f.mapping).flags&wide == 0 {
			w.old, f.mapping = f.mapping, 0
		}
		if f.mapping == 0 {
			w.most = g.cfg.MaxMappings
			if w.proto == ip.TCP {
				w.isn = p.Seq()
			}
			if w.side == Local && w.far == Outside {
				w.external = g.roles.of(w.addr).external
			}
			f.mapping = g.newMapping(w)
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
	return None
}

// crosses reports whether another mapping shares the external port of one that
// Map made, towards a remote: the answers of that would go there.
func (g *Gateway) crosses(at uint32, remote endpoint) bool {
	m := g.mapping(at)
	return m.flags&wide != 0 && m.addr != identity && g.shares(m.proto) &&
		g.sharer(m.proto, m.addr, m.port, g.policy(m.proto).Mapping.depends(remote)) != 0
}

// hasRoom reports whether there may be another session, and the one that counts
// those of its address.
func (g *Gateway) hasRoom(most int) bool { return g.sessionsUsed()+2 <= most }

// join makes the session of a flow that has a mapping.
func (g *Gateway) join(f *flow, p *ip.Packet, remote endpoint) {
	f.session = 0
	if f.mapping == 0 {
		return
	}
	c := classTransitory
	switch p.Proto {
	case ip.UDP:
		c = classUDP
	case ip.ICMP:
		c = classICMP
	}
	if c == classUDP && g.cfg.Timers.UDPUnanswered > 0 && f.d == outbound {
		c = g.unanswered(f.mapping)
	}
	if f.session = g.connect(f.mapping, remote, c); f.session == 0 {
		g.dropIfEmpty(f.mapping, g.mapping(f.mapping))
		return
	}
	f.fresh = true
	if p.Proto == ip.TCP {
		return // transit starts its timer
	}
	if g.session(f.session).class == c {
		g.touch(f.session, c)
	} else if g.refreshOut || f.d == inbound {
		g.touch(f.mapping|inMapping, c)
	}
}
