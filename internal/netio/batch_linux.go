package netio

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	groMessages = 4 // per system call
	groLen      = 64 << 10
	groOOBLen   = 128
)

// batch reads several datagrams with one system call, and lets the kernel hand
// over consecutive datagrams of a flow in one piece (UDP_GRO), which spares it
// the larger part of the work for each. quic-go does not know of that, so the
// pieces are cut up here, at the price of a copy.
type batch struct {
	pc       *ipv4.PacketConn
	messages []ipv4.Message // what the last system call brought; nil before the first
	next     int            // of messages to cut
	rest     []byte         // of the one being cut
	segment  int            // its datagrams' length
}

func newBatch(c *net.UDPConn) batch { return batch{pc: ipv4.NewPacketConn(c)} }

// ReadBatch fills ms (which in golang.org/x/net is the same type for both IP
// versions) with QUIC's datagrams and hands out the others. One goroutine may
// call it, and nobody may read the socket in another way from then on.
func (c *udpConn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	if c.messages == nil {
		c.start()
	}
	for {
		if n := c.cut(ms); n > 0 {
			return n, nil
		}
		messages := c.messages[:groMessages]
		n, err := c.pc.ReadBatch(messages, flags)
		if err != nil {
			return 0, err
		}
		c.messages, c.next = messages[:n], 0
	}
}

// start sets up on the first read. A kernel without UDP_GRO gives datagrams one
// by one, and that is all that changes.
func (c *udpConn) start() {
	if raw, err := c.s.udp.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		})
	}
	messages := make([]ipv4.Message, groMessages)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, groLen)}
		messages[i].OOB = make([]byte, groOOBLen)
	}
	c.messages = messages[:0]
}

// cut copies the datagrams that are left into ms, up to its length.
func (c *udpConn) cut(ms []ipv4.Message) (n int) {
	for n < len(ms) {
		if len(c.rest) == 0 {
			if c.next == len(c.messages) {
				return n
			}
			m := &c.messages[c.next]
			c.next++
			if m.N == 0 {
				c.s.dropped.Add(1)
			}
			c.rest, c.segment = m.Buffers[0][:m.N], segmentLen(m.OOB[:m.NN], m.N)
			continue
		}
		b := c.rest[:min(c.segment, len(c.rest))]
		c.rest = c.rest[len(b):]
		m := &c.messages[c.next-1]
		if !c.s.keep(m.Addr, b) {
			continue
		}
		to := &ms[n]
		to.N = copy(to.Buffers[0], b)
		to.NN = copy(to.OOB, m.OOB[:m.NN])
		to.Addr, to.Flags = m.Addr, m.Flags
		n++
	}
	return n
}

// segmentLen is the length of the datagrams that n bytes consist of, as the
// kernel tells it in a control message.
func segmentLen(oob []byte, n int) int {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(body) >= 4 {
			if size := int(binary.NativeEndian.Uint32(body)); size > 0 {
				return size
			}
		}
		oob = rest
	}
	return n
}
