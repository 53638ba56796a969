package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// mapping translates between an internal and an external endpoint. Where
// there is no translation, both are the same and only filtering is left. It
// lives while it has sessions; the first of them lies in it, so that a packet
// finds all that it needs in these 64 bytes.
type mapping struct {
	key    endpoint // the internal endpoint, and what keyOf adds
	remote uint32   // what the mapping is for: nothing, an address, or an
	rport  uint16   // endpoint, as the mapping policy says
	port   uint16   // the external port
	addr   uint8    // the external address, a place in externals; identity: none
	proto  ip.Proto
	side   Side
	flags  mappingFlags
	isn    uint32 // PerConnection: the initial sequence number of its SYN
	first  session
}

func (m *mapping) link() *uint32 { return &m.isn }

const identity = 0xff

type mappingFlags uint8

const (
	explicit  mappingFlags = 1 << iota // made by Map, and its time is not over
	symmetric                          // SymmetricOnConflict made it so
	unlisted                           // packets from inside no longer find it
	owner                              // it counts among those that others' ports conflict with
	fixed                              // static
	wide                               // made by Map, and for any remote
	// The filtering policy is in the bits from here on.
	filterBit
)

func (m *mapping) filtering() Dependence { return Dependence(m.flags / filterBit) }

// What is in the key of a mapping beside the internal endpoint.
const (
	protoAt             = 49 // two bits: the protocol, zero for queries that outsiders make
	farDMZ     endpoint = 1 << 51
	keyForMap  endpoint = 1 << 52 // in the index alone: of an explicit mapping
	internalOf          = isIPv6<<1 - 1
)

// served is the protocol in the keys of ICMP queries that come from outside:
// their identifiers are the remote's.
const served = ip.Other

// keyOf is the internal endpoint, the protocol and the side that it speaks
// with: a host's mappings towards the DMZ are not those towards the outside.
func keyOf(proto ip.Proto, far Side, internal endpoint) endpoint {
	key := internal | endpoint(proto)<<protoAt
	if far == DMZ {
		key |= farDMZ
	}
	return key
}

func (m *mapping) internal() endpoint { return m.key & internalOf }

// whom is what the mapping is for.
func (m *mapping) whom() endpoint { return remoteOf(m, m.remote, m.rport) }

func remoteOf(m *mapping, number uint32, port uint16) endpoint {
	e := at4(number, port)
	if e != 0 {
		e |= m.key & isIPv6
	}
	return e
}

// mapping and session are the elements of the tables; 0 is none. Pointers to
// them are good as long as they live.
func (g *Gateway) mapping(ref uint32) *mapping { return g.mappings.at(ref) }

func (g *Gateway) session(ref uint32) *session {
	if ref&inMapping != 0 {
		return &g.mappings.at(ref &^ inMapping).first
	}
	return g.sessions.at(ref)
}

// internal and external are the two ends of a mapping; without translation
// they are the same. remote is whom a session is with: invalid is anyone, and
// port 0 is any port.
func (g *Gateway) internal(m *mapping) netip.AddrPort { return g.unpack(m.internal()) }

func (g *Gateway) external(m *mapping) netip.AddrPort {
	if m.addr == identity {
		return g.internal(m)
	}
	return netip.AddrPortFrom(g.externals[m.addr].addr, m.port)
}

func (g *Gateway) remote(s *session) netip.AddrPort {
	return g.unpack(remoteOf(g.mapping(s.mapping), s.remote, s.port))
}

func (g *Gateway) keyHash(key, whom endpoint) uint32 {
	return g.seeds.sum(uint64(key), uint64(whom))
}

// externalHash is for ports that several mappings share.
func (g *Gateway) externalHash(m *mapping) uint32 {
	return g.sharedHash(m.proto, m.addr, m.port, m.whom())
}

func (g *Gateway) sharedHash(proto ip.Proto, addr uint8, port uint16, whom endpoint) uint32 {
	return g.seeds.sum(uint64(whom), uint64(proto)<<24|uint64(addr)<<16|uint64(port))
}

// mappingOf finds the mapping that packets from inside with this key use.
func (g *Gateway) mappingOf(key, whom endpoint) uint32 {
	hash := g.keyHash(key, whom)
	p := g.byInternal.page(hash)
	ref, at := p.seek(hash, 0)
	for ref != 0 {
		if m := g.mapping(ref); m.key == key&^keyForMap && m.whom() == whom && (m.flags&wide != 0) == (key&keyForMap != 0) {
			break
		}
		ref, at = p.seek(hash, at)
	}
	return ref
}

// sharer finds the mapping that holds a shared external port towards whom.
func (g *Gateway) sharer(proto ip.Proto, addr uint8, port uint16, whom endpoint) uint32 {
	hash := g.sharedHash(proto, addr, port, whom)
	p := g.byShared.page(hash)
	ref, at := p.seek(hash, 0)
	for ref != 0 {
		if m := g.mapping(ref); m.proto == proto && m.addr == addr && m.port == port && m.whom() == whom {
			break
		}
		ref, at = p.seek(hash, at)
	}
	return ref
}

// holder finds the mapping that an external endpoint of ours leads to, for
// packets from remote.
func (g *Gateway) holder(proto ip.Proto, addr uint8, port uint16, remote endpoint) uint32 {
	if g.shares(proto) {
		if ref := g.sharer(proto, addr, port, g.policy(proto).Mapping.depends(remote)); ref != 0 {
			return ref
		}
	}
	if p := g.externals[addr].pools[proto]; p != nil {
		return p.ref(port)
	}
	return 0
}

// shares reports whether mappings of a protocol share external ports.
func (g *Gateway) shares(proto ip.Proto) bool {
	return g.cfg.Ports.Overload && g.policy(proto).Mapping != EndpointIndependent
}

func (g *Gateway) pool(proto ip.Proto, addr uint8) *pool {
	p := &g.externals[addr].pools[proto]
	if *p == nil {
		r := g.within
		*p = &pool{last: r.first + uint16(g.rnd.Uint32N(uint32(r.size())))}
	}
	return *p
}
