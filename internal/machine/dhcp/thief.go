package dhcp

import (
	"net/netip"
	"time"
)

const (
	quietFor  = time.Minute // what stopped for so long and starts again is news
	maxThefts = 64          // that are told apart at a time
)

// user is who sends from an address.
type user struct {
	addr [4]byte
	hw   MAC
}

// users remembers who was found to be right, since every packet of a network is
// looked at. A slot belongs to the addresses that end in its number.
type users [256]user

func (u *users) forget(a netip.Addr) {
	if b := a.As4(); u[b[3]].addr == b {
		u[b[3]] = user{}
	}
}

// Seen tells the server that a packet with this IPv4 source came from a
// hardware address. It speaks of an address thief once, and again when he was
// quiet for a minute.
func (s *Server) Seen(now time.Time, source [4]byte, from MAC) {
	if u := (user{source, from}); s.book.known[source[3]] != u {
		s.suspect(now, u)
	}
}

func (s *Server) suspect(now time.Time, u user) {
	if u.hw == (MAC{}) {
		return // links have no hardware addresses
	}
	addr := netip.AddrFrom4(u.addr)
	slot := &s.book.known[u.addr[3]]
	e := Event{Kind: Stolen, Addr: addr, User: u.hw, Own: addr == s.space.own}
	if r := s.book.byAddr[addr]; r != nil && r.state == leased {
		if u.hw == r.hw || u.hw == r.sender {
			*slot = u
			return
		}
		e.Client = r.hw
	} else if !s.space.watched(addr) {
		*slot = u
		return
	}
	if last, again := s.thefts[u]; again && now.Sub(last) < quietFor {
		s.thefts[u] = now
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
	s.thefts[u] = now
	s.say(e)
}
