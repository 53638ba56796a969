package dhcp

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// A flood of clients that do not exist, each with a hardware address of its
// own, costs a bounded memory, and whoever is served keeps what he has.
func TestFloodOfHardwareAddresses(t *testing.T) {
	cfg := ServerConfig{Addr: netip.MustParsePrefix("10.0.0.1/8"), MaxLeases: 1000}
	b := newBench(t, cfg)
	serve := func(m message) {
		b.handle(b.now, m.hw, &m)
		for ok := true; ok; _, ok = b.Poll() {
		}
	}
	for a := range 10 {
		serve(message{kind: request, hw: mac(a), requested: addrOf(number(addr("10.0.0.2")) + uint32(a)), server: addr("10.0.0.1")})
	}
	before := heapBytes()
	for n := range 30_000 {
		hw := mac(1000 + n)
		serve(message{kind: discover, hw: hw})
		serve(message{kind: request, hw: hw, requested: addr("10.0.0.2"), server: addr("10.0.0.1")})
		serve(message{kind: request, hw: hw, client: addrOf(uint32(10<<24 | n))})
		b.wait(time.Millisecond)
	}
	if n := len(b.book.byAddr); n > 1000 {
		t.Errorf("%d records", n)
	}
	if n := len(b.book.byKey) + len(b.book.timers) + len(b.book.bySender); n > 3000 {
		t.Errorf("%d entries", n)
	}
	if grown := heapBytes() - before; grown > 2<<20 {
		t.Errorf("%d bytes more", grown)
	}
	for a := range 10 {
		if r := b.book.byKey[b.key(&message{hw: mac(a)})]; r == nil || r.state != leased {
			t.Errorf("client %d has lost its lease", a)
		}
	}
	// The flood is over; offers end soon.
	b.wait(offerFor)
	if n := b.book.queues[offered].n; n != 0 {
		t.Errorf("%d offers stand", n)
	}
}

func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Who leaves out DISCOVER gets no more than others.
func TestRequestsWithoutDiscover(t *testing.T) {
	b := newBench(t, small(100))
	n := 0
	for i := range 200 {
		for _, r := range b.send(mac(9999), message{kind: request, hw: mac(i), requested: addrOf(b.space.first + uint32(i)), server: home.Addr()}) {
			if r.kind == ack {
				n++
			}
		}
	}
	if n != perSender {
		t.Errorf("%d addresses, want %d", n, perSender)
	}
	if len(b.discover(mac(5000))) == 0 {
		t.Error("nothing is left for another")
	}
}

// One host that asks in the name of many gets no more than its share.
func TestOneSenderCannotTakeThePool(t *testing.T) {
	b := newBench(t, small(100))
	n := 0
	for i := range 200 {
		m := message{kind: discover, hw: mac(i)}
		for _, r := range b.send(mac(9999), m) {
			n++
			b.send(mac(9999), message{kind: request, hw: r.hw, requested: r.yours, server: home.Addr()})
		}
	}
	if n != perSender {
		t.Errorf("%d addresses", n)
	}
	var hoarded int
	for {
		e, ok := b.Event()
		if !ok {
			break
		}
		if e.Kind == Hoarded && e.User == mac(9999) {
			hoarded++
		}
	}
	if hoarded != 1 {
		t.Errorf("said %d times", hoarded)
	}
	b.lease(mac(5000))
	// Leases that end are no longer counted.
	b.wait(time.Hour)
	if len(b.book.bySender) != 0 {
		t.Errorf("%v", b.book.bySender)
	}
}

// Giving addresses back and asking for them again gets no more of them either.
func TestHoardingInTurns(t *testing.T) {
	b := newBench(t, small(100))
	greedy := mac(9999)
	var had []message
	for i := range 100 {
		for _, r := range b.send(greedy, message{kind: discover, hw: mac(i)}) {
			b.send(greedy, message{kind: request, hw: r.hw, requested: r.yours, server: home.Addr()})
			m := message{kind: release, hw: r.hw, client: r.yours, server: home.Addr()}
			b.send(greedy, m)
			had = append(had, m)
		}
	}
	for _, m := range had {
		b.send(greedy, message{kind: request, hw: m.hw, requested: m.client})
		b.send(greedy, message{kind: request, hw: m.hw, client: m.client})
	}
	if n := b.book.bySender[greedy]; len(had) != 100 || n != perSender {
		t.Errorf("%d addresses, after %d", n, len(had))
	}
}

// The book's parts agree with each other after anything.
func (b *book) check(t *testing.T) {
	t.Helper()
	n, held := 0, map[MAC]int{}
	for st := range b.queues {
		q, count := &b.queues[st], 0
		for r := q.head; r != nil; r = r.next {
			count++
			if int(r.state) != st || b.byAddr[r.addr] != r {
				t.Fatalf("%v is %d in queue %d", r.addr, r.state, st)
			}
			if r.held() {
				held[r.sender]++
			}
			if owned := r.held() || r.state == idle; owned != (r.key != "") || owned && b.byKey[r.key] != r {
				t.Fatalf("%v: key %q in state %d", r.addr, r.key, r.state)
			}
			if (r.at >= 0) != !r.until.IsZero() || r.at >= 0 && b.timers[r.at] != r {
				t.Fatalf("%v: timer %d, until %v", r.addr, r.at, r.until)
			}
		}
		if count != q.n {
			t.Fatalf("queue %d has %d of %d", st, count, q.n)
		}
		n += count
	}
	if n != len(b.byAddr) || len(b.byKey) > n || len(b.timers) > n {
		t.Fatalf("%d in queues, %d addresses, %d keys", n, len(b.byAddr), len(b.byKey))
	}
	if len(held) != len(b.bySender) {
		t.Fatalf("held %v, counted %v", held, b.bySender)
	}
	for m, n := range held {
		if b.bySender[m] != n {
			t.Fatalf("%v holds %d, counted %d", m, n, b.bySender[m])
		}
	}
}

// Messages at random: nobody has what another one has, and the book is in
// order after each.
func TestRandomMessages(t *testing.T) {
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		cfg := small(8)
		cfg.Manual = map[string]netip.Addr{mac(1).String(): addr("192.168.1.7"), mac(2).String(): addr("192.168.1.101")}
		cfg.Probe = seed%2 == 0
		b := newBench(t, cfg)
		some := func() netip.Addr {
			if rnd.IntN(3) == 0 {
				return netip.Addr{}
			}
			return addrOf(number(addr("192.168.1.99")) + rnd.Uint32N(10))
		}
		has := map[netip.Addr]MAC{}
		for range 3000 {
			m := message{hw: mac(rnd.IntN(12)), kind: kind(1 + rnd.IntN(8)), client: some(), requested: some()}
			if rnd.IntN(2) == 0 {
				m.server = home.Addr()
			}
			if fromServer(m.kind) {
				continue
			}
			for _, r := range b.send(mac(rnd.IntN(4)), m) {
				if r.message == nil || r.kind != ack || r.lease == 0 {
					continue
				}
				for a, who := range has {
					if who == r.hw {
						delete(has, a)
					}
				}
				if rec := b.book.byAddr[r.yours]; rec == nil || rec.state != leased || rec.hw != r.hw {
					t.Fatalf("seed %d: %v was not given to %v", seed, r.yours, r.hw)
				}
				has[r.yours] = r.hw
			}
			for a, who := range has {
				if r := b.book.byAddr[a]; r.state != leased || r.hw != who {
					delete(has, a) // released, declined or expired
				}
			}
			switch rnd.IntN(50) {
			case 0:
				b.wait(time.Duration(rnd.Int64N(int64(time.Hour))))
			case 1:
				b.Forget(b.now, mac(rnd.IntN(12)))
			case 2:
				b.HandlePacket(b.now, mac(3), echoReply(some()))
				b.replies()
			default:
				b.wait(time.Duration(rnd.Int64N(int64(time.Second))))
			}
			b.replies()
			b.book.check(t)
		}
	}
}
