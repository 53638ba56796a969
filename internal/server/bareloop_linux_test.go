package server

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bareLoop is what the server's data paths are measured against: recvmmsg, the
// least that can be done, sendmmsg. It looks nothing up and refuses nobody.
type bareLoop struct {
	rc       syscall.RawConn
	mode     string
	answered atomic.Uint64
	hdrs     [64]unix.Mmsghdr
	iovs     [64]unix.Iovec
	names    [64]unix.RawSockaddrInet4
	bufs     [64][2048]byte
}

func newBareLoop(uc *net.UDPConn, mode string) *bareLoop {
	l := &bareLoop{mode: mode}
	l.rc, _ = uc.SyscallConn()
	l.rc.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer)
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer)
	})
	return l
}

func (l *bareLoop) run() error {
	n, sent := 0, 0
	recv := func(fd uintptr) bool {
		for i := range l.hdrs {
			h := &l.hdrs[i].Hdr
			l.iovs[i].Base = &l.bufs[i][0]
			l.iovs[i].SetLen(len(l.bufs[i]))
			h.Iov, h.Name = &l.iovs[i], (*byte)(unsafe.Pointer(&l.names[i]))
			h.SetIovlen(1)
			h.Namelen = unix.SizeofSockaddrInet4
		}
		var errno syscall.Errno
		n, errno = mmsg(unix.SYS_RECVMMSG, fd, l.hdrs[:])
		return errno != unix.EAGAIN
	}
	send := func(fd uintptr) bool {
		got, errno := mmsg(unix.SYS_SENDMMSG, fd, l.hdrs[sent:n])
		if errno == unix.EAGAIN {
			return false
		}
		if errno != 0 {
			got = 1
		}
		sent += got
		return sent == n
	}
	for {
		if err := l.rc.Read(recv); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		for i := range n {
			l.turn(i)
		}
		sent = 0
		if err := l.rc.Write(send); err != nil {
			return nil
		}
		l.answered.Add(uint64(n))
	}
}

// turn makes an answer of what came.
func (l *bareLoop) turn(i int) {
	b := l.bufs[i][:l.hdrs[i].Len]
	switch l.mode {
	case "bare STUN": // the request's header, and an XOR-MAPPED-ADDRESS
		copy(b, []byte{1, 1, 0, 12})
		b = append(b[:20], 0, 0x20, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0)
		binary.BigEndian.PutUint16(b[26:], networkOrder(l.names[i].Port)^0x2112)
		for j, x := range l.names[i].Addr {
			b[28+j] = x ^ b[4+j]
		}
	case "bare relay": // the packet says where it wants to go
		l.names[i].Addr = [4]byte(b[bareTarget:])
	}
	l.iovs[i].SetLen(len(b))
}

// bareTarget is where in a relayed packet the bare loop looks for the address
// to send it to; the port is the same.
const bareTarget = 10

func putBareTarget(b []byte, to netip.AddrPort) {
	a := to.Addr().As4()
	copy(b[bareTarget:], a[:])
}
