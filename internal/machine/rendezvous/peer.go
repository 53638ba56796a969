package rendezvous

import (
	"encoding/binary"
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/identity"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// endpoint is a netip.AddrPort without its pointer: IPv4 is mapped.
type endpoint struct {
	addr [16]byte
	port uint16
}

func endpointOf(ap netip.AddrPort) endpoint { return endpoint{ap.Addr().As16(), ap.Port()} }

func (e endpoint) addrPort() netip.AddrPort {
	if e.port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(e.addr).Unmap(), e.port)
}

// isZero tells an endpoint that nobody can have.
func isZero(ap netip.AddrPort) bool { return !ap.IsValid() || ap.Port() == 0 }

// peer is a registration. A million of them stand in the slab, so there are no
// pointers in it, and nothing that can be computed.
type peer struct {
	// What a keep-alive looks at comes first, in as few cache lines as it fits.
	generation uint32 // of the handle; zero: the slot is free
	endpoint
	lifetime uint16 // seconds
	timer
	conn   uint64      // zero: UDP
	window wire.Window // of the client's txids; its base is the registration's sequence
	key    wire.MACKey

	id identity.ID
	tx uint64 // of the last REQUEST or SIGNALLED sent

	connects, signals, requests, relayed int64 // buckets

	relays uint32 // head of the list of its relays, number + 1
	asked  uint32 // how many of them it asked for
	flags  wire.Flags
	dirty  bool // is in the list of changed slots
}

func (p *peer) addr() Addr { return Addr{p.addrPort(), p.conn} }

func (p *peer) isAt(from Addr) bool {
	return p.conn == from.Conn && (p.conn != 0 || p.endpoint == endpointOf(from.Endpoint))
}

// can is what the registration makes possible: a peer without UDP has nothing
// but its TCP connections.
func (p *peer) can() Kinds {
	k := PacketRelay | StreamRelay | Direct
	if p.conn != 0 {
		k = StreamRelay
	}
	if p.flags&wire.RelayOnly != 0 {
		k &^= Direct
	}
	return k
}

// largest is the largest txid that either end used under the key.
func (p *peer) largest() uint64 { return max(p.window.Top(), p.tx) }

func handleOf(i, generation uint32) (h Handle) {
	binary.BigEndian.PutUint32(h[:], i)
	binary.BigEndian.PutUint32(h[4:], generation)
	return h
}

// byHandle finds a registration that is still valid.
func (s *Server) byHandle(h Handle) (uint32, *peer, bool) {
	i, generation := binary.BigEndian.Uint32(h[:]), binary.BigEndian.Uint32(h[4:])
	p, ok := s.peers.lookup(i)
	if !ok || generation == 0 || p.generation != generation || s.over(&p.timer) {
		return 0, nil, false
	}
	return i, p, true
}

// byID finds the registration that others may ask for.
func (s *Server) byID(id identity.ID) slot {
	return s.byPlace(s.hash.id((*[32]byte)(&id)), func(p *peer) bool { return p.id == id && !p.guest() })
}

// guestAt finds the guest that registered with the key from the address.
func (s *Server) guestAt(id identity.ID, at Addr) slot {
	return s.byPlace(s.guestHash(id, at), func(p *peer) bool { return p.id == id && p.guest() && p.isAt(at) })
}

func (s *Server) byPlace(hash uint64, match func(*peer) bool) slot {
	i, ok := s.byKey.find(hash, func(i uint32) bool { return match(s.peers.at(i)) })
	if !ok {
		return slot{}
	}
	return slot{i, s.peers.at(i)}
}

// indexHash is the peer's place in byKey: by its key, or for a guest by its
// key and address, because others may use the key too.
func (s *Server) indexHash(p *peer) uint64 {
	if p.guest() {
		return s.guestHash(p.id, Addr{p.addrPort(), p.conn})
	}
	return s.hash.id((*[32]byte)(&p.id))
}

func (s *Server) guestHash(id identity.ID, at Addr) uint64 {
	e := endpointOf(at.Endpoint)
	le := binary.LittleEndian
	where := s.hash.words(le.Uint64(e.addr[:]), le.Uint64(e.addr[8:]), uint64(e.port), at.Conn)
	return s.hash.words(s.hash.id((*[32]byte)(&id)), where, 3, 0)
}

func (p *peer) guest() bool { return p.flags&wire.Guest != 0 }

// place notes where the peer is, in the tables that depend on it.
func (s *Server) place(i uint32, p *peer, at Addr) {
	p.endpoint, p.conn = endpointOf(at.Endpoint), at.Conn
	if p.conn != 0 {
		s.conns[p.conn] = i
	}
	*s.population(p)++
	s.changed(i, p)
}

func (s *Server) displace(p *peer) {
	if p.conn != 0 {
		delete(s.conns, p.conn)
	}
	*s.population(p)--
}

// population counts the registrations from the peer's address. Addresses share
// a counter rarely, and nobody can choose with whom.
func (s *Server) population(p *peer) *uint32 {
	return s.populationAt(netip.AddrFrom16(p.endpoint.addr))
}

func (s *Server) populationAt(a netip.Addr) *uint32 {
	return &s.crowd[s.hash.address(a)%uint64(len(s.crowd))]
}

// forget ends a registration and its relays.
func (s *Server) forget(i uint32, p *peer) {
	for p.relays != 0 {
		s.endRelay(p.relays - 1)
	}
	s.byKey.remove(s.indexHash(p), i)
	s.displace(p)
	s.expiry.disarm(i)
	dirty := p.dirty
	s.peers.release(i)
	p.dirty = dirty
	s.changed(i, p)
}

func (s *Server) changed(i uint32, p *peer) {
	if !p.dirty {
		p.dirty = true
		s.dirty = append(s.dirty, i)
	}
}
