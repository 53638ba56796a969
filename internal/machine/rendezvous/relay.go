package rendezvous

import (
	"errors"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// relayEntry is a relay between two registered peers. It knows them by slot,
// so it follows them wherever they register, and ends with either.
type relayEntry struct {
	id    RelayID
	party [2]uint32 // who asked, and the target
	next  [2]uint32 // in the party's list of relays, number + 1
	prev  [2]uint32
	timer
	packets uint16 // from who asked, before the target agreed
	bytes   uint32
	kinds   Kinds // that were asked for
	agreed  bool  // the target used it
}

func (r *relayEntry) has(peer uint32) bool { return r.party[0] == peer || r.party[1] == peer }

func (r *relayEntry) side(peer uint32) int {
	if r.party[0] == peer {
		return 0
	}
	return 1
}

// relay finds a relay that is not over.
func (s *Server) relay(id RelayID) (*relayEntry, bool) {
	i, ok := s.byRelay.find(s.hash.relay(&id), func(i uint32) bool { return s.relays.at(i).id == id })
	if !ok {
		return nil, false
	}
	r := s.relays.at(i)
	if s.over(&r.timer) {
		s.endRelay(i)
		return nil, false
	}
	return r, true
}

func (s *Server) beginRelay(id RelayID, kinds Kinds, asker, target uint32) {
	i, r := s.relays.alloc()
	r.id, r.kinds, r.party = id, kinds, [2]uint32{asker, target}
	s.byRelay.insert(s.hash.relay(&id), i)
	for side, n := range r.party {
		p := s.peers.at(n)
		if r.next[side] = p.relays; p.relays != 0 {
			first := s.relays.at(p.relays - 1)
			first.prev[first.side(n)] = i + 1
		}
		p.relays = i + 1
	}
	s.peers.at(asker).asked++
	r.due = s.after(s.cfg.RelayAgree)
	s.relayExpiry.arm(i)
}

func (s *Server) endRelay(i uint32) {
	r := s.relays.at(i)
	for side, n := range r.party {
		next, prev := r.next[side], r.prev[side]
		if next != 0 {
			other := s.relays.at(next - 1)
			other.prev[other.side(n)] = prev
		}
		if prev != 0 {
			other := s.relays.at(prev - 1)
			other.next[other.side(n)] = next
		} else {
			s.peers.at(n).relays = next
		}
	}
	s.peers.at(r.party[0]).asked--
	s.byRelay.remove(s.hash.relay(&r.id), i)
	s.relayExpiry.disarm(i)
	s.relays.release(i)
}

// used notes that a side uses the relay with n bytes, and tells whether it may.
func (s *Server) used(r *relayEntry, side, n int) bool {
	if !r.agreed {
		if side == 0 {
			if int(r.packets) >= s.cfg.AgreePackets || int(r.bytes)+n > s.cfg.AgreeBytes {
				return false
			}
			r.packets++
			r.bytes += uint32(n)
			return true
		}
		r.agreed = true
	}
	// Later, mostly; when it is sooner, the wheel finds out at the old time.
	r.due = s.after(s.cfg.RelayIdle)
	return true
}

// RelayTarget tells where to forward a relayed packet, unchanged. Nothing is
// computed from the payload: ends authenticate one another. A packet that came
// on the heels of a first REGISTER and its CONNECT is polled later.
func (s *Server) RelayTarget(now time.Time, from netip.AddrPort, b []byte) (to netip.AddrPort, ok bool) {
	s.clock(now)
	id, _, ok := relay.Parse(b)
	if !ok || isZero(from) {
		s.stats.Malformed++
		return netip.AddrPort{}, false
	}
	r, ok := s.relay(id)
	if !ok && len(s.candidates.at) > 0 && s.keep(Addr{Endpoint: from}, b) {
		return netip.AddrPort{}, false // Agreed forwards it
	}
	if !ok || r.kinds&PacketRelay == 0 {
		s.drop(DropRelay)
		return netip.AddrPort{}, false
	}
	src := endpointOf(from)
	side := 0
	if p := s.peers.at(r.party[0]); p.endpoint != src || p.conn != 0 {
		side = 1
		if p = s.peers.at(r.party[1]); p.endpoint != src || p.conn != 0 {
			s.drop(DropRelay)
			return netip.AddrPort{}, false
		}
	}
	other := s.peers.at(r.party[1-side])
	if other.conn != 0 {
		s.drop(DropRelay)
		return netip.AddrPort{}, false
	}
	if !s.used(r, side, len(b)) {
		s.drop(DropBudget)
		return netip.AddrPort{}, false
	}
	if !s.relayLimit.take(&s.peers.at(r.party[0]).relayed, s.ns(), len(b)) {
		s.drop(DropRate)
		return netip.AddrPort{}, false
	}
	s.stats.RelayedPackets++
	s.stats.RelayedBytes += uint64(len(b))
	return other.addrPort(), true
}

var (
	// ErrPreface is returned by StreamRelay for a preface that is not
	// authentic, or was seen before.
	ErrPreface = errors.New("stream relay preface is not authentic")
	// ErrNoRelay is returned by StreamRelay when the peer has no such relay.
	ErrNoRelay = errors.New("no such relay")
)

// StreamRelay authenticates a stream relay's preface: side 0 asked for the
// relay, side 1 is the target.
func (s *Server) StreamRelay(now time.Time, preface []byte) (id RelayID, side int, err error) {
	s.begin(now)
	m, err := relay.ParsePreface(preface)
	if err != nil {
		s.stats.Malformed++
		return RelayID{}, 0, err
	}
	i, p, ok := s.byHandle(m.Handle)
	if !ok || !s.authentic(p, m.Tx, preface) {
		return RelayID{}, 0, ErrPreface
	}
	r, ok := s.relay(m.Relay)
	if !ok || !r.has(i) || r.kinds&wire.StreamRelay == 0 {
		s.drop(DropRelay)
		return RelayID{}, 0, ErrNoRelay
	}
	side = r.side(i)
	if !s.used(r, side, 0) {
		s.drop(DropBudget)
		return RelayID{}, 0, ErrNoRelay
	}
	return m.Relay, side, nil
}
