package server

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// datagram is one UDP datagram and the endpoint it came from or goes to. Its
// bytes belong to the reader or outbox that it was taken from, until the next
// read or reset.
type datagram struct {
	addr netip.AddrPort
	b    []byte
}

// A socket makes readers and writers of one UDP socket. A reader or writer
// serves one goroutine; a socket can have many of each.
type socket interface {
	reader() batchReader
	writer() batchWriter
}

type batchReader interface {
	// read waits for datagrams; what it returns is valid until the next read.
	read() ([]datagram, error)
}

type batchWriter interface {
	// write sends what it can and says how many datagrams the kernel took.
	write([]datagram) int
}

// maxDatagram holds whatever UDP can carry, so that nothing arrives cut.
const maxDatagram = 65535

// socketBuffer is asked of the kernel for each UDP socket: a burst of 2,000
// full-size packets, or of 10,000 small ones as Linux counts them.
const socketBuffer = 8 << 20

// newSocket chooses the fastest way to use pc.
func newSocket(pc net.PacketConn) (socket, error) {
	if uc, ok := pc.(*net.UDPConn); ok {
		return newUDPSocket(uc)
	}
	return plainSocket{pc}, nil
}

// plainSocket works on any net.PacketConn, one datagram at a time.
type plainSocket struct{ pc net.PacketConn }

func (s plainSocket) reader() batchReader {
	return &plainReader{pc: s.pc, buf: make([]byte, maxDatagram)}
}

func (s plainSocket) writer() batchWriter { return plainWriter(s) }

type plainReader struct {
	pc   net.PacketConn
	buf  []byte
	one  [1]datagram
	fail backoff
}

func (r *plainReader) read() ([]datagram, error) {
	for {
		n, from, err := r.pc.ReadFrom(r.buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil, err
			}
			r.fail.wait() // an ICMP error, or no memory: the socket lives on
			continue
		}
		r.fail.reset()
		if addr, ok := addrPort(from); ok {
			r.one[0] = datagram{addr, r.buf[:n]}
			return r.one[:], nil
		}
	}
}

type plainWriter struct{ pc net.PacketConn }

func (w plainWriter) write(out []datagram) (sent int) {
	for _, d := range out {
		if _, err := w.pc.WriteTo(d.b, net.UDPAddrFromAddrPort(d.addr)); err == nil {
			sent++
		}
	}
	return sent
}

// addrPort is a's endpoint, IPv4 always as IPv4 and never with a zone.
func addrPort(a net.Addr) (netip.AddrPort, bool) {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	case nil:
		return ap, false
	default:
		var err error
		if ap, err = netip.ParseAddrPort(a.String()); err != nil {
			return ap, false
		}
	}
	return unmapped(ap), ap.IsValid()
}

func unmapped(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// backoff makes a loop that keeps failing wait, from 1 ms up to 1 s.
type backoff struct{ d time.Duration }

func (b *backoff) reset() { b.d = 0 }

func (b *backoff) wait() {
	b.d = min(max(2*b.d, time.Millisecond), time.Second)
	time.Sleep(b.d)
}
