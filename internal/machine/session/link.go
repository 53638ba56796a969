package session

import (
	"slices"
	"time"
)

// link is what the machine knows of one link. A dead one is kept until the
// shell has given back what it was sending.
type link struct {
	id      LinkID
	rank    int
	attempt [8]byte
	dead    bool
	idle    bool // Next had nothing, nobody was told since

	heard   time.Time
	pinged  time.Time
	pingN   uint64
	pingOut bool // not answered
	pong    uint64

	helloDue  bool
	resumeDue bool
	lostDue   bool
	pingDue   bool
	pongDue   bool
	closeDue  bool
	closeSent bool
	closeAt   time.Time // when it was

	flying []*chunk // of DATA handed out and not Sent, in order
}

func (l *link) ownDue() bool {
	return l.helloDue || l.resumeDue || l.lostDue || l.pingDue || l.pongDue || l.closeDue
}

func (m *Machine) link(id LinkID) *link {
	for _, l := range m.links {
		if l.id == id && !l.dead {
			return l
		}
	}
	return nil
}

// LinkUp tells of a link whose other end has proved that it is the peer. The
// controller uses the link of the highest rank; a tie changes nothing. The
// same call gives a link that is up another rank. attempt says in HELLO which
// attempt made the link.
func (m *Machine) LinkUp(now time.Time, id LinkID, rank int, attempt [8]byte) {
	m.tick(now)
	if l := m.link(id); l != nil {
		l.rank = rank
		m.choose()
		return
	}
	if m.state == closed {
		return
	}
	if m.countLinks() == maxLinks {
		m.event(LinkDead{Link: id, Reason: "too many links"})
		return
	}
	m.heard = m.now
	l := &link{id: id, rank: rank, attempt: attempt, heard: m.now, idle: true}
	l.helloDue = m.cfg.Controller
	l.lostDue = !m.cfg.Controller && m.send == nil && m.epoch > 0
	m.links = append(m.links, l)
	m.choose()
}

// LinkDown tells that a link has ended. DATA that Next handed out for it must
// still be given back by Sent.
func (m *Machine) LinkDown(now time.Time, id LinkID) {
	m.tick(now)
	if l := m.link(id); l != nil {
		m.bury(l)
	}
}

// LinkClosed tells that the peer has closed a link, in good order. After our
// CLOSE on it that is as good as an answer, which the end of the link may have
// overtaken.
func (m *Machine) LinkClosed(now time.Time, id LinkID) {
	l := m.link(id)
	answered := l != nil && l.closeSent && m.state == closing
	m.LinkDown(now, id)
	if answered {
		m.finish()
	}
}

func (m *Machine) countLinks() (n int) {
	for _, l := range m.links {
		if !l.dead {
			n++
		}
	}
	return n
}

func (m *Machine) kill(l *link, reason string) {
	m.event(LinkDead{Link: l.id, Reason: reason})
	m.bury(l)
}

func (m *Machine) bury(l *link) {
	l.dead = true
	m.forgetLink(l)
	lost := m.pending == l || m.pending == nil && m.send == l
	if m.pending == l {
		m.pending, m.unsure = nil, true
	}
	if m.send == l {
		m.send = nil
		m.stopLane()
	}
	switch {
	case m.cfg.Controller:
		m.choose()
	case m.send == nil && m.pending != nil:
		m.move(m.pending)
	case lost:
		for _, other := range m.links {
			other.lostDue = !other.dead
		}
	}
	if m.countLinks() == 0 && m.state != closed {
		m.event(NoLink{})
	}
	m.closeWithout()
}

func (m *Machine) forgetLink(l *link) {
	if l.dead && len(l.flying) == 0 {
		m.links = slices.DeleteFunc(m.links, func(x *link) bool { return x == l })
	}
}

// owed is when the oldest expectation of l began: what the peer must answer
// with a frame, if the link works.
func (m *Machine) owed(l *link) (since time.Time, ok bool) {
	add := func(t time.Time) {
		if !ok || t.Before(since) {
			since, ok = t, true
		}
	}
	if l.pingOut {
		add(l.pinged)
	}
	if l == m.pending {
		add(m.asked)
	}
	if l == m.send && m.waiting > 0 {
		add(m.waitSince)
	}
	if l.closeSent {
		add(l.closeAt)
	}
	return since, ok
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// deadAt is when l is dead unless it brings a frame.
func (m *Machine) deadAt(l *link) (time.Time, bool) {
	since, ok := m.owed(l)
	return later(since, l.heard).Add(deadAfter), ok
}

// pingAt is when l, being silent, is asked for a sign of life.
func (m *Machine) pingAt(l *link) (time.Time, bool) {
	last := later(l.heard, l.pinged)
	at := last.Add(pingIdle)
	switch {
	case l == m.send && m.waiting > 0:
		at = last.Add(pingBusy)
	case l == m.send && len(m.streams) > 0:
		at = last.Add(pingOpen)
	case l != m.send:
		if doubt, ok := m.doubtAt(); ok && doubt.Before(at) {
			at = later(doubt, last.Add(pingBusy))
		}
	}
	return at, !l.pingOut
}

// doubtAt is when the link in use is so late with an answer that the others
// must show whether they still work: so that, if it was the peer who went, all
// are known dead soon after one another.
func (m *Machine) doubtAt() (time.Time, bool) {
	if m.send == nil {
		return time.Time{}, false
	}
	since, ok := m.owed(m.send)
	return later(since, m.send.heard).Add(doubtAfter), ok
}

// ping asks l for a sign of life.
func (m *Machine) ping(l *link) {
	l.pingN++
	l.pinged, l.pingOut, l.pingDue = m.now, true, true
}

// Ping measures the link in use: Ponged follows, unless the link dies. A PING
// that is out already is measured instead; without a link nothing happens.
func (m *Machine) Ping(now time.Time) {
	m.tick(now)
	if m.send != nil && !m.send.pingOut {
		m.ping(m.send)
	}
}

func (m *Machine) linkDeadline(l *link) time.Time {
	dead, expecting := m.deadAt(l)
	ping, pinging := m.pingAt(l)
	if expecting && (!pinging || dead.Before(ping)) {
		return dead
	}
	return ping // pinging: a PING that is out is an expectation
}

func (m *Machine) checkLinks() {
	for _, l := range slices.Clone(m.links) {
		if l.dead {
			continue
		}
		if dead, ok := m.deadAt(l); ok && !m.now.Before(dead) {
			m.kill(l, "silent")
			continue
		}
		if ping, ok := m.pingAt(l); ok && !m.now.Before(ping) {
			m.ping(l)
			m.pool.rest()
		}
	}
}
