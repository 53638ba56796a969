package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// mapping translates between an internal and an external endpoint. Where
// there is no translation, both are the same and only filtering is left.
// It lives while it has sessions.
type mapping struct {
	internal netip.AddrPort
	// remote is what the mapping is for: nothing, an address, or an endpoint,
	// as the mapping policy says.
	remote   netip.AddrPort
	sessions uint32 // how many; in a free element, the next free one
	last     uint32 // the session used last, most often the next one used too
	port     uint16 // the external port
	addr     uint8  // the external address; identity: none
	proto    ip.Proto
	side     Side // of the internal endpoint
}

const identity = 0xff

// depends is what a policy keeps of a remote endpoint.
func (d Dependence) depends(remote netip.AddrPort) netip.AddrPort {
	switch d {
	case EndpointIndependent:
		return netip.AddrPort{}
	case AddressDependent:
		return netip.AddrPortFrom(remote.Addr(), 0)
	}
	return remote
}

func (g *Gateway) internalHash(proto ip.Proto, internal, remote netip.AddrPort) uint32 {
	h := g.seeds.endpoint(uint64(proto), internal)
	if remote.IsValid() {
		h = g.seeds.endpoint(h, remote)
	}
	return g.seeds.sum(h)
}

func (g *Gateway) externalHash(proto ip.Proto, external netip.AddrPort) uint32 {
	return g.seeds.sum(g.seeds.endpoint(uint64(proto)<<8, external))
}

func (g *Gateway) external(m *mapping) netip.AddrPort {
	if m.addr == identity {
		return m.internal
	}
	return netip.AddrPortFrom(g.cfg.Own[Outside][m.addr], m.port)
}

// translates reports whether packets of this host get another source.
func (g *Gateway) translates(inside netip.Addr) bool {
	return inside.Is4() && g.cfg.Mode == Translate
}

// mappingKey is the part of remote that selects the mapping of internal.
func (g *Gateway) mappingKey(proto ip.Proto, internal, remote netip.AddrPort) netip.AddrPort {
	if !g.translates(internal.Addr()) {
		return netip.AddrPort{}
	}
	return g.policy(proto).Mapping.depends(remote)
}

// mappingOf finds the mapping for packets from internal to remote.
func (g *Gateway) mappingOf(proto ip.Proto, internal, remote netip.AddrPort) uint32 {
	key := g.mappingKey(proto, internal, remote)
	hash := g.internalHash(proto, internal, key)
	for ref, at := g.byInternal.seek(hash, 0); ref != 0; ref, at = g.byInternal.seek(hash, at) {
		if m := &g.mappings[ref]; m.internal == internal && m.remote == key && m.proto == proto {
			return ref
		}
	}
	return 0
}

// mappingAt finds the mapping that holds an external endpoint.
func (g *Gateway) mappingAt(proto ip.Proto, external netip.AddrPort) uint32 {
	hash := g.externalHash(proto, external)
	for ref, at := g.byExternal.seek(hash, 0); ref != 0; ref, at = g.byExternal.seek(hash, at) {
		if m := &g.mappings[ref]; m.proto == proto && g.external(m) == external {
			return ref
		}
	}
	return 0
}

// newMapping is 0 when the table or the ports are exhausted.
func (g *Gateway) newMapping(side Side, proto ip.Proto, internal, remote netip.AddrPort) uint32 {
	if g.byInternal.used >= g.cfg.MaxMappings {
		return 0
	}
	m := mapping{
		internal: internal,
		remote:   g.mappingKey(proto, internal, remote),
		port:     internal.Port(),
		addr:     identity,
		proto:    proto,
		side:     side,
	}
	if g.translates(internal.Addr()) {
		m.addr = g.pair(internal.Addr())
		port, ok := g.pool(proto, m.addr).allocate(g.cfg.Ports.Allocation, internal.Port(), g.rnd)
		if !ok {
			return 0
		}
		m.port = port
	}
	ref := g.freeMapping
	if ref != 0 {
		g.freeMapping = g.mappings[ref].sessions
		g.mappings[ref] = m
	} else {
		ref = uint32(len(g.mappings))
		g.mappings = append(g.mappings, m)
	}
	g.byInternal.add(g.internalHash(proto, internal, m.remote), ref)
	g.byExternal.add(g.externalHash(proto, g.external(&m)), ref)
	return ref
}

func (g *Gateway) dropMapping(ref uint32) {
	m := &g.mappings[ref]
	g.byInternal.remove(g.internalHash(m.proto, m.internal, m.remote), ref)
	g.byExternal.remove(g.externalHash(m.proto, g.external(m)), ref)
	if m.addr != identity {
		g.pool(m.proto, m.addr).release(m.port)
	}
	*m = mapping{sessions: g.freeMapping}
	g.freeMapping = ref
}

// pair chooses the external address: always the same for one internal address
// (RFC 4787 REQ-2).
func (g *Gateway) pair(inside netip.Addr) uint8 {
	if len(g.translated) == 1 {
		return g.translated[0]
	}
	h := g.seeds.sum(g.seeds.endpoint(0, netip.AddrPortFrom(inside, 0)))
	return g.translated[h%uint32(len(g.translated))]
}

func (g *Gateway) pool(proto ip.Proto, addr uint8) *pool {
	p := &g.pools[proto][addr]
	if *p == nil {
		*p = newPool(1023 + uint16(g.rnd.Uint32N(65536-1024)))
	}
	return *p
}
