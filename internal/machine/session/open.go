package session

import "github.com/bodkin-net/bodkin/internal/wire/frame"

// Open makes a new stream. It can be written at once, whatever links there
// are. With ErrStreams, a WakeOpen will follow.
func (m *Machine) Open() (StreamID, error) {
	if err := m.over(); err != nil {
		return 0, err
	}
	if m.own.opened >= min(m.own.limit, frame.MaxStream/2) || m.own.live() >= m.cfg.MaxStreams {
		m.wantOpen = true
		return 0, ErrStreams
	}
	s := m.add(StreamID(2*m.own.opened) | m.own.parity)
	m.own.opened++
	s.due |= dueOpen
	m.settle(s)
	return s.id, nil
}

// Accept is the next stream that the peer has opened. With a false answer a
// WakeAccept will follow.
func (m *Machine) Accept() (StreamID, bool) {
	if len(m.accept) == 0 {
		m.wantAccept = true
		return 0, false
	}
	id := m.accept[0]
	m.accept = m.accept[1:]
	return id, true
}
