package session

import (
	"cmp"
	"slices"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// What is due in a stream's control lane, in the order in which it is sent.
const (
	dueOpen = 1 << iota
	dueAck
	dueReset
	dueFin
)

type stream struct {
	id   StreamID
	send sendHalf
	recv recvHalf

	known   bool // to the peer
	retired bool
	listed  bool // in the RESUME that is being read

	due       uint8
	inControl bool
	inData    bool
	waiting   bool

	wantRead  bool
	wantWrite bool
	wantFlush bool
}

// fifo is a queue of streams, each in it at most once.
type fifo struct {
	q    []*stream
	head int
}

func (f *fifo) push(s *stream) {
	if f.head > 16 && f.head > len(f.q)/2 {
		n := copy(f.q, f.q[f.head:])
		clear(f.q[n:])
		f.q, f.head = f.q[:n], 0
	}
	f.q = append(f.q, s)
}

func (f *fifo) pop() *stream {
	s := f.q[f.head]
	f.q[f.head] = nil
	f.head++
	if f.head == len(f.q) {
		f.q, f.head = f.q[:0], 0
	}
	return s
}

func (f *fifo) empty() bool { return f.head == len(f.q) }

// add makes the stream with that id, which neither end has used.
func (m *Machine) add(id StreamID) *stream {
	s := &stream{id: id}
	s.send.limit = initialWindow
	s.recv.limit, s.recv.window = initialWindow, initialWindow
	if m.send != nil {
		s.send.lane = m.lane // nothing sent, nothing to resume
	}
	m.streams[id] = s
	i, _ := slices.BinarySearchFunc(m.order, id, func(s *stream, id StreamID) int { return cmp.Compare(s.id, id) })
	m.order = slices.Insert(m.order, i, s)
	return s
}

// find is the stream that a frame of the peer's is about; nil when it is
// forgotten. Whatever names a stream opens it, and all that the same end
// must have opened before, because lanes overtake one another.
func (m *Machine) find(id StreamID) (s *stream, broken string) {
	if s = m.streams[id]; s != nil {
		s.known = true
		return s, ""
	}
	index := uint64(id) / 2
	if id&1 == m.own.parity {
		if index >= m.own.opened {
			return nil, "a stream that was not opened"
		}
		return nil, ""
	}
	if index < m.peer.opened {
		return nil, ""
	}
	if index >= m.peer.limit {
		return nil, "too many streams"
	}
	for m.peer.opened <= index {
		s = m.add(StreamID(2*m.peer.opened) | m.peer.parity)
		s.known = true
		m.peer.opened++
		if m.state != open {
			m.abandon(s, frame.GoingAway)
			continue
		}
		m.accept = append(m.accept, s.id)
		m.wakeAccept()
	}
	return m.streams[id], ""
}

func (m *Machine) handleStream(f *frame.Frame) (broken string) {
	s, broken := m.find(StreamID(f.Stream))
	if s == nil {
		return broken
	}
	switch f.Type {
	case frame.DATA:
		broken = m.received(s, f.Offset, f.Data)
	case frame.FIN:
		broken = m.finished(s, f.Offset)
	case frame.RESET:
		m.wasReset(s, f.Code)
	case frame.ACK:
		broken = m.acknowledged(s, f.Offset, f.Limit, f.Done)
	}
	m.settle(s)
	return broken
}

// settle brings the queues and counts up to what has changed in s.
func (m *Machine) settle(s *stream) {
	if s.retired {
		return
	}
	h := &s.send
	flowing := m.send != nil && h.lane == m.lane && !h.done
	if flowing && !h.reset {
		if h.ready() && !s.inData {
			s.inData = true
			m.data.push(s)
		}
		if h.fin && !h.finSent && h.sent == h.written {
			s.due |= dueFin
		}
	}
	if waiting := flowing && h.unanswered(); waiting != s.waiting {
		s.waiting = waiting
		if !waiting {
			m.waiting--
		} else if m.waiting++; m.waiting == 1 {
			m.waitSince = m.now
		}
	}
	if s.due != 0 && !s.inControl {
		s.inControl = true
		m.control.push(s)
	}
	m.retire(s)
}

// retire forgets s when both ends know that both directions are over and the
// user has seen it.
func (m *Machine) retire(s *stream) {
	if !s.send.done || !(s.send.fin || s.send.reset) || !s.recv.done || !s.recv.ended || s.due != 0 ||
		s.send.refused && !s.send.told {
		return
	}
	s.retired = true
	delete(m.streams, s.id)
	i, _ := slices.BinarySearchFunc(m.order, s.id, func(s *stream, id StreamID) int { return cmp.Compare(s.id, id) })
	m.order = slices.Delete(m.order, i, i+1)
	if s.id&1 == m.own.parity {
		m.own.retired++
		m.wakeOpen()
	} else {
		m.peer.retired++
		m.peer.limit = min(m.peer.retired+uint64(m.cfg.MaxStreams), frame.MaxStream/2)
		m.streamsDue = m.streamsDue || m.peer.limit-m.peer.said >= uint64(m.cfg.MaxStreams/4)
	}
	m.drained()
}

// allow is the peer's word on how many streams this end may open in all.
func (m *Machine) allow(limit uint64) {
	if limit = min(limit, frame.MaxStream/2); limit > m.own.limit {
		m.own.limit = limit
		m.wakeOpen()
	}
}
