package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

const oneWay = 20 * time.Millisecond

func memPair(t *testing.T, n *memNet, ia, ib *Identity) (qa, qb *QUIC, addr net.Addr) {
	sa := netio.NewSocket(n.listen("192.0.2.1:1"), nobody{})
	sb := netio.NewSocket(n.listen("192.0.2.2:2"), nobody{})
	t.Cleanup(func() { sa.Close(); sb.Close() })
	return newQUIC(t, ia, sa.QUIC()), newQUIC(t, ib, sb.QUIC()), sb.LocalAddr()
}

// within tells whether d is want, with what quic-go's pacing and ack timers may
// add.
func within(d, want time.Duration) bool { return d >= want && d < want+2*time.Millisecond }

func TestQUICTakesOneRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		qa, qb, addr := memPair(t, newMemNet(oneWay), newIdentity(t), newIdentity(t))
		start := time.Now()
		accepted := make(chan Link)
		go func() {
			b, err := qb.Accept(t.Context())
			if err != nil {
				t.Error(err)
			}
			accepted <- b
		}()
		a, err := qa.Dial(t.Context(), addr, qb.identity.ID())
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); !within(d, 2*oneWay) {
			t.Errorf("Dial took %v", d)
		}
		send(t, a, hello, frame.Frame{Type: frame.DATA, Stream: 1, Data: []byte("first")})
		b := <-accepted
		in := receive(b, map[uint64]int{1: 5})
		<-in.full
		if d := time.Since(start); !within(d, 3*oneWay) {
			t.Errorf("the first byte took %v", d)
		}
		ina := receive(a, map[uint64]int{1: 6})
		send(t, b, hello, frame.Frame{Type: frame.DATA, Stream: 1, Data: []byte("answer")})
		<-ina.full
		if d := time.Since(start); !within(d, 4*oneWay) {
			t.Errorf("the answer took %v", d)
		}
		if a.RTT() < 2*oneWay || a.RTT() > 3*oneWay {
			t.Errorf("RTT is %v", a.RTT())
		}
		start = time.Now()
		b.Close("bye")
		wantEnd(t, <-ina.ended, CauseRemote, "bye")
		wantEnd(t, <-in.ended, CauseLocal, "bye")
		if d := time.Since(start); !within(d, oneWay) {
			t.Errorf("the end took %v", d)
		}
	})
}

func TestQUICSurvivesLoss(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			n := newMemNet(oneWay)
			n.lose = losing(0.1, seed)
			qa, qb, addr := memPair(t, n, newIdentity(t), newIdentity(t))
			a, b := dialQUIC(t, qa, qb, addr, qb.identity.ID())
			const size = 1 << 20
			in, back := receive(b, map[uint64]int{1: size, 2: size}), receive(a, nil)
			send(t, a, hello)
			for _, stream := range []uint64{1, 2} {
				p := pattern(stream, size)
				for off := 0; off < size; off += frame.MaxData {
					send(t, a, frame.Frame{Type: frame.DATA, Stream: stream, Offset: uint64(off), Data: p[off:min(size, off+frame.MaxData)]})
				}
			}
			<-in.full
			for _, stream := range []uint64{1, 2} {
				if !bytes.Equal(in.data[stream], pattern(stream, size)) {
					t.Errorf("seed %d: stream %d differs", seed, stream)
				}
			}
			b.Close("")
			<-in.ended
			qa.Close()
			<-back.ended
		})
	}
}

func TestDialGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		qa, qb, _ := memPair(t, newMemNet(oneWay), newIdentity(t), newIdentity(t))
		nowhere := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 3), Port: 3}
		start := time.Now()
		_, err := qa.Dial(t.Context(), nowhere, qb.identity.ID())
		wantEnd(t, err, CausePath, "")
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("gave up after %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if _, err := qa.Dial(ctx, nowhere, qb.identity.ID()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial: %v", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("gave up after %v", d)
		}
	})
}

func TestSilentPathEndsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(oneWay)
		qa, qb, addr := memPair(t, n, newIdentity(t), newIdentity(t))
		a, b := dialQUIC(t, qa, qb, addr, qb.identity.ID())
		ina, inb := receive(a, nil), receive(b, nil)
		time.Sleep(time.Second) // virtual: let the handshake's last packets go
		n.mu.Lock()
		n.lose = func() bool { return true }
		n.mu.Unlock()
		start := time.Now()
		wantEnd(t, <-ina.ended, CausePath, "")
		wantEnd(t, <-inb.ended, CausePath, "")
		if d := time.Since(start); d < 25*time.Second || d > 31*time.Second {
			t.Errorf("ended after %v", d)
		}
	})
}

func TestAcceptEndsWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		qa, qb, addr := memPair(t, newMemNet(oneWay), newIdentity(t), newIdentity(t))
		a, b := dialQUIC(t, qa, qb, addr, qb.identity.ID())
		in := receive(a, nil)
		ended := make(chan error)
		go func() {
			_, err := qb.Accept(t.Context())
			ended <- err
		}()
		synctest.Wait()
		qb.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
		wantEnd(t, b.Err(), CauseLocal, "going away")
		wantEnd(t, <-in.ended, CauseRemote, "going away")
		if _, err := qb.Dial(t.Context(), addr, qa.identity.ID()); err == nil {
			t.Error("dialed after Close")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := qa.Accept(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Accept: %v", err)
		}
	})
}

// slowConn delays what is written, and never blocks the writer.
type slowConn struct {
	net.Conn
	queue chan []byte
}

func slowPipe(t *testing.T, delay time.Duration) (a, b net.Conn) {
	slow := func(c net.Conn) net.Conn {
		s := &slowConn{c, make(chan []byte, 1000)}
		type sent struct {
			at time.Time
			b  []byte
		}
		wire := make(chan sent, 1000)
		go func() {
			defer close(wire)
			for b := range s.queue {
				wire <- sent{time.Now().Add(delay), b}
			}
		}()
		go func() {
			for p := range wire {
				time.Sleep(time.Until(p.at))
				c.Write(p.b)
			}
			c.Close()
		}()
		t.Cleanup(func() { close(s.queue) })
		return s
	}
	a, b = net.Pipe()
	return slow(a), slow(b)
}

func (s *slowConn) Write(b []byte) (int, error) {
	s.queue <- append([]byte(nil), b...)
	return len(b), nil
}

// Close leaves the pipe to those who still carry what was written.
func (s *slowConn) Close() error { return s.Conn.SetReadDeadline(time.Unix(1, 0)) }

func TestTLSTakesOneRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, cb := slowPipe(t, oneWay)
		ia, ib := newIdentity(t), newIdentity(t)
		start := time.Now()
		got := make(chan Link)
		go func() {
			b, err := ib.Server(t.Context(), cb)
			if err != nil {
				t.Error(err)
			}
			got <- b
		}()
		a, err := ia.Client(t.Context(), ca, ib.ID())
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); !within(d, 2*oneWay) {
			t.Errorf("Client took %v", d)
		}
		send(t, a, frame.Frame{Type: frame.DATA, Stream: 1, Data: []byte("first")})
		b := <-got
		in := receive(b, map[uint64]int{1: 5})
		<-in.full
		if d := time.Since(start); !within(d, 3*oneWay) {
			t.Errorf("the first byte took %v", d)
		}
		for _, l := range []Link{a, b} {
			if !within(l.RTT(), 2*oneWay) {
				t.Errorf("RTT is %v", l.RTT())
			}
		}
		a.Close("bye")
		wantEnd(t, <-in.ended, CauseRemote, "bye")
	})
}

func TestTLSHandshakeTimesOut(t *testing.T) {
	for name, start := range map[string]func(*Identity, context.Context, net.Conn) (Link, error){
		"client": func(i *Identity, ctx context.Context, c net.Conn) (Link, error) { return i.Client(ctx, c, i.ID()) },
		"server": func(i *Identity, ctx context.Context, c net.Conn) (Link, error) { return i.Server(ctx, c) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, silent := net.Pipe()
				var wg sync.WaitGroup
				wg.Go(func() { // takes everything and trickles bytes of a record that never ends
					wg.Go(func() { io.Copy(io.Discard, silent) })
					silent.Write([]byte{22, 3, 3, 64, 0})
					for {
						time.Sleep(time.Second)
						if _, err := silent.Write([]byte{1}); err != nil {
							return
						}
					}
				})
				i := newIdentity(t)
				i.Config.HandshakeTimeout = 3 * time.Second
				begin := time.Now()
				_, err := start(i, t.Context(), c)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				wantEnd(t, err, CausePath, "")
				if d := time.Since(begin); d != 3*time.Second {
					t.Errorf("took %v", d)
				}
				if _, err := c.Write([]byte{0}); err == nil {
					t.Error("the connection is still open")
				}
				silent.Close()
				wg.Wait()
			})
		})
	}
}
