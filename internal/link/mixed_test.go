package link

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

// relayServer passes relayed packets between two sockets, as a server does.
func relayServer(t testing.TB, id relay.ID, a, b netip.AddrPort) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if got, _, ok := relay.Parse(buf[:n]); !ok || got != id {
				continue
			}
			to := a
			if from == a {
				to = b
			}
			pc.WriteToUDPAddrPort(buf[:n], to)
		}
	})
	t.Cleanup(func() { pc.Close(); wg.Wait() })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// answered tells which of the numbered probes have come.
type answered chan uint64

func (a answered) HandlePacket(_ netip.AddrPort, b []byte) {
	if len(b) == 9 {
		select {
		case a <- uint64(b[0])<<56 | binary.BigEndian.Uint64(b[1:]):
		default:
		}
	}
}

// TestMixedTraffic has STUN-like and rendezvous-like probes, a QUIC link and a
// relayed QUIC link share one pair of sockets.
func TestMixedTraffic(t *testing.T) {
	got := make(answered, 100)
	listen := func() (*netio.Socket, netip.AddrPort) {
		pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		s := netio.NewSocket(pc, got)
		t.Cleanup(func() { s.Close() })
		return s, pc.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	sa, addrA := listen()
	sb, addrB := listen()
	ia, ib := newIdentity(t), newIdentity(t)
	da, db := newQUIC(t, ia, sa.QUIC()), newQUIC(t, ib, sb.QUIC())
	ra, rb := newQUIC(t, ia, sa.Relay()), newQUIC(t, ib, sb.Relay())

	id := relay.ID{1, 2, 3}
	server := relayServer(t, id, addrA, addrB)
	relayed := sa.AddRelay(id, server)
	sb.AddRelay(id, server)

	a, b := dialQUIC(t, da, db, net.UDPAddrFromAddrPort(addrB), ib.ID())
	c, d := dialQUIC(t, ra, rb, relayed, ib.ID())
	if c.RemoteAddr() != relayed || d.RemoteAddr() != relayed {
		t.Errorf("relayed link is between %v and %v", c.RemoteAddr(), d.RemoteAddr())
	}

	const size = 2 << 20
	p := pattern(1, size)
	var wg sync.WaitGroup
	for _, l := range [][2]Link{{a, b}, {c, d}} {
		in, back := receive(l[1], map[uint64]int{1: size}), receive(l[0], map[uint64]int{1: size})
		for i, in := range []*inbox{in, back} {
			wg.Go(func() {
				send(t, l[1-i], hello)
				for off := 0; off < size; off += frame.MaxData {
					send(t, l[1-i], frame.Frame{Type: frame.DATA, Stream: 1, Offset: uint64(off), Data: p[off : off+frame.MaxData]})
				}
			})
			wg.Go(func() {
				select {
				case <-in.full:
				case err := <-in.ended:
					t.Error(err)
					return
				}
				if !bytes.Equal(in.data[1], p) {
					t.Error("a stream differs")
				}
			})
		}
	}
	// Each probe is repeated until it comes: sockets under load may drop.
	for i := range uint64(100) {
		first := byte(i % 5)
		probe := binary.BigEndian.AppendUint64([]byte{first}, i)
		want := uint64(first)<<56 | i
		for arrived := false; !arrived; {
			if err := sa.Send(addrB, probe); err != nil {
				t.Fatal(err)
			}
			again := time.NewTimer(50 * time.Millisecond)
		wait:
			for {
				select {
				case n := <-got:
					if n == want {
						arrived = true
						break wait
					}
				case <-again.C:
					break wait
				}
			}
			again.Stop()
		}
	}
	wg.Wait()
}
