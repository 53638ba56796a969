package sim

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// trouble is an ICMP error as a socket hears of it.
type trouble struct {
	errno syscall.Errno
	hard  bool // said to connected UDP sockets too
	mtu   int  // of the path, where size is all that is wrong; 0 from routers that do not say (RFC 1191 section 4)
	// sure errors end a half-open connection of a listener.
	sure bool
}

// readError is what Linux makes of an ICMP error (icmp_err_convert and
// icmpv6_err_convert).
func readError(p *ip.Packet) (t trouble, ok bool) {
	b := p.Transport()
	typ, code := b[0], b[1]
	if p.Is4() {
		switch typ {
		case 3:
			return unreachable4(code, int(binary.BigEndian.Uint16(b[6:])))
		case 11:
			return trouble{errno: syscall.EHOSTUNREACH, sure: true}, true
		case 12:
			return trouble{errno: syscall.EPROTO, hard: true, sure: true}, true
		}
		return trouble{}, false
	}
	switch typ {
	case 1:
		switch code {
		case 0:
			return trouble{errno: syscall.ENETUNREACH, sure: true}, true
		case 1, 5, 6:
			return trouble{errno: syscall.EACCES, hard: true}, true
		case 4:
			return trouble{errno: syscall.ECONNREFUSED, hard: true}, true
		}
		return trouble{errno: syscall.EHOSTUNREACH, sure: true}, true
	case 2:
		return trouble{errno: syscall.EMSGSIZE, mtu: int(binary.BigEndian.Uint32(b[4:]))}, true
	case 3:
		return trouble{errno: syscall.EHOSTUNREACH, sure: true}, true
	case 4:
		return trouble{errno: syscall.EPROTO, hard: true, sure: true}, true
	}
	return trouble{}, false
}

func unreachable4(code uint8, mtu int) (trouble, bool) {
	switch code {
	case 0:
		return trouble{errno: syscall.ENETUNREACH, sure: true}, true
	case 1:
		return trouble{errno: syscall.EHOSTUNREACH, sure: true}, true
	case 2:
		return trouble{errno: syscall.ENOPROTOOPT, hard: true}, true
	case 3:
		return trouble{errno: syscall.ECONNREFUSED, hard: true}, true
	case 4:
		return trouble{errno: syscall.EMSGSIZE, mtu: mtu}, true
	case 5:
		return trouble{errno: syscall.EOPNOTSUPP}, true
	case 6, 9:
		return trouble{errno: syscall.ENETUNREACH, hard: true}, true
	case 7:
		return trouble{errno: syscall.EHOSTDOWN, hard: true}, true
	case 10, 13, 14, 15:
		return trouble{errno: syscall.EHOSTUNREACH, hard: true}, true
	case 11:
		return trouble{errno: syscall.ENETUNREACH}, true
	case 12:
		return trouble{errno: syscall.EHOSTUNREACH}, true
	}
	return trouble{}, false
}

// receiveError finds the socket whose packet is quoted.
func (h *Host) receiveError(p *ip.Packet) {
	var q ip.Packet
	t, ok := readError(p)
	if !ok || p.Quoted(&q) != nil || !h.isMine(q.Src.Addr()) {
		return
	}
	if t.mtu != 0 {
		h.learnMTU(q.Dst.Addr(), t.mtu)
	}
	switch q.Proto {
	case ip.TCP:
		if c := h.tcp[flow{q.Src, q.Dst}]; c != nil {
			// IP_MINTTL looks at the packet that is quoted, IPV6_MINHOPCOUNT at
			// the error itself.
			if q.Is4() && q.TTL < c.minTTL || !q.Is4() && p.TTL < c.minTTL {
				return
			}
			c.trouble(t, binary.BigEndian.Uint32(q.Transport()[4:]))
		}
	case ip.UDP:
		if c := h.connected[flow{q.Src, q.Dst}]; c != nil && t.hard {
			c.trouble(t.errno)
		}
	case ip.ICMP:
		if x := h.pings[q.Src.Port()]; x != nil && q.Kind == ip.EchoRequest && x.to == q.Dst.Addr() && t.mtu == 0 {
			x.end(os.NewSyscallError("recvmsg", t.errno))
		}
	}
}

// What Linux holds of path MTUs: for ten minutes, and none under a minimum.
const (
	pathMTUTime = 10 * time.Minute
	minPathMTU4 = 552
	minPathMTU6 = 1280
	mostPaths   = 1024
)

type pathMTU struct {
	mtu   int
	until int64
}

type pathMTUs map[netip.Addr]pathMTU

// mtu is how large packets to dst may be, as far as the host knows.
func (h *Host) mtu(dst netip.Addr) int {
	mtu := h.at.mtu(dst)
	if p, ok := h.paths[dst]; ok && p.until > h.n.now {
		mtu = min(mtu, p.mtu)
	}
	return mtu
}

// learnMTU takes what a router says (RFC 1191, RFC 8201).
func (h *Host) learnMTU(dst netip.Addr, mtu int) {
	least := minPathMTU6
	if dst.Is4() {
		least = minPathMTU4
	}
	mtu = max(mtu, least)
	if mtu >= h.mtu(dst) {
		return
	}
	if h.paths == nil {
		h.paths = make(pathMTUs)
	}
	if len(h.paths) >= mostPaths {
		for d, p := range h.paths {
			if p.until <= h.n.now {
				delete(h.paths, d)
			}
		}
		if len(h.paths) >= mostPaths {
			return
		}
	}
	h.paths[dst] = pathMTU{mtu, h.n.now + int64(pathMTUTime)}
}

// ping waits for one answer.
type ping struct {
	h      *Host
	to     netip.Addr
	id     uint16
	sent   int64
	took   time.Duration
	err    error
	waits  bool
	settle chan struct{}
}

func (x *ping) end(err error) {
	if x.waits {
		x.waits, x.err = false, err
		x.took = time.Duration(x.h.n.now - x.sent)
		delete(x.h.pings, x.id)
		close(x.settle)
	}
}

// Ping sends an echo request with so many bytes of data and says how long the
// answer took.
func (h *Host) Ping(ctx context.Context, to netip.Addr, size int) (time.Duration, error) {
	x, err := h.startPing(to.Unmap(), size)
	if err == nil {
		select {
		case <-x.settle:
		case <-ctx.Done():
		}
		h.n.enter()
		x.end(ctx.Err())
		err = x.err
		h.n.leave()
	}
	if err != nil {
		return 0, &net.OpError{Op: "ping", Net: "ip", Addr: &net.IPAddr{IP: to.AsSlice()}, Err: err}
	}
	return x.took, nil
}

func (h *Host) startPing(to netip.Addr, size int) (*ping, error) {
	h.n.enter()
	defer h.n.leave()
	if h.n.closed {
		return nil, net.ErrClosed
	}
	if size < 0 || size > maxDatagram {
		return nil, os.NewSyscallError("sendto", syscall.EMSGSIZE)
	}
	src, err := h.source(to)
	if err != nil {
		return nil, err
	}
	id, ok := h.ephemeral(func(id uint16) bool { return h.pings[id] != nil })
	if !ok {
		return nil, os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	x := &ping{h: h, to: to, id: id, sent: h.n.now, waits: true, settle: make(chan struct{})}
	h.pings[id] = x
	pkt := h.n.take()
	pkt.b = ip.AppendEcho(pkt.b, src, to, ip.DefaultTTL, ip.EchoRequest, id, 1, make([]byte, size))
	h.output(pkt)
	return x, nil
}

func (h *Host) receiveEcho(p *ip.Packet) {
	if x := h.pings[p.Dst.Port()]; x != nil && x.to == p.Src.Addr() {
		x.end(nil)
	}
}

func (h *Host) answerEcho(p *ip.Packet) {
	answer := h.n.take()
	b := p.Transport()
	seq := uint16(b[6])<<8 | uint16(b[7])
	answer.b = ip.AppendEcho(answer.b, p.Dst.Addr(), p.Src.Addr(), ip.DefaultTTL, ip.EchoReply, p.Src.Port(), seq, p.Payload())
	h.output(answer)
}
