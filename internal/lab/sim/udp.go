package sim

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// The receive queue counts packets like Linux counts them: with the memory
// around them.
const (
	defaultReadBuffer = 212992
	packetOverhead    = 512
	maxDatagram       = 65507
)

// udpConn is an unconnected UDP socket on all of a host's addresses.
type udpConn struct {
	h     *Host
	local netip.AddrPort
	cond  sync.Cond

	queue  []datagram // queue[head:] is unread
	head   int
	queued int // with overhead
	limit  int
	closed bool
	read   deadline
	write  deadline

	// The address of the last datagram read: most often also the next one's.
	from   netip.AddrPort
	fromUA *net.UDPAddr
}

type datagram struct {
	from netip.AddrPort
	pkt  *buffer
	data []byte // in pkt
}

// ListenUDP opens a UDP socket on all addresses; port 0 is any.
func (h *Host) ListenUDP(port uint16) (net.PacketConn, error) {
	h.n.enter()
	defer h.n.leave()
	fail := func(err error) (net.PacketConn, error) {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: &net.UDPAddr{Port: int(port)}, Err: err}
	}
	if h.n.closed {
		return fail(net.ErrClosed)
	}
	if port == 0 {
		var ok bool
		if port, ok = h.ephemeral(func(p uint16) bool { return h.udp[p] != nil }); !ok {
			return fail(os.NewSyscallError("bind", syscall.EADDRINUSE))
		}
	} else if h.udp[port] != nil {
		return fail(os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	c := &udpConn{h: h, local: netip.AddrPortFrom(h.unspecified(), port), limit: defaultReadBuffer}
	c.cond.L = &h.n.mu
	c.read, c.write = newDeadline(h.n, &c.cond), newDeadline(h.n, &c.cond)
	h.udp[port] = c
	return c, nil
}

// unspecified is the address of sockets that are on all addresses.
func (h *Host) unspecified() netip.Addr {
	if h.port.addr(false).IsValid() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// receive takes over pkt, whose decoded form is the host's packet at hand.
func (c *udpConn) receive(from netip.AddrPort, pkt *buffer) {
	data := c.h.packet.Payload()
	if c.queued+len(data)+packetOverhead > c.limit {
		c.h.n.drop(c.h.port, pkt, "receive queue full")
		return
	}
	c.queued += len(data) + packetOverhead
	if c.head > 32 && c.head > len(c.queue)/2 {
		kept := copy(c.queue, c.queue[c.head:])
		clear(c.queue[kept:])
		c.queue, c.head = c.queue[:kept], 0
	}
	c.queue = append(c.queue, datagram{from, pkt, data})
	c.cond.Signal()
}

func (c *udpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n := c.h.n
	n.enter()
	defer n.leave()
	for {
		switch {
		case c.closed:
			return 0, nil, c.error("read", nil, net.ErrClosed)
		case c.read.passed():
			return 0, nil, c.error("read", nil, os.ErrDeadlineExceeded)
		case c.head == len(c.queue):
			n.wait(&c.cond)
			continue
		}
		d := &c.queue[c.head]
		got := copy(b, d.data)
		c.queued -= len(d.data) + packetOverhead
		if c.fromUA == nil || c.from != d.from {
			c.from, c.fromUA = d.from, net.UDPAddrFromAddrPort(d.from)
		}
		n.give(d.pkt)
		*d = datagram{}
		if c.head++; c.head == len(c.queue) {
			c.queue, c.head = c.queue[:0], 0
		}
		return got, c.fromUA, nil
	}
}

func (c *udpConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	ua, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, c.error("write", addr, syscall.EINVAL)
	}
	to := ua.AddrPort()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	n := c.h.n
	n.enter()
	defer n.leave()
	switch {
	case c.closed:
		return 0, c.error("write", addr, net.ErrClosed)
	case c.write.passed():
		return 0, c.error("write", addr, os.ErrDeadlineExceeded)
	case !to.IsValid() || to.Port() == 0:
		return 0, c.error("write", addr, os.NewSyscallError("sendto", syscall.EINVAL))
	case len(b) > maxDatagram:
		return 0, c.error("write", addr, os.NewSyscallError("sendto", syscall.EMSGSIZE))
	}
	src, err := c.h.source(to.Addr())
	if err != nil {
		return 0, c.error("write", addr, os.NewSyscallError("sendto", syscall.ENETUNREACH))
	}
	pkt := n.take()
	pkt.b = ip.AppendUDP(pkt.b, netip.AddrPortFrom(src, c.local.Port()), to, ip.DefaultTTL, b)
	c.h.output(pkt)
	return len(b), nil
}

func (c *udpConn) error(op string, to net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Addr: to, Err: err}
}

func (c *udpConn) Close() error {
	c.h.n.enter()
	defer c.h.n.leave()
	if c.closed {
		return c.error("close", nil, net.ErrClosed)
	}
	c.close()
	return nil
}

func (c *udpConn) close() {
	for _, d := range c.queue[c.head:] {
		c.h.n.give(d.pkt)
	}
	c.queue, c.head, c.closed = nil, 0, true
	delete(c.h.udp, c.local.Port())
	c.cond.Broadcast()
}

func (c *udpConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// SetReadBuffer bounds the receive queue, as a kernel does: a packet counts
// with some overhead.
func (c *udpConn) SetReadBuffer(bytes int) error {
	c.h.n.enter()
	defer c.h.n.leave()
	c.limit = max(bytes, 4096)
	return nil
}

func (c *udpConn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.read, &c.write)
}

func (c *udpConn) SetReadDeadline(t time.Time) error  { return c.setDeadlines(t, &c.read) }
func (c *udpConn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.write) }

func (c *udpConn) setDeadlines(t time.Time, ds ...*deadline) error {
	c.h.n.enter()
	defer c.h.n.leave()
	if c.closed {
		return c.error("set", nil, net.ErrClosed)
	}
	for _, d := range ds {
		d.move(t)
	}
	return nil
}
