package dhcp

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLeasesSurviveRestart(t *testing.T) {
	b := newBench(t, small(4))
	one := b.lease(mac(1))
	id := message{kind: request, hw: mac(2), id: "\x00two words\n", requested: addr("192.168.1.103"), server: home.Addr()}
	two := b.one(b.send(mac(2), id), ack).yours
	three := b.lease(mac(3))
	b.send(mac(3), message{kind: release, hw: mac(3), client: three, server: home.Addr()})
	b.discover(mac(4)) // an offer is nothing to remember
	text := AppendLeases(nil, b.Leases())
	want := `bodkin leases 1
192.168.1.100 02:00:00:00:00:01 - 2026-11-22T13:00:00Z
192.168.1.101 02:00:00:00:00:03 - 2026-11-22T12:00:00Z
192.168.1.103 02:00:00:00:00:02 0074776f20776f7264730a 2026-11-22T13:00:00Z
`
	if string(text) != want {
		t.Errorf("got:\n%swant:\n%s", text, want)
	}

	restart := func(cfg ServerConfig, after time.Duration) (*bench, int) {
		leases, err := ParseLeases(text)
		if err != nil {
			t.Fatal(err)
		}
		s := newBench(t, cfg)
		s.now = b.now.Add(after)
		left := s.Restore(s.now, leases)
		return s, left
	}
	s, left := restart(small(4), time.Minute)
	if left != 0 || !reflect.DeepEqual(s.Leases(), b.Leases()) {
		t.Errorf("%d left out, %v", left, s.Leases())
	}
	s.one(s.reboot(mac(1), one), ack)
	s.one(s.renew(mac(3), three), ack)
	id.server = netip.Addr{}
	s.one(s.send(mac(2), id), ack)
	if a := s.lease(mac(4)); a == one || a == two || a == three {
		t.Errorf("%v is another's", a)
	}
	s.one(s.renew(mac(5), one), nak)
	s.said()
	// Whoever got a lease before the restart may release it after.
	s.send(mac(1), message{kind: release, hw: mac(1), client: one, server: home.Addr()})
	s.wantSaid("released 192.168.1.100 01 -")

	// The restart took longer than the leases.
	s, _ = restart(small(4), 2*time.Hour)
	if _, timer := s.NextTimeout(); timer {
		t.Error("expired leases have timers")
	}
	s.lease(mac(7)) // .102, which was nobody's
	if a := s.lease(mac(8)); a != three {
		t.Errorf("%v before %v, which was free first", a, three)
	}
	s.one(s.renew(mac(1), one), ack)

	// A restart of the same server.
	b.discover(mac(9))
	before := b.Leases()
	b.Reset(b.now)
	b.book.check(t)
	if !reflect.DeepEqual(b.Leases(), before) || b.book.queues[offered].n != 0 {
		t.Errorf("%v", b.Leases())
	}
	b.one(b.renew(mac(1), one), ack)

	// The configuration has changed.
	if s, left = restart(small(1), 0); left != 2 || len(s.Leases()) != 1 {
		t.Errorf("%d left out, %v", left, s.Leases())
	}
}

func TestAutomaticLeasesSurviveRestart(t *testing.T) {
	cfg := small(4)
	cfg.Automatic = true
	b := newBench(t, cfg)
	a := b.lease(mac(1))
	leases, err := ParseLeases(AppendLeases(nil, b.Leases()))
	if err != nil || len(leases) != 1 || !leases[0].Until.IsZero() {
		t.Fatalf("%v %v", leases, err)
	}
	s := newBench(t, cfg)
	s.Restore(s.now, append(leases, leases...))
	s.wait(10000 * time.Hour)
	s.one(s.reboot(mac(1), a), ack)
}

// Of what is more than there is room for, or contradicts itself, the latest
// counts.
func TestRestoreChooses(t *testing.T) {
	cfg := small(10)
	cfg.MaxLeases = 3
	b := newBench(t, cfg)
	lease := func(last string, n int, until time.Duration) Lease {
		return Lease{Addr: addr("192.168.1." + last), Client: mac(n), Until: b.now.Add(until)}
	}
	left := b.Restore(b.now, []Lease{
		lease("101", 1, -3*time.Hour), lease("102", 2, -2*time.Hour), lease("103", 3, -time.Hour), lease("104", 4, time.Hour),
		lease("104", 5, time.Minute), lease("105", 4, time.Minute), {Addr: addr("192.168.1.106"), Client: mac(6)},
	})
	var got []string
	for _, l := range b.Leases() {
		got = append(got, l.Addr.String())
	}
	if left != 4 || !slices.Equal(got, []string{"192.168.1.103", "192.168.1.104", "192.168.1.106"}) {
		t.Errorf("%d left out, %v", left, got)
	}
	b.book.check(t)
}

func TestBadLeasesAreRefused(t *testing.T) {
	const good = leasesHeader + "\n192.168.1.100 02:00:00:00:00:01 - never\n"
	for _, c := range []struct{ text, want string }{
		{"", "empty"},
		{"other file\n", "first line"},
		{good + "\n", "line 3: 0 fields"},
		{good + "192.168.1.100\n", "line 3: 1 fields"},
		{good + "::1 02:00:00:00:00:01 - never", `line 3: "::1"`},
		{good + "192.168.1.100 02:00 - never", "line 3: dhcp"},
		{good + "192.168.1.100 02:00:00:00:00:01 xyz never", `"xyz" is no client`},
		{good + "192.168.1.100 02:00:00:00:00:01 - soon", `"soon" is no time`},
		{good + "192.168.1.100 02:00:00:00:00:01 - 0001-01-01T00:00:00Z", "no time"},
	} {
		if _, err := ParseLeases([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	if all, err := ParseLeases([]byte(good)); err != nil || len(all) != 1 {
		t.Errorf("%v %v", all, err)
	}
}
