package dhcp

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

func seeds(f *testing.F) {
	a := addr("192.168.1.100")
	for _, m := range []message{
		{kind: discover, hw: mac(1), requested: a, lease: time.Minute},
		{kind: discover, hw: mac(2), id: "someone", broadcast: true},
		{kind: request, hw: mac(1), requested: a, server: home.Addr()},
		{kind: request, hw: mac(3), requested: a},
		{kind: request, hw: mac(1), client: a},
		{kind: decline, hw: mac(1), requested: a, server: home.Addr()},
		{kind: release, hw: mac(1), client: a, server: home.Addr()},
		{kind: inform, hw: mac(1), client: a},
		{kind: offer, reply: true, hw: mac(1), yours: a, server: home.Addr(), lease: time.Hour, t1: 1, t2: 2, bits: 24,
			routers: []netip.Addr{home.Addr()}, dns: []netip.Addr{home.Addr(), a}, mtu: 1400},
		{kind: ack, reply: true, hw: mac(1), yours: a, server: home.Addr(), lease: Forever, bits: 24},
		{kind: ack, reply: true, hw: mac(1), yours: a, server: home.Addr(), lease: time.Hour, bits: 24, routers: []netip.Addr{a},
			routes: []Route{{netip.MustParsePrefix("10.9.0.0/20"), addr("192.168.1.9")}, {To: netip.MustParsePrefix("169.254.0.0/16")}, {netip.MustParsePrefix("0.0.0.0/0"), home.Addr()}}},
		{kind: nak, reply: true, hw: mac(1), server: home.Addr(), text: "no"},
		{kind: discover, hw: mac(1), relay: a},
	} {
		for choice := range byte(8) {
			f.Add(choice, m.bytes())
		}
	}
	f.Add(byte(0), []byte{})
	f.Add(byte(1), make([]byte, 300))
}

// What can be read can be written, and is the same when it is read again.
func checkCodec(t *testing.T, payload []byte) {
	m, err := parseMessage(payload)
	if err != nil {
		return
	}
	again, err := parseMessage(m.bytes())
	if err != nil {
		t.Fatalf("%+v: %v", m, err)
	}
	if !reflect.DeepEqual(m, again) {
		t.Fatalf("read  %+v\nagain %+v", m, again)
	}
}

// Whatever comes: no panic, at most one packet for each that came, every
// packet well-formed, and the book in order.
func FuzzServer(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, choice byte, payload []byte) {
		checkCodec(t, payload)
		cfg := small(3)
		cfg.Probe = choice&1 != 0
		cfg.Manual = map[string]netip.Addr{mac(3).String(): addr("192.168.1.101")}
		b := newBench(t, cfg)
		if choice&2 != 0 {
			cfg.Probe = false
			b = newBench(t, cfg)
			b.lease(mac(1))
		}
		if choice&4 != 0 {
			b.discover(mac(1))
		}
		src, dst := netip.AddrPortFrom(netip.IPv4Unspecified(), ClientPort), netip.AddrPortFrom(everyone, ServerPort)
		for _, pkt := range [][]byte{ip.AppendUDP(nil, src, dst, 64, payload), payload} {
			b.HandlePacket(b.now, mac(1), pkt)
			if n := len(b.replies()); n > 1 {
				t.Fatalf("%d packets for one", n)
			}
			b.book.check(t)
		}
		b.wait(10 * time.Second)
		b.replies()
		b.wait(2 * time.Hour)
		b.replies()
		b.book.check(t)
		leases, err := ParseLeases(AppendLeases(nil, b.Leases()))
		if err != nil || newBench(t, cfg).Restore(b.now, leases) != 0 {
			t.Fatalf("%v: %v", b.Leases(), err)
		}
	})
}

// Whatever comes: no panic, nothing that a host could not be configured with,
// and the client goes on.
func FuzzClient(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, choice byte, payload []byte) {
		c, err := NewClient(epoch, ClientConfig{MAC: mac(1), Rand: rand.NewPCG(1, 1)})
		if err != nil {
			t.Fatal(err)
		}
		p := &puppet{c, t, epoch}
		if choice&3 != 0 {
			m, _ := p.asked(discover)
			p.told(m, offer)
			if m, _ = p.asked(request); choice&3 > 1 {
				p.told(m, ack)
			}
			if choice&3 > 2 {
				p.next()
			}
		}
		if len(payload) >= 8 && choice&4 != 0 {
			copy(payload[4:], c.xid[:])
		}
		src, dst := netip.AddrPortFrom(home.Addr(), ServerPort), netip.AddrPortFrom(everyone, ClientPort)
		for _, pkt := range [][]byte{ip.AppendUDP(nil, src, dst, 64, payload), payload} {
			p.HandlePacket(p.now, pkt)
		}
		for e, ok := p.Event(); ok; e, ok = p.Event() {
			g := e.Grant
			if a := g.Prefix.Addr(); !g.Prefix.IsValid() || !unicast(a) || g.Router.IsValid() && !g.Prefix.Contains(g.Router) || g.Lease < time.Second {
				t.Fatalf("%+v", e)
			}
			for _, r := range g.Routes {
				if r.To != r.To.Masked() || !r.To.Addr().Is4() || r.Via.IsValid() && !g.Prefix.Contains(r.Via) {
					t.Fatalf("%+v", e)
				}
			}
		}
		for range 20 {
			at, ok := p.NextTimeout()
			if !ok {
				if p.State() != Bound {
					t.Fatalf("%v for ever", p.State())
				}
				return
			}
			if at.Before(p.now) {
				t.Fatalf("%v: due %v ago", p.State(), p.now.Sub(at))
			}
			p.now = at
			p.HandleTimeout(p.now)
			for pkt, ok := p.Poll(); ok; pkt, ok = p.Poll() {
				var q ip.Packet
				if err := q.Decode(pkt); err != nil || !q.ChecksumOK() {
					t.Fatalf("%x: %v", pkt, err)
				}
			}
		}
	})
}

// A file of leases is only this program's, but a disk is a disk.
func FuzzLeases(f *testing.F) {
	f.Add([]byte(leasesHeader + "\n192.168.1.100 02:00:00:00:00:01 - never\n192.168.1.101 02:00:00:00:00:02 6d65 2026-11-22T13:00:00Z\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := ParseLeases(text)
		if err != nil {
			return
		}
		again, err := ParseLeases(AppendLeases(nil, all))
		if err != nil || !reflect.DeepEqual(all, again) {
			t.Fatalf("%v\n%v\n%v", all, again, err)
		}
		b := newBench(t, small(3))
		b.Restore(b.now, all)
		b.book.check(t)
	})
}
