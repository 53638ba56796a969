package session

import "github.com/bodkin-net/bodkin/internal/wire/frame"

// sendHalf is one direction of a stream at its sender:
// acked <= sent <= high <= written, and acked <= sent <= limit.
type sendHalf struct {
	buf     buffer // [acked, written)
	acked   uint64 // the peer has all before
	sent    uint64 // where the lane stands
	high    uint64 // the furthest that any lane stood
	written uint64
	limit   uint64 // the peer takes bytes before it

	lane      uint64 // the lane that sent counts on; another one's: wait for RESUME
	fin       bool   // nothing follows written
	finSent   bool   // on this lane
	reset     bool   // by this end
	resetSent bool   // on this lane
	code      uint64
	done      bool // the peer wants nothing more of it
	refused   bool // and did not take all that was written
	told      bool // the user knows
	lost      bool // the session ended before the peer had all
}

func (h *sendHalf) ready() bool { return h.sent < min(h.written, h.limit) }

func (h *sendHalf) unanswered() bool {
	if h.reset {
		return h.resetSent
	}
	return h.sent > h.acked || h.finSent
}

// flushed: the peer has all that was written, and the end if there is one.
func (h *sendHalf) flushed() bool { return h.done || !h.fin && h.acked == h.written }

// Write keeps a copy of what it takes of p until the peer has it. When it
// takes less, the stream's window is full and a WakeWrite will follow.
func (m *Machine) Write(id StreamID, p []byte) (int, error) {
	s, err := m.writable(id)
	if err != nil {
		return 0, err
	}
	h := &s.send
	room := min(uint64(m.cfg.Window)-(h.written-h.acked), uint64(m.cfg.Memory)-m.retained, frame.MaxOffset-h.written)
	n := int(min(room, uint64(len(p))))
	s.wantWrite = n < len(p)
	if n == 0 {
		return 0, nil
	}
	h.buf.append(&m.pool, h.written, p[:n])
	h.written += uint64(n)
	m.retained += uint64(n)
	m.settle(s)
	return n, nil
}

func (m *Machine) writable(id StreamID) (*stream, error) {
	if err := m.over(); err != nil {
		return nil, err
	}
	s := m.streams[id]
	switch {
	case s == nil:
		return nil, ErrNoStream
	case s.send.fin || s.send.reset:
		return nil, ErrWriteClosed
	case s.send.done && s.recv.reset:
		return nil, &ResetError{Code: s.recv.code}
	case s.send.done:
		return nil, ErrStopped
	}
	return s, nil
}

// CloseWrite ends this end's direction behind what has been written.
func (m *Machine) CloseWrite(id StreamID) error {
	s := m.streams[id]
	if s == nil {
		return ErrNoStream
	}
	s.send.fin = true
	m.settle(s)
	return nil
}

// Reset gives up both directions of a stream, unsent and unread bytes too.
// The peer's reader is told code.
func (m *Machine) Reset(id StreamID, code uint64) error {
	s := m.streams[id]
	if s == nil {
		return ErrNoStream
	}
	m.abandon(s, min(code, frame.MaxNumber))
	return nil
}

func (m *Machine) abandon(s *stream, code uint64) {
	if h := &s.send; !h.done && !h.reset {
		h.reset, h.code = true, code
		s.due = s.due&^dueFin | dueReset
		m.release(s, h.written)
	}
	s.send.fin = true
	m.discard(s)
	m.wakeStream(s)
	m.settle(s)
}

// Flushed tells whether the peer has acknowledged all that was written, and
// the end of it if there is one. After a false answer a WakeFlush will follow.
// What was acknowledged stays so when the session ends.
func (m *Machine) Flushed(id StreamID) (bool, error) {
	s := m.streams[id]
	switch {
	case s == nil: // both directions are over; the session may be so too
		return true, nil
	case s.send.reset:
		return false, ErrWriteClosed
	case s.send.lost:
		return false, m.over()
	case s.send.refused:
		s.send.told = true
		m.settle(s)
		return false, ErrStopped
	case s.send.flushed():
		return true, nil
	}
	s.wantFlush = true
	return false, nil
}

// acknowledged takes the peer's word on what it has and may get.
func (m *Machine) acknowledged(s *stream, received, limit uint64, done bool) (broken string) {
	h := &s.send
	if received > h.high {
		return "ACK of bytes that were not sent"
	}
	h.limit = max(h.limit, limit)
	defer m.wakeFlusher(s)
	if received > h.acked && !h.reset {
		m.release(s, received)
	}
	if done && !h.done {
		h.done = true
		h.refused = h.acked < h.written && !h.reset
		s.due &^= dueFin | dueReset
		m.release(s, h.written)
		m.wakeWriter(s)
	}
	return ""
}

// release forgets what the peer has, or what it will not get, before offset.
func (m *Machine) release(s *stream, offset uint64) {
	h := &s.send
	full := m.retained >= uint64(m.cfg.Memory)
	m.retained -= offset - h.acked
	h.acked = offset
	h.sent = max(h.sent, offset)
	h.buf.trim(&m.pool, offset, h.written)
	m.wakeWriter(s)
	if full {
		for _, other := range m.order {
			m.wakeWriter(other)
		}
	}
}
