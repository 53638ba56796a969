package link

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// memNet carries packets between packet connections in virtual time.
type memNet struct {
	delay time.Duration
	lose  func() bool // nil: never

	mu    sync.Mutex
	conns map[netip.AddrPort]*memConn
}

func newMemNet(delay time.Duration) *memNet {
	return &memNet{delay: delay, conns: make(map[netip.AddrPort]*memConn)}
}

func losing(share float64, seed uint64) func() bool {
	r := rand.New(rand.NewPCG(seed, 1))
	return func() bool { return r.Float64() < share }
}

type memPacket struct {
	data []byte
	from net.Addr
}

type memConn struct {
	net   *memNet
	addr  netip.AddrPort
	queue chan memPacket
	done  chan struct{}
	once  sync.Once

	mu       sync.Mutex
	deadline chan struct{} // closed when reading must stop
}

func (n *memNet) listen(addr string) *memConn {
	c := &memConn{
		net: n, addr: netip.MustParseAddrPort(addr), queue: make(chan memPacket, 4096),
		done: make(chan struct{}), deadline: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[c.addr] = c
	return c
}

func (c *memConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	peer := c.net.conns[to.(*net.UDPAddr).AddrPort()]
	if peer == nil || c.net.lose != nil && c.net.lose() {
		return len(b), nil
	}
	p := memPacket{append([]byte(nil), b...), c.LocalAddr()}
	time.AfterFunc(c.net.delay, func() {
		select {
		case peer.queue <- p:
		default:
		}
	})
	return len(b), nil
}

func (c *memConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	select {
	case p := <-c.queue:
		return copy(b, p.data), p.from, nil
	case <-deadline:
		return 0, nil, os.ErrDeadlineExceeded
	case <-c.done:
		return 0, nil, net.ErrClosed
	}
}

func (c *memConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.addr) }

func (c *memConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// SetReadDeadline knows only "now" and "never", which is what quic-go uses.
func (c *memConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() {
		c.deadline = make(chan struct{})
	} else {
		close(c.deadline)
	}
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
