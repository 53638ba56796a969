package nat

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Whatever comes, the gateway does not panic, does not write outside of the
// packet, and lets nothing out that was right and is wrong now.
func FuzzGateway(f *testing.F) {
	at := netip.AddrPortFrom(ours, 5000)
	for _, pkt := range [][]byte{
		udpPacket(x, y1), udpPacket(y1, at), udpPacket(x6, y6), tcpPacket(x, y1, ip.SYN), tcpPacket(x, at, ip.SYN),
		ip.AppendEcho(nil, x.Addr(), y1.Addr(), 64, ip.EchoRequest, 1, 1, nil),
		ip.AppendError(nil, z1.Addr(), ip.TimeExceeded, udpPacket(at, y1)),
		ip.AppendError(nil, x.Addr(), ip.PortUnreachable, udpPacket(y1, x)),
	} {
		for policy := range byte(9) {
			f.Add(policy, pkt)
		}
	}
	f.Fuzz(func(t *testing.T, policy byte, pkt []byte) {
		g := newBench(t, Behaviour{
			Mapping:   Dependence(policy % 3),
			Filtering: Dependence(policy / 3 % 3),
			Hairpin:   Hairpin(policy / 9 % 3),
			Mode:      Mode(policy >> 7), // Translate or Firewall
		})
		g.leaves(x, y1)
		g.leaves(x6, y6)
		var p ip.Packet
		ok := p.Decode(pkt) == nil && p.ChecksumOK()
		for i, pass := range []func(time.Time, []byte) Verdict{g.Outbound, g.Inbound} {
			b := append(append([]byte(nil), pkt...), 0xaa)
			v := pass(g.now, b[:len(pkt)])
			if b[len(pkt)] != 0xaa {
				t.Fatal("wrote behind the packet")
			}
			if v.Action == Drop {
				continue
			}
			if err := p.Decode(b[:len(pkt)]); err != nil || ok && !p.ChecksumOK() {
				t.Fatalf("%s: let %x out, %v", [...]string{"outbound", "inbound"}[i], b, err)
			}
		}
	})
}

// load fills a gateway with n UDP mappings of one session each.
func load(g *bench, n int) {
	pkt := udpPacket(x, y1)
	addrs := [2]netip.Addr{y1.Addr(), z1.Addr()}
	for i := range n {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i >> 14)}), uint16(1024+i&0x3fff))
		pkt = ip.AppendUDP(pkt[:0], src, netip.AddrPortFrom(addrs[i&1], 9), 64, nil)
		if v := g.Outbound(g.now, pkt); v.Action != Forward {
			g.t.Fatalf("%d: %v", i, v.Reason)
		}
	}
}

func TestNoAllocationPerPacket(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		g := newBench(t, b)
		out, in := udpPacket(x, y1), udpPacket(y1, g.leaves(x, y1))
		buf := make([]byte, 0, 2048)
		if got := testing.AllocsPerRun(100, func() {
			g.Outbound(g.now, append(buf[:0], out...))
			g.Inbound(g.now, append(buf[:0], in...))
		}); got != 0 {
			t.Errorf("%v allocations", got)
		}
	})
}

func benchmark(b *testing.B, in bool) {
	g := newBenchOf(b, Config{Behaviour: Behaviour{Filtering: AddressAndPortDependent}})
	load(g, 60000)
	pass := g.Outbound
	if in {
		pass = g.Inbound
	}
	var pkts [][]byte
	r := rand.New(rand.NewPCG(1, 1))
	all := g.Mappings(g.now)
	for range 1024 {
		m := all[r.IntN(len(all))]
		if in {
			pkts = append(pkts, udpPacket(m.Sessions[0].Remote, m.External))
		} else {
			pkts = append(pkts, udpPacket(m.Internal, m.Sessions[0].Remote))
		}
	}
	buf := make([]byte, 2048)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		pkt := buf[:copy(buf, pkts[i%len(pkts)])]
		if pass(g.now, pkt).Action != Forward {
			b.Fatal("dropped")
		}
	}
}

func BenchmarkOutbound(b *testing.B) { benchmark(b, false) }
func BenchmarkInbound(b *testing.B)  { benchmark(b, true) }

// What a mapping with one session costs, all tables included.
func TestMemoryPerMapping(t *testing.T) {
	var addrs []netip.Addr
	for i := range 100 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 200_000
	g := newBenchOf(t, Config{
		Behaviour:   Behaviour{Filtering: AddressAndPortDependent},
		Own:         [Local][]netip.Addr{Outside: addrs},
		MaxMappings: n,
	})
	load(g, n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.0f bytes a mapping", per)
	if s := g.Stats(); s.Mappings != n || per > 250 {
		t.Errorf("%d mappings, %.0f bytes each", s.Mappings, per)
	}
}
