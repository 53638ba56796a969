package control

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

// spoolSize is how much of a capture waits for a slow reader.
const spoolSize = 32 << 20

// capture sends what a network carries until the client has had enough.
func (s *server) capture(c *net.UnixConn, network string) error {
	if !slices.Contains(s.info.Networks, network) {
		return s.unknown("network", network, s.info.Networks)
	}
	release, err := s.take(network)
	if err != nil {
		return err
	}
	defer release()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = s.lab.Capture(network, fmt.Sprintf("/proc/self/fd/%d", w.Fd()))
	w.Close() // the capture has opened its own
	if err != nil {
		return err
	}
	out := newSpool(c)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(out, r)
		io.Copy(io.Discard, r) // so that the capture can end
	}()
	stop := func() {
		s.lab.StopCapture(network) // or the lab was closed, which ends it too
		<-drained
	}
	if err := writeLine(c, answer{Info: &s.info}); err != nil {
		stop()
		return errAnswered
	}
	c.SetDeadline(time.Time{})
	out.begin()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, c) // the client half-closes, or goes
	}()
	select {
	case <-gone:
	case <-out.failed:
	case <-s.ending:
	}
	stop()
	c.SetDeadline(time.Now().Add(patience))
	out.end()
	c.Close()
	<-gone
	return errAnswered
}

// take waits a moment for a capture that is about to end.
func (s *server) take(network string) (release func(), err error) {
	late := time.After(time.Second)
	for {
		s.mu.Lock()
		other := s.taken[network]
		if other == nil {
			mine := make(chan struct{})
			s.taken[network] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.taken, network)
				s.mu.Unlock()
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-late:
			return nil, failure(Clash, "only one capture of a network at a time", "network %s is captured already", network)
		}
	}
}
