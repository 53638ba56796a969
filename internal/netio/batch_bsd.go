//go:build darwin || freebsd

package netio

import (
	"net"

	"golang.org/x/net/ipv4"
)

// batch reads several datagrams with one system call, as far as the system can.
type batch struct{ pc *ipv4.PacketConn }

func newBatch(c *net.UDPConn) batch { return batch{pc: ipv4.NewPacketConn(c)} }

// ReadBatch fills ms (which in golang.org/x/net is the same type for both IP
// versions). Datagrams that are not QUIC's are handed out and left with length
// zero, which quic-go skips; the order of the others stays.
func (c *udpConn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for {
		n, err := c.pc.ReadBatch(ms, flags)
		if err != nil {
			return n, err
		}
		quic := false
		for i := range ms[:n] {
			m := &ms[i]
			if c.s.keep(m.Addr, m.Buffers[0][:m.N]) {
				quic = true
			} else {
				m.N, m.NN = 0, 0
			}
		}
		if quic {
			return n, nil
		}
	}
}
