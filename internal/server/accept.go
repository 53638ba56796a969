package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// accept takes connections until the listener is closed.
func (s *Server) accept(ctx context.Context, l net.Listener) error {
	var fail backoff
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			fail.reset()
			s.admit(ctx, nc)
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			// Out of descriptors, most likely: those who proved nothing go first.
			s.log.Warn("accept", "error", err)
			if c := s.admission.oldest(); c != nil {
				s.evict(c)
			}
			fail.wait()
		}
	}
}

// admit gives a connection that is let in its goroutine.
func (s *Server) admit(ctx context.Context, nc net.Conn) {
	s.count.accepted.Add(1)
	from, _ := addrPort(nc.RemoteAddr())
	c := &conn{server: s, nc: nc, from: from, source: sourceOf(from.Addr()), opened: time.Now()}
	evicted, ok := s.admission.admit(c)
	for _, e := range evicted {
		s.evict(e)
	}
	if !ok {
		s.evict(c)
		return
	}
	s.mu.Lock()
	closed := s.closed
	s.lastConn++
	c.id = s.lastConn
	if !closed {
		s.conns[c.id] = c
	}
	s.mu.Unlock()
	if closed {
		nc.Close()
		return
	}
	s.running.Go(func() {
		c.serve(ctx)
		c.nc.Close()
		s.forget(c)
	})
}

// evict closes a connection over a limit, and leaves nothing of it in the kernel.
func (s *Server) evict(c *conn) {
	s.count.refused.Add(1)
	c.reset()
}

func (s *Server) prove(c *conn) {
	if !c.proved.Swap(true) {
		s.admission.prove(c)
	}
}

// forget ends what s knows of a closed connection.
func (s *Server) forget(c *conn) {
	s.admission.release(c)
	o := s.outboxes.Get().(*outbox)
	s.mu.Lock()
	delete(s.conns, c.id)
	if c.rendezvous {
		s.machine.ConnClosed(time.Now(), c.id)
		s.drain(o, netip.AddrPort{}, -1)
		s.armTimer()
	}
	s.mu.Unlock()
	s.flush(o)
	s.outboxes.Put(o)
}
