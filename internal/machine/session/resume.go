package session

import (
	"slices"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// choose is the controller's decision: the best link that is up.
func (m *Machine) choose() {
	if !m.cfg.Controller || m.state == closed || m.state == answering {
		return
	}
	target := m.pending
	if target == nil && !m.unsure {
		target = m.send
	}
	best := target
	if best == nil {
		best = m.send
	}
	for _, l := range m.links {
		if !l.dead && (best == nil || l.rank > best.rank) {
			best = l
		}
	}
	if best != nil && best != target {
		m.ask(best)
	} else if m.send == nil && best != nil {
		// The old link died while the new one was asked: what it carried
		// since then is told again by a second RESUME.
		best.resumeDue = true
		m.use(best, false)
	}
}

// ask sends RESUME of the next epoch on l. While another link still works it
// carries on until the answer is here.
func (m *Machine) ask(l *link) {
	m.epoch++
	m.unsure = false
	for _, other := range m.links {
		other.resumeDue = false
	}
	l.resumeDue = true
	m.pending, m.asked = l, m.now
	if m.send == nil {
		m.use(l, false)
	}
}

// use makes l the link in use. named: the peer has said what it has received,
// so that every stream goes on; else only those of which the peer has all
// that was sent.
func (m *Machine) use(l *link, named bool) {
	m.send = l
	m.lane++
	m.stopLane()
	for _, s := range slices.Clone(m.order) { // settle may forget the stream
		h := &s.send
		if named || h.high <= h.acked {
			h.lane, h.sent = m.lane, h.acked
		}
		if !s.known && s.id&1 == m.own.parity {
			s.due |= dueOpen
		}
		if h.reset && !h.done {
			s.due |= dueReset
		}
		m.settle(s)
	}
	l.closeDue = l.closeDue || m.state == closing
}

// stopLane: nothing sent so far is expected to be answered.
func (m *Machine) stopLane() {
	for _, s := range m.order {
		s.waiting = false
		s.due &^= dueFin
		s.send.finSent, s.send.resetSent = false, false
	}
	m.waiting = 0
}

// goOn lets the streams continue that waited for the answer to a RESUME on
// the link in use.
func (m *Machine) goOn() {
	for _, s := range slices.Clone(m.order) {
		if h := &s.send; h.lane != m.lane {
			h.lane, h.sent = m.lane, h.acked
			m.settle(s)
		}
	}
}

// resumeFrame says all that this end has received: whatever was said before,
// on links that may be dead, need not be said again.
func (m *Machine) resumeFrame() frame.Frame {
	f := frame.Frame{Type: frame.RESUME, Epoch: m.epoch, Opened: m.own.opened, Accepted: m.peer.opened, Limit: m.peer.limit}
	f.Entries = make([]frame.Entry, len(m.order))
	for i, s := range m.order {
		f.Entries[i] = frame.Entry{Stream: uint64(s.id), Received: s.recv.received, Limit: s.recv.limit, Done: s.recv.done}
	}
	m.peer.said, m.streamsDue = m.peer.limit, false
	return f
}

func (m *Machine) handleResume(l *link, f *frame.Frame) (broken string) {
	if m.cfg.Controller {
		return m.answer(l, f)
	}
	switch {
	case f.Epoch > m.epoch:
	case f.Epoch == m.epoch && (l == m.pending || l == m.send):
		if broken := m.learn(f); broken != "" || l != m.pending {
			return broken
		}
		m.move(l)
		return ""
	default:
		return "" // overtaken by a later one on another link
	}
	if broken := m.learn(f); broken != "" {
		return broken
	}
	m.epoch, m.answered = f.Epoch, true
	for _, other := range m.links {
		other.lostDue, other.resumeDue = false, false
	}
	if m.send == nil || m.send == l {
		m.move(l)
		return ""
	}
	l.resumeDue = true
	m.pending, m.asked = l, m.now
	return ""
}

// answer is the controller's handling of a RESUME.
func (m *Machine) answer(l *link, f *frame.Frame) (broken string) {
	if f.Epoch != m.epoch || l != m.pending && l != m.send {
		return "" // an answer to an earlier RESUME
	}
	if broken := m.learn(f); broken != "" || l != m.pending {
		return broken
	}
	m.answered = true
	if m.send != l {
		m.move(l)
		return ""
	}
	m.pending = nil
	l.resumeDue = true
	m.goOn()
	m.event(LinkInUse{Link: l.id, Epoch: m.epoch})
	return ""
}

// move goes over to l. What went over the old link since the last RESUME may
// be lost with it, so that it is told again.
func (m *Machine) move(l *link) {
	m.pending = nil
	l.resumeDue = true
	m.use(l, true)
	m.event(LinkInUse{Link: l.id, Epoch: m.epoch})
}

// learn takes the facts of a RESUME. A stream that the peer knew and does not
// list is one that it has forgotten, because both directions are over: it has
// all that was sent.
func (m *Machine) learn(f *frame.Frame) (broken string) {
	m.allow(f.Limit)
	for _, s := range m.order {
		s.listed = false
	}
	for _, e := range f.Entries {
		s, broken := m.find(StreamID(e.Stream))
		if broken != "" {
			return broken
		}
		if s == nil {
			continue
		}
		s.listed = true
		if broken := m.acknowledged(s, e.Received, e.Limit, e.Done); broken != "" {
			return broken
		}
	}
	for _, s := range slices.Clone(m.order) {
		heard := f.Accepted
		if s.id&1 == m.peer.parity {
			heard = f.Opened
		}
		if !s.listed && uint64(s.id)/2 < heard {
			if broken := m.acknowledged(s, s.send.high, 0, true); broken != "" {
				return broken
			}
		}
		m.settle(s)
	}
	return ""
}

// handleLost: the responder found the link of that epoch dead.
func (m *Machine) handleLost(f *frame.Frame) (broken string) {
	if !m.cfg.Controller {
		return "LOST from the controller"
	}
	if f.Epoch != m.epoch {
		return "" // decided already
	}
	gone := m.pending
	if gone == nil {
		gone = m.send
	}
	if gone != nil {
		m.kill(gone, "lost by the peer")
	}
	return ""
}
