package rendezvous

import (
	"fmt"
	"testing"
	"time"

	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// registerAs registers with flags and returns the answer.
func (p *puppet) registerAs(now time.Time, flags wire.Flags) []byte {
	p.t.Helper()
	b := p.registerFlags(now, flags)
	m, err := wire.ParseRegistered(p.only(p.ask(now, b), wire.TypeRegistered))
	if err != nil || m.Tx != p.tx {
		p.t.Fatalf("%+v, %v", m, err)
	}
	p.handle = m.Handle
	return b
}

func (p *puppet) registerFlags(now time.Time, flags wire.Flags) []byte {
	return p.seal(wire.Register{Client: p.id, Cookie: p.cookie(now), Sequence: p.next(), Flags: flags}.Append(nil))
}

// beside is another process with the key.
func (p *puppet) beside(addr Addr) *puppet {
	q := *p
	q.addr, q.tx = addr, p.tx+1e6
	return &q
}

// found is where a request for the key goes.
func (p *puppet) found(now time.Time, target *puppet, id RelayID) (Addr, bool) {
	p.t.Helper()
	for _, s := range p.ask(now, p.connectTo(target, id, PacketRelay)) {
		if wire.Type(s.b[2]) == wire.TypeRequest {
			return s.to, true
		}
	}
	return Addr{}, false
}

// Many guests beside the one that is found, all with its key: each keeps its
// own registration, asks for itself, and comes and goes alone.
func TestGuestsBesideListener(t *testing.T) {
	s := testServer(ServerConfig{})
	listener, other := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))
	listener.registerAs(epoch, 0)
	other.registerAs(epoch, 0)
	var guests []*puppet
	for n := range 20 {
		g := listener.beside(udp(fmt.Sprintf("192.0.2.1:%d", 100+n)))
		if n%5 == 0 {
			g.addr.Conn = uint64(n + 1)
		}
		g.registerAs(epoch, wire.Guest)
		guests = append(guests, g)
	}
	if n := s.Stats().Peers; n != 22 {
		t.Fatalf("%d registrations", n)
	}
	for n, g := range guests {
		if got := g.connect(epoch, other, RelayID{1, byte(n)}, StreamRelay); got != wire.StatusOK {
			t.Errorf("guest %d asks: %v", n, got)
		}
	}
	if to, ok := other.found(epoch, listener, RelayID{2}); !ok || to != listener.addr {
		t.Errorf("the request goes to %v", to)
	}
	guests[3].ask(epoch, guests[3].bye())
	s.ConnClosed(epoch, guests[5].addr.Conn)
	listener.only(listener.ask(epoch, listener.keepAlive()), wire.TypeAlive)
	guests[4].only(guests[4].ask(epoch, guests[4].keepAlive()), wire.TypeAlive)
	listener.ask(epoch, listener.bye())
	if to, ok := other.found(epoch, listener, RelayID{3}); ok {
		t.Errorf("a guest is found at %v", to)
	}
	if st := s.Stats(); st.Peers != 19 || st.Relays != 18 {
		t.Errorf("%d registrations, %d relays", st.Peers, st.Relays)
	}
}

// From the same endpoint a guest comes back to the same place, without another
// key agreement, and its relays go on.
func TestGuestRegistersAgain(t *testing.T) {
	s := testServer(ServerConfig{})
	g, other := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))
	other.registerAs(epoch, 0)
	for range 10 {
		g.registerAs(epoch, wire.Guest)
		if got := g.connect(epoch, other, relayID, PacketRelay); got != wire.StatusOK {
			t.Fatal(got)
		}
	}
	if st := s.Stats(); st.Peers != 2 || st.KeyAgreements != 2 || st.Relays != 1 {
		t.Errorf("%+v", st)
	}
}

// A guest begins to listen, stops, and begins again: one registration all the
// time, whose relays go on, found when it should be.
func TestGuestBecomesListener(t *testing.T) {
	for _, conn := range []uint64{0, 9} {
		s := testServer(ServerConfig{})
		p, other := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))
		p.addr.Conn = conn
		other.registerAs(epoch, 0)
		p.registerAs(epoch, wire.Guest)
		p.connect(epoch, other, relayID, StreamRelay)
		for n, flags := range []wire.Flags{0, wire.Guest, 0, wire.Guest} {
			p.registerAs(epoch, flags)
			if _, ok := other.found(epoch, p, RelayID{2, byte(n)}); ok != (flags == 0) {
				t.Errorf("flags %d: found %v", flags, ok)
			}
			if got := other.ask(epoch, other.signal(relayID, nil)); len(got) != 1 || got[0].to != p.addr {
				t.Errorf("flags %d: the relay is over", flags)
			}
			if st := s.Stats(); st.Peers != 2 || st.KeyAgreements != 2 {
				t.Fatalf("flags %d: %+v", flags, st)
			}
		}
		if conn != 0 {
			s.ConnClosed(epoch, conn)
		} else {
			p.ask(epoch, p.bye())
		}
		if st := s.Stats(); st.Peers != 1 || st.Relays != 0 || len(s.conns) != 0 {
			t.Errorf("left: %+v, %d connections", st, len(s.conns))
		}
	}
}

// Whatever a guest's REGISTER is replayed to, and whatever it was at the time,
// its endpoint's registration stays what it is; after BYE it stays away.
func TestGuestReplays(t *testing.T) {
	s := testServer(ServerConfig{})
	p := newPuppet(t, s, 1, udp("192.0.2.1:1"))
	var said [][]byte
	for _, flags := range []wire.Flags{wire.Guest, 0, wire.Guest, 0} {
		said = append(said, p.registerAs(epoch, flags))
	}
	was := *s.peers.at(0)
	elsewhere := udp("203.0.113.9:9")
	for n, b := range said {
		if got := drain(s, epoch, elsewhere, b); len(got) != 0 {
			t.Errorf("REGISTER %d from elsewhere: %v", n, types(got))
		}
		p.ask(epoch, b)
	}
	if is := *s.peers.at(0); is != was || s.Stats().Peers != 1 {
		t.Errorf("%+v became %+v", was, is)
	}
	p.ask(epoch, p.bye())
	for n, b := range said {
		p.only(p.ask(epoch, b), wire.TypeRefused)
		if s.Stats().Peers != 0 {
			t.Fatalf("REGISTER %d comes back after BYE", n)
		}
	}
	p.registerAs(epoch, wire.Guest)
}

// Guests of one key have no more places than others from one address.
func TestGuestsAreBounded(t *testing.T) {
	s := testServer(ServerConfig{PeersPerAddress: 10})
	p := newPuppet(t, s, 1, Addr{})
	in := 0
	for n := range 30 {
		g := p.beside(udp(fmt.Sprintf("192.0.2.1:%d", 1+n)))
		got := g.ask(epoch, g.registerFlags(epoch, wire.Guest))
		if wire.Type(got[0].b[2]) == wire.TypeRegistered {
			in++
		}
	}
	if in != 10 || s.Stats().Peers != 10 {
		t.Errorf("%d guests from one address", in)
	}
}

// A guest begins to listen while another process is found: it is found instead,
// and the other one, with its relays, is a guest.
func TestGuestDemotesListener(t *testing.T) {
	s := testServer(ServerConfig{})
	first, other := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))
	first.registerAs(epoch, 0)
	other.registerAs(epoch, 0)
	first.connect(epoch, other, relayID, PacketRelay)
	second := first.beside(udp("192.0.2.3:3"))
	second.registerAs(epoch, wire.Guest)
	second.registerAs(epoch, 0)
	if to, ok := other.found(epoch, first, RelayID{2}); !ok || to != second.addr {
		t.Errorf("the request goes to %v", to)
	}
	told, err := wire.ParseDisplaced(first.only(first.ask(epoch, first.keepAlive()), wire.TypeDisplaced))
	if err != nil || told.Tx != first.tx || told.Sequence == 0 {
		t.Errorf("%+v, %v", told, err)
	}
	if got := other.ask(epoch, other.signal(relayID, nil)); len(got) != 1 || got[0].to != first.addr {
		t.Error("the relay is over")
	}
	second.ask(epoch, second.bye())
	told, _ = wire.ParseDisplaced(first.only(first.ask(epoch, first.keepAlive()), wire.TypeDisplaced))
	if told.Sequence != 0 {
		t.Error("the place is not free")
	}
}

// DISPLACED is for who has the key: anybody else with the handle hears WHO.
func TestDisplacedIsForTheKey(t *testing.T) {
	s := testServer(ServerConfig{})
	first, evil := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 66, udp("203.0.113.6:6"))
	first.registerAs(epoch, 0)
	second := first.beside(udp("192.0.2.3:3"))
	second.registerAs(epoch, 0)
	first.only(first.ask(epoch, first.keepAlive()), wire.TypeDisplaced)
	evil.handle = first.handle
	evil.only(evil.ask(epoch, evil.keepAlive()), wire.TypeWho)
	second.only(second.ask(epoch, second.keepAlive()), wire.TypeAlive)
	second.ask(epoch, second.bye())
	first.only(first.ask(epoch, first.keepAlive()), wire.TypeWho)
}

// Two processes listen with one key: the later one is found, the earlier one is
// told once, goes on asking as a guest, and takes the place when it is free.
// Nobody displaces anybody back, whatever gets lost.
func TestTwoListeners(t *testing.T) {
	for n := range uint64(20) {
		w := newWorld(t, n, ServerConfig{})
		if n > 0 {
			w.loss, w.duplicate, w.jitter = 0.1, 0.1, 50*time.Millisecond
		}
		first := w.node("first", "192.0.2.1:1")
		w.ready()
		second := w.node("second", "192.0.2.2:2")
		second.key, second.id = first.key, first.id
		second.Client.cfg.Key, second.keyed = first.key, false
		second.agree(w.server.id)
		if n%2 == 1 {
			second.SetGuest(w.now, true)
		}
		second.Start(w.now)
		w.run(30*time.Second, second.registered)
		second.SetGuest(w.now, false)
		caller := w.node("caller", "192.0.2.3:3")
		caller.Start(w.now)
		ask := func(id RelayID, want *node) {
			t.Helper()
			caller.Connect(w.now, first.key.ID(), id, PacketRelay, nil)
			if !w.run(30*time.Second, func() bool { m, ok := last[Requested](want); return ok && m.Relay == id }) {
				t.Fatalf("seed %d: %s is not found\n%v", n, want.name, w.trace)
			}
			caller.StopConnect(id)
		}
		w.run(5*time.Minute, nil)
		ask(RelayID{1}, second)
		if got := count[Displaced](first); got != 1 || count[Displaced](second) != 0 {
			t.Errorf("seed %d: %d and %d told", n, got, count[Displaced](second))
		}
		if m, _ := last[Registered](first); !m.Guest || !first.registered() {
			t.Errorf("seed %d: the first one is %+v", n, m)
		}
		first.Connect(w.now, caller.key.ID(), RelayID{2}, PacketRelay, nil)
		if !w.run(10*time.Second, func() bool { m, ok := last[Connected](first); return ok && m.Status == 0 }) {
			t.Errorf("seed %d: who is displaced cannot ask", n)
		}
		first.StopConnect(RelayID{2})
		if n == 0 {
			w.restart() // of the server: the roles stay
			w.run(5*time.Minute, nil)
			ask(RelayID{3}, second)
			if count[Displaced](first) != 1 || count[Displaced](second) != 0 {
				t.Error("a restart of the server displaces somebody")
			}
		}
		second.Bye(w.now)
		w.run(2*time.Minute, nil)
		ask(RelayID{4}, first)
		if m, _ := last[Registered](first); m.Guest {
			t.Errorf("seed %d: the first one is still a guest", n)
		}
	}
}
