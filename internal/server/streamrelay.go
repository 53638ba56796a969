package server

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

// pairing brings the two sides of stream relays together.
type pairing struct {
	mu      sync.Mutex
	waiting map[relay.ID]*side
}

// side is one end of a stream relay. Its connection's goroutine copies from it
// to the other one.
type side struct {
	c      *conn
	number int        // 0 asked for the relay, 1 was asked
	met    chan *meet // receives once: the relay, or nil when replaced by a newer connection
}

// meet is a stream relay whose two sides are there.
type meet struct {
	ends [2]*conn
	last atomic.Int64  // when a byte moved, either way, as UnixNano
	left atomic.Int32  // sides that still copy
	over chan struct{} // closed when none does
}

// join returns the side that was waiting for this one, else leaves this one waiting.
func (p *pairing) join(id relay.ID, s *side) *side {
	p.mu.Lock()
	defer p.mu.Unlock()
	other := p.waiting[id]
	if other != nil && other.number != s.number {
		delete(p.waiting, id)
		return other
	}
	if other != nil {
		other.met <- nil
	}
	if p.waiting == nil {
		p.waiting = make(map[relay.ID]*side)
	}
	p.waiting[id] = s
	return nil
}

// leave ends s's waiting. It is false when the other side came meanwhile.
func (p *pairing) leave(id relay.ID, s *side) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting[id] != s {
		return false
	}
	delete(p.waiting, id)
	return true
}

// serveRelay handles a connection that begins with a stream relay's preface.
func (c *conn) serveRelay(ctx context.Context) {
	var preface [relay.PrefaceLen]byte
	preface[0] = relay.First
	if _, err := io.ReadFull(c.nc, preface[1:]); err != nil {
		return
	}
	s := c.server
	s.mu.Lock()
	id, number, err := s.machine.StreamRelay(time.Now(), preface[:])
	s.armTimer()
	s.mu.Unlock()
	if err != nil {
		return
	}
	s.prove(c)
	c.nc.SetReadDeadline(time.Time{})
	me := &side{c: c, number: number, met: make(chan *meet, 1)}
	m := s.meet(ctx, id, me)
	if m == nil {
		return
	}
	s.run(m, number)
}

// meet waits for the other side and tells both that they are together.
func (s *Server) meet(ctx context.Context, id relay.ID, me *side) *meet {
	if other := s.pairing.join(id, me); other != nil {
		m := &meet{over: make(chan struct{})}
		m.ends[me.number], m.ends[other.number] = me.c, other.c
		m.left.Store(2)
		m.last.Store(time.Now().UnixNano())
		for _, c := range m.ends {
			c.nc.SetWriteDeadline(time.Now().Add(s.limits.WriteStall))
			if _, err := c.nc.Write([]byte{relay.Ready}); err != nil {
				me.c.nc.Close()
				other.c.nc.Close()
			}
		}
		s.count.streamRelays.Add(1)
		other.met <- m
		return m
	}
	t := time.NewTimer(s.limits.RelayWait)
	defer t.Stop()
	select {
	case m := <-me.met:
		return m
	case <-ctx.Done():
	case <-t.C:
	}
	if s.pairing.leave(id, me) {
		return nil
	}
	return <-me.met
}

// run copies from the given side to the other, until that direction ends, and
// returns when both have.
func (s *Server) run(m *meet, number int) {
	src, dst := m.ends[number].nc, m.ends[1-number].nc
	d := direction{dst: dst, src: src, last: &m.last, bytes: &s.count.streamBytes, idle: s.limits.RelayIdle}
	if err := d.copy(); err != nil || !closeWrite(dst) {
		src.Close()
		dst.Close()
	}
	if m.left.Add(-1) == 0 {
		s.count.streamRelays.Add(-1)
		close(m.over)
	}
	<-m.over
}

// closeWrite passes a half-close on, where the connection has such a thing.
func closeWrite(c net.Conn) bool {
	h, ok := c.(interface{ CloseWrite() error })
	return ok && h.CloseWrite() == nil
}
