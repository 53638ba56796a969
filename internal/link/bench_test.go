package link

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

// One round moves this much in one direction over loopback.
const roundLen = 256 << 20

var chunk = make([]byte, frame.MaxData)

// mover is one connected pair that can move roundLen bytes, again and again.
type mover func(tb testing.TB)

func linkMover(a, b Link, stream uint64) mover {
	got := make(chan int, 1024)
	go b.Receive(func(f frame.Frame) error {
		if f.Type == frame.DATA {
			got <- len(f.Data)
		}
		return nil
	})
	go a.Receive(func(frame.Frame) error { return nil })
	var offset uint64
	begin := sync.OnceValue(func() error { return a.Send(hello) })
	return func(tb testing.TB) {
		if err := begin(); err != nil {
			tb.Fatal(err)
		}
		go func() {
			for range roundLen / len(chunk) {
				if err := a.Send(frame.Frame{Type: frame.DATA, Stream: stream, Offset: offset, Data: chunk}); err != nil {
					tb.Error(err)
					return
				}
				offset += uint64(len(chunk))
			}
		}()
		for n := 0; n < roundLen; {
			n += <-got
		}
	}
}

func pipeMover(w io.Writer, r io.Reader) mover {
	buf := make([]byte, len(chunk))
	return func(tb testing.TB) {
		go func() {
			for range roundLen / len(chunk) {
				if _, err := w.Write(chunk); err != nil {
					tb.Error(err)
					return
				}
			}
		}()
		for n := 0; n < roundLen; {
			m, err := r.Read(buf)
			if err != nil {
				tb.Fatal(err)
			}
			n += m
		}
	}
}

func quicLinkMover(tb testing.TB) mover {
	a, b := quicPair(tb)
	return linkMover(a, b, 1)
}

func tlsLinkMover(tb testing.TB) mover {
	a, b := tlsPair(tb)
	return linkMover(a, b, 1)
}

// bareQUICMover is quic-go on plain UDP sockets, with our windows.
func bareQUICMover(tb testing.TB) mover {
	quietly()
	ia, ib := newIdentity(tb), newIdentity(tb)
	cfg := &quic.Config{
		InitialStreamReceiveWindow: streamWindow, MaxStreamReceiveWindow: streamWindow,
		InitialConnectionReceiveWindow: connWindow, MaxConnectionReceiveWindow: connWindow,
	}
	listen := func() *quic.Transport {
		pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			tb.Fatal(err)
		}
		tr := &quic.Transport{Conn: pc}
		tb.Cleanup(func() { tr.Close(); pc.Close() })
		return tr
	}
	ta, tb2 := listen(), listen()
	ln, err := tb2.Listen(ib.admit(nil), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	var refused error
	ca, err := ta.Dial(context.Background(), tb2.Conn.LocalAddr(), ia.expect(ib.ID(), &refused), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	cb, err := ln.Accept(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	w, err := ca.OpenUniStream()
	if err != nil {
		tb.Fatal(err)
	}
	w.Write([]byte{0})
	r, err := cb.AcceptUniStream(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	r.Read(make([]byte, 1))
	return pipeMover(w, r)
}

// bareTLSMover is crypto/tls on plain TCP connections.
func bareTLSMover(tb testing.TB) mover {
	ia, ib := newIdentity(tb), newIdentity(tb)
	ca, cb := tcpPair(tb)
	var refused error
	a, b := tls.Client(ca, ia.expect(ib.ID(), &refused)), tls.Server(cb, ib.admit(nil))
	var wg sync.WaitGroup
	wg.Go(func() { b.Handshake() })
	if err := a.Handshake(); err != nil {
		tb.Fatal(err)
	}
	wg.Wait()
	return pipeMover(a, b)
}

func benchmark(b *testing.B, m mover) {
	b.SetBytes(roundLen)
	m(b) // grow the windows
	for b.Loop() {
		m(b)
	}
}

func BenchmarkQUICLink(b *testing.B) { benchmark(b, quicLinkMover(b)) }
func BenchmarkBareQUIC(b *testing.B) { benchmark(b, bareQUICMover(b)) }
func BenchmarkTLSLink(b *testing.B)  { benchmark(b, tlsLinkMover(b)) }
func BenchmarkBareTLS(b *testing.B)  { benchmark(b, bareTLSMover(b)) }

// BenchmarkRatio alternates a link with the bare protocol, and reports the
// median of the ratios of adjacent rounds: what the machine does meanwhile
// strikes both.
func BenchmarkRatio(b *testing.B) {
	for _, c := range []struct {
		name       string
		link, bare func(testing.TB) mover
	}{{"quic", quicLinkMover, bareQUICMover}, {"tls", tlsLinkMover, bareTLSMover}} {
		b.Run(c.name, func(b *testing.B) {
			link, bare := c.link(b), c.bare(b)
			link(b)
			bare(b)
			var ratios []float64
			var sum [2]time.Duration
			for b.Loop() {
				t0 := time.Now()
				link(b)
				t1 := time.Now()
				bare(b)
				t2 := time.Now()
				ratios = append(ratios, float64(t2.Sub(t1))/float64(t1.Sub(t0)))
				sum[0] += t1.Sub(t0)
				sum[1] += t2.Sub(t1)
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "link/bare")
			gbits := func(d time.Duration) float64 {
				return float64(b.N) * roundLen * 8 / d.Seconds() / 1e9
			}
			b.ReportMetric(gbits(sum[0]), "link-Gbit/s")
			b.ReportMetric(gbits(sum[1]), "bare-Gbit/s")
			b.ReportMetric(0, "ns/op")
			if testing.Verbose() {
				b.Logf("%.2f", ratios)
			}
		})
	}
}

// BenchmarkRelayedQUICLink goes through a server in this process, which takes
// its share of the machine.
func BenchmarkRelayedQUICLink(b *testing.B) {
	listen := func() (*netio.Socket, netip.AddrPort) {
		pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		s := netio.NewSocket(pc, nobody{})
		b.Cleanup(func() { s.Close() })
		return s, pc.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	sa, addrA := listen()
	sb, addrB := listen()
	ia, ib := newIdentity(b), newIdentity(b)
	newQUIC(b, ia, sa.QUIC())
	newQUIC(b, ib, sb.QUIC())
	id := relay.ID{1}
	server := relayServer(b, id, addrA, addrB)
	sb.AddRelay(id, server)
	x, y := dialQUIC(b, newQUIC(b, ia, sa.Relay()), newQUIC(b, ib, sb.Relay()), sa.AddRelay(id, server), ib.ID())
	benchmark(b, linkMover(x, y, 1))
}

// BenchmarkRoundTrip is what one byte there and one byte back takes.
func BenchmarkRoundTrip(b *testing.B) {
	for name, pair := range pairs {
		b.Run(name, func(b *testing.B) {
			x, y := pair(b)
			got := make(chan struct{}, 1)
			echo := make(chan frame.Frame, 1) // Send must not be called from the handler
			send(b, x, hello)
			send(b, y, hello)
			go y.Receive(func(f frame.Frame) error {
				if f.Type != frame.DATA {
					return nil
				}
				echo <- frame.Frame{Type: frame.DATA, Stream: 1, Offset: f.Offset, Data: chunk[:1]}
				return nil
			})
			go func() {
				for {
					select {
					case f := <-echo:
						y.Send(f)
					case <-y.Done():
						return
					}
				}
			}()
			go x.Receive(func(f frame.Frame) error {
				if f.Type == frame.DATA {
					got <- struct{}{}
				}
				return nil
			})
			var offset uint64
			for b.Loop() {
				if err := x.Send(frame.Frame{Type: frame.DATA, Stream: 1, Offset: offset, Data: chunk[:1]}); err != nil {
					b.Fatal(err)
				}
				offset++
				<-got
			}
			x.Close("")
			<-y.Done()
		})
	}
}
