package session

import (
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

type state uint8

const (
	open      state = iota
	draining        // Close was called: what was written is still to be acknowledged
	closing         // our CLOSE is due or sent, the peer's is awaited
	answering       // our CLOSE is the last word: over when it has been handed to a link
	closed
)

// Machine is one end of a session.
type Machine struct {
	cfg   Config
	now   time.Time
	heard time.Time // last frame on any link

	state    state
	closeErr *CloseError // why; nil while open
	sayCode  uint64      // what our CLOSE says
	sayText  string
	deadline time.Time // of the current closing state
	unacked  uint64    // bytes that the peer did not acknowledge before the end

	pool    pool
	streams map[StreamID]*stream
	order   []*stream // the same, ascending
	own     initiator
	peer    initiator
	accept  []StreamID

	retained uint64 // written, not acknowledged: all streams
	extra    uint64 // granted beyond the initial window: all streams

	links    []*link
	send     *link // where everything but the links' own frames goes
	pending  *link // where the next RESUME is awaited, to go over to it
	asked    time.Time
	epoch    uint32
	lane     uint64 // counts changes of send
	answered bool   // controller: the peer is known to know the session
	unsure   bool   // controller: the peer may have followed a RESUME to a link that is dead

	control    fifo // streams with something due
	data       fifo // streams with bytes to send on this lane
	delayed    []delayedAck
	streamsDue bool
	waiting    int       // streams with something unacknowledged on this lane
	waitSince  time.Time // waiting became positive

	events     []Event
	wakes      []Wake
	woken      int // of wakes, how many were taken
	wantAccept bool
	wantOpen   bool
}

// initiator counts the streams that one end opened.
type initiator struct {
	parity  StreamID
	opened  uint64 // how many, ever
	retired uint64 // of them, how many are forgotten
	limit   uint64 // how many may be, ever
	said    uint64 // the peer's: the limit that it has been told
}

func (i *initiator) live() int { return int(i.opened - i.retired) }

// New makes one end of a session that no link carries yet.
func New(cfg Config) *Machine {
	m := &Machine{cfg: cfg.withDefaults(), streams: make(map[StreamID]*stream)}
	m.own = initiator{limit: initialStreams}
	m.peer = initiator{limit: uint64(m.cfg.MaxStreams), said: initialStreams}
	if m.cfg.Controller {
		m.peer.parity = 1
	} else {
		m.own.parity = 1
	}
	return m
}

func (m *Machine) tick(now time.Time) {
	if m.heard.IsZero() {
		m.heard = now
	}
	if now.After(m.now) {
		m.now = now
	}
}

// Silence is how long no link has brought a frame. What to do about it is
// the shell's decision: find a new link, or Close with frame.Timeout.
func (m *Machine) Silence(now time.Time) time.Duration {
	if m.heard.IsZero() {
		return 0
	}
	return now.Sub(m.heard)
}

// NextTimeout is when HandleTimeout wants to be called next.
func (m *Machine) NextTimeout() (time.Time, bool) {
	var t time.Time
	earlier := func(u time.Time) {
		if t.IsZero() || u.Before(t) {
			t = u
		}
	}
	if m.state == closed {
		return t, false
	}
	if m.state != open {
		earlier(m.deadline)
	}
	for len(m.delayed) > 0 && m.delayed[0].stale() {
		m.delayed = m.delayed[1:]
	}
	if len(m.delayed) > 0 {
		earlier(m.delayed[0].at)
	}
	for _, l := range m.links {
		if !l.dead {
			earlier(m.linkDeadline(l))
		}
	}
	return t, !t.IsZero()
}

// HandleTimeout does what is due at now.
func (m *Machine) HandleTimeout(now time.Time) {
	m.tick(now)
	if m.state == closed {
		return
	}
	m.flushDelayed()
	m.checkLinks()
	if m.state != open && !m.now.Before(m.deadline) {
		m.closeTimeout()
	}
}

// Stats is what a session holds.
type Stats struct {
	Epoch    uint32
	Streams  int
	Links    int
	Retained uint64 // bytes written and not acknowledged
	Unread   uint64 // bytes received and not read
	Chunks   int    // of 64 KiB, holding those bytes or in flight
	Free     int    // kept for later
}

func (m *Machine) Stats() Stats {
	s := Stats{Epoch: m.epoch, Streams: len(m.streams), Retained: m.retained, Chunks: m.pool.used, Free: len(m.pool.free)}
	for _, st := range m.order {
		s.Unread += st.recv.received - st.recv.read
	}
	for _, l := range m.links {
		if !l.dead {
			s.Links++
		}
	}
	return s
}

// HandleFrame takes a frame that link id has brought. It keeps nothing of f.
// An error is a *CloseError: the peer broke the protocol, the session is
// over, and a CLOSE that says so is due on the link.
func (m *Machine) HandleFrame(now time.Time, id LinkID, f *frame.Frame) error {
	m.tick(now)
	l := m.link(id)
	if l == nil || m.state == closed {
		return nil
	}
	l.heard, m.heard = m.now, m.now
	if m.state == answering {
		return nil
	}
	if broken := m.handle(l, f); broken != "" {
		return m.fail(l, broken)
	}
	return nil
}

// handle says in what way f breaks the protocol, if it does.
func (m *Machine) handle(l *link, f *frame.Frame) (broken string) {
	switch f.Type {
	case frame.HELLO:
		if m.cfg.Controller || f.Session != m.cfg.Session {
			return "HELLO of another session"
		}
	case frame.RESUME:
		return m.handleResume(l, f)
	case frame.LOST:
		return m.handleLost(f)
	case frame.PING:
		l.pongDue, l.pong = true, f.N
		m.pool.rest()
	case frame.PONG:
		if f.N == l.pingN && l.pingOut {
			l.pingOut = false
			m.event(Ponged{Link: l.id, RTT: m.now.Sub(l.pinged)})
		}
	case frame.CLOSE:
		m.handleClose(l, f)
	case frame.STREAMS:
		m.allow(f.Limit)
	case frame.OPEN, frame.DATA, frame.ACK, frame.FIN, frame.RESET:
		return m.handleStream(f)
	}
	return ""
}
