package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// server answers clients. Each has a goroutine and a time limit of its own.
type server struct {
	listener *net.UnixListener
	lab      *netns.Lab
	info     Info
	down     chan struct{} // closed when a client has asked for the end
	ending   chan struct{} // closed when the end begins
	closed   chan struct{} // closed when the lab is, and failed says how

	mu      sync.Mutex
	conns   map[*net.UnixConn]time.Time // when they came; zero: they have asked
	ended   bool
	failed  error
	taken   map[string]chan struct{} // captured networks; closed at the end
	inDoor  int                      // clients on their way into a namespace
	empty   chan struct{}            // closed when there are none any more
	clients sync.WaitGroup

	changing sync.Mutex // one change at a time
	cuts     []cut
}

func newServer(l *net.UnixListener, lab *netns.Lab, info Info) *server {
	s := &server{
		listener: l,
		lab:      lab,
		info:     info,
		down:     make(chan struct{}),
		ending:   make(chan struct{}),
		closed:   make(chan struct{}),
		conns:    map[*net.UnixConn]time.Time{},
		taken:    map[string]chan struct{}{},
	}
	s.clients.Go(s.accept)
	return s
}

func (s *server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors
			continue
		}
		if !sameUser(c) || !s.admit(c) {
			c.Close()
			continue
		}
		s.clients.Go(func() {
			defer s.forget(c)
			s.answer(c)
		})
	}
}

// sameUser looks at who is at the other end. The directory lets nobody else in
// anyway.
func sameUser(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return err == nil && cred != nil && int(cred.Uid) == os.Geteuid()
}

// admit makes room for a client by sending away who has said nothing for the
// longest time.
func (s *server) admit(c *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	if len(s.conns) >= maxClients {
		var oldest *net.UnixConn
		for other, since := range s.conns {
			if !since.IsZero() && (oldest == nil || since.Before(s.conns[oldest])) {
				oldest = other
			}
		}
		if oldest == nil {
			return false
		}
		oldest.Close()
		delete(s.conns, oldest)
	}
	s.conns[c] = time.Now()
	return true
}

// asked notes that a client has said what it wants. One that was sent away
// meanwhile gets nothing.
func (s *server) asked(c *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, here := s.conns[c]
	if here {
		s.conns[c] = time.Time{}
	}
	return here
}

func (s *server) forget(c *net.UnixConn) {
	c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// stop takes no more clients, ends what does not end by itself, and waits a
// moment for those who have been given a namespace to be in it: who is killed
// with the lab must be found.
func (s *server) stop() {
	close(s.ending)
	s.listener.Close()
	s.mu.Lock()
	s.ended = true
	waiting := s.inDoor > 0
	if waiting {
		s.empty = make(chan struct{})
	}
	s.mu.Unlock()
	if waiting {
		select {
		case <-s.empty:
		case <-time.After(2 * time.Second):
		}
	}
}

// enterDoor and leaveDoor are around the time from when a client gets a
// namespace until it is there.
func (s *server) enterDoor() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.inDoor++
	return true
}

func (s *server) leaveDoor() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inDoor--; s.inDoor == 0 && s.empty != nil {
		close(s.empty)
	}
}

// finish tells those who asked for the end how it went, and waits until every
// client has gone, for a second.
func (s *server) finish(failed error) {
	s.failed = failed
	close(s.closed)
	s.mu.Lock()
	for c := range s.conns {
		c.SetDeadline(time.Now().Add(time.Second))
	}
	s.mu.Unlock()
	s.clients.Wait()
}

func (s *server) answer(c *net.UnixConn) {
	c.SetDeadline(time.Now().Add(patience))
	var r request
	if _, err := readLine(c, maxRequest, &r, 0); err != nil {
		writeLine(c, answer{Error: failure(BadRequest, "", "not understood: %v", err)})
		return
	}
	if !s.asked(c) {
		return
	}
	var a answer
	var err error
	switch r.Op {
	case opInfo:
		a.Info = &s.info
	case opStatus:
		a.Status = s.status(r.Mappings)
	case opEnter:
		err = s.enter(c, r.Node)
	case opSet:
		if r.Change == nil {
			r.Change = &Change{}
		}
		err = s.change(*r.Change)
	case opCapture:
		err = s.capture(c, r.Network)
	case opDown:
		s.askDown()
		c.SetDeadline(time.Time{})
		<-s.closed
		c.SetDeadline(time.Now().Add(time.Second))
		err = s.failed
	default:
		err = failure(BadRequest, "is it another version of bodkin?", "the lab knows no request %q", r.Op)
	}
	if err == errAnswered {
		return
	}
	if err != nil {
		a = answer{Error: asError(err)}
	}
	c.SetWriteDeadline(time.Now().Add(patience))
	writeLine(c, a)
}

// errAnswered is what became of a request whose answer is out.
var errAnswered = errors.New("control: answered")

func (s *server) askDown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.down:
	default:
		close(s.down)
	}
}

// enter hands out the namespaces of a node.
func (s *server) enter(c *net.UnixConn, node string) error {
	host, err := s.node(node)
	if err != nil {
		return err
	}
	space, err := host.NetNS()
	if err != nil {
		return err
	}
	defer space.Close()
	user, err := os.Open("/proc/self/ns/user")
	if err != nil {
		return err
	}
	defer user.Close()
	if !s.enterDoor() {
		return failure(NoLab, "", "lab %s ends", s.info.Name)
	}
	defer s.leaveDoor()
	if err := writeLine(c, answer{Info: &s.info}, int(space.Fd()), int(user.Fd())); err != nil {
		return err
	}
	c.Read(make([]byte, 1)) // the client closes the connection when it is there
	return errAnswered
}

func (s *server) node(name string) (*netns.Host, error) {
	if h := s.lab.Host(name); h != nil {
		return h, nil
	}
	return nil, s.unknown("host or gateway", name, append(s.info.Hosts[:len(s.info.Hosts):len(s.info.Hosts)], s.info.Gateways...))
}

func (s *server) unknown(kind, name string, known []string) error {
	return &Error{Code: NoSuchNode, Message: fmt.Sprintf("lab %s has no %s %q", s.info.Name, kind, name), Known: known}
}

// status has at most so many mappings of each gateway: the newest data for
// people, not all of a carrier's.
func (s *server) status(mappings int) *netns.Snapshot {
	status := s.lab.Status()
	for i := range status.Gateways {
		if g := &status.Gateways[i]; len(g.Mappings) > mappings {
			g.Mappings = g.Mappings[:mappings]
		}
	}
	return &status
}
