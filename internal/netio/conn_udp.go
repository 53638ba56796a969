package netio

import (
	"net"
	"syscall"
	"time"
)

// udpConn is a *net.UDPConn for quic-go less the datagrams that are not QUIC's.
// It implements quic.OOBCapablePacketConn, so that quic-go sends with
// segmentation offload and ECN straight through the socket, and ReadBatch (see
// batch_linux.go), which quic-go prefers to unwrapping the descriptor.
type udpConn struct {
	s *Socket
	batch
}

func newUDPConn(s *Socket) *udpConn { return &udpConn{s: s, batch: newBatch(s.udp)} }

func (c *udpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.s.udp.ReadFromUDP(b)
		if err != nil || c.s.keep(from, b[:n]) {
			return n, from, err
		}
	}
}

func (c *udpConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	for {
		n, oobn, flags, from, err = c.s.udp.ReadMsgUDP(b, oob)
		if err != nil || c.s.keep(from, b[:n]) {
			return n, oobn, flags, from, err
		}
	}
}

func (c *udpConn) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := c.s.udp.WriteTo(b, to)
	return c.wrote(len(b), n, err)
}

func (c *udpConn) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = c.s.udp.WriteMsgUDP(b, oob, to)
	if err != nil && isPermission(err) {
		// Linux sometimes refuses the first datagram of a socket
		// (https://github.com/golang/go/issues/63322).
		n, oobn, err = c.s.udp.WriteMsgUDP(b, oob, to)
	}
	n, err = c.wrote(len(b), n, err)
	return n, oobn, err
}

func (c *udpConn) wrote(want, n int, err error) (int, error) {
	if err == nil {
		return n, nil
	}
	if err = lossy(err); err == nil {
		return want, nil
	}
	return n, err
}

func (c *udpConn) LocalAddr() net.Addr                   { return c.s.udp.LocalAddr() }
func (c *udpConn) Close() error                          { return c.s.Close() }
func (c *udpConn) SyscallConn() (syscall.RawConn, error) { return c.s.udp.SyscallConn() }
func (c *udpConn) SetReadBuffer(n int) error             { return c.s.udp.SetReadBuffer(n) }
func (c *udpConn) SetWriteBuffer(n int) error            { return c.s.udp.SetWriteBuffer(n) }
func (c *udpConn) SetDeadline(t time.Time) error         { return c.s.udp.SetDeadline(t) }
func (c *udpConn) SetReadDeadline(t time.Time) error     { return c.s.udp.SetReadDeadline(t) }
func (c *udpConn) SetWriteDeadline(t time.Time) error    { return c.s.udp.SetWriteDeadline(t) }

// plainConn is the same over any other packet connection.
type plainConn struct{ s *Socket }

func (c *plainConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.s.pc.ReadFrom(b)
		if err != nil || c.s.keep(from, b[:n]) {
			return n, from, err
		}
	}
}

func (c *plainConn) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := c.s.pc.WriteTo(b, to)
	if err != nil && lossy(err) == nil {
		return len(b), nil
	}
	return n, err
}

func (c *plainConn) LocalAddr() net.Addr                { return c.s.pc.LocalAddr() }
func (c *plainConn) Close() error                       { return c.s.Close() }
func (c *plainConn) SetDeadline(t time.Time) error      { return c.s.pc.SetDeadline(t) }
func (c *plainConn) SetReadDeadline(t time.Time) error  { return c.s.pc.SetReadDeadline(t) }
func (c *plainConn) SetWriteDeadline(t time.Time) error { return c.s.pc.SetWriteDeadline(t) }

// quic-go wants socket buffers; there are none to size.
func (c *plainConn) SetReadBuffer(int) error  { return nil }
func (c *plainConn) SetWriteBuffer(int) error { return nil }
