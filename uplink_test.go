package bodkin_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/sim"
	"github.com/bodkin-net/bodkin/internal/server"
	"github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// serveOn replaces the world's server by one with the given UDP sockets, and
// TCP on port 3478.
func (w *world) serveOn(packet ...net.PacketConn) (stop func()) {
	w.t.Helper()
	l, err := w.net.Host("s").ListenTCP(3478)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := server.New(server.Config{Key: w.key, Packet: packet, Listeners: []net.Listener{l}, Log: testLog("s")})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() { cancel(); <-done }
}

func (w *world) udp(port uint16) net.PacketConn {
	w.t.Helper()
	pc, err := w.net.Host("s").ListenUDP(port)
	if err != nil {
		w.t.Fatal(err)
	}
	return pc
}

// TestServerOfManyPlaces: of several addresses of one server the first to
// answer is taken, and what the others answer later disturbs nothing.
func TestServerOfManyPlaces(t *testing.T) {
	virtual(t, scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted), 1, func(t *testing.T, w *world) {
		w.stop()
		defer w.serveOn(w.udp(3478), w.udp(3479), w.udp(3480))()
		w.server = fmt.Sprintf("%v@%v,udp:%[2]v:3479,udp:%[2]v:3480", w.key.ID(), scenario.ServerAddr)
		start := time.Now()
		a := w.node("a")
		defer a.Close()
		ready(t, a)
		if got, want := time.Since(start), 2*oneWay; got > want {
			t.Errorf("registered after %v, want two round trips, %v", got, want)
		}
		if e := <-a.events; e.Type != bodkin.EventRegistered || e.Transport != "udp" {
			t.Errorf("event %+v, want registered over udp", e)
		}
	})
}

// mute loses everything but COOKIEs to one address for a while.
type mute struct {
	net.PacketConn
	to    netip.Addr
	until time.Time
}

func (m mute) WriteTo(b []byte, to net.Addr) (int, error) {
	t, _, ok := rendezvous.Header(b)
	cookie := ok && t == rendezvous.TypeCookie
	if !cookie && to.(*net.UDPAddr).AddrPort().Addr().Unmap() == m.to && time.Now().Before(m.until) {
		return len(b), nil
	}
	return m.PacketConn.WriteTo(b, to)
}

// TestRequestTwoWays: the request reaches the server over UDP, but no answer
// comes back; then it goes over TCP too, where the server takes it for somebody
// else's.
func TestRequestTwoWays(t *testing.T) {
	virtual(t, scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted), 1, func(t *testing.T, w *world) {
		w.stop()
		defer w.serveOn(mute{w.udp(3478), scenario.GatewayAAddr, time.Now().Add(1500 * time.Millisecond)})()
		b := w.node("b")
		defer b.Close()
		if _, err := b.Listen(); err != nil {
			t.Fatal(err)
		}
		ready(t, b)
		time.Sleep(2 * oneWay) // until the server knows that b listens
		a := w.node("a")
		defer a.Close()
		start := time.Now()
		conn, err := a.Dial(t.Context(), b.ID())
		if err != nil {
			t.Fatal(err)
		}
		// TCP begins after 600 ms: a handshake and two round trips to register,
		// three trips A-S-B for the request, the relay and TLS in it.
		if d, path := time.Since(start), conn.Path(); path.Transport != "tcp" || d > 2*time.Second {
			t.Errorf("path in use is %v after %v, want a stream relay", path, d)
		}
	})
}

// TestRegisteredAgain: a node that the restarted server does not know tells that
// it does again, though it never missed the server.
func TestRegisteredAgain(t *testing.T) {
	virtual(t, scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted), 1, func(t *testing.T, w *world) {
		a := w.node("a")
		defer a.Close()
		ready(t, a)
		w.stop()
		w.serve()
		for range 2 {
			select {
			case e := <-a.events:
				if e.Type != bodkin.EventRegistered {
					t.Errorf("event %+v, want registered", e)
				}
			case <-time.After(20 * time.Second): // the keep-alive finds it out
				t.Fatal("not registered again")
			}
		}
	})
}

// TestCallerLost: the one who was called knows as soon as the other would that
// the peer is gone, though nothing makes him talk to the server.
func TestCallerLost(t *testing.T) {
	pair(t, twoHomes, nil, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
		waitPath(t, ca, bodkin.Direct)
		for range 10 { // at any point between two keep-alives
			time.Sleep(1700 * time.Millisecond)
			exchange(t, ca, cb, 100)
		}
		w.net.Cut(sim.Rule{A: scenario.GatewayAAddr})
		start := time.Now()
		_, err := cb.Read(make([]byte, 1))
		if took := time.Since(start); !errors.Is(err, bodkin.PeerLost) || took > 10*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}
