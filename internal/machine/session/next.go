package session

import (
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// Next is what link id shall send now. A false answer means nothing; a
// WakeLink will follow. The Data of a DATA frame is the machine's memory: it
// must not be changed, and Sent must be called when it is needed no longer,
// even when the link has died meanwhile.
func (m *Machine) Next(now time.Time, id LinkID) (f frame.Frame, ok bool) {
	m.tick(now)
	l := m.link(id)
	if l == nil || m.state == closed {
		return f, false
	}
	if l.ownDue() {
		if m.nextOwn(l, &f); f.Type != 0 {
			return f, true
		}
	}
	if l == m.send && m.state != answering {
		if m.nextControl(&f) || m.state != closing && m.nextData(l, &f) {
			return f, true
		}
	}
	if l.closeDue {
		l.closeDue = false
		return frame.Frame{Type: frame.CLOSE, Code: m.sayCode, Text: m.sayText}, true
	}
	l.idle = true
	return f, false
}

// nextOwn is what any link sends, whether in use or not. CLOSE is not among
// it: it comes last.
func (m *Machine) nextOwn(l *link, f *frame.Frame) {
	switch {
	case l.helloDue:
		l.helloDue = false
		f.Type, f.Session, f.Attempt = frame.HELLO, m.cfg.Session, l.attempt
		if !m.answered {
			f.Flags = frame.NewSession
		}
	case m.state == answering:
	case l.resumeDue:
		l.resumeDue = false
		*f = m.resumeFrame()
	case l.lostDue:
		l.lostDue = false
		f.Type, f.Epoch = frame.LOST, m.epoch
	case l.pongDue:
		l.pongDue = false
		f.Type, f.N = frame.PONG, l.pong
	case l.pingDue:
		l.pingDue = false
		f.Type, f.N = frame.PING, l.pingN
	}
}

func (m *Machine) nextControl(f *frame.Frame) bool {
	if m.streamsDue {
		m.streamsDue = false
		m.peer.said = m.peer.limit
		f.Type, f.Limit = frame.STREAMS, m.peer.limit
		return true
	}
	for !m.control.empty() {
		s := m.control.pop()
		s.inControl = false
		if !s.retired && m.streamControl(s, f) {
			m.settle(s)
			return true
		}
	}
	return false
}

// streamControl is the first thing due of s.
func (m *Machine) streamControl(s *stream, f *frame.Frame) bool {
	f.Stream = uint64(s.id)
	h, r := &s.send, &s.recv
	switch {
	case s.due&dueOpen != 0:
		s.due &^= dueOpen
		f.Type = frame.OPEN
	case s.due&dueAck != 0:
		s.due &^= dueAck
		r.ackedTo, r.ackAt = r.received, time.Time{}
		f.Type, f.Offset, f.Limit, f.Done = frame.ACK, r.received, r.limit, r.done
	case s.due&dueReset != 0:
		s.due &^= dueReset
		h.resetSent = true
		f.Type, f.Code = frame.RESET, h.code
	case s.due&dueFin != 0:
		s.due &^= dueFin
		h.finSent = true
		f.Type, f.Offset = frame.FIN, h.written
	default:
		return false
	}
	return true
}

// nextData takes turns between the streams, a chunk at a time.
func (m *Machine) nextData(l *link, f *frame.Frame) bool {
	for !m.data.empty() {
		s := m.data.pop()
		s.inData = false
		h := &s.send
		if s.retired || h.lane != m.lane || h.done || h.reset || !h.ready() {
			continue
		}
		c, b := h.buf.at(h.sent, min(h.written, h.limit))
		f.Type, f.Stream, f.Offset, f.Data = frame.DATA, uint64(s.id), h.sent, b
		c.refs++
		l.flying = append(l.flying, c)
		h.sent += uint64(len(b))
		h.high = max(h.high, h.sent)
		m.settle(s)
		return true
	}
	return false
}

// Sent tells that the frame that Next gave for link id is needed no longer.
// It is called once for every such frame, in the same order.
func (m *Machine) Sent(now time.Time, id LinkID, f frame.Frame) {
	m.tick(now)
	for _, l := range m.links {
		if l.id != id {
			continue
		}
		switch {
		case f.Type == frame.DATA && len(l.flying) > 0:
			m.pool.landed(l.flying[0])
			l.flying = slices.Delete(l.flying, 0, 1)
			m.forgetLink(l)
		case f.Type == frame.CLOSE:
			l.closeSent, l.closeAt = true, m.now
			if m.state == answering {
				m.finish()
			}
		}
		return
	}
}
