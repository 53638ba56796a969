//go:build !linux

package server

import (
	"errors"
	"net"
)

// udpSocket reads and writes one datagram at a time: batches are Linux's.
type udpSocket struct{ uc *net.UDPConn }

func newUDPSocket(uc *net.UDPConn) (socket, error) {
	uc.SetReadBuffer(socketBuffer) // as much of it as the system allows
	uc.SetWriteBuffer(socketBuffer)
	return udpSocket{uc}, nil
}

func (s udpSocket) reader() batchReader {
	return &udpReader{uc: s.uc, buf: make([]byte, maxDatagram)}
}

func (s udpSocket) writer() batchWriter { return udpWriter(s) }

type udpReader struct {
	uc   *net.UDPConn
	buf  []byte
	one  [1]datagram
	fail backoff
}

func (r *udpReader) read() ([]datagram, error) {
	for {
		n, from, err := r.uc.ReadFromUDPAddrPort(r.buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil, err
			}
			r.fail.wait()
			continue
		}
		r.fail.reset()
		r.one[0] = datagram{unmapped(from), r.buf[:n]}
		return r.one[:], nil
	}
}

type udpWriter struct{ uc *net.UDPConn }

func (w udpWriter) write(out []datagram) (sent int) {
	for _, d := range out {
		if _, err := w.uc.WriteToUDPAddrPort(d.b, d.addr); err == nil {
			sent++
		}
	}
	return sent
}
