package nat

import (
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// wish is a mapping that is to be made. Its endpoints are held by the caller.
type wish struct {
	proto    ip.Proto
	code     ip.Proto // in the key
	side     Side
	far      Side
	internal endpoint
	addr     netip.Addr // of internal
	remote   endpoint   // of the packet that asks for it
	most     int        // mappings that there may be before
	old      uint32     // PerConnection: the mapping that this one replaces
	isn      uint32
	stranger bool // who asks for it is not behind the gateway
	// Of Map: wide, with this external address and port, where they are set.
	wide     bool
	external uint8 // identity: any
	port     uint16
}

// newMapping is 0 when the table or the ports are exhausted.
func (g *Gateway) newMapping(w *wish) uint32 {
	if g.mappings.used >= w.most {
		return 0
	}
	var flags mappingFlags
	whom := endpoint(0)
	addr, port := uint8(identity), w.internal.port()
	translated := w.far == Outside && g.translates(w.addr)
	if i, static := g.fixed[w.addr]; translated && static {
		addr, flags = i, fixed
	}
	var h *host
	var host uint32
	if w.side != Local && g.accounts(translated && flags&fixed == 0) {
		if host = g.enterHost(w.internal.address()); host == 0 {
			return 0
		}
		h = g.hosts.slab.at(host)
		h.mappings++
	}
	ref := uint32(0)
	unpaired := h != nil && h.external == identity
	if h == nil || g.mayMake(h, w.stranger) {
		ok := true
		if translated && flags&fixed == 0 {
			if whom = g.whom(w); whom != w.remote && g.conflicts(w) {
				whom, flags = w.remote, symmetric
			}
			addr, port, ok = g.allocate(w, h, whom, flags)
		}
		if ok {
			ref = g.makeMapping(w, whom, addr, port, flags)
		}
	}
	if ref == 0 && h != nil {
		if h.mappings--; unpaired {
			g.unpair(h)
		}
		g.leaveHost(host)
	}
	return ref
}

// whom is the part of the remote endpoint that a dynamic mapping is for.
func (g *Gateway) whom(w *wish) endpoint {
	if w.wide || w.side == Local {
		return 0
	}
	return g.policy(w.proto).Mapping.depends(w.remote)
}

// translates reports whether the host's packets to the outside get another
// source.
func (g *Gateway) translates(inside netip.Addr) bool {
	return inside.Is4() && g.cfg.Mode == Translate
}

// makeMapping puts the mapping into the tables.
func (g *Gateway) makeMapping(w *wish, whom endpoint, addr uint8, port uint16, flags mappingFlags) uint32 {
	filtering := g.policy(w.proto).Filtering
	switch {
	case w.wide || w.far == DMZ || w.code == served:
		filtering = AddressAndPortDependent
	case flags&fixed != 0:
		filtering = EndpointIndependent
	}
	if w.wide {
		flags |= wide | explicit
	}
	ref, m := g.mappings.take()
	*m = mapping{
		key: keyOf(w.code, w.far, w.internal), remote: whom.number(), rport: whom.port(),
		port: port, addr: addr, proto: w.proto, side: w.side, isn: w.isn,
		flags: flags | mappingFlags(filtering)*filterBit,
	}
	if w.old != 0 {
		g.unlist(w.old, g.mapping(w.old))
	}
	if !g.list(ref, m) {
		g.mappings.give(ref)
		return 0
	}
	if !g.takePort(ref, m) {
		g.unlist(ref, m)
		g.mappings.give(ref)
		return 0
	}
	g.own(m)
	for _, e := range [...]endpoint{m.internal(), m.whom()} {
		if e&isIPv6 != 0 {
			g.six.slab.at(e.number()).uses++
		}
	}
	if flags&symmetric != 0 {
		g.symmetrics++
	}
	if flags&wide != 0 {
		g.wides++
	}
	return ref
}

// accounts reports whether hosts are kept account of for their mappings, of
// which those whose port is allocated need it.
func (g *Gateway) accounts(dynamic bool) bool {
	return dynamic || g.cfg.Ports.PerHost > 0 || g.cfg.Ports.Rate > 0
}

// dropMapping forgets a mapping that has no sessions.
func (g *Gateway) dropMapping(ref uint32) {
	m := g.mapping(ref)
	g.unlist(ref, m)
	g.disown(m)
	host := uint32(0)
	if m.side != Local && g.accounts(g.dynamicPort(m)) {
		host = g.hostOf(m.internal().address())
	}
	g.givePort(ref, m, host)
	if host != 0 {
		g.hosts.slab.at(host).mappings--
		g.leaveHost(host)
	}
	if m.flags&symmetric != 0 {
		g.symmetrics--
	}
	if m.flags&wide != 0 {
		g.wides--
	}
	g.letGo(m.whom())
	g.letGo(m.internal())
	g.mappings.give(ref)
}

// list lets packets from inside find the mapping. Of several that Map made for
// one internal endpoint the first is in the index, the others are seconds.
func (g *Gateway) list(ref uint32, m *mapping) bool {
	if m.flags&wide == 0 {
		return g.byInternal.add(g.keyHash(m.key, m.whom()), ref)
	}
	if g.mappingOf(m.key|keyForMap, 0) != 0 {
		g.seconds = append(g.seconds, ref)
		m.flags |= unlisted
		return true
	}
	return g.byInternal.add(g.keyHash(m.key|keyForMap, 0), ref)
}

func (g *Gateway) unlist(ref uint32, m *mapping) {
	switch {
	case m.flags&wide == 0:
		if m.flags&unlisted == 0 {
			g.byInternal.remove(g.keyHash(m.key, m.whom()), ref)
		}
	case m.flags&unlisted != 0:
		i := slices.Index(g.seconds, ref)
		g.seconds = slices.Delete(g.seconds, i, i+1)
	default:
		g.byInternal.remove(g.keyHash(m.key|keyForMap, 0), ref)
		for i, second := range g.seconds {
			if g.mapping(second).key == m.key && g.byInternal.add(g.keyHash(m.key|keyForMap, 0), second) {
				g.mapping(second).flags &^= unlisted
				g.seconds = slices.Delete(g.seconds, i, i+1)
				break
			}
		}
	}
	m.flags |= unlisted
}

// dynamicPort reports whether the mapping's external port was allocated.
func (g *Gateway) dynamicPort(m *mapping) bool { return m.addr != identity && m.flags&fixed == 0 }

// sharesPort reports whether other mappings may have the same external port.
func (g *Gateway) sharesPort(m *mapping) bool {
	return g.shares(m.proto) && m.flags&wide == 0 && m.side != Local
}

func (g *Gateway) takePort(ref uint32, m *mapping) bool {
	switch {
	case !g.dynamicPort(m):
	case g.sharesPort(m):
		if !g.byShared.add(g.externalHash(m), ref) {
			return false
		}
		g.pool(m.proto, m.addr).share(m.port)
	default:
		g.pool(m.proto, m.addr).take(m.port, ref)
	}
	return true
}

// givePort makes the external port free, now or after it has rested.
func (g *Gateway) givePort(ref uint32, m *mapping, host uint32) {
	from := g.now
	if g.freed != 0 {
		from = g.freed
	}
	g.unhold(from) // or they would count among those that rest
	switch {
	case !g.dynamicPort(m):
	case g.sharesPort(m):
		g.byShared.remove(g.externalHash(m), ref)
		g.pool(m.proto, m.addr).unshare(m.port)
	case g.cfg.Ports.HoldDown > 0 && (g.cfg.Ports.Held == 0 || len(g.held)-g.pacing < g.cfg.Ports.Held):
		g.pool(m.proto, m.addr).rest(m.port)
		if host != 0 {
			g.hosts.slab.at(host).resting++
		}
		g.held.push(restingPort{from + int64(g.cfg.Ports.HoldDown), host, m.port, m.addr, uint8(m.proto)})
	default:
		g.pool(m.proto, m.addr).release(m.port)
	}
}

// allocate chooses the external address and port.
func (g *Gateway) allocate(w *wish, h *host, whom endpoint, flags mappingFlags) (uint8, uint16, bool) {
	if w.side == Local {
		addr := w.external
		port, ok := g.choosePort(w, nil, addr, whom, PreserveNext)
		return addr, port, ok
	}
	how := g.cfg.Ports.Allocation
	if flags&symmetric != 0 {
		how = Random
	}
	if w.port != 0 {
		how = Preserve
	}
	if w.external != identity {
		port, ok := g.choosePort(w, nil, w.external, whom, how)
		return w.external, port, ok
	}
	if g.pairs() {
		if !g.pair(h) {
			return 0, 0, false
		}
		port, ok := g.choosePort(w, h, h.external, whom, how)
		return h.external, port, ok
	}
	n := len(g.dynamic)
	if n == 0 {
		return 0, 0, false
	}
	first := int(g.rnd.Uint32N(uint32(n)))
	for i := range n {
		addr := g.dynamic[(first+i)%n]
		if port, ok := g.choosePort(w, h, addr, whom, how); ok {
			return addr, port, true
		}
	}
	return 0, 0, false
}

// choosePort chooses the port at one external address.
func (g *Gateway) choosePort(w *wish, h *host, addr uint8, whom endpoint, how Allocation) (uint16, bool) {
	p := g.pool(w.proto, addr)
	if w.port != 0 { // Map takes any port, whatever the rules for others
		return w.port, p.isFree(w.port)
	}
	d := draw{
		how:      how,
		internal: w.internal.port(),
		delta:    g.cfg.Ports.Delta,
		preserve: portRange{1, 65535},
		within:   g.within,
		mask:     allPorts,
		last:     &p.last,
	}
	switch {
	case h != nil && h.blocked:
		d.within = g.blockRange(h)
		d.preserve, d.last = d.within, &h.last
	case how <= PreserveRandom && d.internal < 1024: // RFC 4787 REQ-3a
		d.within = portRange{1, 1023}
	}
	if g.cfg.Ports.Parity { // RFC 4787 REQ-4
		d.mask = evenPorts << (d.internal & 1)
	}
	switch {
	case !g.shares(w.proto) || w.wide:
	case w.side == Local: // it is for any remote, those of the sharers too
		d.free = func(port uint16) bool { return !p.isShared(port) }
	default:
		d.free = func(port uint16) bool { return g.sharer(w.proto, addr, port, whom) == 0 }
	}
	return p.choose(&d, g.rnd)
}

// portOwner is who has the mappings of an internal port that are not
// symmetric.
type portOwner struct {
	host     endpoint
	mappings int
}

type ownedPort struct {
	proto ip.Proto
	port  uint16
}

// conflicts reports whether another host has the internal port of the wish.
func (g *Gateway) conflicts(w *wish) bool {
	if !g.cfg.SymmetricOnConflict || w.wide || w.side == Local {
		return false
	}
	o := g.owners[ownedPort{w.proto, w.internal.port()}]
	return o.mappings > 0 && o.host != w.internal.address()
}

func (g *Gateway) own(m *mapping) {
	if g.cfg.SymmetricOnConflict && g.dynamicPort(m) && m.flags&(symmetric|wide) == 0 && m.side != Local {
		k := ownedPort{m.proto, m.internal().port()}
		g.owners[k] = portOwner{m.internal().address(), g.owners[k].mappings + 1}
		m.flags |= owner
	}
}

func (g *Gateway) disown(m *mapping) {
	if m.flags&owner == 0 {
		return
	}
	m.flags &^= owner
	k := ownedPort{m.proto, m.internal().port()}
	o := g.owners[k]
	if o.mappings--; o.mappings == 0 {
		delete(g.owners, k)
	} else {
		g.owners[k] = o
	}
}
