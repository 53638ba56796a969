package nat

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// A gateway that is flooded stays within the memory that MaxMappings stands
// for, however long it lasts, and still serves others when it is strangers who
// flood it.
func TestFloodStaysWithinMemory(t *testing.T) {
	const most = 10_000
	// A mapping with its index entries and port is below 200 bytes; a session
	// beyond the first of a mapping is about 60, of which there may be four.
	const budget = most * (200 + 4*60)
	r := rand.New(rand.NewPCG(1, 1))
	addr := func(a uint32) netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, a)))
	}
	stranger := func() netip.AddrPort {
		return netip.AddrPortFrom(addr(0xc000_0000|r.Uint32()>>9), uint16(r.IntN(65535)+1))
	}
	host := func() netip.AddrPort {
		return netip.AddrPortFrom(addr(0x0a00_0000|r.Uint32()>>8), uint16(r.IntN(65535)+1))
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, c := range []struct {
		name   string
		b      Behaviour
		inside bool
		next   func() []byte
	}{
		{name: "mappings from inside", inside: true, next: func() []byte { return udpPacket(host(), stranger()) }},
		{name: "mappings from inside, a port each", b: Behaviour{Mapping: AddressAndPortDependent, Ports: Ports{HoldDown: time.Second, Held: most}}, inside: true,
			next: func() []byte { return udpPacket(x, stranger()) }},
		{name: "sessions of one host", b: Behaviour{Filtering: AddressAndPortDependent}, inside: true,
			next: func() []byte { return udpPacket(x, stranger()) }},
		{name: "SYNs from inside", b: Behaviour{Filtering: AddressDependent}, inside: true,
			next: func() []byte { return tcpPacket(host(), stranger(), ip.SYN) }},
		{name: "SYNs from outside", next: func() []byte {
			return tcpPacket(stranger(), netip.AddrPortFrom(ours, 5000), ip.SYN)
		}},
		{name: "SYNs from outside to a static pair", next: func() []byte {
			return tcpPacket(stranger(), netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), uint16(r.IntN(65535)+1)), ip.SYN)
		}},
		{name: "SYNs from outside, IPv6", next: func() []byte {
			var a [16]byte
			copy(a[:], x6.Addr().AsSlice()[:4])
			binary.BigEndian.PutUint64(a[8:], r.Uint64())
			return tcpPacket(netip.AddrPortFrom(netip.AddrFrom16(a), uint16(r.IntN(65535)+1)), x6, ip.SYN)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := heap()
			cfg := Config{
				Behaviour:   c.b,
				Inside:      []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/64")},
				Rand:        rand.NewPCG(1, 2),
				MaxMappings: most,
			}
			cfg.Own[Outside] = []netip.Addr{ours}
			if !c.inside {
				cfg.Static = []Static{{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("198.51.100.9")}}
			}
			g, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			now := time.Unix(1000, 0)
			from := Outside
			if c.inside {
				from = Inside
			}
			g.Handle(now, Inside, tcpPacket(x, y1, ip.SYN), Offload{})
			g.Handle(now, Inside, tcpPacket(x6, y6, ip.SYN), Offload{})
			flood := func() uint64 {
				for range 5 * most {
					now = now.Add(10 * time.Microsecond)
					g.Handle(now, from, c.next(), Offload{})
					for _, ok := g.Poll(); ok; _, ok = g.Poll() {
					}
				}
				return heap() - before
			}
			first := flood()
			if first > budget {
				t.Errorf("%d bytes, of %d", first, budget)
			}
			if s := g.Stats(); s.Mappings > most || s.Sessions > 4*most || s.Mappings+s.Sessions < most/4 {
				t.Errorf("%d mappings, %d sessions: that was no flood, or no bound", s.Mappings, s.Sessions)
			}
			if again := flood(); again > budget {
				t.Errorf("%d bytes grew to %d, of %d", first, again, budget)
			}
			if !c.inside {
				if v := g.Handle(now, Inside, tcpPacket(x2, y1, ip.SYN), Offload{}); v.Action != Forward {
					t.Errorf("a host inside is not served: %v", v.Reason)
				}
			}
			// And all of it goes again.
			now = now.Add(3 * time.Hour)
			g.HandleTimeout(now)
			if s := g.Stats(); s.Mappings+s.Sessions != 0 {
				t.Errorf("%d mappings and %d sessions are left", s.Mappings, s.Sessions)
			}
			if g.six.slab.used != 0 || g.hosts.slab.used != 0 {
				t.Errorf("%d addresses and %d hosts are left", g.six.slab.used, g.hosts.slab.used)
			}
			runtime.KeepAlive(g)
			t.Logf("%d kB", first/1000)
		})
	}
}
