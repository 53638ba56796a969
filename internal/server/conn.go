package server

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

// conn is a TCP connection. Its goroutine reads; it writes itself what STUN and
// relays need, while rendezvous messages go through a queue that a goroutine
// empties for as long as there is something in it. An idle one costs one
// goroutine and no buffer.
type conn struct {
	server     *Server
	nc         net.Conn
	id         uint64
	from       netip.AddrPort
	source     netip.Addr // what its limits go by
	opened     time.Time
	rendezvous bool
	proved     atomic.Bool
	standing   standing // guarded by admission.mu

	mu      sync.Mutex
	queue   []byte // messages to write, framed
	taken   int    // bytes that the writing goroutine took from it
	writing bool   // a goroutine is writing
	cut     bool
}

// serve handles c until it ends. Nothing is read ahead: what follows a
// preface belongs to the kernel's splice.
func (c *conn) serve(ctx context.Context) {
	var first [1]byte
	c.nc.SetReadDeadline(c.opened.Add(c.server.limits.FirstByte))
	if _, err := io.ReadFull(c.nc, first[:]); err != nil {
		return
	}
	c.nc.SetReadDeadline(c.opened.Add(c.server.limits.Proof))
	switch {
	case first[0] <= lastSTUN:
		c.serveSTUN(first[0])
	case first[0] == wire.First:
		c.serveRendezvous()
	case first[0] == relay.First:
		c.serveRelay(ctx)
	}
}

// reset closes c without leaving anything to linger.
func (c *conn) reset() {
	if tc, ok := c.nc.(*net.TCPConn); ok {
		tc.SetLinger(0)
	}
	c.nc.Close()
}

// buffers hold one message each while it is handled.
var buffers = sync.Pool{New: func() any { return new([maxMessage]byte) }}

// maxMessage is the longest message taken from a TCP connection.
const maxMessage = 1500

// serveSTUN answers STUN requests (RFC 8489 section 6.2.2). Such a connection
// proves nothing and stays among the first to go.
func (c *conn) serveSTUN(first byte) {
	buf := buffers.Get().(*[maxMessage]byte)
	defer buffers.Put(buf)
	var answer [128]byte
	buf[0] = first
	have := 1
	for {
		if _, err := io.ReadFull(c.nc, buf[have:stun.HeaderLen]); err != nil {
			return
		}
		n, ok := stun.Size(buf[:stun.HeaderLen])
		if !ok || n > len(buf) {
			return
		}
		if _, err := io.ReadFull(c.nc, buf[stun.HeaderLen:n]); err != nil {
			return
		}
		if b, ok := stun.AppendBindingResponse(answer[:0], buf[:n], c.from); ok {
			c.nc.SetWriteDeadline(time.Now().Add(c.server.limits.WriteStall))
			if _, err := c.nc.Write(b); err != nil {
				return
			}
			c.server.count.stun.Add(1)
		}
		have = 0
		c.nc.SetReadDeadline(time.Now().Add(c.server.limits.Proof))
	}
}

// serveRendezvous hands messages to the machine until one is late or too long.
func (c *conn) serveRendezvous() {
	c.rendezvous = true
	if tc, ok := c.nc.(*net.TCPConn); ok {
		tc.SetWriteBuffer(c.server.limits.WriteQueue) // else the kernel holds megabytes for a slow reader
	}
	for {
		if c.proved.Load() {
			c.nc.SetReadDeadline(time.Now().Add(c.server.limits.Idle))
		}
		var head [2]byte
		if _, err := io.ReadFull(c.nc, head[:]); err != nil {
			return
		}
		if c.proved.Load() {
			c.nc.SetReadDeadline(time.Now().Add(c.server.limits.Proof))
		}
		if !c.message(int(binary.BigEndian.Uint16(head[:]))) {
			return
		}
	}
}

// message reads and handles one message of n bytes.
func (c *conn) message(n int) bool {
	if n < wire.HeaderLen || n > wire.MaxLen {
		return false
	}
	buf := buffers.Get().(*[maxMessage]byte)
	defer buffers.Put(buf)
	b := buf[:n]
	if _, err := io.ReadFull(c.nc, b); err != nil {
		return false
	}
	s := c.server
	o := s.outboxes.Get().(*outbox)
	s.mu.Lock()
	s.handle(time.Now(), o, rendezvous.Addr{Endpoint: c.from, Conn: c.id}, -1, b)
	s.armTimer()
	s.mu.Unlock()
	s.flush(o)
	s.outboxes.Put(o)
	return true
}

// send queues a message. Who lets the queue fill is cut; what is being written
// still counts, or the bound would depend on when the writer took it.
func (c *conn) send(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return
	}
	if c.taken+len(c.queue)+2+len(b) > c.server.limits.WriteQueue {
		c.stalled()
		return
	}
	c.queue = binary.BigEndian.AppendUint16(c.queue, uint16(len(b)))
	c.queue = append(c.queue, b...)
	if !c.writing {
		c.writing = true
		c.server.running.Go(c.write)
	}
}

// stalled ends a connection that does not read. c.mu is held.
func (c *conn) stalled() {
	c.cut = true
	c.queue = nil
	c.server.count.slowReaders.Add(1)
	c.reset()
}

func (c *conn) write() {
	for {
		c.mu.Lock()
		b := c.queue
		c.queue = nil
		c.taken = len(b)
		c.writing = len(b) > 0
		c.mu.Unlock()
		if len(b) == 0 {
			return
		}
		c.nc.SetWriteDeadline(time.Now().Add(c.server.limits.WriteStall))
		if _, err := c.nc.Write(b); err != nil {
			c.mu.Lock()
			if !c.cut {
				c.stalled()
			}
			c.mu.Unlock()
			return
		}
	}
}
