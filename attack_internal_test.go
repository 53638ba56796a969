package bodkin

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"
)

// An observer that does not return costs events, not memory: the oldest go.
func TestStuckObserver(t *testing.T) {
	stuck, first := make(chan struct{}), make(chan struct{}, 1)
	var got []int64
	n := &Node{events: newEvents(func(e Event) {
		notify(first)
		<-stuck
		got = append(got, e.BytesIn)
	})}
	n.emit(Event{})
	<-first
	const all = 100_000
	for i := range int64(all) {
		n.emit(Event{BytesIn: i + 1})
	}
	if l := len(n.events.queue); l > maxEvents {
		t.Errorf("%d events wait", l)
	}
	close(stuck)
	n.events.close()
	if got[len(got)-1] != all {
		t.Errorf("the last event is %d, want %d", got[len(got)-1], all)
	}
	for i := range len(got) - 1 {
		if got[i] >= got[i+1] {
			t.Fatalf("%d before %d", got[i], got[i+1])
		}
	}
}

// A session whose peer said HELLO and left before anyone looked is over soon.
func TestGoneBeforeSeen(t *testing.T) {
	cfg := Config{PeerTimeout: time.Second, ServerTimeout: time.Second}
	n := &Node{cfg: cfg, ctx: t.Context(), sessions: make(map[sessionID]*session)}
	c := newControl(n)
	n.ctl = c
	now := time.Now()
	c.udp = &uplink{up: true, heard: now.Add(time.Millisecond)}
	w := c.watchSession(now, n.newSession(ID{1}, sessionID{1}, false))
	w.update(now)
	nothing := func(time.Time) {}
	if err := c.lost(now, w, nothing); err != nil {
		t.Errorf("at once: %v", err)
	}
	if err := c.lost(now.Add(time.Minute), w, nothing); !errors.Is(err, PeerLost) {
		t.Errorf("after a minute: %v", err)
	}
}

// What is remembered is as much as it says, and no more.
func TestRemembered(t *testing.T) {
	var r remembered[attemptID]
	id := func(i int) (a attemptID) {
		binary.BigEndian.PutUint64(a[:], uint64(i))
		return a
	}
	for i := range 3 * maxRemembered {
		if r.has(id(i)) || !r.add(id(i)) {
			t.Fatalf("%d was not there before", i)
		}
		if r.add(id(i)) || !r.has(id(max(i-maxRemembered+1, 0))) || r.has(id(i-maxRemembered)) {
			t.Fatalf("%d is taken twice, or the oldest is not what it should be", i)
		}
	}
	if len(r.ids) > maxRemembered || len(r.ring) > maxRemembered {
		t.Errorf("%d are remembered", len(r.ids))
	}
}

// Servers' messages have a queue of their own, and only servers' get in.
func TestFloodLeavesServersRoom(t *testing.T) {
	c := newControl(&Node{ctx: context.Background()})
	server := netip.MustParseAddrPort("192.0.2.1:3478")
	stranger := netip.MustParseAddrPort("203.0.113.1:1")
	c.servers.Store(&[]netip.AddrPort{server})
	for range 10 * packetQueue {
		c.HandlePacket(stranger, []byte{0, 1})
		c.HandlePacket(stranger, []byte{4, 1, 10, 0})
	}
	c.HandlePacket(server, []byte{4, 1, 6, 0})
	if len(c.packets) != packetQueue || len(c.messages) != 1 {
		t.Errorf("%d checks and %d messages are queued", len(c.packets), len(c.messages))
	}
}

// What goes to one address is bounded, to the others it is not touched.
func TestBudget(t *testing.T) {
	var b budget
	now := time.Now()
	victim, other := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	six := func(last byte) netip.Addr {
		a := netip.MustParseAddr("2001:db8::").As16()
		a[15] = last
		return netip.AddrFrom16(a)
	}
	n, n6 := 0, 0
	for i := range 3 * maxUnproved {
		if b.take(now, victim) {
			n++
		}
		if b.take(now, six(byte(i))) {
			n6++
		}
	}
	if n > maxUnproved || n6 > maxUnproved || max(n, n6) < maxUnproved {
		t.Errorf("%d and %d packets, want %d", n, n6, maxUnproved)
	}
	if !b.take(now, other) && !b.take(now, netip.MustParseAddr("203.0.113.3")) {
		t.Error("others pay for it")
	}
	if !b.take(now.Add(61*time.Second), victim) {
		t.Error("nothing a minute later")
	}
}
