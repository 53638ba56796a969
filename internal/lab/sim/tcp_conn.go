package sim

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// The methods of net.Conn, and those that *net.TCPConn has besides.

func (c *tcpConn) Read(b []byte) (int, error) {
	n := c.h.n
	n.enter()
	defer n.leave()
	r := &c.rcv
	for {
		switch {
		case c.detached:
			return 0, c.error("read", net.ErrClosed)
		case c.read.passed():
			return 0, c.error("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		case r.buf.len() > 0:
			got := copy(b, r.buf.bytes())
			r.buf.drop(got)
			c.reopenWindow()
			return got, nil
		case r.fin:
			return 0, io.EOF
		case c.state == closed:
			return 0, c.error("read", c.reason())
		}
		n.wait(&c.cond)
	}
}

// reopenWindow tells the peer when a lot of room has come free.
func (c *tcpConn) reopenWindow() {
	r := &c.rcv
	if r.fin || c.state == closed {
		return
	}
	if room := bufferSize - r.buf.len(); room-int(r.edge-r.nxt) >= bufferSize/2 {
		c.sendACK()
	}
}

func (c *tcpConn) reason() error {
	if c.err == nil {
		return os.NewSyscallError("read", syscall.ECONNRESET)
	}
	return c.err
}

func (c *tcpConn) Write(b []byte) (int, error) {
	n := c.h.n
	n.enter()
	defer n.leave()
	s := &c.snd
	for done := 0; ; {
		switch {
		case c.detached:
			return done, c.error("write", net.ErrClosed)
		case c.write.passed():
			return done, c.error("write", os.ErrDeadlineExceeded)
		case s.fin:
			return done, c.error("write", os.NewSyscallError("write", syscall.EPIPE))
		case c.state == closed:
			return done, c.error("write", c.reason())
		}
		room := max(0, min(bufferSize-s.buf.len(), len(b)-done))
		if room > 0 {
			s.buf.push(b[done : done+room])
			done += room
			c.output()
		}
		if done == len(b) {
			return done, nil
		}
		n.wait(&c.cond)
	}
}

// CloseWrite sends a FIN behind what was written.
func (c *tcpConn) CloseWrite() error {
	c.h.n.enter()
	defer c.h.n.leave()
	switch {
	case c.detached:
		return c.error("close", net.ErrClosed)
	case c.state == closed:
		return c.error("close", os.NewSyscallError("shutdown", syscall.ENOTCONN))
	}
	c.finish()
	return nil
}

func (c *tcpConn) finish() {
	if c.snd.fin {
		return
	}
	c.snd.fin = true
	switch c.state {
	case established:
		c.state = finWait1
	case closeWait:
		c.state = lastAck
	}
	c.output()
	c.cond.Broadcast()
}

// Close sends what was written and a FIN, or a RST if there is something that
// will never be read.
func (c *tcpConn) Close() error {
	c.h.n.enter()
	defer c.h.n.leave()
	if c.detached {
		return c.error("close", net.ErrClosed)
	}
	c.detached = true
	c.cond.Broadcast()
	switch {
	case c.state == closed:
	case c.rcv.buf.len() > 0 || !c.linger:
		c.abort(nil)
	default:
		c.finish()
		if c.state == finWait2 {
			c.startTimer(orphanTimeout)
		}
	}
	c.rcv.buf = fifo{}
	return nil
}

// SetLinger with 0 makes Close send a RST; other values change nothing.
func (c *tcpConn) SetLinger(sec int) error {
	c.h.n.enter()
	defer c.h.n.leave()
	c.linger = sec != 0
	return nil
}

func (c *tcpConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.flow.local) }
func (c *tcpConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.flow.remote) }

func (c *tcpConn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.read, &c.write)
}

func (c *tcpConn) SetReadDeadline(t time.Time) error  { return c.setDeadlines(t, &c.read) }
func (c *tcpConn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.write) }

func (c *tcpConn) setDeadlines(t time.Time, ds ...*deadline) error {
	c.h.n.enter()
	defer c.h.n.leave()
	if c.detached {
		return c.error("set", net.ErrClosed)
	}
	for _, d := range ds {
		d.move(t)
	}
	return nil
}

func (c *tcpConn) error(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
