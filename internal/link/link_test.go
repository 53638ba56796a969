package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type nobody struct{}

func (nobody) HandlePacket(netip.AddrPort, []byte) {}

func newIdentity(t testing.TB) *Identity {
	t.Helper()
	i, err := NewIdentity(identity.Generate())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func listenUDP(t testing.TB) net.PacketConn {
	t.Helper()
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := netio.NewSocket(pc, nobody{})
	t.Cleanup(func() { s.Close() })
	return s.QUIC()
}

func newQUIC(t testing.TB, i *Identity, pc net.PacketConn) *QUIC {
	t.Helper()
	q, err := i.QUIC(pc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func quicPair(t testing.TB) (a, b Link) {
	ia, ib := newIdentity(t), newIdentity(t)
	pa, pb := listenUDP(t), listenUDP(t)
	return dialQUIC(t, newQUIC(t, ia, pa), newQUIC(t, ib, pb), pb.LocalAddr(), ib.ID())
}

func dialQUIC(t testing.TB, qa, qb *QUIC, addr net.Addr, peer identity.ID) (a, b Link) {
	t.Helper()
	a, err := qa.Dial(t.Context(), addr, peer)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = qb.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func tlsPair(t testing.TB) (a, b Link) {
	t.Helper()
	ca, cb := tcpPair(t)
	return handshakeTLS(t, newIdentity(t), newIdentity(t), ca, cb)
}

func handshakeTLS(t testing.TB, ia, ib *Identity, ca, cb net.Conn) (a, b Link) {
	t.Helper()
	var err, errB error
	var wg sync.WaitGroup
	wg.Go(func() { b, errB = ib.Server(t.Context(), cb) })
	a, err = ia.Client(t.Context(), ca, ib.ID())
	wg.Wait()
	if err != nil || errB != nil {
		t.Fatal(err, errB)
	}
	t.Cleanup(func() { a.Close(""); b.Close("") })
	return a, b
}

var pairs = map[string]func(testing.TB) (a, b Link){"quic": quicPair, "tls": tlsPair}

// inbox collects what a link receives, DATA joined by stream.
type inbox struct {
	frames chan frame.Frame
	data   map[uint64][]byte
	want   map[uint64]int
	full   chan struct{}
	ended  chan error
}

func receive(l Link, want map[uint64]int) *inbox {
	in := &inbox{
		frames: make(chan frame.Frame, 1000),
		data:   make(map[uint64][]byte),
		want:   want,
		full:   make(chan struct{}),
		ended:  make(chan error, 1),
	}
	go func() { in.ended <- l.Receive(in.handle) }()
	return in
}

func (in *inbox) handle(f frame.Frame) error {
	if f.Type != frame.DATA {
		f.Data = nil
		in.frames <- f
		return nil
	}
	if have := uint64(len(in.data[f.Stream])); f.Offset != have {
		return fmt.Errorf("stream %d: have %d bytes, got offset %d", f.Stream, have, f.Offset)
	}
	in.data[f.Stream] = append(in.data[f.Stream], f.Data...)
	for stream, n := range in.want {
		if len(in.data[stream]) < n {
			return nil
		}
	}
	if in.want != nil {
		close(in.full)
		in.want = nil
	}
	return nil
}

func pattern(stream uint64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(uint64(i)*7 + uint64(i)>>8 + stream)
	}
	return b
}

func send(t testing.TB, l Link, fs ...frame.Frame) {
	t.Helper()
	for _, f := range fs {
		if err := l.Send(f); err != nil {
			t.Fatal(err)
		}
	}
}

// hello is what a session sends first; DATA waits for it.
var hello = frame.Frame{Type: frame.HELLO, Session: [16]byte{1}}

func wantEnd(t testing.TB, err error, cause Cause, reason string) {
	t.Helper()
	end, ok := errors.AsType[*EndError](err)
	if !ok || end.Cause != cause || end.Reason != reason {
		t.Errorf("ended with %v (%T), want %v and reason %q", err, err, cause, reason)
	}
}

func TestLinkCarriesFrames(t *testing.T) {
	for name, pair := range pairs {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			sizes := map[uint64]int{1: 1 << 20, 2: 1, 3: 300_000}
			ina, inb := receive(a, sizes), receive(b, sizes)
			var wg sync.WaitGroup
			for _, l := range []Link{a, b} {
				wg.Go(func() {
					send(t, l, hello, frame.Frame{Type: frame.OPEN, Stream: 1})
					for stream, n := range sizes {
						p := pattern(stream, n)
						for off := 0; off < n; off += frame.MaxData {
							send(t, l, frame.Frame{Type: frame.DATA, Stream: stream, Offset: uint64(off), Data: p[off:min(n, off+frame.MaxData)]})
						}
						send(t, l, frame.Frame{Type: frame.FIN, Stream: stream, Offset: uint64(n)})
					}
				})
			}
			for _, in := range []*inbox{ina, inb} {
				<-in.full
				for _, want := range []frame.Type{frame.HELLO, frame.OPEN, frame.FIN, frame.FIN, frame.FIN} {
					if f := <-in.frames; f.Type != want {
						t.Errorf("got %v, want %v", f.Type, want)
					}
				}
			}
			wg.Wait()
			a.Close("enough")
			wantEnd(t, <-ina.ended, CauseLocal, "enough")
			wantEnd(t, <-inb.ended, CauseRemote, "enough")
			wantEnd(t, a.Err(), CauseLocal, "enough")
			wantEnd(t, b.Err(), CauseRemote, "enough")
			for stream, n := range sizes {
				if string(ina.data[stream]) != string(pattern(stream, n)) || string(inb.data[stream]) != string(pattern(stream, n)) {
					t.Errorf("stream %d differs", stream)
				}
			}
			if a.RTT() <= 0 || a.RTT() > time.Second {
				t.Errorf("RTT is %v", a.RTT())
			}
			wantEnd(t, a.Send(frame.Frame{Type: frame.PING}), CauseLocal, "enough")
		})
	}
}
