package bodkin

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin/internal/link"
	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

const (
	helloTimeout = 5 * time.Second // from the handshake to the link's HELLO
	maxSessions  = 1024            // that peers began, at once
	maxPerPeer   = 16              // and one of them
)

// acceptLinks takes the links that peers make to this node.
func (n *Node) acceptLinks(q *link.QUIC) {
	for {
		l, err := q.Accept(n.ctx)
		if err != nil {
			return // the node closes
		}
		var path Path
		switch to := l.RemoteAddr().(type) {
		case netio.RelayAddr:
			server := n.socket.RelayServer(to.ID)
			n.keepRelay(l, server)
			path = n.ctl.relayPath("udp", server)
		case *net.UDPAddr:
			at := to.AddrPort()
			path = n.ctl.directPath(netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), "")
		}
		if n.cfg.RelayOnly && path.Kind == Direct || n.cfg.DirectOnly && path.Kind == Relay {
			l.Close("not over this kind of path")
			n.dropRelay(l)
			continue
		}
		if !n.spawn(func() { n.receiveLink(l, path) }) {
			l.Close("closing")
		}
	}
}

// receiveLink runs a link that the peer made. Its first frame, HELLO, says which
// session it is for.
func (n *Node) receiveLink(l link.Link, path Path) {
	var sl *sessionLink
	var s *session
	refused := false
	n.strangers.enter(l)
	defer n.strangers.leave(l)
	timer := time.AfterFunc(helloTimeout, func() { l.Close("no session came of it") })
	defer timer.Stop()
	err := l.Receive(func(f frame.Frame) error {
		switch {
		case s != nil:
			return s.handle(sl, &f)
		case refused:
			return nil
		case f.Type != frame.HELLO:
			return errors.New("the first frame is not HELLO")
		}
		found, code := n.sessionOf(l.Peer(), &f)
		if found == nil {
			// The peer ends the link when it has read why; the timer, if not.
			refused = true
			n.spawn(func() { l.Send(frame.Frame{Type: frame.CLOSE, Code: code}) })
			return nil
		}
		if path.Technique == "" {
			path.Technique = n.ctl.techniqueTo(path.Remote)
		}
		if sl = found.add(l, path, attemptID(f.Attempt)); sl == nil {
			return errors.New("the session is over")
		}
		s = found
		timer.Stop()
		n.strangers.leave(l)
		return s.handle(sl, &f)
	})
	if s != nil {
		s.down(sl, err)
		return
	}
	n.dropRelay(l)
}

// strangers are the links of peers that have not said yet what for. There is
// room for a few: the longest silent gives way, first the peer's own.
type strangers struct {
	mu    sync.Mutex
	links []link.Link
}

const (
	maxStrangers     = 256
	maxStrangersPeer = 8
)

func (s *strangers) enter(l link.Link) {
	s.mu.Lock()
	his := 0
	for _, o := range s.links {
		if o.Peer() == l.Peer() {
			his++
		}
	}
	var gone link.Link
	if his >= maxStrangersPeer || len(s.links) >= maxStrangers {
		i := slices.IndexFunc(s.links, func(o link.Link) bool { return his < maxStrangersPeer || o.Peer() == l.Peer() })
		gone = s.links[i]
		s.links = slices.Delete(s.links, i, i+1)
	}
	s.links = append(s.links, l)
	s.mu.Unlock()
	if gone != nil {
		gone.Close("it said nothing, and others wait")
	}
}

func (s *strangers) leave(l link.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links = slices.DeleteFunc(s.links, func(o link.Link) bool { return o == l })
}

// keepRelay keeps the relay that a link goes over until dropRelay.
func (n *Node) keepRelay(l link.Link, server netip.AddrPort) {
	if to, ok := l.RemoteAddr().(netio.RelayAddr); ok {
		n.socket.AddRelay(to.ID, server)
	}
}

// dropRelay forgets the relay that a link went over.
func (n *Node) dropRelay(l link.Link) {
	if to, ok := l.RemoteAddr().(netio.RelayAddr); ok {
		n.socket.RemoveRelay(to.ID)
	}
}

// sessionOf finds the session that a HELLO names, or begins it if the peer may;
// or says with which code to refuse it.
func (n *Node) sessionOf(peer ID, f *frame.Frame) (*session, uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sessions[f.Session]
	switch {
	case s != nil && s.peer == peer && !s.controller:
		return s, 0
	case s != nil, f.Flags&frame.NewSession == 0, n.over.has(f.Session):
		return nil, frame.UnknownSession
	case !n.accepts(peer), !n.room(peer), n.ending():
		return nil, frame.Refused
	}
	s = n.newSession(peer, f.Session, false)
	n.sessions[f.Session] = s
	n.spawn(func() { n.ctl.do(func(now time.Time) { n.ctl.watchSession(now, s) }) })
	return s, 0
}

// room tells whether a peer may begin another session. n.mu is held.
func (n *Node) room(peer ID) bool {
	all, his := 0, 0
	for _, s := range n.sessions {
		if s.controller {
			continue
		}
		all++
		if s.peer == peer {
			his++
		}
	}
	return all < maxSessions && his < maxPerPeer
}

// deliver hands a peer's stream to the listener.
func (n *Node) deliver(c *Conn) bool {
	n.mu.Lock()
	l := n.listener
	n.mu.Unlock()
	return l != nil && l.offer(c)
}
