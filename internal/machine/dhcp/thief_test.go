package dhcp

import (
	"slices"
	"testing"
	"time"
)

func TestThiefIsNoticed(t *testing.T) {
	b := newBench(t, small(10))
	a := b.lease(mac(1))
	b.said()
	see := func(source string, hw MAC, want ...string) {
		t.Helper()
		b.Seen(b.now, addr(source).As4(), hw)
		b.Seen(b.now, addr(source).As4(), hw)
		b.wantSaid(want...)
	}
	// Those who may.
	see(a.String(), mac(1))
	see("192.168.1.50", mac(7)) // beside the pool: somebody's fixed address
	see("10.0.0.1", mac(7))
	see("0.0.0.0", mac(7))
	see("192.168.1.101", MAC{}) // links have no hardware addresses
	// Those who may not.
	see(a.String(), mac(2), "stolen 192.168.1.100 01 02")
	see(a.String(), mac(1))
	see(a.String(), mac(2))
	see(a.String(), mac(3), "stolen 192.168.1.100 01 03")
	see("192.168.1.101", mac(2), "stolen 192.168.1.101 - 02")
	see("192.168.1.1", mac(2), "stolen 192.168.1.1 - 02")
	// It is one incident as long as it goes on.
	for range 10 {
		b.wait(50 * time.Second)
		see(a.String(), mac(2))
	}
	b.wait(quietFor)
	see(a.String(), mac(2), "stolen 192.168.1.100 01 02")
	// Who goes on after his lease has ended.
	b.wait(time.Hour)
	b.said()
	see(a.String(), mac(1), "stolen 192.168.1.100 - 01")
	b.one(b.renew(mac(1), a), ack)
	b.said()
	see(a.String(), mac(1))
	// One whose address was his until now.
	b.Forget(b.now, mac(1))
	b.wait(quietFor)
	see(a.String(), mac(1), "stolen 192.168.1.100 - 01")
}

func TestManyThievesAreBounded(t *testing.T) {
	b := newBench(t, small(10))
	for n := range 1000 {
		b.Seen(b.now, addr("192.168.1.100").As4(), mac(n))
	}
	if n := len(b.said()); n != maxThefts || len(b.thefts) != maxThefts {
		t.Errorf("%d events, %d remembered", n, len(b.thefts))
	}
	b.wait(quietFor)
	b.Seen(b.now, addr("192.168.1.101").As4(), mac(5000))
	if got := b.said(); !slices.Equal(got, []string{"stolen 192.168.1.101 - 88"}) || len(b.thefts) != 1 {
		t.Errorf("%q, %d remembered", got, len(b.thefts))
	}
}

func TestSeenAllocatesNothing(t *testing.T) {
	b := newBench(t, small(10))
	a := b.lease(mac(1))
	if n := testing.AllocsPerRun(100, func() {
		b.Seen(b.now, a.As4(), mac(1))
		b.Seen(b.now, a.As4(), mac(2))
	}); n != 0 {
		t.Errorf("%v", n)
	}
}

func BenchmarkSeen(b *testing.B) {
	s, err := NewServer(ServerConfig{Addr: home})
	if err != nil {
		b.Fatal(err)
	}
	x := message{kind: request, hw: mac(1), requested: addr("192.168.1.9"), server: home.Addr()}
	s.request(epoch, mac(1), &x)
	source := x.requested.As4()
	for b.Loop() {
		s.Seen(epoch, source, mac(1))
	}
}
