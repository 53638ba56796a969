package rendezvous

import (
	"fmt"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// A third of all packets lost, many twice, most out of order: everybody ends
// up registered, and whoever is asked for is connected.
func TestFaults(t *testing.T) {
	for n := range uint64(300) {
		w := newWorld(t, n, ServerConfig{})
		w.loss, w.duplicate, w.jitter = 0.3, 0.3, 150*time.Millisecond
		a, b := w.node("A", "192.0.2.1:1000"), w.node("B", "192.0.2.2:2000")
		a.Connect(w.now, b.key.ID(), relayID, PacketRelay, []byte("offer"))
		a.Start(w.now)
		b.Start(w.now)
		// The asker goes on until it works, as a node does.
		for range 4 {
			if w.run(30*time.Second, func() bool {
				c, ok := last[Connected](a)
				return ok && c.Status == wire.StatusOK && count[Requested](b) > 0
			}) {
				break
			}
			a.Connect(w.now, b.key.ID(), relayID, PacketRelay, []byte("offer"))
		}
		if c, _ := last[Connected](a); c.Status != wire.StatusOK || count[Requested](b) == 0 {
			t.Fatalf("seed %d: not connected\n%v\n%v", n, a.events, w.trace)
		}
		a.StopConnect(relayID)
		// Signals are delivered at most once each, both ways.
		for i := range 20 {
			a.Signal(w.now, relayID, fmt.Append(nil, "a", i))
			b.Signal(w.now, relayID, fmt.Append(nil, "b", i))
			w.run(50*time.Millisecond, nil)
		}
		w.run(time.Second, nil)
		for _, x := range []*node{a, b} {
			seen := map[string]bool{}
			for _, e := range x.events {
				if s, ok := e.(Signalled); ok {
					if seen[string(s.Sealed)] {
						t.Fatalf("seed %d: %s got %q twice", n, x.name, s.Sealed)
					}
					seen[string(s.Sealed)] = true
				}
			}
			if len(seen) == 0 {
				t.Fatalf("seed %d: %s got no signal", n, x.name)
			}
		}
		// Ten more minutes of it: whoever is lost comes back.
		w.run(10*time.Minute, nil)
		w.loss = 0
		if !w.run(time.Minute, func() bool { return a.registered() && b.registered() && w.server.Stats().Peers == 2 }) {
			t.Fatalf("seed %d: not registered in the end", n)
		}
	}
}

// The server restarts: a client finds out at its next keep-alive, which is
// answered WHO, and needs two round trips from there.
func TestServerRestart(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a := w.node("A", "192.0.2.1:1000")
	w.ready()
	w.restart()
	w.start, w.trace = w.now, nil
	w.run(14*time.Second, nil)
	w.golden([]string{
		"  13.162s A > KEEPALIVE",
		"  13.172s S > WHO to A",
		"  13.182s A > HELLO",
		"  13.192s S > COOKIE to A",
		"  13.202s A > REGISTER",
		"  13.212s S > REGISTERED to A",
		"  13.222s A ! rendezvous.Registered",
	})
	if count[Lost](a) != 0 || count[MappedChanged](a) != 0 {
		t.Errorf("A had %v", a.events)
	}
}

// A remembered slot makes a WHO that the client believes, once a second.
func TestWhoAfterRestart(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a := w.node("A", "192.0.2.1:1000")
	w.ready()
	slot, ok := w.server.PollSlot()
	if !ok || slot.Endpoint != a.addr.Endpoint || slot.Handle != a.home.handle {
		t.Fatalf("slot %+v", slot)
	}
	if again, ok := w.server.PollSlot(); ok {
		t.Fatalf("slot %+v again", again)
	}
	w.restart()
	who := func(h Handle) {
		w.put(packet{to: a, addr: a.addr, data: wire.Who{Handle: h}.Append(nil)})
	}
	who(Handle{1})
	w.run(time.Second, nil)
	if w.server.Stats().Received[wire.TypeHello] != 0 {
		t.Fatal("a WHO for another handle is believed")
	}
	who(slot.Handle)
	w.run(time.Second/2, nil)
	if w.server.Stats().Peers != 1 || count[Registered](a) != 2 {
		t.Fatal("not registered again")
	}
	for range 100 {
		who(a.home.handle)
		w.run(10*time.Millisecond, nil)
	}
	if n := w.server.Stats().Received[wire.TypeHello]; n > 2 {
		t.Errorf("%d HELLOs for a WHO every 10 ms", n)
	}
}

// The server goes away: three keep-alives a second apart, Lost, and HELLO
// every 1 to 3 s until it is back.
func TestLost(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a := w.node("A", "192.0.2.1:1000")
	w.ready()
	w.up, w.start, w.trace = false, w.now, nil
	w.run(16500*time.Millisecond, nil)
	w.golden([]string{
		"  13.162s A > KEEPALIVE",
		"  14.162s A > KEEPALIVE",
		"  15.162s A > KEEPALIVE",
		"  16.162s A > HELLO",
		"  16.162s A ! rendezvous.Lost",
	})
	w.trace = nil
	w.run(time.Hour, nil)
	if n := len(w.trace); n < 1500 || n > 2200 {
		t.Errorf("%d HELLOs in an hour", n)
	}
	if count[Lost](a) != 1 {
		t.Errorf("lost %d times", count[Lost](a))
	}
	w.up = true
	if !w.run(4*time.Second, a.registered) || count[Registered](a) != 2 {
		t.Error("not back")
	}
}

// HELLO's schedule when nobody ever answered: no Lost, there was nothing to lose.
func TestHelloSchedule(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	w.up = false
	a := w.node("A", "192.0.2.1:1000")
	a.Start(w.now)
	w.run(2500*time.Millisecond, nil)
	w.golden([]string{
		"   0.000s A > HELLO",
		"   0.250s A > HELLO",
		"   0.750s A > HELLO",
		"   1.750s A > HELLO",
	})
}

// CONNECT's schedule when the server falls silent.
func TestConnectSchedule(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{KeepAlive: 100 * time.Second, Lifetime: 300 * time.Second})
	a := w.node("A", "192.0.2.1:1000")
	w.ready()
	w.up, w.start, w.trace = false, w.now, nil
	a.Connect(w.now, w.server.id, relayID, PacketRelay, nil)
	w.run(20*time.Second, nil)
	w.golden([]string{
		"   0.000s A > CONNECT",
		"   0.200s A > CONNECT",
		"   0.600s A > CONNECT",
		"   1.400s A > CONNECT",
		"   3.000s A > CONNECT",
		"   6.200s A > CONNECT",
		"   9.400s A > CONNECT",
		"  12.600s A ! rendezvous.Connected",
	})
	if got, _ := last[Connected](a); got.Status != StatusNoAnswer {
		t.Errorf("A got %+v", got)
	}
}

// A NAT forgets its mapping: the keep-alive comes from a new endpoint, WHO, a
// new registration, and the relay follows.
func TestRelayFollows(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a, b := w.connected()
	old := a.addr
	a.addr = udp("198.51.100.7:7777")
	p := relay.AppendHeader(nil, relayID)
	if _, ok := w.server.RelayTarget(w.now, a.addr.Endpoint, p); ok {
		t.Error("relayed before the registration")
	}
	w.run(16*time.Second, nil)
	if got, _ := last[MappedChanged](a); got != (MappedChanged{old.Endpoint, a.addr.Endpoint}) {
		t.Errorf("A noticed %+v", got)
	}
	if to, ok := w.server.RelayTarget(w.now, a.addr.Endpoint, p); !ok || to != b.addr.Endpoint {
		t.Errorf("relayed to %v, %v", to, ok)
	}
	if to, ok := w.server.RelayTarget(w.now, b.addr.Endpoint, p); !ok || to != a.addr.Endpoint {
		t.Errorf("relayed back to %v, %v", to, ok)
	}
	if _, ok := w.server.RelayTarget(w.now, old.Endpoint, p); ok {
		t.Error("relayed from the old endpoint")
	}
}

// connected is two registered peers with a relay that both use.
func (w *world) connected() (a, b *node) {
	w.t.Helper()
	a, b = w.node("A", "192.0.2.1:1000"), w.node("B", "192.0.2.2:2000")
	w.ready()
	a.Connect(w.now, b.key.ID(), relayID, PacketRelay|StreamRelay|Direct, nil)
	if !w.run(time.Second, func() bool { return count[Requested](b) == 1 && count[Connected](a) == 1 }) {
		w.t.Fatal("not connected")
	}
	a.StopConnect(relayID)
	b.Signal(w.now, relayID, nil)
	w.run(100*time.Millisecond, nil)
	return a, b
}

// Between UDP and TCP, there and back.
func TestMoveToTCP(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a, b := w.connected()
	p := relay.AppendHeader(nil, relayID)
	over := a.addr
	a.addr = Addr{over.Endpoint, 17}
	a.Start(w.now)
	w.run(time.Second, nil)
	if _, ok := w.server.RelayTarget(w.now, over.Endpoint, p); ok {
		t.Error("packets are relayed for a peer on TCP")
	}
	if _, ok := w.server.RelayTarget(w.now, b.addr.Endpoint, p); ok {
		t.Error("packets are relayed to a peer on TCP")
	}
	other := RelayID{9}
	b.Connect(w.now, a.key.ID(), other, PacketRelay|StreamRelay|Direct, nil)
	w.run(time.Second, nil)
	b.StopConnect(other)
	if got, _ := last[Connected](b); got != (Connected{Relay: other, Status: wire.StatusOK, Kinds: StreamRelay}) {
		t.Errorf("B got %+v", got)
	}
	if got, _ := last[Requested](a); got.Kinds != StreamRelay || got.Peer.IsValid() {
		t.Errorf("A got %+v", got)
	}
	a.addr = over
	a.Start(w.now)
	w.run(time.Second, nil)
	if to, ok := w.server.RelayTarget(w.now, b.addr.Endpoint, p); !ok || to != over.Endpoint {
		t.Error("packets are not relayed after the return to UDP")
	}
	w.server.ConnClosed(w.now, 17)
	if w.server.Stats().Peers != 2 {
		t.Error("closing the old connection ended the registration over UDP")
	}
	a.addr = Addr{over.Endpoint, 18}
	a.Start(w.now)
	w.run(time.Second, nil)
	w.server.ConnClosed(w.now, 18)
	if s := w.server.Stats(); s.Peers != 1 || s.Relays != 0 {
		t.Errorf("after its connection was closed: %+v", s)
	}
	if len(w.server.conns) != 0 {
		t.Error("connections are remembered")
	}
}

func TestStreamRelay(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a, b := w.connected()
	c := w.node("C", "192.0.2.3:3000")
	c.Start(w.now)
	w.run(time.Second, nil)
	for want, n := range []*node{a, b} {
		preface, err := n.Preface(relayID)
		if err != nil {
			t.Fatal(err)
		}
		id, side, err := w.server.StreamRelay(w.now, preface)
		if id != relayID || side != want || err != nil {
			t.Errorf("%s: %v, side %d, %v", n.name, id, side, err)
		}
		if _, _, err := w.server.StreamRelay(w.now, preface); err != ErrPreface {
			t.Errorf("%s: replayed: %v", n.name, err)
		}
		preface, _ = n.Preface(relayID)
		preface[20]++
		if _, _, err := w.server.StreamRelay(w.now, preface); err != ErrPreface {
			t.Errorf("%s: forged: %v", n.name, err)
		}
	}
	preface, _ := c.Preface(relayID)
	if _, _, err := w.server.StreamRelay(w.now, preface); err != ErrNoRelay {
		t.Errorf("another's relay: %v", err)
	}
	a.Bye(w.now)
	if _, err := a.Preface(relayID); err != ErrNotRegistered {
		t.Errorf("preface after BYE: %v", err)
	}
}

// Whenever a client says BYE, in the middle of registering or of a change of
// its role, the server keeps nothing of it.
func TestByeAtAnyMoment(t *testing.T) {
	for _, known := range []bool{false, true} {
		for after := time.Duration(0); after <= 60*time.Millisecond; after += 5 * time.Millisecond {
			w := newWorld(t, 1, ServerConfig{})
			a := w.node("a", "192.0.2.1:1")
			if known {
				w.ready()
				a.SetGuest(w.now, true) // it listens no more, because it ends
			} else {
				a.Start(w.now)
			}
			w.run(after, nil)
			a.Bye(w.now)
			w.run(time.Second, nil)
			if n := w.server.Stats().Peers; n != 0 {
				t.Errorf("known %v, BYE after %v: %d registrations left\n%v", known, after, n, w.trace)
			}
		}
	}
}

// BYE frees the registration and its relays at once, and the REGISTER that
// made it cannot be used again although its cookie is still good.
func TestBye(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a, b := w.connected()
	register := a.reg.packet
	a.Bye(w.now)
	w.run(20*time.Millisecond, nil)
	if s := w.server.Stats(); s.Peers != 1 || s.Relays != 0 {
		t.Errorf("after BYE: %+v", s)
	}
	w.server.HandlePacket(w.now, a.addr, register)
	agree(w.server, w.now)
	if s := w.server.Stats(); s.Peers != 1 || s.Dropped[DropReplay] != 1 {
		t.Errorf("after the replay: %+v", s)
	}
	a.Start(w.now)
	if !w.run(time.Second, a.registered) || w.server.Stats().Peers != 2 {
		t.Error("no second registration")
	}
	_ = b
	if _, ok := a.NextTimeout(); !ok {
		t.Error("no timeout")
	}
}

// A clock that went back: the server says which sequence to exceed.
func TestClockWentBack(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	w.ready()
	a := w.node("A", "192.0.2.1:1000")
	a.Start(w.now.Add(time.Hour)) // what counts is the time of the REGISTER
	a.last = uint64(w.now.Add(time.Hour).UnixNano())
	w.ready()
	again := w.node("A again", "192.0.2.1:1001")
	id := w.server.id
	again.key = a.key
	again.Client = NewClient(ClientConfig{Key: a.key, ServerID: &id})
	again.Start(w.now)
	if !w.run(time.Second, again.registered) {
		t.Error("not registered")
	}
	if w.server.Stats().Peers != 1 || w.server.Stats().Sent[wire.TypeRefused] != 1 {
		t.Errorf("%+v", w.server.Stats())
	}
}

func TestWrongServer(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a := w.node("A", "192.0.2.1:1000")
	expected := w.node("X", "192.0.2.9:9").key.ID()
	a.Client = NewClient(ClientConfig{Key: a.key, ServerID: &expected})
	a.Start(w.now)
	w.run(time.Minute, nil)
	if got, _ := last[WrongServer](a); got.Got != w.server.id || count[WrongServer](a) != 1 || len(a.events) != 1 {
		t.Errorf("A had %v", a.events)
	}
	if w.server.Stats().Received[wire.TypeRegister] != 0 {
		t.Error("registered with a stranger")
	}
	// Without a pin it learns who the server is.
	a.Client, a.events = NewClient(ClientConfig{Key: a.key}), nil
	a.Start(w.now)
	if !w.run(time.Second, a.registered) {
		t.Fatal("not registered")
	}
	if got, _ := last[Registered](a); got.ServerID != w.server.id {
		t.Errorf("registered with %v", got.ServerID)
	}
}

// RelayOnly keeps both endpoints of every connection from the peers.
func TestRelayOnly(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a, b := w.node("A", "192.0.2.1:1000"), w.node("B", "192.0.2.2:2000")
	id := w.server.id
	a.Client = NewClient(ClientConfig{Key: a.key, ServerID: &id, RelayOnly: true})
	w.ready()
	for _, n := range [][2]*node{{a, b}, {b, a}} {
		n[0].Connect(w.now, n[1].key.ID(), RelayID([]byte("relay by")[:8]), PacketRelay|Direct, nil)
		relayID := RelayID([]byte("relay by"))
		w.run(time.Second, nil)
		n[0].StopConnect(relayID)
		w.run(20*time.Second, nil) // the relay is over
		if got, _ := last[Connected](n[0]); got.Status != wire.StatusOK || got.Kinds != PacketRelay || got.Peer.IsValid() {
			t.Errorf("%s got %+v", n[0].name, got)
		}
		if got, _ := last[Requested](n[1]); got.Kinds != PacketRelay || got.Peer.IsValid() {
			t.Errorf("%s got %+v", n[1].name, got)
		}
	}
}
