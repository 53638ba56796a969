package rendezvous

import (
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// Agreement is a key to agree on, X25519, with a peer that wants to register:
// the one costly act of the machine, which it leaves to its owner. Every one
// that was polled must be handed back to Agreed, after Agree.
type Agreement struct {
	Peer identity.ID

	of  *candidate
	key wire.MACKey
	ok  bool
}

// Agree computes the key. It touches nothing but a: it can run beside the
// machine.
func (a *Agreement) Agree(server identity.Key) {
	shared, err := server.Shared(a.Peer)
	if err != nil {
		return // no point of the curve
	}
	a.key, a.ok = wire.NewMACKey(shared, a.Peer, server.ID()), true
}

// What candidates may send behind their REGISTER.
const (
	behindPackets = 8 // of one: a CONNECT or two, and the first handshake packets
	behindBytes   = 8 << 10
	behindAll     = 4 << 20 // of all together
)

// candidate is a stranger whose cookie is good and whose key is being agreed
// on. What came on the heels of his REGISTER waits with him.
type candidate struct {
	at       Addr
	register []byte
	client   identity.ID
	sequence uint64
	behind   [][]byte
	size     int // of behind
}

// seat is how candidates are told apart: one an endpoint, or connection.
func seat(at Addr) Addr {
	if at.Conn != 0 {
		return Addr{Conn: at.Conn}
	}
	return at
}

// candidates are those whose keys are being agreed on, a bounded number.
type candidates struct {
	at     map[Addr]*candidate
	asked  []*candidate // not polled yet; some may have gone
	polled int          // not handed back yet
	behind int          // bytes
}

func (l *candidates) remove(c *candidate) {
	delete(l.at, seat(c.at))
	l.behind -= c.size
}

func (l *candidates) waits(c *candidate) bool { return l.at[seat(c.at)] == c }

// agree asks for the key of who sent the REGISTER b.
func (s *Server) agree(from Addr, b []byte, m wire.Register) {
	if l := &s.candidates; len(l.at) >= s.cfg.MaxAgreements || len(l.asked)+l.polled >= s.cfg.MaxAgreements {
		s.drop(DropFull)
		return
	}
	if !s.registers.take(s.hash.address(from.Endpoint.Addr()), s.ns()) || !s.newKeys.take(&s.newKeysFull, s.ns(), 1) {
		s.drop(DropRate)
		return
	}
	c := &candidate{at: from, register: append([]byte(nil), b...), client: m.Client, sequence: m.Sequence}
	s.candidates.at[seat(from)] = c
	s.candidates.asked = append(s.candidates.asked, c)
}

// busy tells that there are so many candidates that nobody should become one.
func (s *Server) busy() bool { return len(s.candidates.at) >= s.cfg.MaxAgreements/2 }

// PollAgreement returns the next key to agree on.
func (s *Server) PollAgreement() (Agreement, bool) {
	for l := &s.candidates; len(l.asked) > 0; {
		c := l.asked[0]
		l.asked = slices.Delete(l.asked, 0, 1)
		if l.waits(c) {
			l.polled++
			s.stats.KeyAgreements++
			return Agreement{Peer: c.client, of: c}, true
		}
	}
	return Agreement{}, false
}

// Agreed takes an agreement back and registers the peer, if it is who it says.
func (s *Server) Agreed(now time.Time, a Agreement) {
	s.begin(now)
	c := a.of
	s.candidates.polled--
	if !s.candidates.waits(c) {
		return // his connection was closed
	}
	s.candidates.remove(c)
	m, err := wire.ParseRegister(c.register)
	if err != nil || !a.ok || !s.mac.Verify(c.register, &a.key) {
		s.drop(DropMAC)
		return
	}
	s.enter(c.at, m, a.key)
	for _, b := range c.behind {
		if b[0] != relay.First {
			s.dispatch(c.at, wire.Type(b[2]), b)
		} else if to, ok := s.RelayTarget(now, c.at.Endpoint, b); ok {
			start := len(s.arena)
			s.arena = append(s.arena, b...)
			s.put(Addr{Endpoint: to}, start)
		}
	}
}

// keep keeps b, which depends on a REGISTER that its sender waits for. It is
// false for who does not.
func (s *Server) keep(from Addr, b []byte) bool {
	c := s.candidates.at[seat(from)]
	if c == nil {
		return false
	}
	if len(c.behind) == behindPackets || c.size+len(b) > behindBytes || s.candidates.behind+len(b) > behindAll {
		s.drop(DropBudget)
		return true
	}
	c.behind = append(c.behind, append([]byte(nil), b...))
	c.size += len(b)
	s.candidates.behind += len(b)
	return true
}
