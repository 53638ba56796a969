package sim

import (
	"net"
	"net/netip"
	"os"
	"slices"
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

// udpConn is a UDP socket: on all of a host's addresses or on one, and
// connected or not.
type udpConn struct {
	h      *Host
	local  netip.AddrPort
	remote netip.AddrPort // of a connected one
	cond   sync.Cond

	queue  []datagram // queue[head:] is unread
	head   int
	queued int // with overhead
	limit  int
	closed bool
	read   deadline
	write  deadline

	ttl    uint8
	whole  bool // never cut, and told of path MTUs
	err    error
	groups []netip.Addr

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
	return h.bind(netip.AddrPortFrom(netip.Addr{}, port))
}

// ListenUDPAt opens a UDP socket on one of the host's addresses; port 0 is any.
func (h *Host) ListenUDPAt(at netip.AddrPort) (net.PacketConn, error) { return h.bind(at) }

// bind opens a socket; without a valid address, on all.
func (h *Host) bind(at netip.AddrPort) (net.PacketConn, error) {
	h.n.enter()
	defer h.n.leave()
	fail := func(err error) (net.PacketConn, error) {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(at), Err: err}
	}
	if h.n.closed {
		return fail(net.ErrClosed)
	}
	all := !at.Addr().IsValid()
	if !all && !h.isMine(at.Addr()) {
		return fail(os.NewSyscallError("bind", syscall.EADDRNOTAVAIL))
	}
	port := at.Port()
	if port == 0 {
		var ok bool
		if port, ok = h.ephemeral(func(p uint16) bool { return h.udpPorts[p] > 0 }); !ok {
			return fail(os.NewSyscallError("bind", syscall.EADDRINUSE))
		}
	} else if h.udpInUse(at) {
		return fail(os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	addr := at.Addr()
	if all {
		addr = h.unspecified()
	}
	c := h.newUDP(netip.AddrPortFrom(addr, port))
	h.udp[udpKey(c.local)] = c
	return c, nil
}

// DialUDP opens a UDP socket that talks to raddr alone, and hears of ICMP
// errors; port 0 is any.
func (h *Host) DialUDP(port uint16, raddr netip.AddrPort) (net.Conn, error) {
	h.n.enter()
	defer h.n.leave()
	raddr = netip.AddrPortFrom(raddr.Addr().Unmap(), raddr.Port())
	src, err := h.source(raddr.Addr())
	switch {
	case h.n.closed:
		err = net.ErrClosed
	case err != nil:
	case port == 0:
		var ok bool
		if port, ok = h.ephemeral(func(p uint16) bool { return h.udpPorts[p] > 0 }); !ok {
			err = os.NewSyscallError("bind", syscall.EADDRINUSE)
		}
	case h.udpPorts[port] > 0:
		err = os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "udp", Addr: net.UDPAddrFromAddrPort(raddr), Err: err}
	}
	c := h.newUDP(netip.AddrPortFrom(src, port))
	c.remote = raddr
	h.connected[flow{c.local, raddr}] = c
	return dialedUDP{c}, nil
}

func (h *Host) newUDP(local netip.AddrPort) *udpConn {
	c := &udpConn{h: h, local: local, limit: defaultReadBuffer, ttl: ip.DefaultTTL}
	c.cond.L = &h.n.mu
	c.read, c.write = newDeadline(h.n, &c.cond), newDeadline(h.n, &c.cond)
	h.udpPorts[local.Port()]++
	return c
}

// udpKey is where a socket stands in Host.udp.
func udpKey(local netip.AddrPort) netip.AddrPort {
	if local.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.Addr{}, local.Port())
	}
	return local
}

// udpInUse: a socket on all addresses goes with no other on its port.
func (h *Host) udpInUse(at netip.AddrPort) bool {
	if !at.Addr().IsValid() {
		return h.udpPorts[at.Port()] > 0
	}
	return h.udp[at] != nil || h.udp[netip.AddrPortFrom(netip.Addr{}, at.Port())] != nil
}

// unspecified is the address of sockets that are on all addresses.
func (h *Host) unspecified() netip.Addr {
	for _, a := range h.at.addresses() {
		if a.Is6() {
			return netip.IPv6Unspecified()
		}
	}
	return netip.IPv4Unspecified()
}

// receiveUDP takes over pkt, whose decoded form is p.
func (h *Host) receiveUDP(p *ip.Packet, pkt *buffer) {
	var c *udpConn
	if len(h.connected) > 0 {
		c = h.connected[flow{p.Dst, p.Src}]
	}
	if c == nil {
		c = h.udp[netip.AddrPortFrom(netip.Addr{}, p.Dst.Port())]
	}
	if c == nil {
		c = h.udp[p.Dst]
	}
	if c != nil {
		c.receive(p.Src, pkt)
		return
	}
	answer := h.n.take()
	answer.b = ip.AppendError(answer.b, p.Dst.Addr(), ip.PortUnreachable, pkt.b)
	h.outputAny(answer)
	h.n.give(pkt)
}

// receiveBroadcast: a broadcast is for the socket on all addresses, a multicast
// for it too if it has joined.
func (h *Host) receiveBroadcast(from *port, pkt *buffer) {
	p := &h.packet
	c := h.udp[netip.AddrPortFrom(netip.Addr{}, p.Dst.Port())]
	if c == nil || p.Dst.Addr().IsMulticast() && !slices.Contains(c.groups, p.Dst.Addr()) {
		h.n.drop(from, pkt, "nobody listens")
		return
	}
	h.n.trace(Delivered, from, pkt.b, "")
	c.receive(p.Src, pkt)
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

// trouble is what an ICMP error says to a connected socket: the next call gets
// it.
func (c *udpConn) trouble(errno syscall.Errno) {
	c.err = errno
	c.cond.Broadcast()
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
		case c.err != nil:
			return 0, nil, c.error("read", nil, os.NewSyscallError("recvfrom", c.takeError()))
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
	c.h.n.enter()
	defer c.h.n.leave()
	if err := c.send(b, netip.AddrPortFrom(to.Addr().Unmap(), to.Port())); err != nil {
		return 0, c.error("write", addr, err)
	}
	return len(b), nil
}

func (c *udpConn) send(b []byte, to netip.AddrPort) error {
	h := c.h
	switch {
	case c.closed:
		return net.ErrClosed
	case c.write.passed():
		return os.ErrDeadlineExceeded
	case c.err != nil:
		return os.NewSyscallError("sendto", c.takeError())
	case !to.IsValid() || to.Port() == 0:
		return os.NewSyscallError("sendto", syscall.EINVAL)
	case len(b) > maxDatagram:
		return os.NewSyscallError("sendto", syscall.EMSGSIZE)
	}
	src := c.local.Addr()
	if src.IsUnspecified() {
		var err error
		if src, err = h.source(to.Addr()); err != nil {
			return os.NewSyscallError("sendto", syscall.ENETUNREACH)
		}
	} else if !h.isMine(src) || src.Is4() != to.Addr().Is4() {
		return os.NewSyscallError("sendto", syscall.EINVAL)
	}
	if c.whole && ip.HeaderLen(src)+8+len(b) > h.mtu(to.Addr()) {
		return os.NewSyscallError("sendto", syscall.EMSGSIZE)
	}
	ttl := c.ttl
	if to.Addr().IsMulticast() {
		ttl = 1 // IP_MULTICAST_TTL
	}
	pkt := h.n.take()
	pkt.b = ip.AppendUDP(pkt.b, netip.AddrPortFrom(src, c.local.Port()), to, ttl, b)
	h.output(pkt)
	return nil
}

func (c *udpConn) takeError() (err error) {
	err, c.err = c.err, nil
	return err
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
	if c.remote.IsValid() {
		delete(c.h.connected, flow{c.local, c.remote})
	} else {
		delete(c.h.udp, udpKey(c.local))
	}
	if c.h.udpPorts[c.local.Port()]--; c.h.udpPorts[c.local.Port()] == 0 {
		delete(c.h.udpPorts, c.local.Port())
	}
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

// SetTTL is that of what is sent from now on, 1 to 255.
func (c *udpConn) SetTTL(ttl int) error {
	c.h.n.enter()
	defer c.h.n.leave()
	if ttl < 1 || ttl > 255 {
		return c.error("set", nil, os.NewSyscallError("setsockopt", syscall.EINVAL))
	}
	c.ttl = uint8(ttl)
	return nil
}

// SetDontFragment refuses, with EMSGSIZE, what is larger than the path is known
// to carry, as IP_PMTUDISC_DO does. Otherwise the host cuts it.
func (c *udpConn) SetDontFragment(yes bool) error {
	c.h.n.enter()
	defer c.h.n.leave()
	c.whole = yes
	return nil
}

// Join makes the socket get what is sent to a multicast group.
func (c *udpConn) Join(group netip.Addr) error {
	c.h.n.enter()
	defer c.h.n.leave()
	if !group.IsMulticast() {
		return c.error("set", nil, os.NewSyscallError("setsockopt", syscall.EINVAL))
	}
	c.groups = append(c.groups, group)
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

// dialedUDP is a connected UDP socket as a net.Conn.
type dialedUDP struct{ *udpConn }

func (c dialedUDP) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	return n, err
}

func (c dialedUDP) Write(b []byte) (int, error) {
	c.h.n.enter()
	defer c.h.n.leave()
	if err := c.send(b, c.remote); err != nil {
		return 0, c.error("write", c.RemoteAddr(), err)
	}
	return len(b), nil
}

func (c dialedUDP) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.remote) }
