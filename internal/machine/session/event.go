package session

import "time"

// Event is something that the shell should know: LinkInUse, NoLink, LinkDead,
// Ponged or Closed.
type Event interface{ event() }

type (
	// LinkInUse: the session goes over that link now, in both directions.
	LinkInUse struct {
		Link  LinkID
		Epoch uint32
	}
	// NoLink: the last link is gone.
	NoLink struct{}
	// LinkDead: the link does not work and must be closed. For the machine
	// it is gone already.
	LinkDead struct {
		Link   LinkID
		Reason string
	}
	// Ponged: the peer has answered a PING, whoever asked for it.
	Ponged struct {
		Link LinkID
		RTT  time.Duration
	}
	// Closed: the session is over, its links can be closed. What has been
	// received can still be read.
	Closed struct {
		Err     *CloseError // who closed it and why
		Unacked uint64      // bytes that the peer is not known to have
	}
)

func (LinkInUse) event() {}
func (NoLink) event()    {}
func (LinkDead) event()  {}
func (Ponged) event()    {}
func (Closed) event()    {}

// Event takes the next event.
func (m *Machine) Event() (Event, bool) {
	if len(m.events) == 0 {
		return nil, false
	}
	e := m.events[0]
	m.events = m.events[1:]
	return e, true
}

func (m *Machine) event(e Event) { m.events = append(m.events, e) }

// WakeKind says who has something to do again.
type WakeKind uint8

const (
	WakeLink   WakeKind = iota // Next of Link
	WakeRead                   // Read of Stream
	WakeWrite                  // Write of Stream
	WakeAccept                 // Accept
	WakeOpen                   // Open
	WakeFlush                  // Flushed of Stream
)

// Wake names one call that found nothing to do, and now would.
type Wake struct {
	Kind   WakeKind
	Link   LinkID
	Stream StreamID
}

// Wake takes the next hint. Each call that came back empty-handed gets one
// hint when trying again is worth it; who has not tried gets none, so that
// nobody needs to be told anything by broadcast. The shell asks until there
// are no more, after any other call, before it lets go of its lock.
func (m *Machine) Wake() (Wake, bool) {
	if m.woken < len(m.wakes) {
		m.woken++
		return m.wakes[m.woken-1], true
	}
	m.wakes, m.woken = m.wakes[:0], 0
	if m.state == closed {
		return Wake{}, false
	}
	for _, l := range m.links {
		if l.idle && !l.dead && (l.ownDue() || l == m.send && m.flowing()) {
			l.idle = false
			return Wake{Kind: WakeLink, Link: l.id}, true
		}
	}
	return Wake{}, false
}

// flowing: there may be something to send on the link in use.
func (m *Machine) flowing() bool {
	return m.state != answering && (m.streamsDue || !m.control.empty() || m.state != closing && !m.data.empty())
}

func (m *Machine) wakeReader(s *stream) {
	if s.wantRead {
		s.wantRead = false
		m.wakes = append(m.wakes, Wake{Kind: WakeRead, Stream: s.id})
	}
}

func (m *Machine) wakeWriter(s *stream) {
	if s.wantWrite {
		s.wantWrite = false
		m.wakes = append(m.wakes, Wake{Kind: WakeWrite, Stream: s.id})
	}
}

func (m *Machine) wakeFlusher(s *stream) {
	if s.wantFlush && (s.retired || s.send.flushed()) {
		s.wantFlush = false
		m.wakes = append(m.wakes, Wake{Kind: WakeFlush, Stream: s.id})
	}
}

func (m *Machine) wakeStream(s *stream) {
	m.wakeReader(s)
	m.wakeWriter(s)
}

func (m *Machine) wakeAccept() {
	if m.wantAccept {
		m.wantAccept = false
		m.wakes = append(m.wakes, Wake{Kind: WakeAccept})
	}
}

func (m *Machine) wakeOpen() {
	if m.wantOpen {
		m.wantOpen = false
		m.wakes = append(m.wakes, Wake{Kind: WakeOpen})
	}
}

func (m *Machine) wakeAll() {
	for _, s := range m.order {
		m.wakeStream(s)
	}
	m.wakeAccept()
	m.wakeOpen()
}
