package control

import (
	"errors"
	"io"
	"sync"
)

var errSlow = errors.New("control: the reader of the capture is too slow")

// spool passes bytes on to a writer that may be slow. Its own Write never
// waits: it fails when too much is pending.
type spool struct {
	to     io.Writer
	more   chan struct{}
	failed chan struct{} // closed at the first failure
	done   chan struct{}

	mu      sync.Mutex
	pending []byte
	ended   bool
	err     error
}

func newSpool(to io.Writer) *spool {
	return &spool{to: to, more: make(chan struct{}, 1), failed: make(chan struct{}), done: make(chan struct{})}
}

func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && len(s.pending)+len(p) > spoolSize {
		s.fail(errSlow)
	}
	if s.err != nil {
		return 0, s.err
	}
	s.pending = append(s.pending, p...)
	s.poke()
	return len(p), nil
}

func (s *spool) fail(err error) {
	if s.err == nil {
		s.err = err
		close(s.failed)
	}
}

func (s *spool) poke() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// begin starts to pass on.
func (s *spool) begin() {
	go func() {
		defer close(s.done)
		for range s.more {
			s.mu.Lock()
			batch, ended := s.pending, s.ended
			s.pending = nil
			s.mu.Unlock()
			_, err := s.to.Write(batch)
			s.mu.Lock()
			if err != nil {
				s.fail(err)
			}
			ended = ended || s.err != nil
			s.mu.Unlock()
			if ended {
				return
			}
		}
	}()
}

// end waits until what is pending has been passed on, or cannot be.
func (s *spool) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.poke()
	<-s.done
}
