package server

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The batch calls are made directly and not through golang.org/x/net, which
// allocates an address for every datagram that it reads.

const (
	readBatch   = 32 // messages a recvmmsg; each may be 64 datagrams that the kernel coalesced
	writeBatch  = 64 // messages a sendmmsg
	maxSegments = 64 // UDP_MAX_SEGMENTS of the oldest kernels that segment
	maxRun      = 65000
)

// udpSocket is a *net.UDPConn read by recvmmsg with UDP_GRO and written by
// sendmmsg with UDP_SEGMENT.
type udpSocket struct {
	rc  syscall.RawConn
	ip6 bool
	gro bool
	gso atomic.Bool
}

func newUDPSocket(uc *net.UDPConn) (socket, error) {
	rc, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &udpSocket{rc: rc}
	var domain int
	var domainErr error
	err = rc.Control(func(fd uintptr) {
		domain, domainErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		// The forced sizes need a privilege; the plain ones stop at the system's limit.
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer) != nil {
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)
		}
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer) != nil {
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
		}
		s.gro = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) == nil
		_, gsoErr := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		s.gso.Store(gsoErr == nil)
	})
	if err != nil {
		return nil, err
	}
	if domainErr != nil {
		return nil, fmt.Errorf("socket's family: %w", domainErr)
	}
	s.ip6 = domain == unix.AF_INET6
	return s, nil
}

// mmsg calls recvmmsg or sendmmsg, again when a signal came between.
func mmsg(trap, fd uintptr, hdrs []unix.Mmsghdr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// control is room for one control message of up to 8 bytes, aligned for the
// kernel on every architecture.
type control [4]uint64

type udpReader struct {
	s     *udpSocket
	hdrs  [readBatch]unix.Mmsghdr
	iovs  [readBatch]unix.Iovec
	names [readBatch]unix.RawSockaddrInet6
	ctls  [readBatch]control
	bufs  [readBatch][]byte
	out   []datagram
	recv  func(fd uintptr) bool // made once: a closure a call would be garbage
	n     int
	errno syscall.Errno
	fail  backoff
}

func (s *udpSocket) reader() batchReader {
	r := &udpReader{s: s}
	size := maxDatagram
	pool := make([]byte, readBatch*size) // touched, and so paid for, only as far as used
	for i := range r.hdrs {
		r.bufs[i] = pool[i*size : (i+1)*size]
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(size)
		r.hdrs[i].Hdr.Iov = &r.iovs[i]
		r.hdrs[i].Hdr.SetIovlen(1)
		r.hdrs[i].Hdr.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		r.hdrs[i].Hdr.Control = (*byte)(unsafe.Pointer(&r.ctls[i]))
	}
	r.recv = func(fd uintptr) bool {
		r.n, r.errno = mmsg(unix.SYS_RECVMMSG, fd, r.hdrs[:])
		return r.errno != unix.EAGAIN
	}
	return r
}

func (r *udpReader) read() ([]datagram, error) {
	for {
		for i := range r.hdrs {
			h := &r.hdrs[i].Hdr
			h.Namelen = unix.SizeofSockaddrInet6
			h.SetControllen(len(r.ctls[i]) * 8)
		}
		if err := r.s.rc.Read(r.recv); err != nil {
			return nil, err
		}
		if r.errno != 0 { // no memory, or an ICMP error: the socket lives on
			r.fail.wait()
			continue
		}
		r.fail.reset()
		r.out = r.out[:0]
		for i := range r.n {
			r.split(i)
		}
		if len(r.out) > 0 {
			return r.out, nil
		}
	}
}

// split appends the datagrams that the kernel coalesced into message i.
func (r *udpReader) split(i int) {
	h := &r.hdrs[i]
	from, ok := readName(&r.names[i])
	if !ok || h.Hdr.Flags&unix.MSG_TRUNC != 0 {
		return
	}
	b := r.bufs[i][:h.Len]
	if size := segmentSize(&h.Hdr); size > 0 {
		for ; len(b) > size; b = b[size:] {
			r.out = append(r.out, datagram{from, b[:size:size]})
		}
	}
	if len(b) > 0 {
		r.out = append(r.out, datagram{from, b})
	}
}

// segmentSize is the size of the datagrams in a message that UDP_GRO made of
// several, 0 for an ordinary one.
func segmentSize(h *unix.Msghdr) int {
	c := (*unix.Cmsghdr)(unsafe.Pointer(h.Control))
	if int(h.Controllen) < unix.CmsgLen(4) || c.Level != unix.SOL_UDP || c.Type != unix.UDP_GRO {
		return 0
	}
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(c), unix.CmsgLen(0))))
}

func readName(n *unix.RawSockaddrInet6) (netip.AddrPort, bool) {
	switch n.Family {
	case unix.AF_INET:
		n4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(n))
		return netip.AddrPortFrom(netip.AddrFrom4(n4.Addr), networkOrder(n4.Port)), true
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(n.Addr).Unmap(), networkOrder(n.Port)), true
	}
	return netip.AddrPort{}, false
}

// networkOrder reads or writes a port where the kernel wants it big endian.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

type udpWriter struct {
	s      *udpSocket
	hdrs   [writeBatch]unix.Mmsghdr
	names  [writeBatch]unix.RawSockaddrInet6
	ctls   [writeBatch]control
	iovs   []unix.Iovec
	counts [writeBatch]int // datagrams in each message
	send   func(fd uintptr) bool
	first  int
	last   int
	n      int
	errno  syscall.Errno
	single *udpWriter // made when a segmented message had to be taken apart
}

func (s *udpSocket) writer() batchWriter {
	w := &udpWriter{s: s}
	w.send = func(fd uintptr) bool {
		w.n, w.errno = mmsg(unix.SYS_SENDMMSG, fd, w.hdrs[w.first:w.last])
		return w.errno != unix.EAGAIN
	}
	return w
}

func (w *udpWriter) write(out []datagram) int {
	sent, _ := w.writeAll(out, w.s.gso.Load())
	return sent
}

func (w *udpWriter) writeAll(out []datagram, gso bool) (sent int, ok bool) {
	for len(out) > 0 {
		n := w.pack(out, gso)
		took, ok := w.flush(out[:n])
		sent += took
		if !ok {
			return sent, false
		}
		out = out[n:]
	}
	return sent, true
}

// pack makes messages of the first datagrams of out and says of how many. Runs
// to one endpoint of one size, the last not longer, become one message that the
// kernel cuts up again (UDP_SEGMENT).
func (w *udpWriter) pack(out []datagram, gso bool) (packed int) {
	w.iovs = w.iovs[:0]
	if cap(w.iovs) == 0 {
		w.iovs = make([]unix.Iovec, 0, writeBatch*maxSegments) // never grown: headers point into it
	}
	w.first, w.last = 0, 0
	for packed < len(out) && w.last < writeBatch {
		run := out[packed:]
		n := 1
		if gso {
			n = runLength(run)
		}
		i := w.last
		iov := len(w.iovs)
		for _, d := range run[:n] {
			v := unix.Iovec{Base: unsafe.SliceData(d.b)}
			v.SetLen(len(d.b))
			w.iovs = append(w.iovs, v)
		}
		h := &w.hdrs[i].Hdr
		h.Iov = &w.iovs[iov]
		h.SetIovlen(n)
		h.Name = (*byte)(unsafe.Pointer(&w.names[i]))
		h.Namelen = writeName(&w.names[i], run[0].addr, w.s.ip6)
		h.Control = nil
		h.SetControllen(0)
		if n > 1 {
			c := (*unix.Cmsghdr)(unsafe.Pointer(&w.ctls[i]))
			c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
			c.SetLen(unix.CmsgLen(2))
			*(*uint16)(unsafe.Add(unsafe.Pointer(c), unix.CmsgLen(0))) = uint16(len(run[0].b))
			h.Control = (*byte)(unsafe.Pointer(c))
			h.SetControllen(unix.CmsgSpace(2))
		}
		w.counts[i] = n
		w.last++
		packed += n
	}
	return packed
}

// runLength is how many datagrams at the start of out one segmented message carries.
func runLength(out []datagram) int {
	size, total := len(out[0].b), len(out[0].b)
	if size == 0 {
		return 1
	}
	n := 1
	for n < len(out) && n < maxSegments && out[n].addr == out[0].addr {
		l := len(out[n].b)
		if l == 0 || l > size || total+l > maxRun {
			break
		}
		total += l
		n++
		if l < size {
			break
		}
	}
	return n
}

// flush sends the messages that pack made of out. A message that the kernel
// refuses is left out, a segmented one is first tried again in single
// datagrams. ok is false once the socket is closed.
func (w *udpWriter) flush(out []datagram) (sent int, ok bool) {
	for w.first < w.last {
		if err := w.s.rc.Write(w.send); err != nil {
			return sent, false
		}
		if w.errno == 0 {
			for _, c := range w.counts[w.first : w.first+w.n] {
				sent += c
				out = out[c:]
			}
			w.first += w.n
			continue
		}
		c := w.counts[w.first]
		if c > 1 {
			if w.errno == unix.EIO { // the device cannot checksum segments
				w.s.gso.Store(false)
			}
			took, ok := w.retrySingly(out[:c])
			sent += took
			if !ok {
				return sent, false
			}
		}
		out = out[c:]
		w.first++
	}
	return sent, true
}

func (w *udpWriter) retrySingly(run []datagram) (sent int, ok bool) {
	if w.single == nil {
		w.single = w.s.writer().(*udpWriter)
	}
	return w.single.writeAll(run, false)
}

func writeName(n *unix.RawSockaddrInet6, to netip.AddrPort, ip6 bool) uint32 {
	if ip6 {
		*n = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: networkOrder(to.Port()), Addr: to.Addr().As16()}
		return unix.SizeofSockaddrInet6
	}
	if !to.Addr().Is4() {
		n.Family = unix.AF_INET6 // the kernel refuses it on an IPv4 socket
		return unix.SizeofSockaddrInet6
	}
	*(*unix.RawSockaddrInet4)(unsafe.Pointer(n)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: networkOrder(to.Port()), Addr: to.Addr().As4()}
	return unix.SizeofSockaddrInet4
}
