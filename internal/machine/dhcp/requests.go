package dhcp

import (
	"net/netip"
	"time"
)

// key tells clients apart (RFC 2131 section 4.2). A manual address belongs to a
// machine, whatever its systems call themselves.
func (s *Server) key(m *message) string {
	if m.id != "" && !s.space.manual[m.hw].IsValid() {
		return "i" + m.id
	}
	return "h" + string(m.hw[:])
}

// discover finds an address to offer, in the order of RFC 2131 section 4.3.1:
// the client's own, the one that it wishes for, any.
func (s *Server) discover(now time.Time, sender MAC, m *message) {
	k := s.key(m)
	if r := s.book.byKey[k]; r != nil && r.held() && s.space.lendable(r.addr, m.hw) {
		switch {
		case r.state == probing:
			r.asked = m
		case r.state == offered:
			s.offer(now, s.book.give(now, r.addr, k, m.hw, sender, offered, now.Add(offerFor)), m)
		default:
			s.offer(now, r, m) // of what it has
		}
		return
	}
	if s.hoards(now, sender, m) {
		return
	}
	a, ok := s.choose(now, k, m)
	if !ok {
		if !s.exhausted {
			s.exhausted = true
			s.say(Event{Kind: Exhausted, Client: m.hw})
		}
		return
	}
	if s.cfg.Probe {
		s.book.give(now, a, k, m.hw, sender, probing, now.Add(probeFor)).asked = m
		s.ping(a)
		return
	}
	s.offer(now, s.book.give(now, a, k, m.hw, sender, offered, now.Add(offerFor)), m)
}

// hoards tells whether a sender has so many addresses that it gets no more.
func (s *Server) hoards(now time.Time, sender MAC, m *message) bool {
	if sender == (MAC{}) || s.book.bySender[sender] < perSender {
		return false
	}
	if s.hoarded.IsZero() || now.Sub(s.hoarded) >= quietFor {
		s.hoarded = now
		s.say(Event{Kind: Hoarded, Client: m.hw, User: sender})
	}
	return true
}

// choose is an address for a client that holds none.
func (s *Server) choose(now time.Time, k string, m *message) (netip.Addr, bool) {
	barred := s.barred.of(k)
	if a := s.space.manual[m.hw]; a.IsValid() {
		r := s.book.byAddr[a]
		return a, r == nil || r.state != aside
	}
	if r := s.book.byKey[k]; r != nil && s.space.lendable(r.addr, m.hw) {
		return r.addr, true
	}
	if a := m.requested; a.IsValid() && a != barred && s.vacant(a) && s.space.dynamic(a) {
		return a, true
	}
	a, ok := s.book.pick(now, barred)
	if !ok && barred.IsValid() && s.space.dynamic(barred) && s.vacant(barred) {
		return barred, true // rather than none
	}
	return a, ok
}

// vacant tells whether an address is nobody's now and can be written down.
func (s *Server) vacant(a netip.Addr) bool {
	r := s.book.byAddr[a]
	if r == nil {
		return len(s.book.byAddr) < s.book.max
	}
	return r.state == free || r.state == idle
}

// request is a client's choice, or its wish to keep what it has (RFC 2131
// section 4.3.2).
func (s *Server) request(now time.Time, sender MAC, m *message) {
	r := s.book.byKey[s.key(m)]
	switch {
	case m.server.IsValid() && m.server != s.space.own:
		if r != nil && (r.state == offered || r.state == probing) {
			s.vacate(now, r) // the client took another server's offer
		}
	case m.client.IsValid(): // RENEWING, REBINDING
		s.keep(now, m.client, sender, m)
	case !m.requested.IsValid():
	case m.server.IsValid(): // SELECTING
		if a := m.requested; r != nil && r.addr == a && r.held() ||
			s.vacant(a) && s.space.lendable(a, m.hw) && a != s.barred.of(s.key(m)) && !s.hoards(now, sender, m) {
			// It need not be an offer that still stands.
			s.grant(now, a, sender, m)
		} else {
			s.refuse(a, m, "not on offer")
		}
	default: // INIT-REBOOT
		s.keep(now, m.requested, sender, m)
	}
}

// keep decides whether a client may go on with an address. It is silent when
// the address might be right for all that is known here.
func (s *Server) keep(now time.Time, a netip.Addr, sender MAC, m *message) {
	mine, its := s.book.byKey[s.key(m)], s.book.byAddr[a]
	manual := s.space.manual[m.hw]
	switch {
	case !s.space.usable(a):
		s.refuse(a, m, "wrong network")
	case manual.IsValid() && manual != a, s.space.kept[a] && manual != a, mine != nil && mine.addr != a, s.barred.of(s.key(m)) == a:
		s.refuse(a, m, "outdated address")
	case its != nil && its != mine && (its.held() || its.state == aside):
		s.refuse(a, m, "address in use")
	case mine != nil && mine.held(), (mine != nil || manual == a) && !s.hoards(now, sender, m):
		s.grant(now, a, sender, m)
	}
}

// decline: the client found that somebody has its address already (RFC 2131
// section 4.3.3).
func (s *Server) decline(now time.Time, sender MAC, m *message) {
	if r := s.speaker(sender, m, m.requested); r != nil && (r.state == offered || r.state == leased) {
		s.say(Event{Kind: Declined, Addr: r.addr, Client: r.hw})
		s.setAside(now, r)
	}
}

// release: the client needs its address no longer (RFC 2131 section 4.3.4).
func (s *Server) release(now time.Time, sender MAC, m *message) {
	if r := s.speaker(sender, m, m.client); r != nil && r.state == leased {
		s.say(Event{Kind: Released, Addr: r.addr, Client: r.hw})
		s.vacate(now, r)
	}
}

// speaker is the record of a client that speaks of its own address. Nobody
// gives up an address for somebody else.
func (s *Server) speaker(sender MAC, m *message, a netip.Addr) *record {
	r := s.book.byKey[s.key(m)]
	if r == nil || m.server != s.space.own || r.addr != a || r.hw != m.hw ||
		sender != (MAC{}) && sender != r.sender && sender != r.hw {
		return nil
	}
	return r
}

// setAside keeps an address from everyone for a while. At most half of the
// pool is kept so, lest declining could take all of it.
func (s *Server) setAside(now time.Time, r *record) {
	s.book.move(now, r, aside, now.Add(asideFor))
	for q := &s.book.queues[aside]; q.n > max(1, s.space.size()/2); {
		s.vacate(now, q.head)
	}
}

// answered: somebody is at the address that is pinged, so its client gets
// another one, unless it is the client, who has not let go of it.
func (s *Server) answered(now time.Time, a netip.Addr, sender MAC) {
	r := s.book.byAddr[a]
	if r == nil || r.state != probing {
		return
	}
	if sender == r.hw {
		s.offer(now, r, r.asked)
		return
	}
	m, from := r.asked, r.sender
	s.say(Event{Kind: Occupied, Addr: a, Client: r.hw, User: sender})
	s.setAside(now, r)
	s.discover(now, from, m)
}
