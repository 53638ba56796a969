package bodkin

import (
	"errors"
	"maps"
	"slices"
	"time"

	machine "github.com/bodkin-net/bodkin/internal/machine/session"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// fail ends the session at once, with an error for whoever uses it.
func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finish(err)
	s.m.Close(time.Now(), frame.Timeout, "no path")
}

// finish marks the session as over. The lock is held.
func (s *session) finish(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	if s.timer != nil {
		s.timer.Stop()
	}
	s.cancel()
	parted := make(chan struct{})
	s.n.mu.Lock()
	delete(s.n.sessions, s.id)
	if !s.controller {
		s.n.over.add(s.id)
	}
	s.n.partings[s] = parted
	s.n.mu.Unlock()
	go s.part(slices.Collect(maps.Values(s.links)), parted)
	close(s.done)
	s.n.ctl.kick()
}

// close delivers what was written and ends the session; done tells when.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m.Close(time.Now(), frame.NoError, "")
	s.settle()
}

// closeIfUnused ends a session that this side began when nothing of it is in
// use. The lock is held.
func (s *session) closeIfUnused() {
	if !s.controller || len(s.conns) > 0 {
		return
	}
	s.n.mu.Lock()
	unused := s.claims == 0
	if unused {
		s.claims = -1
	}
	s.n.mu.Unlock()
	if unused {
		s.m.Close(time.Now(), frame.NoError, "")
	}
}

// reason is why the session is over.
func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// closeError turns the machine's word into ours.
func (s *session) closeError(e machine.Closed) error {
	c := e.Err
	switch {
	case c == nil || !c.Remote && c.Code == frame.NoError:
		return &Error{Code: Closed, Text: "the connection is closed"}
	case c.Code == frame.UnknownSession:
		return &Error{Code: PeerLost, Remote: true, Text: "the peer was restarted and knows nothing of this connection"}
	case c.Code == frame.Refused:
		return &Error{Code: PeerRefused, Remote: true, Text: "the peer does not accept this connection"}
	case c.Code == frame.ProtocolError:
		return &Error{Code: PeerClosed, Remote: !c.Remote, Text: "the session broke: " + c.Text}
	}
	return &Error{Code: PeerClosed, Remote: true, Text: "the peer closed the connection", Err: nonEmpty(c.Text)}
}

func nonEmpty(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}
