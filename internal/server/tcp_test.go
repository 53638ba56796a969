package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	pion "github.com/pion/stun/v3"
)

// pipes is a listener whose connections are in memory, for virtual time.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.conns <- b
	return a
}

// untilEOF returns how long the other end took to close.
func untilEOF(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
		t.Errorf("%d bytes came, then %v", n, err)
	}
	return time.Since(start)
}

func TestSilentConnectionsEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		act  func(net.Conn)
		want time.Duration
	}{
		{"no first byte", func(net.Conn) {}, 5 * time.Second},
		{"unknown first byte", func(c net.Conn) { c.Write([]byte("GET / HTTP/1.1")[:1]) }, 0},
		{"half a STUN header", func(c net.Conn) { c.Write([]byte{0, 1, 0}) }, 10 * time.Second},
		{"no message", func(c net.Conn) { c.Write([]byte{4}) }, 10 * time.Second},
		{"half a message", func(c net.Conn) { c.Write([]byte{4, 0, 128, 4, 1, 1}) }, 10 * time.Second},
		{"a message of 65535 bytes", func(c net.Conn) { c.Write([]byte{4, 0xff, 0xff}) }, 0},
		{"a message of no bytes", func(c net.Conn) { c.Write([]byte{4, 0, 0}) }, 0},
		{"half a preface", func(c net.Conn) { c.Write([]byte{5, 1, 0, 0}) }, 10 * time.Second},
		{"STUN too long", func(c net.Conn) {
			c.Write([]byte{0, 1, 0xff, 0xfc, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				start(t, Config{Key: seed(1), Listeners: []net.Listener{l}})
				nc := l.dial()
				defer nc.Close()
				c.act(nc)
				if got := untilEOF(t, nc); got != c.want {
					t.Errorf("closed after %v, want %v", got, c.want)
				}
			})
		})
	}
}

// A byte a second keeps nobody alive.
func TestSlowloris(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		start(t, Config{Key: seed(1), Listeners: []net.Listener{l}})
		nc := l.dial()
		defer nc.Close()
		var drip sync.WaitGroup
		defer drip.Wait()
		drip.Go(func() {
			for {
				if _, err := nc.Write([]byte{5}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		if got := untilEOF(t, nc); got != 10*time.Second {
			t.Errorf("cut after %v", got)
		}
	})
}

func TestStopClosesEverything(t *testing.T) {
	s := start(t, open(t, "127.0.0.1"))
	nc := dial(t, "tcp", s.tcp)
	nc.Write([]byte{4})
	s.stop() // goleak sees whether anything stays
	if _, err := nc.Read(make([]byte, 1)); err == nil {
		t.Error("connection outlived the server")
	}
	if _, err := net.Dial("tcp", s.tcp.String()); err == nil {
		t.Error("still listening")
	}
}

func TestBrokenSocketEndsRun(t *testing.T) {
	cfg := open(t, "127.0.0.1")
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Packet[0].Close()
	if err := s.Run(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

// Ten thousand connections that say nothing, while honest peers register over
// TCP, from the flood's own address, and connect to one another.
func TestTenThousandHalfOpenConnections(t *testing.T) {
	s := start(t, open(t, "127.0.0.1"))
	before := runtime.NumGoroutine()
	flood := make([]net.Conn, 0, 10_000)
	defer func() {
		for _, c := range flood {
			c.Close()
		}
	}()
	request := pion.MustBuild(pion.TransactionID, pion.BindingRequest).Raw
	honest := func(local string) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
		nc, err := d.Dial("tcp", s.tcp.String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(5 * time.Second))
		nc.Write(request)
		if _, err := io.ReadFull(nc, make([]byte, 32)); err != nil {
			t.Fatalf("honest peer at %s, with %d half-open: %v", local, len(flood), err)
		}
	}
	for len(flood) < cap(flood) {
		c, err := net.Dial("tcp", s.tcp.String())
		if err != nil {
			t.Fatal(err)
		}
		flood = append(flood, c)
		if len(flood)%500 == 0 {
			honest("127.0.0.1") // the attacker's own address
			honest("127.0.0.2")
		}
		if n := len(flood) / 2500; len(flood)%2500 == 0 {
			a, b := register(t, "tcp", s.tcp, n), register(t, "udp", s.udp, 100+n)
			a.do(func(now time.Time) {
				a.Connect(now, clientKey(100+n).ID(), rendezvous.RelayID{byte(n)}, rendezvous.StreamRelay, nil)
			})
			waitFor[rendezvous.Requested](t, b)
		}
	}
	st := s.Stats()
	if limit := s.limits.HalfOpenPerAddress; st.HalfOpen > 2*limit || st.Conns > 2*limit {
		t.Errorf("%d connections, %d half-open, limit %d for each address", st.Conns, st.HalfOpen, limit)
	}
	if extra := runtime.NumGoroutine() - before; extra > 4*s.limits.HalfOpenPerAddress {
		t.Errorf("%d goroutines more", extra)
	}
	if st.Accepted < 10_000 || st.Refused < 9_000 {
		t.Errorf("accepted %d, refused %d", st.Accepted, st.Refused)
	}
}

func TestAdmission(t *testing.T) {
	a := newAdmission(Limits{Conns: 6, ConnsPerAddress: 4, HalfOpen: 5, HalfOpenPerAddress: 2}.withDefaults())
	from := func(addr string) *conn { return &conn{source: sourceOf(netip.MustParseAddr(addr))} }
	admit := func(c *conn, wantEvicted ...*conn) {
		t.Helper()
		evicted, ok := a.admit(c)
		if !ok || len(evicted) != len(wantEvicted) {
			t.Fatalf("admitted %v, evicted %d, want %d", ok, len(evicted), len(wantEvicted))
		}
		for i := range evicted {
			if evicted[i] != wantEvicted[i] {
				t.Errorf("another one than the oldest was evicted")
			}
		}
	}
	a1, a2, a3 := from("2001:db8::1"), from("2001:db8::2"), from("2001:db8::3") // one /64
	admit(a1)
	admit(a2)
	admit(a3, a1) // the oldest half-open one of the address makes room
	a.prove(a2)
	a.prove(a3)
	a4, a5 := from("2001:db8::4"), from("2001:db8::5")
	admit(a4)
	admit(a5)
	a6 := from("2001:db8::6")
	admit(a6, a4) // four in all from the address, of which two are half-open
	b1, b2 := from("192.0.2.1"), from("192.0.2.2")
	admit(b1)
	admit(b2)
	c1 := from("192.0.2.3")
	admit(c1, a5) // six in all: the oldest half-open one of all
	for _, c := range []*conn{a6, b1, b2, c1} {
		a.prove(c)
	}
	if _, ok := a.admit(from("192.0.2.4")); ok {
		t.Error("admitted beyond the limit, with nobody to evict")
	}
	a.release(b1)
	admit(from("192.0.2.4"))
	for _, c := range []*conn{a1, a2, a3, a6, b2, c1} {
		a.release(c)
		a.release(c) // twice: evicted, then ended
	}
	if total, half := a.counts(); total != 1 || half != 1 || len(a.addrs) != 1 {
		t.Errorf("%d connections, %d half-open, %d addresses are left", total, half, len(a.addrs))
	}
}
