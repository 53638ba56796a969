package bodkin

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin/internal/link"
	"github.com/bodkin-net/bodkin/internal/machine/punch"
	machine "github.com/bodkin-net/bodkin/internal/machine/session"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// session drives a session machine: one lock around it, one goroutine that
// writes and one that reads for each link, one timer.
type session struct {
	n          *Node
	peer       ID
	id         sessionID
	controller bool

	// handshake ends with the session, and with it the handshakes for it.
	handshake context.Context
	cancel    context.CancelFunc

	mu       sync.Mutex
	m        *machine.Machine
	links    map[machine.LinkID]*sessionLink
	lastID   machine.LinkID
	inUse    machine.LinkID
	conns    map[machine.StreamID]*Conn
	pong     chan Pong // waits for the answer to a ping
	claims   int       // callers about to open a stream; -1: it closes. Guarded by n.mu
	path     Path
	moved    chan struct{} // closed and replaced when path changes
	ready    chan struct{} // closed when the first link is in use
	openable chan struct{} // of capacity 1: the peer allows more streams
	err      error         // why it is over
	done     chan struct{} // closed when it is over
	timer    *time.Timer
}

// sessionLink is a link of a session.
type sessionLink struct {
	link.Link
	id   machine.LinkID
	path Path
	wake chan struct{} // of capacity 1: there is something to send
}

func (n *Node) newSession(peer ID, id sessionID, controller bool) *session {
	s := &session{n: n, peer: peer, id: id, controller: controller,
		m:     machine.New(machine.Config{Controller: controller, Session: id}),
		links: make(map[machine.LinkID]*sessionLink),
		conns: make(map[machine.StreamID]*Conn),
		moved: make(chan struct{}), ready: make(chan struct{}), openable: make(chan struct{}, 1), done: make(chan struct{})}
	s.m.Accept() // there is none yet: it asks to be woken for the first
	s.handshake, s.cancel = context.WithCancel(n.ctx)
	return s
}

// session finds a session that is not over.
func (n *Node) session(id sessionID) *session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions[id]
}

// rank orders links: the session goes over the highest.
func rank(p Path) int {
	switch {
	case p.Technique == string(punch.LAN):
		return 6
	case p.Technique == string(punch.IPv6):
		return 5
	case p.Technique == string(punch.Punch):
		return 4
	case p.Kind == Direct:
		return 3
	case p.Transport == "udp":
		return 2
	}
	return 1
}

// join adds a link whose handshake is done, on the side that dialled it.
func (s *session) join(l link.Link, path Path, attempt attemptID) {
	sl := s.add(l, path, attempt)
	if sl == nil {
		l.Close("the session is over")
		return
	}
	s.n.keepRelay(l, path.Remote)
	if !s.n.spawn(func() {
		s.down(sl, sl.Receive(func(f frame.Frame) error { return s.handle(sl, &f) }))
	}) {
		l.Close("closing")
	}
}

func (s *session) add(l link.Link, path Path, attempt attemptID) *sessionLink {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil
	}
	s.lastID++
	sl := &sessionLink{Link: l, id: s.lastID, path: path, wake: make(chan struct{}, 1)}
	s.links[sl.id] = sl
	s.m.LinkUp(time.Now(), sl.id, rank(path), attempt)
	if s.controller && s.path.Kind == "" {
		s.inUse = sl.id // a new session's first link is in use without being asked for
		s.setPath(sl)
	}
	s.settle()
	s.mu.Unlock()
	s.n.spawn(func() { s.write(sl) })
	s.n.ctl.kick()
	return sl
}

// counts tells how many links of each kind stand.
func (s *session) counts() (relay, direct int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.links {
		if sl.path.Kind == Direct {
			direct++
		} else {
			relay++
		}
	}
	return relay, direct
}

// handle takes a frame that a link brought.
func (s *session) handle(sl *sessionLink, f *frame.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.m.HandleFrame(time.Now(), sl.id, f)
	s.settle()
	return err
}

// down takes away a link that has ended.
func (s *session) down(sl *sessionLink, err error) {
	s.n.cfg.Log.Debug("link ended", "peer", s.peer.Short(), "path", sl.path, "err", err)
	s.mu.Lock()
	if end, ok := errors.AsType[*link.EndError](err); ok && end.Cause == link.CauseRemote {
		s.m.LinkClosed(time.Now(), sl.id)
	} else {
		s.m.LinkDown(time.Now(), sl.id)
	}
	delete(s.links, sl.id)
	s.settle()
	s.mu.Unlock()
	s.n.dropRelay(sl)
	s.n.ctl.kick()
}

// write sends what the machine has for a link, until the link ends.
func (s *session) write(sl *sessionLink) {
	for {
		s.mu.Lock()
		f, ok := s.m.Next(time.Now(), sl.id)
		s.settle()
		s.mu.Unlock()
		if !ok {
			select {
			case <-sl.wake:
				continue
			case <-sl.Done():
				return
			}
		}
		err := sl.Send(f)
		s.mu.Lock()
		s.m.Sent(time.Now(), sl.id, f)
		s.settle()
		s.mu.Unlock()
		if err != nil {
			sl.Close(err.Error())
			return
		}
	}
}

// settle handles what a call into the machine has brought about. The lock is
// held.
func (s *session) settle() {
	for {
		e, ok := s.m.Event()
		if !ok {
			break
		}
		s.event(e)
	}
	for {
		w, ok := s.m.Wake()
		if !ok {
			break
		}
		s.wakeUp(w)
	}
	s.setTimer()
}

func (s *session) event(e machine.Event) {
	switch e := e.(type) {
	case machine.LinkInUse:
		sl := s.links[e.Link]
		if sl == nil {
			return
		}
		s.inUse = e.Link
		s.setPath(sl)
	case machine.Ponged:
		if sl := s.links[e.Link]; sl != nil && s.pong != nil {
			s.pong <- Pong{Path: sl.path, RTT: e.RTT}
			s.pong = nil
		}
	case machine.LinkDead:
		if sl := s.links[e.Link]; sl != nil {
			go sl.Close(e.Reason)
		}
	case machine.Closed:
		s.finish(s.closeError(e))
	}
}

// setPath tells of the path now in use.
func (s *session) setPath(sl *sessionLink) {
	path := sl.path
	path.RTT = sl.RTT()
	if s.path.Equal(path) {
		return
	}
	s.path = path
	close(s.moved)
	s.moved = make(chan struct{})
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
	s.n.emit(Event{Type: EventPath, Peer: s.peer, Path: path})
}

func (s *session) wakeUp(w machine.Wake) {
	var c chan struct{}
	switch w.Kind {
	case machine.WakeLink:
		if sl := s.links[w.Link]; sl != nil {
			c = sl.wake
		}
	case machine.WakeRead:
		if conn := s.conns[w.Stream]; conn != nil {
			c = conn.readable
		}
	case machine.WakeWrite:
		if conn := s.conns[w.Stream]; conn != nil {
			c = conn.writable
		}
	case machine.WakeFlush:
		if conn := s.conns[w.Stream]; conn != nil {
			c = conn.flushed
		}
	case machine.WakeOpen:
		c = s.openable
	case machine.WakeAccept:
		s.acceptStreams()
	}
	notify(c)
}

// notify leaves a note in a channel of capacity 1; a nil channel is nobody.
func notify(c chan struct{}) {
	if c == nil {
		return
	}
	select {
	case c <- struct{}{}:
	default:
	}
}

// acceptStreams hands the streams that the peer has opened to the listener.
func (s *session) acceptStreams() {
	for {
		id, ok := s.m.Accept()
		if !ok {
			return
		}
		conn := s.newConn(id)
		if !s.n.deliver(conn) {
			delete(s.conns, id)
			s.m.Reset(id, frame.Refused)
			continue
		}
		s.n.emit(Event{Type: EventStream, Peer: s.peer, Dir: "in"})
	}
}

func (s *session) setTimer() {
	at, ok := s.m.NextTimeout()
	switch {
	case s.timer == nil && ok:
		s.timer = time.AfterFunc(time.Until(at), s.timeout)
	case ok:
		s.timer.Reset(time.Until(at))
	case s.timer != nil:
		s.timer.Stop()
	}
}

func (s *session) timeout() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.m.HandleTimeout(time.Now())
	s.settle()
}

// linked tells whether any link stands.
func (s *session) linked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links) > 0
}

// dropDirect closes the direct links to an endpoint: the path was found dead.
func (s *session) dropDirect(remote netip.AddrPort, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.links {
		if sl.path.Kind == Direct && sl.path.Remote == remote {
			go sl.Close(why)
		}
	}
}

// part says goodbye on the links of a session that is over.
func (s *session) part(links []*sessionLink, parted chan struct{}) {
	var wg sync.WaitGroup
	for _, sl := range links {
		wg.Go(func() { sl.Close("the session is over") })
	}
	wg.Wait()
	s.n.mu.Lock()
	delete(s.n.partings, s)
	s.n.mu.Unlock()
	close(parted)
}

// currentPath is the path in use as measured now. The lock is held.
func (s *session) currentPath() Path {
	path := s.path
	if sl := s.links[s.inUse]; sl != nil {
		path.RTT = sl.RTT()
	}
	return path
}
