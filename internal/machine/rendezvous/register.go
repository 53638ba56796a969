package rendezvous

import (
	"crypto/subtle"
	"encoding/binary"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// registration says which peer registered last from an endpoint that hashes to
// this place: whose a message with handle zero is.
type registration struct{ i, generation uint32 }

// departure keeps the sequence of a peer that said BYE from being used again,
// as long as its cookie is good for.
type departure struct {
	id       identity.ID
	sequence uint64
}

// The handlers return false for what is not a message.

func (s *Server) hello(from Addr, b []byte) bool {
	m, err := wire.ParseHello(b)
	if err != nil {
		return false
	}
	if !s.hellos.take(s.hash.address(from.Endpoint.Addr()), s.ns()) {
		s.drop(DropRate)
		return true
	}
	start := len(s.arena)
	s.arena = wire.Cookie{
		Tx:     m.Tx,
		Cookie: s.cookie(s.base.Add(s.now).UnixMilli(), from, m.Client),
		Server: s.id,
		Mapped: from.Endpoint,
	}.Append(s.arena)
	s.send(from, start)
	return true
}

// cookie proves, without the server keeping anything, that its holder gets
// what is sent to the address.
func (s *Server) cookie(ms int64, at Addr, client identity.ID) (c wire.CookieBytes) {
	binary.BigEndian.PutUint64(c[:], uint64(ms))
	b := append(s.scratch[:0], c[:8]...)
	b = binary.BigEndian.AppendUint64(b, at.Conn)
	if at.Conn == 0 {
		b = wire.AppendEndpoint(b, at.Endpoint)
	}
	b = append(b, client[:]...)
	n := len(b)
	b = s.mac.Append(b, 0, &s.cookieKey)
	copy(c[8:], b[n:])
	s.scratch = b
	return c
}

func (s *Server) cookieGood(c wire.CookieBytes, at Addr, client identity.ID) bool {
	ms := int64(binary.BigEndian.Uint64(c[:]))
	age := s.base.Add(s.now).UnixMilli() - ms
	if ms < 0 || age < 0 || age > int64(cookieLifetime/time.Millisecond) {
		return false
	}
	want := s.cookie(ms, at, client)
	return subtle.ConstantTimeCompare(want[:], c[:]) == 1
}

// register costs one HMAC before the cookie is good, and one X25519, within
// the rates, for a key that is not registered. Who is registered pays no rate:
// strangers behind his address cannot keep him from moving.
func (s *Server) register(from Addr, b []byte) bool {
	m, err := wire.ParseRegister(b)
	if err != nil {
		return false
	}
	if !s.cookieGood(m.Cookie, from, m.Client) {
		s.drop(DropCookie)
		return true
	}
	if j, ok := s.conns[from.Conn]; ok && from.Conn != 0 && s.peers.at(j).id != m.Client {
		s.drop(DropFull) // one peer a connection
		return true
	}
	i, p, known := s.byID(m.Client)
	if m.Flags&wire.Guest != 0 {
		i, p, known = s.guestAt(m.Client, from)
	}
	if known {
		s.registerKnown(from, b, m, i, p)
	} else {
		s.registerNew(from, b, m)
	}
	return true
}

func (s *Server) registerKnown(from Addr, b []byte, m wire.Register, i uint32, p *peer) {
	if !s.mac.Verify(b, &p.key) {
		s.drop(DropMAC)
		return
	}
	switch stored := p.window.Base(); {
	case m.Sequence == stored && p.isAt(from) && !s.over(&p.timer):
		s.registered(i, p) // the first answer was lost
	case m.Sequence <= stored:
		s.drop(DropReplay)
		s.refuse(from, &p.key, m.Sequence, wire.ReasonSequence, p.largest())
	default:
		s.expiry.disarm(i)
		s.displace(p)
		s.admit(from, m, i, p)
	}
}

func (s *Server) registerNew(from Addr, b []byte, m wire.Register) {
	if !s.registers.take(s.hash.address(from.Endpoint.Addr()), s.ns()) || !s.newKeys.take(&s.newKeysFull, s.ns(), 1) {
		s.drop(DropRate)
		return
	}
	s.stats.KeyAgreements++
	shared, err := s.cfg.Key.Shared(m.Client)
	if err != nil {
		s.drop(DropMAC)
		return
	}
	key := wire.NewMACKey(shared, m.Client, s.id)
	if !s.mac.Verify(b, &key) {
		s.drop(DropMAC)
		return
	}
	h := s.hash.id((*[32]byte)(&m.Client))
	if m.Flags&wire.Guest != 0 {
		h = s.guestHash(m.Client, from)
	}
	if g := &s.gone[h%departedLen]; g.id == m.Client && m.Sequence <= g.sequence {
		s.drop(DropReplay)
		s.refuse(from, &key, m.Sequence, wire.ReasonSequence, g.sequence)
		return
	}
	if s.peers.full() || int(*s.populationAt(from.Endpoint.Addr())) >= s.cfg.PeersPerAddress {
		s.drop(DropFull)
		s.refuse(from, &key, m.Sequence, wire.ReasonFull, 0)
		return
	}
	i, p := s.peers.alloc()
	p.id, p.key = m.Client, key
	s.byKey.insert(h, i)
	s.admit(from, m, i, p)
}

// admit makes the registration that m asks for. p is in no wheel and no place.
func (s *Server) admit(from Addr, m wire.Register, i uint32, p *peer) {
	lifetime := time.Duration(m.Lifetime) * time.Second
	if lifetime == 0 {
		lifetime = s.cfg.Lifetime
	}
	lifetime = max(min(lifetime, s.cfg.MaxLifetime), minLifetime)
	p.lifetime = uint16(min(lifetime/time.Second, 1<<16-1))
	p.flags = m.Flags
	// A message behind this REGISTER may have overtaken it, and counts as seen.
	p.window.Rebase(m.Sequence)
	p.tx = max(p.tx, m.Sequence)
	p.generation = uint32(s.rand.Uint64()) | 1
	s.place(i, p, from)
	p.due = s.after(time.Duration(p.lifetime) * time.Second)
	s.expiry.arm(i)
	s.recent[s.recently(from)] = registration{i, p.generation}
	s.registered(i, p)
}

func (s *Server) registered(i uint32, p *peer) {
	lifetime := time.Duration(p.lifetime) * time.Second
	start := len(s.arena)
	s.arena = wire.Registered{
		Tx:        p.window.Base(),
		Handle:    handleOf(i, p.generation),
		Mapped:    p.addrPort(),
		Lifetime:  p.lifetime,
		KeepAlive: uint16(max(min(s.cfg.KeepAlive, lifetime/3)/time.Second, 1)),
	}.Append(s.arena)
	s.sendMAC(p, start)
}

func (s *Server) refuse(to Addr, key *wire.MACKey, tx uint64, why wire.Reason, sequence uint64) {
	start := len(s.arena)
	s.arena = wire.Refused{Tx: tx, Reason: why, Sequence: sequence}.Append(s.arena)
	s.arena = s.mac.Append(s.arena, start, key)
	s.send(to, start)
}

func (s *Server) recently(at Addr) uint64 {
	e := endpointOf(at.Endpoint)
	le := binary.LittleEndian
	return s.hash.words(le.Uint64(e.addr[:]), le.Uint64(e.addr[8:]), uint64(e.port), at.Conn) % recentLen
}

// sender finds and authenticates who sent b, or says WHO.
func (s *Server) sender(from Addr, h Handle, tx uint64, b []byte) (uint32, *peer, bool) {
	i, p, ok := s.byHandle(h)
	if !ok || !p.isAt(from) {
		start := len(s.arena)
		s.arena = wire.Who{Tx: tx, Handle: h}.Append(s.arena)
		s.send(from, start)
		return 0, nil, false
	}
	return i, p, s.authentic(p, tx, b)
}

// senderOrRecent is sender for messages that may have handle zero.
func (s *Server) senderOrRecent(from Addr, h Handle, tx uint64, b []byte) (uint32, *peer, bool) {
	if h != (Handle{}) {
		return s.sender(from, h, tx, b)
	}
	r := s.recent[s.recently(from)]
	i, p, ok := s.byHandle(handleOf(r.i, r.generation))
	if !ok || !p.isAt(from) {
		s.drop(DropReplay) // it overtook its REGISTER, or that was long ago
		return 0, nil, false
	}
	return i, p, s.authentic(p, tx, b)
}

func (s *Server) authentic(p *peer, tx uint64, b []byte) bool {
	if !p.window.Fresh(tx) {
		s.drop(DropReplay)
		return false
	}
	if !s.mac.Verify(b, &p.key) {
		s.drop(DropMAC)
		return false
	}
	p.window.Mark(tx)
	return true
}

func (s *Server) keepAlive(from Addr, b []byte) bool {
	m, err := wire.ParseKeepAlive(b)
	if err != nil {
		return false
	}
	_, p, ok := s.sender(from, m.Handle, m.Tx, b)
	if !ok {
		return true
	}
	p.due = s.after(time.Duration(p.lifetime) * time.Second)
	start := len(s.arena)
	s.arena = wire.Alive{Tx: m.Tx}.Append(s.arena)
	s.sendMAC(p, start)
	return true
}

func (s *Server) bye(from Addr, b []byte) bool {
	m, err := wire.ParseBye(b)
	if err != nil {
		return false
	}
	if i, p, ok := s.sender(from, m.Handle, m.Tx, b); ok {
		s.gone[s.indexHash(p)%departedLen] = departure{p.id, p.largest()}
		s.forget(i, p)
	}
	return true
}
