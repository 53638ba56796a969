package bodkin

import (
	"context"
	"crypto/rand"
	"time"

	machine "github.com/bodkin-net/bodkin/internal/machine/session"
)

// Dial connects to a peer and opens a stream to it. It returns as soon as the
// peer has proved its identity over some path, usually the relay; with
// DirectOnly, over a direct one. Streams to one peer share their paths.
func (n *Node) Dial(ctx context.Context, peer ID) (*Conn, error) {
	s, err := n.connect(ctx, peer)
	if err != nil {
		return nil, err
	}
	return s.open(ctx)
}

// connect finds the session with the peer that this node began, or begins one,
// and waits until a link carries it.
func (n *Node) connect(ctx context.Context, peer ID) (*session, error) {
	if peer == n.ID() {
		return nil, &Error{Code: BadConfig, Text: "this is the node's own id", Hint: "the peer's id is what `bodkin id` prints there"}
	}
	s, fresh := n.sessionTo(peer)
	if s == nil {
		return nil, n.closedError()
	}
	if fresh && !n.ctl.do(func(now time.Time) { n.ctl.watchSession(now, s) }) {
		return nil, n.closedError()
	}
	select {
	case <-s.ready:
		return s, nil
	case <-s.done:
		return nil, s.reason()
	case <-ctx.Done():
		s.release()
		return nil, ctx.Err()
	}
}

// sessionTo counts the caller in, so that the session is not closed as unused
// before it has opened its stream.
func (n *Node) sessionTo(peer ID) (s *session, fresh bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ending() {
		return nil, false
	}
	for _, s := range n.sessions {
		if s.peer == peer && s.controller && s.claims >= 0 {
			s.claims++
			return s, false
		}
	}
	var id sessionID
	rand.Read(id[:])
	s = n.newSession(peer, id, true)
	s.claims = 1
	n.sessions[id] = s
	return s, true
}

// release ends a claim on the session.
func (s *session) release() {
	s.n.mu.Lock()
	s.claims--
	s.n.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeIfUnused()
	s.settle()
}

// open makes a stream in the session.
func (s *session) open(ctx context.Context) (*Conn, error) {
	defer s.release()
	defer notify(s.openable) // whoever else waits tries too
	for {
		s.mu.Lock()
		id, err := s.m.Open()
		var c *Conn
		if err == nil {
			c = s.newConn(id)
			s.n.emit(Event{Type: EventStream, Peer: s.peer, Dir: "out"})
		}
		s.settle()
		over := s.err
		s.mu.Unlock()
		switch {
		case err == nil:
			return c, nil
		case over != nil:
			return nil, over
		case err != machine.ErrStreams:
			return nil, &Error{Code: Closed, Text: "the connection is closing"}
		}
		select {
		case <-s.openable:
		case <-s.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
