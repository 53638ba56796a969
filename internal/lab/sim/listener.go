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

// backlog bounds the connections that are not accepted yet, and separately
// those whose handshake is not complete.
const backlog = 128

type listener struct {
	h     *Host
	local netip.AddrPort
	cond  sync.Cond

	ready    []*tcpConn
	half     []*tcpConn
	closed   bool
	deadline deadline
}

// ListenTCP accepts connections on all addresses; port 0 is any.
func (h *Host) ListenTCP(port uint16) (net.Listener, error) {
	h.n.enter()
	defer h.n.leave()
	return h.listen(port)
}

func (h *Host) listen(port uint16) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: &net.TCPAddr{Port: int(port)}, Err: err}
	}
	if h.n.closed {
		return fail(net.ErrClosed)
	}
	if port == 0 {
		var ok bool
		if port, ok = h.ephemeral(func(p uint16) bool { return h.listeners[p] != nil }); !ok {
			return fail(os.NewSyscallError("bind", syscall.EADDRINUSE))
		}
	} else if h.listeners[port] != nil {
		return fail(os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	l := &listener{h: h, local: netip.AddrPortFrom(h.unspecified(), port)}
	l.cond.L = &h.n.mu
	l.deadline = newDeadline(h.n, &l.cond)
	h.listeners[port] = l
	return l, nil
}

// receive: a SYN for a connection that does not exist.
func (l *listener) receive(f flow, s *ip.Segment) {
	if len(l.ready) >= backlog || len(l.half) >= backlog {
		return
	}
	c := l.h.newConn(f)
	c.listener = l
	l.half = append(l.half, c)
	c.state = synReceived
	c.synchronize(s)
	c.snd.nxt++
	c.snd.max = c.snd.nxt
	c.sendSYN(ip.SYN | ip.ACK)
	c.startTimer(synTimeout)
}

// settled: the handshake of c has ended, one way or the other.
func (l *listener) settled(c *tcpConn) {
	l.half = slices.DeleteFunc(l.half, func(d *tcpConn) bool { return d == c })
	if c.state == established {
		l.ready = append(l.ready, c)
		l.cond.Signal()
	}
}

func (l *listener) Accept() (net.Conn, error) {
	n := l.h.n
	n.enter()
	defer n.leave()
	for {
		switch {
		case l.closed:
			return nil, l.error("accept", net.ErrClosed)
		case l.deadline.passed():
			return nil, l.error("accept", os.ErrDeadlineExceeded)
		case len(l.ready) > 0:
			c := l.ready[0]
			l.ready = l.ready[1:]
			return c, nil
		}
		n.wait(&l.cond)
	}
}

// SetDeadline bounds Accept.
func (l *listener) SetDeadline(t time.Time) error {
	l.h.n.enter()
	defer l.h.n.leave()
	if l.closed {
		return l.error("set", net.ErrClosed)
	}
	l.deadline.move(t)
	return nil
}

// Close resets the connections that nobody has accepted.
func (l *listener) Close() error {
	l.h.n.enter()
	defer l.h.n.leave()
	if l.closed {
		return l.error("close", net.ErrClosed)
	}
	l.close()
	return nil
}

func (l *listener) close() {
	l.closed = true
	delete(l.h.listeners, l.local.Port())
	for _, c := range slices.Concat(l.ready, l.half) {
		c.abort(nil)
	}
	l.ready = nil
	l.cond.Broadcast()
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.local) }

func (l *listener) error(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: err}
}
