package dhcp

import (
	"net/netip"
	"time"
)

const (
	quietFor  = time.Minute // what stopped for so long and starts again is news
	maxThefts = 64          // that are told apart at a time
)

// theft is the use of an address by somebody whose it is not.
type theft struct {
	addr netip.Addr
	user MAC
}

// knownPairs remembers who was found to be right, since every packet of a
// network is looked at. A slot belongs to the addresses that end in its number.
type knownPairs [256]theft

func (k *knownPairs) slot(a netip.Addr) *theft {
	b := a.As4()
	return &k[b[3]]
}

func (k *knownPairs) forget(a netip.Addr) {
	if slot := k.slot(a); slot.addr == a {
		*slot = theft{}
	}
}

// Seen tells the server that a packet with this source came from a hardware
// address. It speaks of an address thief once, and again when he was quiet for
// a minute.
func (s *Server) Seen(now time.Time, addr netip.Addr, from MAC) {
	if !addr.Is4() || from == (MAC{}) {
		return
	}
	pair := theft{addr, from}
	slot := s.book.known.slot(addr)
	if *slot == pair {
		return
	}
	e := Event{Kind: Stolen, Addr: addr, User: from}
	if r := s.book.byAddr[addr]; r != nil && r.state == leased {
		if r.hw == from {
			*slot = pair
			return
		}
		e.Client = r.hw
	} else if !s.space.watched(addr) {
		*slot = pair
		return
	}
	if last, again := s.thefts[pair]; again && now.Sub(last) < quietFor {
		s.thefts[pair] = now
		return
	}
	if len(s.thefts) >= maxThefts {
		for old, last := range s.thefts {
			if now.Sub(last) >= quietFor {
				delete(s.thefts, old)
			}
		}
		if len(s.thefts) >= maxThefts {
			return
		}
	}
	s.thefts[pair] = now
	s.say(e)
}
