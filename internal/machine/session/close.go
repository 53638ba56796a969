package session

import (
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// Close ends the session. With frame.NoError all that was written is still
// delivered, for as long as Linger, every stream is ended and nothing more is
// read; with another code what is under way is given up. The event Closed
// tells when it is over.
func (m *Machine) Close(now time.Time, code uint64, text string) {
	m.tick(now)
	if m.state != open && (m.state != draining || code == frame.NoError) {
		return
	}
	m.state, m.sayCode, m.sayText = draining, min(code, frame.MaxNumber), text
	m.closeErr = &CloseError{Code: m.sayCode, Text: text}
	m.deadline = m.now.Add(m.cfg.Linger)
	m.wakeAll()
	if code != frame.NoError {
		m.sayClose()
		return
	}
	for _, s := range slices.Clone(m.order) {
		s.send.fin = true
		m.discard(s)
		m.settle(s)
	}
	m.drained()
}

// over is the error of whatever needs an open session.
func (m *Machine) over() error {
	switch {
	case m.state == open:
		return nil
	case m.closeErr.Remote || m.closeErr.Code == frame.ProtocolError:
		return m.closeErr
	}
	return ErrClosed
}

// drained says CLOSE when the last stream is over.
func (m *Machine) drained() {
	if m.state == draining && len(m.streams) == 0 {
		m.sayClose()
	}
}

func (m *Machine) sayClose() {
	m.state = closing
	m.unacked = m.retained
	if soon := m.now.Add(closeWait); m.sayCode != frame.NoError || m.deadline.Before(soon) {
		m.deadline = soon
	}
	for _, l := range m.links {
		if !l.dead && (l == m.send || m.send == nil) {
			l.closeDue = true
		}
	}
	m.closeWithout()
}

// closeWithout ends a session that no link is left of, unless it is worth
// waiting a moment for another one to say goodbye on.
func (m *Machine) closeWithout() {
	switch {
	case m.state != closing && m.state != answering, m.countLinks() > 0:
	case m.state == closing && m.sayCode == frame.NoError && m.answered:
		if soon := m.now.Add(closeWait); soon.Before(m.deadline) {
			m.deadline = soon
		}
	default:
		m.finish()
	}
}

// handleClose: the peer wants nothing more, so that nothing is drained.
func (m *Machine) handleClose(l *link, f *frame.Frame) {
	if m.state == closing && l.closeSent {
		m.finish()
		return
	}
	if m.state == open {
		m.closeErr = &CloseError{Code: f.Code, Text: f.Text, Remote: true}
		m.sayCode, m.sayText = f.Code, ""
	}
	m.lastWord(l)
}

// fail ends a session whose peer has broken the protocol.
func (m *Machine) fail(l *link, broken string) error {
	m.closeErr = &CloseError{Code: frame.ProtocolError, Text: broken}
	m.sayCode, m.sayText = frame.ProtocolError, broken
	m.lastWord(l)
	return m.closeErr
}

func (m *Machine) lastWord(l *link) {
	if m.state == open || m.state == draining {
		m.unacked = m.retained
	}
	m.state = answering
	m.deadline = m.now.Add(closeWait)
	l.closeDue = true
	m.wakeAll()
}

func (m *Machine) closeTimeout() {
	if m.state == draining {
		if m.sayClose(); m.countLinks() > 0 {
			return
		}
	}
	m.finish()
}

// finish lets go of everything but what is still to be read.
func (m *Machine) finish() {
	if m.state == closed {
		return
	}
	m.state = closed
	m.deadline = time.Time{}
	for _, s := range m.order {
		s.send.lost = !s.send.flushed()
		m.release(s, s.send.written)
	}
	m.delayed, m.pool.free = nil, nil
	m.wakeAll()
	m.event(Closed{Err: m.closeErr, Unacked: m.unacked})
}
