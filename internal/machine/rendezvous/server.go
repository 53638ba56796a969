package rendezvous

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

const (
	cookieLifetime = 30 * time.Second
	// A registration outlives every cookie, so that a REGISTER cannot be
	// replayed after the sequence it carries is forgotten.
	minLifetime = cookieLifetime + 15*time.Second

	crowdLen    = 1 << 16
	recentLen   = 1 << 12
	departedLen = 1 << 10
	backlog     = 1 << 10 // messages that wait for Poll
	sweep       = 1 << 10 // things that one HandleTimeout looks at
)

// Server is the rendezvous server's machine. Its owner hands in what arrives,
// polls for what to send, and agrees on keys for it, see Agreement.
//
// What it holds is bounded by its configuration, and what it does for a packet
// is constant. When a table is full, who is in it stays and who is new is
// told, or gets no answer.
type Server struct {
	cfg  ServerConfig
	id   identity.ID
	mac  *wire.MAC
	hash hasher
	rand *rand.ChaCha8

	cookieKey wire.MACKey
	scratch   []byte

	base time.Time     // of the ticks
	now  time.Duration // since base; never goes back

	peers  slab[peer]
	byKey  index
	expiry wheel
	conns  map[uint64]uint32
	crowd  []uint32 // registrations by address, see population
	recent []registration
	gone   []departure
	dirty  []uint32

	candidates candidates

	relays      slab[relayEntry]
	byRelay     index
	relayExpiry wheel

	hellos, registers, pairs             rateTable
	newKeys                              limit
	newKeysFull                          int64
	connectLimit, signalLimit, requested limit
	relayLimit                           limit

	queue []Out
	head  int
	arena []byte
	stats Stats
}

// NewServer makes a server that knows nobody yet.
func NewServer(cfg ServerConfig) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		cfg:        cfg,
		id:         cfg.Key.ID(),
		mac:        wire.NewMAC(),
		peers:      slab[peer]{max: cfg.MaxPeers},
		byKey:      newIndex(cfg.MaxPeers),
		conns:      map[uint64]uint32{},
		crowd:      make([]uint32, crowdLen),
		recent:     make([]registration, recentLen),
		gone:       make([]departure, departedLen),
		candidates: candidates{at: map[Addr]*candidate{}},

		relays:  slab[relayEntry]{max: cfg.MaxRelays},
		byRelay: newIndex(cfg.MaxRelays),

		hellos:       newRateTable(cfg.HelloRate),
		registers:    newRateTable(cfg.RegisterRate),
		pairs:        newRateTable(cfg.PairRate),
		newKeys:      newLimit(cfg.NewKeyRate),
		connectLimit: newLimit(cfg.ConnectRate),
		signalLimit:  newLimit(cfg.SignalRate),
		requested:    newLimit(cfg.RequestRate),
		relayLimit:   newLimit(cfg.RelayRate),
	}
	s.expiry.timer = func(i uint32) *timer { return &s.peers.at(i).timer }
	s.relayExpiry.timer = func(i uint32) *timer { return &s.relays.at(i).timer }

	s.cookieKey = wire.MACKeyOf(s.derive("cookies"))
	s.rand = rand.NewChaCha8(s.derive("handles"))
	for i, k := 0, s.derive("tables"); i < len(s.hash); i++ {
		s.hash[i] = binary.LittleEndian.Uint64(k[8*i:]) | 1
	}
	return s
}

func (s *Server) derive(purpose string) [32]byte {
	k, err := hkdf.Key(sha256.New, s.cfg.Secret[:], nil, "bodkin rendezvous server "+purpose, 32)
	if err != nil {
		panic(err) // 32 bytes are never too many
	}
	return [32]byte(k)
}

// HandlePacket handles a rendezvous message. The work is small and bounded; b
// is not kept.
func (s *Server) HandlePacket(now time.Time, from Addr, b []byte) {
	s.begin(now)
	t, _, ok := wire.Header(b)
	if !ok || isZero(from.Endpoint) || !s.dispatch(from, t, b) {
		s.stats.Malformed++
		return
	}
	s.stats.Received[t]++
}

func (s *Server) dispatch(from Addr, t wire.Type, b []byte) bool {
	switch t {
	case wire.TypeHello:
		return s.hello(from, b)
	case wire.TypeRegister:
		return s.register(from, b)
	case wire.TypeKeepAlive:
		return s.keepAlive(from, b)
	case wire.TypeConnect:
		return s.connect(from, b)
	case wire.TypeSignal:
		return s.signal(from, b)
	case wire.TypeBye:
		return s.bye(from, b)
	}
	return false
}

// begin starts a call from outside: what was polled may be overwritten.
func (s *Server) begin(now time.Time) {
	if s.head == len(s.queue) {
		s.head, s.queue, s.arena = 0, s.queue[:0], s.arena[:0]
	}
	s.clock(now)
}

func (s *Server) clock(now time.Time) {
	if s.base.IsZero() {
		s.base = now
	}
	s.now = max(s.now, now.Sub(s.base))
}

func (s *Server) ns() int64    { return int64(s.now) }
func (s *Server) tick() uint32 { return uint32(s.now / time.Second) }

// after is the tick at which d will have passed.
func (s *Server) after(d time.Duration) uint32 {
	return uint32((s.now + d + time.Second - 1) / time.Second)
}

// over tells whether something should have ended, even if the wheel did not
// come to it yet.
func (s *Server) over(t *timer) bool { return t.due <= s.tick() }

func (s *Server) drop(d Drop) { s.stats.Dropped[d]++ }

// send queues the message arena[start:].
func (s *Server) send(to Addr, start int) {
	t := s.arena[start+2]
	if s.put(to, start) {
		s.stats.Sent[t]++
	}
}

// put queues arena[start:].
func (s *Server) put(to Addr, start int) bool {
	if len(s.queue)-s.head >= backlog {
		s.arena = s.arena[:start]
		s.drop(DropBacklog)
		return false
	}
	data := s.arena[start:]
	s.queue = append(s.queue, Out{to, data[:len(data):len(data)]})
	return true
}

// sendMAC sends arena[start:] to p, with its MAC.
func (s *Server) sendMAC(p *peer, start int) {
	s.arena = s.mac.Append(s.arena, start, &p.key)
	s.send(p.addr(), start)
}

// Poll returns the next message to send.
func (s *Server) Poll() (Out, bool) {
	if s.head == len(s.queue) {
		return Out{}, false
	}
	s.head++
	return s.queue[s.head-1], true
}

// PollSlot returns the next slot that changed, as it is now.
func (s *Server) PollSlot() (Slot, bool) {
	n := len(s.dirty)
	if n == 0 {
		return Slot{}, false
	}
	i := s.dirty[n-1]
	s.dirty = s.dirty[:n-1]
	p := s.peers.at(i)
	p.dirty = false
	slot := Slot{Index: i}
	if p.generation != 0 && p.conn == 0 {
		slot.Endpoint, slot.Handle = p.addrPort(), handleOf(i, p.generation)
	}
	return slot, true
}

// NextTimeout tells when HandleTimeout is to be called next, if ever.
func (s *Server) NextTimeout() (time.Time, bool) {
	a, aok := s.expiry.next()
	b, bok := s.relayExpiry.next()
	switch {
	case !aok && !bok:
		return time.Time{}, false
	case !aok || bok && b < a:
		a = b
	}
	return s.base.Add(time.Duration(a) * time.Second), true
}

// HandleTimeout ends what is over, a bounded amount of it per call.
func (s *Server) HandleTimeout(now time.Time) {
	s.begin(now)
	s.expiry.advance(s.tick(), sweep, func(i uint32) { s.forget(i, s.peers.at(i)) })
	s.relayExpiry.advance(s.tick(), sweep, s.endRelay)
}

// ConnClosed forgets the peer that was registered, or about to be, over the
// connection.
func (s *Server) ConnClosed(now time.Time, conn uint64) {
	s.begin(now)
	if c := s.candidates.at[Addr{Conn: conn}]; c != nil {
		s.candidates.remove(c)
	}
	if i, ok := s.conns[conn]; ok {
		s.forget(i, s.peers.at(i))
	}
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.stats.Peers, s.stats.Relays = s.peers.len(), s.relays.len()
	return s.stats
}
