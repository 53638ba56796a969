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
	if s.busy() && s.before(from, wire.Register{Client: m.Client}).p == nil {
		s.drop(DropFull) // his REGISTER would be
		return true
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

// register costs one HMAC before the cookie is good, and one key agreement,
// within the rates, for a key that is not known. Whose is known pays no rate:
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
	if c := s.candidates.at[seat(from)]; c != nil {
		s.drop(DropReplay) // he repeats himself; his last word counts
		if m.Client == c.client && m.Sequence > c.sequence {
			c.register, c.sequence = append(c.register[:0], b...), m.Sequence
		}
		return true
	}
	if j, ok := s.conns[from.Conn]; ok && from.Conn != 0 && s.peers.at(j).id != m.Client {
		s.drop(DropFull) // one peer a connection
		return true
	}
	old := s.before(from, m)
	if old.p == nil {
		s.agree(from, b, m)
		return true
	}
	if !s.mac.Verify(b, &old.p.key) {
		s.drop(DropMAC)
		return true
	}
	s.enter(from, m, old.p.key)
	return true
}

// slot is a registration, or none with p nil.
type slot struct {
	i uint32
	p *peer
}

// before finds the registration that m renews: the one of the same key from
// the same address, whether it was a guest's or not, since an address is one
// process's; else, unless m is a guest's, the one that others find, wherever it
// is, because its peer may have moved.
func (s *Server) before(from Addr, m wire.Register) slot {
	old, listed := s.guestAt(m.Client, from), s.byID(m.Client)
	if old.p == nil && listed.p != nil && (m.Flags&wire.Guest == 0 || listed.p.isAt(from)) {
		return listed
	}
	return old
}

// enter makes or renews the registration that an authentic REGISTER asks for.
func (s *Server) enter(from Addr, m wire.Register, key wire.MACKey) {
	old, rival := s.before(from, m), slot{}
	if old.p != nil && old.p.guest() && m.Flags&wire.Guest == 0 {
		rival = s.byID(m.Client)
	}
	var stored, largest uint64
	for _, o := range []slot{old, rival} {
		if o.p != nil {
			stored, largest = max(stored, o.p.window.Base()), max(largest, o.p.largest())
		}
	}
	if old.p == nil {
		stored = s.departed(from, m)
		largest = stored
	}
	switch {
	case old.p != nil && m.Sequence == stored && old.p.isAt(from) && !s.over(&old.p.timer):
		s.registered(old.i, old.p) // the first answer was lost
	case m.Sequence <= stored:
		s.drop(DropReplay)
		s.refuse(from, &key, m.Sequence, wire.ReasonSequence, largest)
	case old.p != nil:
		if rival.p != nil {
			s.demote(rival)
		}
		s.byKey.remove(s.indexHash(old.p), old.i)
		s.expiry.disarm(old.i)
		s.displace(old.p)
		s.admit(from, m, old.i, old.p)
	case s.peers.full() || int(*s.populationAt(from.Endpoint.Addr())) >= s.cfg.PeersPerAddress:
		s.drop(DropFull)
		s.refuse(from, &key, m.Sequence, wire.ReasonFull, 0)
	default:
		i, p := s.peers.alloc()
		p.id, p.key = m.Client, key
		s.admit(from, m, i, p)
	}
}

// demote makes a guest that waits of who was to be found. Its next keep-alive
// is answered DISPLACED.
func (s *Server) demote(r slot) {
	s.byKey.remove(s.indexHash(r.p), r.i)
	r.p.flags |= wire.Guest | wire.Waiting
	s.byKey.insert(s.indexHash(r.p), r.i)
}

// departed is the largest sequence that must not come again, since its peer
// said BYE: from this address, or, unless it is a guest's, from anywhere.
func (s *Server) departed(from Addr, m wire.Register) (sequence uint64) {
	places := []uint64{s.guestHash(m.Client, from), s.hash.id((*[32]byte)(&m.Client))}
	if m.Flags&wire.Guest != 0 {
		places = places[:1]
	}
	for _, h := range places {
		if g := &s.gone[h%departedLen]; g.id == m.Client {
			sequence = max(sequence, g.sequence)
		}
	}
	return sequence
}

// depart notes a BYE where departed looks for it.
func (s *Server) depart(p *peer) {
	d := departure{p.id, p.largest()}
	s.gone[s.guestHash(p.id, p.addr())%departedLen] = d
	s.gone[s.indexHash(p)%departedLen] = d
}

// admit makes the registration that m asks for. p is in no wheel, no index and
// no place.
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
	s.byKey.insert(s.indexHash(p), i)
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
	if ok && p.isAt(from) {
		return i, p, s.authentic(p, tx, b)
	}
	if q := s.displacer(from, h, b); !ok && q != nil {
		s.tellDisplaced(from, q, tx, q.window.Base())
		return 0, nil, false
	}
	start := len(s.arena)
	s.arena = wire.Who{Tx: tx, Handle: h}.Append(s.arena)
	s.send(from, start)
	return 0, nil, false
}

// displacer finds who was registered after, and instead of, the sender of b,
// with the same key from another address.
func (s *Server) displacer(from Addr, h Handle, b []byte) *peer {
	p, ok := s.peers.lookup(binary.BigEndian.Uint32(h[:]))
	if !ok || p.generation == 0 || p.guest() || s.over(&p.timer) || p.isAt(from) || !s.mac.Verify(b, &p.key) {
		return nil
	}
	return p
}

// tellDisplaced says which registration of p's key is to be found: the one with
// the sequence, or, when it is zero, none.
func (s *Server) tellDisplaced(to Addr, p *peer, tx, sequence uint64) {
	start := len(s.arena)
	s.arena = wire.Displaced{Tx: tx, Sequence: sequence}.Append(s.arena)
	s.arena = s.mac.Append(s.arena, start, &p.key)
	s.send(to, start)
}

// senderOrRecent is sender for messages that may have handle zero.
func (s *Server) senderOrRecent(from Addr, h Handle, tx uint64, b []byte) (uint32, *peer, bool) {
	if h != (Handle{}) {
		return s.sender(from, h, tx, b)
	}
	if s.keep(from, b) {
		return 0, nil, false
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
	if p.flags&wire.Waiting != 0 {
		var sequence uint64
		if l := s.byID(p.id); l.p != nil && !s.over(&l.p.timer) {
			sequence = l.p.window.Base()
		}
		s.tellDisplaced(from, p, m.Tx, sequence)
		return true
	}
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
	if i, p, ok := s.senderOrRecent(from, m.Handle, m.Tx, b); ok {
		s.depart(p)
		s.forget(i, p)
	}
	return true
}
