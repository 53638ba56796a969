package rendezvous

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// Everything the server ever said, again and changed: the client does and
// tells nothing new. (A WHO for its handle it would believe: TestWhoAfterRestart.)
func TestClientIgnores(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	var said [][]byte
	a, b := w.node("A", "192.0.2.1:1000"), w.node("B", "192.0.2.2:2000")
	record := func(d time.Duration) {
		end := w.now.Add(d)
		for w.now.Before(end) {
			w.run(5*time.Millisecond, nil)
			for _, p := range w.queue {
				if p.to == a {
					said = append(said, p.data)
				}
			}
		}
	}
	b.Start(w.now)
	a.Start(w.now)
	a.Connect(w.now, b.key.ID(), relayID, PacketRelay, nil)
	record(500 * time.Millisecond)
	b.Connect(w.now, a.key.ID(), RelayID{2}, PacketRelay, nil)
	record(500 * time.Millisecond)
	b.Signal(w.now, relayID, []byte("x"))
	a.Start(w.now)
	record(20 * time.Second)
	seen := map[byte]bool{}
	for _, m := range said {
		seen[m[2]] = true
	}
	if len(seen) != 6 {
		t.Fatalf("%d types of message were seen", len(seen))
	}
	quiet := func(what string, b []byte) {
		t.Helper()
		was := a.home
		a.HandlePacket(w.now, b)
		if out, ok := a.Poll(); ok {
			t.Fatalf("%s %v: the client says %v", what, wire.Type(b[2]), wire.Type(out[2]))
		}
		if e, ok := a.Event(); ok {
			t.Fatalf("%s %v: the client tells %T", what, wire.Type(b[2]), e)
		}
		if a.state != registered || a.home != was {
			t.Fatalf("%s %v: %+v became %+v", what, wire.Type(b[2]), was, a.home)
		}
	}
	for _, m := range said {
		quiet("again", m)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		m := bytes.Clone(said[r.IntN(len(said))])
		if r.IntN(2) == 0 {
			m[2] = byte(r.IntN(wire.Types))
		}
		m[r.IntN(len(m))] ^= 1 << r.IntN(8)
		if h := a.home.handle; m[2] != byte(wire.TypeWho) || !bytes.Equal(m[12:20], h[:]) {
			quiet("changed", m)
		}
	}
}

// Nobody who does not see the HELLO can answer it.
func TestForgedCookie(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a := w.node("A", "192.0.2.1:1000")
	a.Start(w.now)
	hello, _ := a.Poll()
	_, tx, _ := wire.Header(hello)
	for _, guess := range []uint64{0, tx + 1, tx - 1} {
		a.HandlePacket(w.now, wire.Cookie{Tx: guess, Server: w.server.id}.Append(nil))
		if _, ok := a.Poll(); ok || a.state != greeting {
			t.Fatal("a COOKIE with another txid is believed")
		}
	}
	// A server id that is no key is ignored, with a pin and without.
	a.Client = NewClient(ClientConfig{Key: a.key})
	a.Start(w.now)
	hello, _ = a.Poll()
	_, tx, _ = wire.Header(hello)
	a.HandlePacket(w.now, wire.Cookie{Tx: tx}.Append(nil))
	if _, ok := a.Poll(); ok || a.state != greeting {
		t.Fatal("a zero server id is believed")
	}
	a.HandlePacket(w.now, wire.Cookie{Tx: tx, Server: w.server.id}.Append(nil))
	if _, ok := a.Poll(); !ok || a.state != registering {
		t.Fatal("the right COOKIE is not believed")
	}
}

// A server that is full: told once a time, asked again after a while.
func TestRefusedFull(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{MaxPeers: 1})
	b := w.node("B", "192.0.2.2:2000")
	w.ready()
	a := w.node("A", "192.0.2.1:1000")
	a.Start(w.now)
	w.run(time.Minute, nil)
	if n := count[Refused](a); n < 4 || n > 12 {
		t.Errorf("refused %d times in a minute", n)
	}
	if got, _ := last[Refused](a); got.Reason != wire.ReasonFull || count[Lost](a) != 0 {
		t.Errorf("A had %v", a.events)
	}
	b.Bye(w.now)
	if !w.run(16*time.Second, a.registered) {
		t.Error("not registered after B left")
	}
}

// The latest CONNECTED counts: the peer moved.
func TestPeerMoved(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a, b := w.node("A", "192.0.2.1:1000"), w.node("B", "192.0.2.2:2000")
	w.ready()
	a.Connect(w.now, b.key.ID(), relayID, Direct, nil)
	old := ofType(w.captured(a, 300*time.Millisecond), wire.TypeConnected)
	b.addr = udp("198.51.100.2:22")
	b.Start(w.now)
	w.run(6*time.Second, nil)
	a.HandlePacket(w.now, old) // late, and not what counts any more
	w.run(time.Second, nil)
	if got, _ := last[Connected](a); count[Connected](a) != 2 || got.Peer != b.addr.Endpoint {
		t.Errorf("A had %v", a.events)
	}
}

// StopConnect and Bye end everything that repeats.
func TestStops(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a, b := w.node("A", "192.0.2.1:1000"), w.node("B", "192.0.2.2:2000")
	w.ready()
	a.Connect(w.now, b.key.ID(), relayID, Direct, nil)
	a.StopConnect(relayID)
	w.run(10*time.Second, nil)
	if n := w.server.Stats().Received[wire.TypeConnect]; n != 1 {
		t.Errorf("%d CONNECTs", n)
	}
	a.Connect(w.now, b.key.ID(), relayID, Direct, nil)
	a.Bye(w.now)
	if _, ok := a.NextTimeout(); ok {
		t.Error("BYE, and yet something is due")
	}
	a.Poll()
	a.Poll()
	a.HandleTimeout(w.now.Add(time.Hour))
	if m, ok := a.Poll(); ok {
		t.Errorf("BYE, and yet %v", wire.Type(m[2]))
	}
}
