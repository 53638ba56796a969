package load

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many messages one system call takes or brings.
const batch = 64

// Datagram is sent from, or came to, the endpoint of peer number Peer.
type Datagram struct {
	Peer int
	B    []byte
	// Segment, when sending, cuts B into datagrams of this size.
	Segment int
}

// Socket is one socket with the endpoints of all peers. One goroutine may send
// and another one receive.
type Socket struct {
	uc     *net.UDPConn
	rc     syscall.RawConn
	server unix.RawSockaddrInet4
	port   uint16
	in     side
	out    side
	got    []Datagram
}

// side is the kernel's view of a batch.
type side struct {
	hdrs  [batch]unix.Mmsghdr
	iovs  [batch]unix.Iovec
	ctls  [batch][8]uint64
	bufs  [][]byte
	call  func(fd uintptr) bool
	first int
	last  int
	n     int
	errno syscall.Errno
}

// Open opens a socket whose peers talk to server, which is on the loopback.
func Open(server netip.AddrPort) (*Socket, error) {
	if !server.Addr().Is4() || !server.Addr().IsLoopback() {
		return nil, fmt.Errorf("load: %v is not on IPv4's loopback", server)
	}
	uc, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	s := &Socket{uc: uc, port: uc.LocalAddr().(*net.UDPAddr).AddrPort().Port()}
	if s.rc, err = uc.SyscallConn(); err != nil {
		return nil, err
	}
	s.rc.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 64<<20)
	})
	s.server.Family, s.server.Addr = unix.AF_INET, server.Addr().As4()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.server.Port))[:], server.Port())
	s.in.call = s.in.caller(unix.SYS_RECVMMSG)
	s.out.call = s.out.caller(unix.SYS_SENDMMSG)
	for range batch {
		s.in.bufs = append(s.in.bufs, make([]byte, 1<<16))
	}
	return s, nil
}

// Coalesce lets the kernel hand over runs of datagrams as one (UDP_GRO).
func (s *Socket) Coalesce() {
	s.rc.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) })
}

func (m *side) caller(trap uintptr) func(uintptr) bool {
	return func(fd uintptr) bool {
		n, _, errno := unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(&m.hdrs[m.first])), uintptr(m.last-m.first), unix.MSG_DONTWAIT, 0, 0)
		m.n, m.errno = int(n), errno
		return errno != unix.EAGAIN
	}
}

// base is the first peer's address, 127.1.0.0.
const base = 127<<24 | 1<<16

// Endpoint is where peer number i is.
func (s *Socket) Endpoint(i int) netip.AddrPort {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], uint32(base+i))
	return netip.AddrPortFrom(netip.AddrFrom4(a), s.port)
}

// SetDeadline makes Receive fail at t. The zero time: never.
func (s *Socket) SetDeadline(t time.Time) { s.uc.SetReadDeadline(t) }

// Close ends sending and receiving.
func (s *Socket) Close() error { return s.uc.Close() }

// Send sends datagrams to the server.
func (s *Socket) Send(ds []Datagram) error {
	m := &s.out
	for len(ds) > 0 {
		n := min(len(ds), batch)
		for i, d := range ds[:n] {
			m.iovs[i].Base = unsafe.SliceData(d.B)
			m.iovs[i].SetLen(len(d.B))
			h := &m.hdrs[i].Hdr
			h.Iov = &m.iovs[i]
			h.SetIovlen(1)
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.server)), unix.SizeofSockaddrInet4
			m.control(i, d)
		}
		for m.first, m.last = 0, n; m.first < m.last; m.first += m.n {
			if err := s.rc.Write(m.call); err != nil {
				return err
			}
			if m.errno != 0 {
				return m.errno
			}
		}
		ds = ds[n:]
	}
	return nil
}

// control tells the kernel the source, and the size of the segments.
func (m *side) control(i int, d Datagram) {
	c := (*unix.Cmsghdr)(unsafe.Pointer(&m.ctls[i]))
	c.Level, c.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
	c.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	info := (*unix.Inet4Pktinfo)(unsafe.Add(unsafe.Pointer(c), unix.CmsgLen(0)))
	*info = unix.Inet4Pktinfo{}
	binary.BigEndian.PutUint32(info.Spec_dst[:], uint32(base+d.Peer))
	size := unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	if d.Segment > 0 && d.Segment < len(d.B) {
		c := (*unix.Cmsghdr)(unsafe.Add(unsafe.Pointer(&m.ctls[i]), size))
		c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		c.SetLen(unix.CmsgLen(2))
		*(*uint16)(unsafe.Add(unsafe.Pointer(c), unix.CmsgLen(0))) = uint16(d.Segment)
		size += unix.CmsgSpace(2)
	}
	m.hdrs[i].Hdr.Control = (*byte)(unsafe.Pointer(&m.ctls[i]))
	m.hdrs[i].Hdr.SetControllen(size)
}

// Receive waits for datagrams, which are valid until it is called again. With
// Coalesce one may be several, Segment bytes each.
func (s *Socket) Receive() ([]Datagram, error) {
	m := &s.in
	for i := range m.hdrs {
		m.iovs[i].Base = &m.bufs[i][0]
		m.iovs[i].SetLen(len(m.bufs[i]))
		h := &m.hdrs[i].Hdr
		h.Iov = &m.iovs[i]
		h.SetIovlen(1)
		h.Control = (*byte)(unsafe.Pointer(&m.ctls[i]))
		h.SetControllen(int(unsafe.Sizeof(m.ctls[i])))
	}
	m.first, m.last = 0, batch
	if err := s.rc.Read(m.call); err != nil {
		return nil, err
	}
	if m.errno != 0 {
		return nil, m.errno
	}
	s.got = s.got[:0]
	for i := range m.n {
		d := Datagram{Peer: -1, B: m.bufs[i][:m.hdrs[i].Len]}
		d.read(&m.hdrs[i].Hdr)
		s.got = append(s.got, d)
	}
	return s.got, nil
}

// read takes the control messages in.
func (d *Datagram) read(h *unix.Msghdr) {
	p, left := unsafe.Pointer(h.Control), int(h.Controllen)
	for left >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(p)
		data := unsafe.Add(p, unix.CmsgLen(0))
		switch {
		case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_PKTINFO:
			info := (*unix.Inet4Pktinfo)(data)
			d.Peer = int(binary.BigEndian.Uint32(info.Addr[:])) - base
		case c.Level == unix.SOL_UDP && c.Type == unix.UDP_GRO:
			d.Segment = int(*(*int32)(data))
		}
		space := unix.CmsgSpace(int(c.Len) - unix.CmsgLen(0))
		p, left = unsafe.Add(p, space), left-space
	}
}
