package sim

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// DialTCP connects from a local port, 0 for any, to raddr. Several connections
// and a listener may share a local port.
func (h *Host) DialTCP(ctx context.Context, port uint16, raddr netip.AddrPort) (net.Conn, error) {
	d, err := h.StartTCP(port, raddr, TCPOptions{})
	if err != nil {
		return nil, err
	}
	return d.Wait(ctx)
}

// TCPOptions are what a socket is told before it connects.
type TCPOptions struct {
	// TTL is that of every segment, IP_TTL; zero is 64.
	TTL int
	// MinTTL drops what comes with less, IP_MINTTL: of IPv4 also ICMP errors
	// whose quoted packet had less.
	MinTTL int
}

func (o TCPOptions) valid() bool {
	return o.TTL >= 0 && o.TTL <= 255 && o.MinTTL >= 0 && o.MinTTL <= 255
}

// Dialing is a connection that is on its way: its SYN has been sent.
type Dialing struct {
	c  *tcpConn
	to netip.AddrPort
}

// StartTCP sends a SYN from a local port, 0 for any.
func (h *Host) StartTCP(port uint16, raddr netip.AddrPort, opt TCPOptions) (*Dialing, error) {
	raddr = netip.AddrPortFrom(raddr.Addr().Unmap(), raddr.Port())
	c, err := h.connect(port, raddr, opt)
	if err != nil {
		return nil, dialError(raddr, err)
	}
	return &Dialing{c, raddr}, nil
}

func dialError(to netip.AddrPort, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
}

// Set changes the options of what is sent and comes in from now on.
func (d *Dialing) Set(opt TCPOptions) error {
	d.c.h.n.enter()
	defer d.c.h.n.leave()
	if !opt.valid() {
		return dialError(d.to, os.NewSyscallError("setsockopt", syscall.EINVAL))
	}
	d.c.set(opt)
	return nil
}

func (c *tcpConn) set(opt TCPOptions) {
	c.ttl, c.minTTL = uint8(opt.TTL), uint8(opt.MinTTL)
	if opt.TTL == 0 {
		c.ttl = ip.DefaultTTL
	}
}

// Wait waits for the connection. When the context ends first there is none, and
// the peer is not told.
func (d *Dialing) Wait(ctx context.Context) (net.Conn, error) {
	select {
	case <-d.c.opened:
	case <-ctx.Done():
	}
	if err := d.c.dialed(ctx); err != nil {
		return nil, dialError(d.to, err)
	}
	return d.c, nil
}

func (h *Host) connect(port uint16, raddr netip.AddrPort, opt TCPOptions) (*tcpConn, error) {
	h.n.enter()
	defer h.n.leave()
	if h.n.closed {
		return nil, net.ErrClosed
	}
	if !raddr.IsValid() || raddr.Port() == 0 || !opt.valid() {
		return nil, os.NewSyscallError("connect", syscall.EINVAL)
	}
	src, err := h.source(raddr.Addr())
	if err != nil {
		return nil, err
	}
	at := func(port uint16) flow { return flow{netip.AddrPortFrom(src, port), raddr} }
	if port == 0 {
		var ok bool
		if port, ok = h.ephemeral(func(p uint16) bool { return h.tcp[at(p)] != nil || h.listeners[p] != nil }); !ok {
			return nil, os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)
		}
	}
	if h.tcp[at(port)] != nil {
		return nil, os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)
	}
	c := h.newConn(at(port))
	c.set(opt)
	c.opened, c.waiting = make(chan struct{}), true
	c.state = synSent
	c.snd.nxt++
	c.snd.max = c.snd.nxt
	c.sendSYN(ip.SYN)
	c.startTimer(synTimeout)
	return c, nil
}

// dialed is the outcome of a dial that has ended or been given up.
func (c *tcpConn) dialed(ctx context.Context) error {
	c.h.n.enter()
	defer c.h.n.leave()
	if c.waiting {
		c.abort(ctx.Err())
	}
	if c.state == closed {
		if c.err == nil { // the peer has reset it already
			return os.NewSyscallError("connect", syscall.ECONNRESET)
		}
		return c.err
	}
	return nil
}
