package link

import (
	"net"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// oobConn is all that quic-go asks of a connection that can do more.
type oobConn interface {
	quic.OOBCapablePacketConn
	ReadBatch([]ipv4.Message, int) (int, error)
}

// spy counts the writes that the kernel cuts into several datagrams.
type spy struct {
	oobConn
	segmented atomic.Int64
}

func (s *spy) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (int, int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, 0, err
	}
	for _, m := range msgs {
		if m.Header.Level == unix.IPPROTO_UDP && m.Header.Type == unix.UDP_SEGMENT && len(b) > 2*initialPacketSize {
			s.segmented.Add(1)
		}
	}
	return s.oobConn.WriteMsgUDP(b, oob, to)
}

func TestSegmentationOffloadIsUsed(t *testing.T) {
	ia, ib := newIdentity(t), newIdentity(t)
	pa, pb := &spy{oobConn: listenUDP(t).(oobConn)}, listenUDP(t)
	a, b := dialQUIC(t, newQUIC(t, ia, pa), newQUIC(t, ib, pb), pb.LocalAddr(), ib.ID())
	const size = 4 << 20
	in := receive(b, map[uint64]int{1: size})
	go a.Receive(func(frame.Frame) error { return nil })
	send(t, a, hello)
	for off := 0; off < size; off += len(chunk) {
		send(t, a, frame.Frame{Type: frame.DATA, Stream: 1, Offset: uint64(off), Data: chunk})
	}
	<-in.full
	if !a.(*quicLink).conn.ConnectionState().GSO {
		t.Error("quic-go does not use segmentation offload")
	}
	// A full buffer holds over ten packets.
	if n := pa.segmented.Load(); n < size/initialPacketSize/30 {
		t.Errorf("%d segmented writes for %d packets", n, size/initialPacketSize)
	}
}
