package server

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

func TestPeersOnTCP(t *testing.T) {
	s := start(t, open(t, "127.0.0.1"))
	a, b := register(t, "tcp", s.tcp, 100), register(t, "tcp", s.tcp, 101)
	id := rendezvous.RelayID{9}
	a.do(func(now time.Time) {
		a.Connect(now, clientKey(101).ID(), id, rendezvous.StreamRelay|rendezvous.PacketRelay|rendezvous.Direct, []byte("hello"))
	})
	got := waitFor[rendezvous.Requested](t, b)
	if string(got.Sealed) != "hello" || got.Kinds != rendezvous.StreamRelay {
		t.Errorf("request %q, kinds %v", got.Sealed, got.Kinds)
	}
	if c := waitFor[rendezvous.Connected](t, a); c.Status != 0 || c.Kinds != rendezvous.StreamRelay {
		t.Errorf("connected %v, kinds %v", c.Status, c.Kinds)
	}
	a.do(func(time.Time) { a.StopConnect(id) })
	b.do(func(now time.Time) { b.Signal(now, id, []byte("answer")) })
	if sig := waitFor[rendezvous.Signalled](t, a); string(sig.Sealed) != "answer" {
		t.Errorf("signal %q", sig.Sealed)
	}

	var ends []net.Conn
	for _, c := range []*client{a, b} {
		nc := dial(t, "tcp", s.tcp)
		c.do(func(time.Time) {
			preface, err := c.Preface(id)
			if err != nil {
				t.Error(err)
			}
			nc.Write(preface)
		})
		ends = append(ends, nc)
	}
	ready(t, ends...)
	go func() {
		ends[0].Write(make([]byte, 1<<20))
		ends[0].(*net.TCPConn).CloseWrite()
	}()
	n, err := ends[1].(*net.TCPConn).WriteTo(new(bytes.Buffer))
	if n != 1<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	st := s.Stats()
	if st.HalfOpen != 0 || st.Conns != 4 || st.Peers != 2 {
		t.Errorf("%d connections, %d half-open, %d peers", st.Conns, st.HalfOpen, st.Peers)
	}

	replay := dial(t, "tcp", s.tcp)
	preface, _ := a.Preface(id)
	preface[len(preface)-1] ^= 1
	replay.Write(preface)
	if n, err := replay.Read(make([]byte, 1)); err == nil {
		t.Errorf("a forged preface was answered with %d bytes", n)
	}
}

// A NAT lets in only what comes from the endpoint that its host has written to,
// and so does a connected socket: whatever reaches a peer must leave by the
// socket that the peer registered with.
func TestEachPeerIsServedByItsSocket(t *testing.T) {
	cfg := open(t, "127.0.0.1")
	for _, addr := range []string{"127.0.0.1:0", "127.0.0.2:0", "[::1]:0"} {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Packet = append(cfg.Packet, pc)
	}
	s := start(t, cfg)
	var all []*client
	for i, pc := range cfg.Packet {
		addr, _ := addrPort(pc.LocalAddr())
		all = append(all, register(t, "udp", addr, i))
	}
	all = append(all, register(t, "tcp", s.tcp, 99))
	for i, a := range all {
		for j, b := range all {
			if i == j {
				continue
			}
			id := rendezvous.RelayID{1, byte(i), byte(j)}
			target := clientKey(j)
			if b.stream {
				target = clientKey(99)
			}
			a.do(func(now time.Time) { a.Connect(now, target.ID(), id, rendezvous.PacketRelay, []byte("x")) })
			if got := waitFor[rendezvous.Requested](t, b); got.Relay != id {
				t.Fatalf("%d to %d: request for relay %v", i, j, got.Relay)
			}
			if got := waitFor[rendezvous.Connected](t, a); got.Relay != id || got.Status != 0 {
				t.Fatalf("%d to %d: connected %v", i, j, got)
			}
			a.do(func(time.Time) { a.StopConnect(id) })
			if a.stream || b.stream {
				continue
			}
			for _, pair := range [][2]*client{{b, a}, {a, b}} {
				packet := append(relay.AppendHeader(nil, id), "payload"...)
				pair[0].nc.Write(packet)
				if got := <-pair[1].relayed; !bytes.Equal(got, packet) {
					t.Fatalf("%d and %d: relayed %q", i, j, got)
				}
			}
		}
	}
	if n := len(s.routes.other); n != 2 {
		t.Errorf("%d endpoints away from the usual sockets are remembered, want 2", n)
	}
}

// Who leaves the socket that it came by leaves nothing in routes.
func TestRoutesForget(t *testing.T) {
	var pcs []net.PacketConn
	for _, addr := range []string{"127.0.0.1:0", "127.0.0.2:0"} {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		pcs = append(pcs, pc)
	}
	r := newRoutes(pcs)
	here, there := slotAt(5, "192.0.2.1:1000"), slotAt(5, "192.0.2.1:2000")
	steps := []struct {
		slot rendezvous.Slot
		sock int
		want int
	}{
		{here, 1, 1},
		{there, 1, 1},          // moved
		{here, 0, 0},           // back, to the usual socket
		{here, 1, 1},           // and here again
		{slotAt(5, ""), -1, 0}, // expired
		{slotAt(6, "[2001:db8::1]:1"), 1, 1},
	}
	for i, c := range steps {
		if got := r.slot(c.slot, c.slot.Endpoint, c.sock); got != c.want {
			t.Errorf("step %d: socket %d, want %d", i, got, c.want)
		}
		if got := r.to(c.slot.Endpoint); c.slot.Endpoint.IsValid() && got != c.want {
			t.Errorf("step %d: route %d, want %d", i, got, c.want)
		}
	}
	if len(r.other) != 1 || len(r.endpoint) != 1 {
		t.Errorf("left: %v, %v", r.other, r.endpoint)
	}
}

func TestPlainPacketConn(t *testing.T) {
	cfg := open(t, "127.0.0.1")
	cfg.Packet[0] = struct{ net.PacketConn }{cfg.Packet[0]} // as a simulator's
	s := start(t, cfg)
	a, b := register(t, "udp", s.udp, 1), register(t, "udp", s.udp, 2)
	a.do(func(now time.Time) {
		a.Connect(now, clientKey(2).ID(), rendezvous.RelayID{1}, rendezvous.PacketRelay, nil)
	})
	waitFor[rendezvous.Requested](t, b)
}

func TestSlowReadersAreCut(t *testing.T) {
	message := make([]byte, 1000)
	for _, c := range []struct {
		name     string
		messages int
		want     time.Duration
	}{
		{"one message not read", 1, 10 * time.Second},
		{"a queue of 64 KiB", 66, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				// A proof due at the moment of the stall would race with it.
				s := start(t, Config{Key: seed(1), Listeners: []net.Listener{l}, Limits: Limits{Proof: time.Minute}})
				nc := l.dial()
				defer nc.Close()
				nc.Write([]byte{4})
				synctest.Wait()
				began := time.Now()
				s.mu.Lock()
				for range c.messages {
					s.sendStream(1, message)
				}
				s.mu.Unlock()
				for s.Stats().Conns > 0 {
					time.Sleep(time.Second)
				}
				if got := time.Since(began).Truncate(2 * time.Second); got != c.want {
					t.Errorf("cut after %v, want %v", got, c.want)
				}
				if n := s.Stats().SlowReaders; n != 1 {
					t.Errorf("%d slow readers counted", n)
				}
			})
		})
	}
}

func TestMessagesKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := start(t, Config{Key: seed(1), Listeners: []net.Listener{l}})
		nc := l.dial()
		defer nc.Close()
		nc.Write([]byte{4})
		synctest.Wait()
		const n = 1000
		go func() {
			for i := range n {
				s.mu.Lock()
				s.sendStream(1, binary.BigEndian.AppendUint32(nil, uint32(i)))
				s.mu.Unlock()
				if i%7 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		}()
		b := make([]byte, 6)
		for i := range n {
			if _, err := io.ReadFull(nc, b); err != nil || binary.BigEndian.Uint16(b) != 4 || binary.BigEndian.Uint32(b[2:]) != uint32(i) {
				t.Fatalf("message %d: %v, %v", i, b, err)
			}
		}
	})
}
