package rendezvous

import (
	"testing"
	"time"

	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// The same sequence is answered again only where it was registered.
func TestSameSequenceElsewhere(t *testing.T) {
	s := testServer(ServerConfig{})
	a := newPuppet(t, s, 1, udp("192.0.2.1:1"))
	a.register(epoch)
	again := a.registerWith(a.cookie(epoch), a.tx)
	m, err := wire.ParseRegistered(a.only(a.ask(epoch, again), wire.TypeRegistered))
	if err != nil || m.Handle != a.handle {
		t.Errorf("%+v, %v", m, err)
	}
	moved := *a
	moved.addr = udp("192.0.2.1:2")
	moved.only(moved.ask(epoch, moved.registerWith(moved.cookie(epoch), moved.tx)), wire.TypeRefused)
	a.only(a.ask(epoch, a.keepAlive()), wire.TypeAlive)
}

// A connection is one peer's, and is another place than UDP from the same endpoint.
func TestConnections(t *testing.T) {
	s := testServer(ServerConfig{})
	a, b := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.1:1"))
	a.register(epoch)
	elsewhere := *a
	elsewhere.addr.Conn = 4
	elsewhere.only(elsewhere.ask(epoch, elsewhere.keepAlive()), wire.TypeWho)
	a.tx = elsewhere.tx
	a.addr.Conn, b.addr.Conn = 4, 4
	a.register(epoch)
	if got := b.enrol(epoch); len(got) != 0 || s.Stats().Peers != 1 {
		t.Errorf("a second peer on the connection: %v", types(got))
	}
	a.only(a.ask(epoch, a.keepAlive()), wire.TypeAlive)
}

// A registration is over when its time is, whether it was swept or not.
func TestOverButNotSwept(t *testing.T) {
	s := testServer(ServerConfig{})
	a, b := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))
	b.register(epoch)
	now := epoch.Add(30 * time.Second)
	a.register(now)
	now = epoch.Add(59 * time.Second)
	if got := a.connect(now, b, relayID, PacketRelay); got != wire.StatusOK {
		t.Fatalf("a second before: %v", got)
	}
	now = epoch.Add(60 * time.Second)
	if got := a.connect(now, b, relayID, PacketRelay); got != wire.StatusNotRegistered {
		t.Errorf("CONNECT: %v", got)
	}
	if got := a.ask(now, a.signal(relayID, nil)); len(got) != 0 {
		t.Errorf("SIGNAL: %v", types(got))
	}
	b.register(now) // known still, and no stranger
	if s.Stats().KeyAgreements != 2 {
		t.Error("a key that was known is agreed on again")
	}
}

// captured runs the world and returns what the server said to n.
func (w *world) captured(n *node, d time.Duration) (said [][]byte) {
	w.run(d, func() bool {
		for _, p := range w.queue {
			if p.to == n && (len(said) == 0 || &said[len(said)-1][0] != &p.data[0]) {
				said = append(said, p.data)
			}
		}
		return false
	})
	return said
}

func ofType(said [][]byte, t wire.Type) []byte {
	for _, b := range said {
		if wire.Type(b[2]) == t {
			return b
		}
	}
	return nil
}

// Old answers to new questions of the same kind.
func TestStaleAnswers(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a := w.node("A", "192.0.2.1:1000")
	b := w.node("B", "192.0.2.2:2000")
	a.Start(w.now)
	said := w.captured(a, 30*time.Second)
	a.Connect(w.now, b.key.ID(), relayID, PacketRelay, nil)
	said = append(said, w.captured(a, 30*time.Millisecond)...)

	// An absence that was counted is not counted again.
	absent := ofType(said, wire.TypeConnected)
	for range 20 {
		a.HandlePacket(w.now, absent)
	}
	if len(a.connects) != 1 || a.connects[0].absent != 1 {
		t.Fatal("an answer is counted more than once")
	}
	a.StopConnect(relayID)

	// An ALIVE of before does not answer this KEEPALIVE.
	w.up = false
	w.run(time.Minute, func() bool { return a.home.unanswered == 2 })
	a.HandlePacket(w.now, ofType(said, wire.TypeAlive))
	if a.home.unanswered != 2 {
		t.Error("an old ALIVE counts")
	}

	// A REGISTERED of before does not answer this REGISTER.
	w.up = true
	a.Start(w.now)
	w.run(time.Second, func() bool { return a.state == registering })
	a.HandlePacket(w.now, ofType(said, wire.TypeRegistered))
	if a.state != registering {
		t.Error("an old REGISTERED counts")
	}
	if !w.run(time.Second, a.registered) {
		t.Error("not registered")
	}
}
