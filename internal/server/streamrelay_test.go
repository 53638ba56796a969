package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

// tcpPair is a connection through loopback.
func tcpPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func bare(t testing.TB) *Server {
	t.Helper()
	l := newPipes()
	s, err := New(Config{Key: seed(1), Listeners: []net.Listener{l}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// relayed runs a stream relay between two connections, as serveRelay does once
// the prefaces are proved, and returns a channel that ends with it.
func relayed(s *Server, ends ...net.Conn) <-chan struct{} {
	over := make(chan struct{})
	var left atomic.Int32
	left.Store(int32(len(ends)))
	for number, nc := range ends {
		go func() {
			me := &side{c: &conn{server: s, nc: nc}, number: number, met: make(chan *meet, 1)}
			if m := s.meet(context.Background(), relay.ID{7}, me); m != nil {
				s.run(m, number)
			}
			nc.Close()
			if left.Add(-1) == 0 {
				close(over)
			}
		}()
	}
	return over
}

func ready(t testing.TB, cs ...net.Conn) {
	t.Helper()
	for _, c := range cs {
		b := []byte{1}
		if _, err := io.ReadFull(c, b); err != nil || b[0] != relay.Ready {
			t.Fatalf("answer to the preface: %v, %v", b, err)
		}
	}
}

func TestStreamRelayCarriesAllBothWays(t *testing.T) {
	s := bare(t)
	a, sa := tcpPair(t)
	b, sb := tcpPair(t)
	over := relayed(s, sa, sb)
	ready(t, a, b)

	const size = 100 << 20
	send := func(c *net.TCPConn) hash.Hash {
		h := sha256.New()
		buf := make([]byte, 1<<18)
		rand.Read(buf)
		for left := size; left > 0; left -= len(buf) {
			buf[0]++
			h.Write(buf)
			if _, err := c.Write(buf); err != nil {
				t.Error(err)
				break
			}
		}
		c.CloseWrite()
		return h
	}
	receive := func(c *net.TCPConn) hash.Hash {
		h := sha256.New()
		if n, err := io.Copy(h, c); n != size || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		return h
	}
	sums := make(chan hash.Hash)
	go func() { sums <- send(a) }()
	got := receive(b)
	if want := <-sums; !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("a to b: the bytes changed")
	}
	// a has closed its half; the other one still works.
	go func() { sums <- send(b) }()
	got = receive(a)
	if want := <-sums; !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("b to a: the bytes changed")
	}
	<-over
	if n := s.Stats().StreamBytes; n != 2*size {
		t.Errorf("%d bytes counted", n)
	}
	if n := s.Stats().StreamRelays; n != 0 {
		t.Errorf("%d relays left", n)
	}
}

// The kernel splices between *net.TCPConn and nothing else: a wrapper around
// either would turn the relay into a read-write loop.
func TestRelayedConnectionsAreBare(t *testing.T) {
	s := start(t, open(t, "127.0.0.1"))
	dial(t, "tcp", s.tcp).Write([]byte{4})
	var got net.Conn
	for got == nil {
		s.mu.Lock()
		for _, c := range s.conns {
			got = c.nc
		}
		s.mu.Unlock()
	}
	tc, ok := got.(*net.TCPConn)
	if !ok {
		t.Fatalf("connections are %T", got)
	}
	if mp, err := tc.MultipathTCP(); mp || err != nil {
		t.Errorf("MPTCP %v, %v", mp, err)
	}
}

func TestBrokenSideEndsTheOther(t *testing.T) {
	s := bare(t)
	a, sa := tcpPair(t)
	b, sb := tcpPair(t)
	over := relayed(s, sa, sb)
	ready(t, a, b)
	a.SetLinger(0)
	a.Close() // RST
	if _, err := io.Copy(io.Discard, b); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Log(err) // end or reset, both tell b
	}
	b.Close()
	<-over
}

func TestQuietRelayEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bare(t)
		a, sa := net.Pipe()
		b, sb := net.Pipe()
		over := relayed(s, sa, sb)
		ready(t, a)
		ready(t, b)
		start := time.Now()
		// One direction is busy for five minutes: the other may be silent.
		go func() {
			for range 300 {
				a.Write([]byte("x"))
				time.Sleep(time.Second)
			}
		}()
		n, _ := io.Copy(io.Discard, b)
		if got := time.Since(start); n != 300 || got != 299*time.Second+2*time.Minute {
			t.Errorf("ended after %v and %d bytes", got, n)
		}
		<-over
		a.Close()
		b.Close()
	})
}

func TestWaitingSideGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bare(t)
		a, sa := net.Pipe()
		over := relayed(s, sa)
		if got := untilEOF(t, a); got != 15*time.Second {
			t.Errorf("closed after %v", got)
		}
		<-over
		if len(s.pairing.waiting) != 0 {
			t.Error("still waiting")
		}
	})
}

func TestNewerSideReplacesOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bare(t)
		old, sold := net.Pipe()
		relayed(s, sold)
		synctest.Wait()
		a, sa := net.Pipe()
		b, sb := net.Pipe()
		over := relayed(s, sa) // number 0 again
		if got := untilEOF(t, old); got != 0 {
			t.Errorf("the older one closed after %v", got)
		}
		synctest.Wait()
		m := &side{c: &conn{server: s, nc: sb}, number: 1, met: make(chan *meet, 1)}
		go func() {
			s.run(s.meet(context.Background(), relay.ID{7}, m), 1)
			sb.Close()
		}()
		ready(t, a)
		ready(t, b)
		go a.Write([]byte("hello"))
		got := make([]byte, 5)
		if _, err := io.ReadFull(b, got); err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
		a.Close()
		b.Close()
		<-over
	})
}
