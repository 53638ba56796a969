package netio

import (
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

// RelayAddr is the address of the peer at the other end of a relay.
type RelayAddr struct{ ID relay.ID }

func (RelayAddr) Network() string  { return "relay" }
func (a RelayAddr) String() string { return "relay:" + hex.EncodeToString(a.ID[:]) }

const (
	relayQueueLen = 512
	maxLearnt     = 1024 // routes that nobody asked for
	packetLen     = 1500
)

// relayConn is a net.PacketConn over all relays of one socket.
type relayConn struct {
	s     *Socket
	queue chan relayed
	done  chan struct{}
	once  sync.Once

	mu       sync.RWMutex
	routes   map[relay.ID]route
	server   netip.AddrPort // may bring packets of relays not added yet
	learnt   [maxLearnt]relay.ID
	next     int // of learnt to give way
	deadline *Deadline
}

// route is where a relay's packets come from and go to.
type route struct {
	server netip.AddrPort
	users  int // who added it and did not remove it; 0: learnt from a packet
}

type relayed struct {
	id  relay.ID
	buf *[packetLen]byte
	n   int
}

var packets = sync.Pool{New: func() any { return new([packetLen]byte) }}

func newRelayConn(s *Socket) *relayConn {
	return &relayConn{
		s:        s,
		queue:    make(chan relayed, relayQueueLen),
		done:     make(chan struct{}),
		routes:   make(map[relay.ID]route),
		deadline: NewDeadline(),
	}
}

func (c *relayConn) add(id relay.ID, server netip.AddrPort) RelayAddr {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routes[id] = route{server, c.routes[id].users + 1}
	return RelayAddr{id}
}

func (c *relayConn) remove(id relay.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.routes[id]
	if r.users--; r.users > 0 {
		c.routes[id] = r
	} else if ok {
		delete(c.routes, id)
	}
}

func (c *relayConn) route(id relay.ID) netip.AddrPort {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.routes[id].server
}

// comesFrom tells whether packets of the relay may come from there. The first
// of a relay often overtakes the request that announces it, on the way here or
// inside this program; its server's word is enough to take it. The server's
// address can be forged, so what is learnt this way has a place for a while
// only: the oldest gives way, and those that were added are not concerned.
func (c *relayConn) comesFrom(id relay.ID, from netip.AddrPort) bool {
	if server := c.route(id); server.IsValid() {
		return server == from
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != from {
		return false
	}
	if old := c.learnt[c.next]; c.routes[old].users == 0 {
		delete(c.routes, old)
	}
	c.learnt[c.next] = id
	c.next = (c.next + 1) % maxLearnt
	c.routes[id] = route{from, c.routes[id].users}
	return true
}

// deliver queues a packet that came from the relay's own server, and tells
// whether it did.
func (c *relayConn) deliver(from netip.AddrPort, b []byte) bool {
	id, payload, ok := relay.Parse(b)
	if !ok || len(payload) == 0 || len(payload) > packetLen {
		return false
	}
	p := relayed{id: id, n: len(payload)}
	if !c.comesFrom(id, from) {
		return false
	}
	p.buf = packets.Get().(*[packetLen]byte)
	copy(p.buf[:], payload)
	select {
	case c.queue <- p:
		return true
	default:
		packets.Put(p.buf)
		return false
	}
}

func (c *relayConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-c.done:
		return 0, nil, net.ErrClosed
	case <-c.deadline.Wait():
		return 0, nil, os.ErrDeadlineExceeded
	default:
	}
	select {
	case p := <-c.queue:
		n := copy(b, p.buf[:p.n])
		packets.Put(p.buf)
		return n, RelayAddr{p.id}, nil
	case <-c.done:
		return 0, nil, net.ErrClosed
	case <-c.deadline.Wait():
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// WriteTo sends b to the peer at the other end of a relay. Without such a relay
// it is lost, like any packet into nowhere.
func (c *relayConn) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(RelayAddr)
	switch {
	case !ok:
		return 0, &net.OpError{Op: "write", Net: "relay", Addr: to, Err: net.InvalidAddrError("not a relay's address")}
	case len(b) > packetLen-relay.HeaderLen:
		return 0, &net.OpError{Op: "write", Net: "relay", Addr: to, Err: errTooLong}
	}
	server := c.route(addr.ID)
	if !server.IsValid() {
		return len(b), nil
	}
	buf := packets.Get().(*[packetLen]byte)
	defer packets.Put(buf)
	p := append(relay.AppendHeader(buf[:0], addr.ID), b...)
	if err := c.s.Send(server, p); lossy(err) != nil {
		return 0, err
	}
	return len(b), nil
}

// Close ends this virtual connection only; the socket stays.
func (c *relayConn) Close() error {
	c.once.Do(func() {
		close(c.done)
		c.deadline.Set(time.Time{})
	})
	return nil
}

// LocalAddr is the zero RelayAddr: no relay in particular.
func (c *relayConn) LocalAddr() net.Addr { return RelayAddr{} }

func (c *relayConn) SetDeadline(t time.Time) error     { return c.SetReadDeadline(t) }
func (c *relayConn) SetReadDeadline(t time.Time) error { c.deadline.Set(t); return nil }

// Writing never blocks for long enough to need a deadline.
func (c *relayConn) SetWriteDeadline(time.Time) error { return nil }

// quic-go wants socket buffers; the queue is what there is.
func (c *relayConn) SetReadBuffer(int) error  { return nil }
func (c *relayConn) SetWriteBuffer(int) error { return nil }
