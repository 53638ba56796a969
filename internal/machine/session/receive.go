package session

import (
	"io"
	"time"
)

// recvHalf is one direction of a stream at its receiver:
// read <= received <= limit.
type recvHalf struct {
	buf      buffer // [read, received)
	read     uint64
	received uint64
	limit    uint64 // granted
	window   uint64 // what limit should be ahead of read
	grown    uint64 // read, when window last grew
	final    uint64
	hasFinal bool

	reset bool // by the peer
	code  uint64
	done  bool // nothing more is wanted: all is here, or reset, or discarded
	ended bool // the user knows

	ackedTo uint64 // received, when it was last told
	ackAt   time.Time
}

// delayedAck is a stream whose ACK waits for more to acknowledge.
type delayedAck struct {
	s  *stream
	at time.Time
}

func (d *delayedAck) stale() bool { return d.s.retired || !d.s.recv.ackAt.Equal(d.at) }

// Read copies bytes out. It returns 0 and no error when there are none now:
// a WakeRead will follow. io.EOF, or an error, comes when all before it has
// been read.
func (m *Machine) Read(id StreamID, p []byte) (int, error) {
	s := m.streams[id]
	if s == nil {
		if err := m.over(); err != nil {
			return 0, err
		}
		return 0, ErrNoStream
	}
	h := &s.recv
	n := 0
	for n < len(p) && h.read+uint64(n) < h.received {
		_, b := h.buf.at(h.read+uint64(n), h.received)
		n += copy(p[n:], b)
	}
	if n > 0 {
		m.recount(s, func() { h.read += uint64(n) })
		h.buf.trim(&m.pool, h.read, h.received)
		m.grant(s)
		m.settle(s)
		return n, nil
	}
	if h.read < h.received { // p is empty
		return 0, nil
	}
	err := m.readEnd(s)
	s.wantRead = err == nil
	if err != nil && m.over() == nil {
		h.ended = true
		m.settle(s)
	}
	return 0, err
}

// readEnd is what follows the last byte; nil: nothing is known yet.
func (m *Machine) readEnd(s *stream) error {
	h := &s.recv
	switch {
	case h.reset:
		return &ResetError{Code: h.code}
	case h.hasFinal && h.read == h.final:
		return io.EOF
	case h.done:
		return ErrReadClosed
	}
	return m.over()
}

// CloseRead drops what has come and will come, and tells the peer to stop.
func (m *Machine) CloseRead(id StreamID) error {
	s := m.streams[id]
	if s == nil {
		return ErrNoStream
	}
	m.discard(s)
	m.wakeReader(s)
	m.settle(s)
	return nil
}

func (m *Machine) discard(s *stream) {
	h := &s.recv
	h.ended, s.send.told = true, true
	m.complete(s)
	m.recount(s, func() { h.read = h.received })
	h.buf.trim(&m.pool, h.read, h.received)
}

// complete: nothing more is wanted of this direction, and the peer shall know.
func (m *Machine) complete(s *stream) {
	if h := &s.recv; !h.done {
		m.recount(s, func() { h.done = true })
		s.due |= dueAck
	}
}

func (m *Machine) received(s *stream, offset uint64, b []byte) (broken string) {
	h := &s.recv
	end := offset + uint64(len(b))
	switch {
	case h.hasFinal && end > h.final:
		return "DATA behind the end of a stream"
	case end > h.limit:
		return "DATA beyond the limit"
	case h.done || end <= h.received:
		return ""
	case offset > h.received:
		return "DATA with a gap before it"
	}
	h.buf.append(&m.pool, h.received, b[h.received-offset:])
	h.received = end
	switch fresh := end - h.ackedTo; {
	case h.hasFinal && end == h.final:
		m.complete(s)
	case fresh >= min(ackEvery, h.window/4):
		s.due |= dueAck
	case h.ackAt.IsZero():
		h.ackAt = m.now.Add(ackDelay)
		m.delayed = append(m.delayed, delayedAck{s, h.ackAt})
	}
	m.wakeReader(s)
	return ""
}

func (m *Machine) finished(s *stream, final uint64) (broken string) {
	h := &s.recv
	switch {
	case h.hasFinal && final != h.final:
		return "two ends of one stream"
	case final < h.received:
		return "FIN before the end of the data"
	case final > h.limit:
		return "FIN beyond the limit"
	case h.reset:
		return ""
	}
	h.final, h.hasFinal = final, true
	if h.received == final {
		m.complete(s)
		m.wakeReader(s)
	}
	return ""
}

func (m *Machine) wasReset(s *stream, code uint64) {
	h := &s.recv
	if h.done {
		return // whole, given up, or reset before
	}
	h.reset, h.code = true, code
	m.complete(s)
	m.recount(s, func() { h.read = h.received })
	h.buf.trim(&m.pool, h.read, h.received)
	m.wakeReader(s)
}

// grant lets the peer send more when enough has been read. The window doubles
// while it is used, so that a stream gets memory as it shows that it needs it,
// at the pace of a slow start; what all streams have beyond their initial
// windows stays within what the session may hold.
func (m *Machine) grant(s *stream) {
	h := &s.recv
	if h.done {
		return
	}
	if top := uint64(m.cfg.Window); h.window < top && h.read-h.grown >= h.window/2 {
		h.window = min(2*h.window, top)
		h.grown = h.read
	}
	limit := h.read + initialWindow
	if reserve := uint64(2 * m.cfg.MaxStreams * initialWindow); uint64(m.cfg.Memory) > reserve {
		free := uint64(m.cfg.Memory) - reserve - (m.extra - h.extra())
		limit += min(free, h.window-initialWindow)
	}
	if limit > h.limit && (limit-h.limit >= h.window/4 || h.limit-h.read <= initialWindow/2) {
		m.recount(s, func() { h.limit = limit })
		s.due |= dueAck
	}
}

// extra is what the peer may make this end hold beyond the initial window.
func (h *recvHalf) extra() uint64 {
	held := h.limit - h.read
	if h.done {
		held = h.received - h.read
	}
	if held <= initialWindow {
		return 0
	}
	return held - initialWindow
}

func (m *Machine) recount(s *stream, change func()) {
	m.extra -= s.recv.extra()
	change()
	m.extra += s.recv.extra()
}

// flushDelayed makes the ACKs due that have waited long enough.
func (m *Machine) flushDelayed() {
	for len(m.delayed) > 0 && !m.delayed[0].at.After(m.now) {
		d := m.delayed[0]
		m.delayed = m.delayed[1:]
		if !d.stale() {
			d.s.recv.ackAt = time.Time{}
			d.s.due |= dueAck
			m.settle(d.s)
		}
	}
}
