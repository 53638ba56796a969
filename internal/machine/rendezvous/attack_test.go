package rendezvous

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

func size(all []sent) (n int) {
	for _, s := range all {
		n += len(s.b)
	}
	return n
}

// Whatever comes from a source that proved nothing, all that is said because
// of it is no longer than it was, and goes back where it came from. A million
// such datagrams leave nothing behind.
func TestNeverLouder(t *testing.T) {
	s := testServer(ServerConfig{MaxPeers: 256, MaxRelays: 256})
	r := rand.New(rand.NewPCG(3, 4))
	now := epoch
	honest := [2]*puppet{newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))}
	for _, p := range honest {
		p.register(now)
	}
	if honest[0].connect(now, honest[1], relayID, Direct|PacketRelay) != wire.StatusOK {
		t.Fatal("not connected")
	}
	// What a stranger may have seen or can make: one of every type.
	stranger := newPuppet(t, s, 3, Addr{})
	stranger.handle = honest[0].handle
	samples := [][]byte{
		wire.Hello{Tx: 1, Client: stranger.id}.Append(nil),
		wire.Hello{Tx: 1, Client: honest[0].id}.Append(nil),
		wire.Who{Handle: honest[0].handle}.Append(nil),
		honest[0].registerWith(honest[0].cookie(now), honest[0].next()),
		stranger.registerWith(wire.CookieBytes{}, 5),
		honest[0].keepAlive(),
		honest[0].connectTo(honest[1], relayID, Direct),
		honest[0].signal(relayID, make([]byte, 50)),
		honest[0].bye(),
		stranger.keepAlive(),
		stranger.connectTo(honest[1], RelayID{4}, Direct),
		stranger.signal(relayID, nil),
	}
	before := heap()
	answered := 0
	total := 1_000_000
	if testing.Short() {
		total /= 10
	}
	for n := range total {
		now = now.Add(20 * time.Microsecond)
		var b []byte
		switch n % 4 {
		case 0:
			b = make([]byte, r.IntN(300))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			if len(b) > 4 {
				b[0], b[1], b[2], b[3] = wire.First, wire.Version, byte(r.IntN(wire.Types+1)), 0
			}
		case 1:
			b = samples[r.IntN(len(samples))]
		default:
			b = append([]byte(nil), samples[r.IntN(len(samples))]...)
			for range r.IntN(4) {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
			if r.IntN(8) == 0 {
				b = b[:r.IntN(len(b)+1)]
			}
		}
		from := Addr{Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(r.Uint32())}), uint16(r.Uint32()|1))}
		if r.IntN(16) == 0 {
			from.Conn = r.Uint64()
		}
		all := drain(s, now, from, b)
		if got := size(all); got > len(b) {
			t.Fatalf("%x: %d bytes were answered with %d", b, len(b), got)
		}
		for _, o := range all {
			answered++
			if o.to != from {
				t.Fatalf("%x: something is sent to %v", b, o.to)
			}
		}
	}
	if answered == 0 {
		t.Error("nothing was ever answered")
	}
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("%d bytes are left behind", grown)
	}
	if st := s.Stats(); st.Peers != 2 || st.Relays != 1 {
		t.Errorf("%d peers, %d relays", st.Peers, st.Relays)
	}
	for _, p := range honest {
		p.only(p.ask(now, p.keepAlive()), wire.TypeAlive)
	}
	runtime.KeepAlive(s)
}

// Everything that a peer ever sent, again: from his own address and from
// another, at once and later. Nothing happens to anybody.
func TestReplays(t *testing.T) {
	for _, later := range []time.Duration{0, 10 * time.Second, 2 * time.Minute} {
		s := testServer(ServerConfig{Lifetime: 10 * time.Minute})
		a, b := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))
		b.register(epoch)
		var said [][]byte
		say := func(m []byte) {
			said = append(said, m)
			a.ask(epoch, m)
		}
		for range 2 {
			say(a.registerWith(a.cookie(epoch), a.next()))
			zero := *a
			zero.handle = Handle{}
			say(zero.connectTo(b, relayID, Direct|StreamRelay))
			a.tx = zero.tx
			is := s.byID(a.id)
			a.handle = handleOf(is.i, is.p.generation)
			say(a.signal(relayID, []byte("x")))
			say(a.keepAlive())
		}
		now := epoch.Add(later)
		was := *s.peers.at(1)
		for _, from := range []Addr{a.addr, udp("203.0.113.9:9"), {a.addr.Endpoint, 5}} {
			for n, m := range said {
				for _, o := range drain(s, now, from, m) {
					if o.to == b.addr {
						t.Errorf("message %d, again after %v from %v: %v to B", n, later, from, types([]sent{o}))
					}
				}
			}
		}
		if is := *s.peers.at(1); is != was {
			t.Errorf("after %v: %+v became %+v", later, was, is)
		}
		a.only(a.ask(now, a.keepAlive()), wire.TypeAlive)
	}
}

// A signal that overtakes its own REGISTER, and comes again behind it.
func TestOvertakenRegister(t *testing.T) {
	s := testServer(ServerConfig{})
	a, b := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))
	a.register(epoch)
	b.register(epoch)
	a.connect(epoch, b, relayID, PacketRelay)
	register := a.registerWith(a.cookie(epoch), a.next())
	a.handle = Handle{}
	signal := a.signal(relayID, []byte("x"))
	if got := a.ask(epoch, signal); len(got) != 1 || got[0].to != b.addr {
		t.Fatalf("signal under the old registration: %v", types(got))
	}
	a.only(a.ask(epoch, register), wire.TypeRegistered)
	if got := a.ask(epoch, signal); len(got) != 0 {
		t.Errorf("the same signal under the new one: %v", types(got))
	}
}

func TestForgedRegistrations(t *testing.T) {
	s := testServer(ServerConfig{})
	a := newPuppet(t, s, 1, udp("192.0.2.1:1"))
	evil := newPuppet(t, s, 66, udp("203.0.113.6:6"))
	a.register(epoch)
	silent := func(what string, from Addr, b []byte) {
		t.Helper()
		if got := drain(s, epoch, from, b); len(got) != 0 {
			t.Errorf("%s: %v", what, types(got))
		}
	}
	// Evil's key, A's id.
	as := *evil
	as.id = a.id
	for _, known := range []bool{true, false} {
		silent(fmt.Sprintf("another's id, known %v", known), evil.addr, as.registerWith(as.cookie(epoch), 1<<60))
		as.id = newPuppet(t, s, 67, Addr{}).id
	}
	as.id[0] ^= 1 // hardly a point of the curve any more; never this key's
	silent("nobody's id", evil.addr, as.registerWith(as.cookie(epoch), 1))

	for _, c := range []struct {
		what   string
		cookie wire.CookieBytes
	}{
		{"another's cookie", a.cookie(epoch)},
		{"own cookie of another address", func() wire.CookieBytes {
			moved := *evil
			moved.addr = udp("203.0.113.6:7")
			return moved.cookie(epoch)
		}()},
		{"own cookie of a connection", func() wire.CookieBytes {
			moved := *evil
			moved.addr.Conn = 3
			return moved.cookie(epoch)
		}()},
		{"zero cookie", wire.CookieBytes{}},
		{"cookie of the future", s.cookie(epoch.UnixMilli()+1, evil.addr, evil.id)},
		{"old cookie", s.cookie(epoch.UnixMilli()-30_001, evil.addr, evil.id)},
	} {
		silent(c.what, evil.addr, evil.registerWith(c.cookie, 1))
	}
	if n := s.Stats().KeyAgreements; n != 3 {
		t.Errorf("%d key agreements, one for A and two for good cookies", n)
	}
	evil.only(evil.ask(epoch, evil.registerWith(s.cookie(epoch.UnixMilli()-30_000, evil.addr, evil.id), 1)), wire.TypeRegistered)

	// A registration needs a larger sequence than the last.
	c := a.cookie(epoch)
	m, _ := wire.ParseRefused(a.only(a.ask(epoch, a.registerWith(c, a.tx-1)), wire.TypeRefused))
	if m.Reason != wire.ReasonSequence || m.Sequence != a.tx {
		t.Errorf("refused with %+v", m)
	}
	a.only(a.ask(epoch, a.keepAlive()), wire.TypeAlive)
}

// Another's handle, known to a stranger and to a registered peer.
func TestStolenHandle(t *testing.T) {
	s := testServer(ServerConfig{})
	a, b := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))
	evil := newPuppet(t, s, 66, udp("203.0.113.6:6"))
	for _, p := range []*puppet{a, b, evil} {
		p.register(epoch)
	}
	a.connect(epoch, b, relayID, StreamRelay|PacketRelay)
	evil.handle = a.handle
	was := *s.peers.at(0)
	for _, m := range [][]byte{evil.keepAlive(), evil.bye(), evil.signal(relayID, nil), evil.connectTo(b, relayID, Direct)} {
		who, err := wire.ParseWho(evil.only(evil.ask(epoch, m), wire.TypeWho))
		if err != nil || who.Handle != a.handle {
			t.Errorf("%+v, %v", who, err)
		}
		// With A's source address too: nothing, not even WHO.
		if got := a.ask(epoch, m); len(got) != 0 {
			t.Errorf("from A's address: %v", types(got))
		}
	}
	// A's own keep-alive, from elsewhere.
	m := a.keepAlive()
	evil.only(evil.ask(epoch, m), wire.TypeWho)
	if is := *s.peers.at(0); is != was {
		t.Errorf("%+v became %+v", was, is)
	}
	a.only(a.ask(epoch, m), wire.TypeAlive)
	if evil.relay(epoch, relayID, 100) {
		t.Error("a stranger's packet is relayed")
	}
}

// The table is full: who is in stays, who is new is told, and gets in when
// somebody leaves.
func TestTableFull(t *testing.T) {
	s := testServer(ServerConfig{MaxPeers: 4})
	var in []*puppet
	for n := range 4 {
		p := newPuppet(t, s, uint64(n+1), udp(fmt.Sprintf("192.0.2.%d:1", n+1)))
		p.register(epoch)
		in = append(in, p)
	}
	stranger := newPuppet(t, s, 66, udp("203.0.113.6:6"))
	m, err := wire.ParseRefused(stranger.only(stranger.enrol(epoch), wire.TypeRefused))
	if err != nil || m.Reason != wire.ReasonFull {
		t.Errorf("%+v, %v", m, err)
	}
	for _, p := range in {
		p.only(p.ask(epoch, p.keepAlive()), wire.TypeAlive)
		p.register(epoch) // moves are still possible
	}
	in[0].ask(epoch, in[0].bye())
	stranger.register(epoch)
	if n := s.Stats().Peers; n != 4 {
		t.Errorf("%d peers", n)
	}
}

// One address floods with HELLO and REGISTER; the rest of the world registers
// and goes on, and one address cannot take all places.
func TestFloodFromOneAddress(t *testing.T) {
	s := testServer(ServerConfig{MaxPeers: 1024, HelloRate: Rate{10, 50}, RegisterRate: Rate{10, 50}, PeersPerAddress: 40})
	now := epoch
	var honest []*puppet
	for n := range 20 {
		honest = append(honest, newPuppet(t, s, uint64(n+1), udp(fmt.Sprintf("192.0.2.%d:1", n+1))))
	}
	honest[0].register(now)
	cookies, in := 0, 0
	for n := range 2000 {
		now = now.Add(time.Millisecond)
		evil := newPuppet(t, s, uint64(n+1000), Addr{Endpoint: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.6"), uint16(n+1))})
		cookies += len(evil.ask(now, wire.Hello{Tx: 1, Client: evil.id}.Append(nil)))
		for _, o := range evil.enrol(now) {
			if wire.Type(o.b[2]) == wire.TypeRegistered {
				in++
			}
		}
		if n%100 == 0 {
			honest[n/100].register(now)
			honest[0].only(honest[0].ask(now, honest[0].keepAlive()), wire.TypeAlive)
		}
	}
	if cookies < 50 || cookies > 71 {
		t.Errorf("%d cookies for one address in 2 s", cookies)
	}
	if in != 40 {
		t.Errorf("%d registrations from one address", in)
	}
	if n := s.Stats().KeyAgreements; n > 20+71 {
		t.Errorf("%d key agreements", n)
	}
	// An IPv6 /64 is one address; the next one is another.
	for n := range 100 {
		a := netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n+1))
		evil := newPuppet(t, s, uint64(n+5000), Addr{Endpoint: netip.AddrPortFrom(a, 7)})
		if got := len(evil.ask(now, wire.Hello{Client: evil.id}.Append(nil))); got != 1 && n < 50 || got != 0 && n >= 50 {
			t.Fatalf("HELLO %d of the /64: %d answers", n, got)
		}
	}
	newPuppet(t, s, 6000, udp("[2001:db8:0:1::1]:7")).register(now)
}

// All first registrations together cost a bounded number of key agreements,
// and whoever is registered does not notice.
func TestKeyAgreementsBounded(t *testing.T) {
	s := testServer(ServerConfig{NewKeyRate: Rate{10, 20}})
	a := newPuppet(t, s, 1, udp("192.0.2.1:1"))
	a.register(epoch)
	for n := range 200 {
		p := newPuppet(t, s, uint64(n+100), Addr{Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n), 1}), 1)})
		p.enrol(epoch.Add(time.Second))
	}
	if n := s.Stats().KeyAgreements; n != 21 {
		t.Errorf("%d key agreements", n)
	}
	a.register(epoch.Add(time.Second))
}

// Nobody is called more often than the rates say, by one peer or by many.
func TestConnectRates(t *testing.T) {
	s := testServer(ServerConfig{ConnectRate: Rate{10, 40}, PairRate: Rate{1, 10}, RequestRate: Rate{10, 25}, RelaysPerKey: 8, Lifetime: 10 * time.Minute})
	target := newPuppet(t, s, 1, udp("192.0.2.1:1"))
	target.register(epoch)
	count := map[Status]int{}
	for n := range 4 {
		p := newPuppet(t, s, uint64(n+2), udp(fmt.Sprintf("192.0.2.2:%d", n+1)))
		p.register(epoch)
		for range 50 {
			count[p.connect(epoch, target, RelayID{byte(n + 1)}, PacketRelay)]++
		}
	}
	if count[wire.StatusOK] != 25 || count[wire.StatusRateLimited] != 175 {
		t.Errorf("%v", count)
	}
	// One pair: 10, and one more each second. Another registration, or
	// another BYE, changes nothing.
	now := epoch.Add(time.Minute)
	p := newPuppet(t, s, 9, udp("192.0.2.9:9"))
	clear(count)
	for n := range 30 {
		if n%3 == 0 {
			p.ask(now, p.bye())
		}
		p.register(now)
		count[p.connect(now, target, relayID, PacketRelay)]++
	}
	if count[wire.StatusOK] != 10 || p.connect(now.Add(time.Second), target, relayID, PacketRelay) != wire.StatusOK {
		t.Errorf("%v", count)
	}
	// Relays that one peer asks for.
	now = now.Add(time.Minute)
	p = newPuppet(t, s, 10, udp("192.0.2.10:9"))
	p.register(now)
	for n := range 10 {
		want := wire.StatusOK
		if n >= 8 {
			want = wire.StatusFull
		}
		if got := p.connect(now, target, RelayID{7, byte(n)}, PacketRelay); got != want {
			t.Errorf("relay %d: %v", n, got)
		}
	}
	// Signals.
	target.register(now)
	target.ask(now, target.signal(RelayID{7, 0}, nil))
	got := 0
	for range 300 {
		got += len(p.ask(now, p.signal(RelayID{7, 0}, nil)))
	}
	if got != 200 {
		t.Errorf("%d signals at once", got)
	}
}

func TestRelayRules(t *testing.T) {
	s := testServer(ServerConfig{MaxRelays: 3})
	now := epoch
	a, b, c := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2")), newPuppet(t, s, 3, udp("192.0.2.3:3"))
	for _, p := range []*puppet{a, b, c} {
		p.register(now)
	}
	status := func(p, target *puppet, id byte, kinds Kinds, want Status) {
		t.Helper()
		if got := p.connect(now, target, RelayID{id}, kinds); got != want {
			t.Errorf("relay %d: %v, want %v", id, got, want)
		}
	}
	status(a, b, 1, PacketRelay, wire.StatusOK)
	status(a, b, 1, PacketRelay, wire.StatusOK)
	status(b, a, 1, PacketRelay, wire.StatusBadRelay)
	status(c, a, 1, PacketRelay, wire.StatusBadRelay)
	status(a, c, 1, PacketRelay, wire.StatusBadRelay)
	status(a, a, 2, PacketRelay, wire.StatusBadRelay)
	status(a, b, 2, Direct, wire.StatusOK)
	status(a, c, 3, PacketRelay, wire.StatusOK)
	status(a, c, 4, PacketRelay, wire.StatusFull)
	if a.relay(now, RelayID{2}, 100) || b.relay(now, RelayID{2}, 100) {
		t.Error("a connection that asked for no packet relay has one")
	}
	if c.relay(now, RelayID{1}, 100) {
		t.Error("the third party is relayed")
	}
	// 32 packets before the target agrees.
	for n := range 40 {
		if got := a.relay(now, RelayID{1}, 100); got != (n < 32) {
			t.Fatalf("packet %d: %v", n, got)
		}
	}
	// 48 KiB before the target agrees.
	for n := range 40 {
		if got := a.relay(now, RelayID{3}, 2048); got != (n < 24) {
			t.Fatalf("2 KiB packet %d: %v", n, got)
		}
	}
	if !b.relay(now, RelayID{1}, 10) || !a.relay(now, RelayID{1}, 9000) {
		t.Error("not relayed after the target's packet")
	}
	if got := c.ask(now, c.signal(RelayID{3}, nil)); len(got) != 1 || !a.relay(now, RelayID{3}, 9000) {
		t.Error("not relayed after the target's signal")
	}
	// Five minutes without a packet.
	step := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(10 * time.Second)
			s.HandleTimeout(now)
			for _, p := range []*puppet{a, b, c} {
				p.only(p.ask(now, p.keepAlive()), wire.TypeAlive)
			}
		}
	}
	step(20 * time.Second)
	if n := s.Stats().Relays; n != 2 {
		t.Errorf("%d relays, two were agreed to", n)
	}
	step(4 * time.Minute)
	if !a.relay(now, RelayID{1}, 100) {
		t.Error("relay 1 ended early")
	}
	step(4 * time.Minute)
	if !b.relay(now, RelayID{1}, 100) || a.relay(now, RelayID{3}, 100) || s.Stats().Relays != 1 {
		t.Error("relay 1 is idle for 4 minutes, relay 3 for 8")
	}
	// A peer that ends takes them along, and frees what it asked for.
	b.ask(now, b.bye())
	if a.relay(now, RelayID{1}, 100) || s.Stats().Relays != 0 || s.peers.at(0).asked != 0 {
		t.Error("the relay outlives its peer")
	}
}

// What one key asked for shares its volume, in both directions; others have
// their own.
func TestRelayVolume(t *testing.T) {
	s := testServer(ServerConfig{RelayRate: Rate{1000, 5000}})
	a, b := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))
	a.register(epoch)
	b.register(epoch)
	a.connect(epoch, b, RelayID{1}, PacketRelay)
	a.connect(epoch, b, RelayID{2}, PacketRelay)
	b.connect(epoch, a, RelayID{3}, PacketRelay)
	for n := range 12 {
		p := []*puppet{b, a}[n%2]
		if got := p.relay(epoch, RelayID{byte(1 + n/2%2)}, 500); got != (n < 10) {
			t.Errorf("packet %d: %v", n, got)
		}
	}
	if !a.relay(epoch, RelayID{3}, 500) {
		t.Error("B's relay pays for A's")
	}
	for n := range 3 {
		if got := a.relay(epoch.Add(time.Second), RelayID{1}, 500); got != (n < 2) {
			t.Errorf("packet %d, a second later: %v", n, got)
		}
	}
}

// Registrations end when they said they would, keep-alives or not, a bounded
// number of them per call.
func TestExpiry(t *testing.T) {
	const n = 5000
	s := testServer(ServerConfig{MaxPeers: n})
	enrol(s, epoch, n)
	p := newPuppet(t, s, 1, udp("192.0.2.1:1"))
	for {
		if _, ok := s.PollSlot(); !ok {
			break
		}
	}
	if at, ok := s.NextTimeout(); !ok || at != epoch.Add(60*time.Second) {
		t.Fatalf("next at %v", at.Sub(epoch))
	}
	s.HandleTimeout(epoch.Add(60*time.Second - 1))
	if s.Stats().Peers != n {
		t.Fatal("ended early")
	}
	now := epoch.Add(60 * time.Second)
	late := wire.KeepAlive{Tx: 9, Handle: handleOf(7, s.peers.at(7).generation)}.Append(nil)
	late = wire.NewMAC().Append(late, 0, &s.peers.at(7).key)
	if got := drain(s, now, benchAddr(7), late); len(got) != 1 || wire.Type(got[0].b[2]) != wire.TypeWho {
		t.Errorf("who is over but not yet swept is answered %v", types(got))
	}
	calls := 0
	for s.Stats().Peers > 0 {
		was := s.Stats().Peers
		if at, ok := s.NextTimeout(); !ok || at.After(now) {
			t.Fatal("not all ended")
		}
		s.HandleTimeout(now)
		if done := was - s.Stats().Peers; done > sweep {
			t.Errorf("%d in one call", done)
		}
		calls++
	}
	if calls != (n+sweep-1)/sweep {
		t.Errorf("%d calls", calls)
	}
	if at, ok := s.NextTimeout(); ok {
		t.Errorf("next at %v, and nobody is there", at)
	}
	freed := 0
	for slot, ok := s.PollSlot(); ok; slot, ok = s.PollSlot() {
		if slot.Endpoint.IsValid() || slot.Handle != (Handle{}) {
			t.Fatalf("slot %+v", slot)
		}
		freed++
	}
	if freed != n {
		t.Errorf("%d slots freed", freed)
	}
	p.register(now)
	if len(s.peers.free) != n-1 {
		t.Error("the slots are not used again")
	}
	for k := range s.crowd {
		if s.crowd[k] > 1 {
			t.Fatal("the places of an address are not free again")
		}
	}
}

// Who does not poll loses answers, not memory.
func TestBacklog(t *testing.T) {
	s := testServer(ServerConfig{HelloRate: Rate{1e6, 1e6}})
	m := wire.Hello{}.Append(nil)
	for range 3 * backlog {
		s.HandlePacket(epoch, udp("192.0.2.1:1"), m)
	}
	if len(s.queue) != backlog || s.Stats().Dropped[DropBacklog] != 2*backlog || len(s.arena) > backlog*wire.MaxLen {
		t.Errorf("%d wait, %+v", len(s.queue), s.Stats())
	}
}
