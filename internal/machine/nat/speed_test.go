package nat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// crowd is a gateway with many UDP mappings, each of one session.
type crowd struct {
	*Gateway
	now     time.Time
	out, in [][packetLen]byte // a packet of each mapping, in an order of chance
}

const packetLen = 32

// newCrowd makes n mappings of n/10 hosts.
func newCrowd(t testing.TB, n int, b Behaviour) *crowd {
	cfg := Config{
		Behaviour:   b,
		Inside:      []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Rand:        rand.NewPCG(1, 2),
		MaxMappings: n,
	}
	for i := range 1 + n/50_000 {
		cfg.Own[Outside] = append(cfg.Own[Outside], netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}))
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &crowd{Gateway: g, now: time.Unix(1000, 0)}
}

// source is the internal endpoint of the i-th mapping.
func (c *crowd) source(i int) netip.AddrPort {
	host := i / 10
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(host >> 16), byte(host >> 8), byte(host)}), uint16(1024+i*7919%60000))
}

func (c *crowd) remote(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i%250 + 1)}), uint16(i%1000+1))
}

// fill makes the mappings.
func (c *crowd) fill(t testing.TB, n int) {
	pkt := make([]byte, 0, packetLen)
	for i := range n {
		pkt = ip.AppendUDP(pkt[:0], c.source(i), c.remote(i), 64, nil)
		if v := c.Handle(c.now, Inside, pkt, Offload{}); v.Action != Forward {
			t.Fatalf("mapping %d: %v", i, v.Reason)
		}
	}
}

// packets prepares one in each direction for each mapping.
func (c *crowd) packets(t testing.TB) {
	all := c.Mappings(c.now)
	c.out, c.in = make([][packetLen]byte, len(all)), make([][packetLen]byte, len(all))
	for i, at := range rand.New(rand.NewPCG(3, 4)).Perm(len(all)) {
		m := &all[at]
		copy(c.out[i][:], ip.AppendUDP(nil, m.Internal, m.Sessions[0].Remote, 64, []byte("load")))
		copy(c.in[i][:], ip.AppendUDP(nil, m.Sessions[0].Remote, m.External, 64, []byte("load")))
	}
}

// BenchmarkTranslate translates one packet after another, each of another
// mapping among a million.
func BenchmarkTranslate(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		c := newCrowd(b, n, Behaviour{Filtering: AddressAndPortDependent})
		c.fill(b, n)
		c.packets(b)
		for _, way := range []struct {
			name   string
			from   Side
			pkts   [][packetLen]byte
			expect bool
		}{{"out", Inside, c.out, false}, {"in", Outside, c.in, false}, {"out/expected", Inside, c.out, true}, {"in/expected", Outside, c.in, true}} {
			b.Run(fmt.Sprintf("%d/%s", n, way.name), func(b *testing.B) {
				var bufs [batch][]byte
				for i := range bufs {
					bufs[i] = make([]byte, packetLen)
				}
				b.ReportAllocs()
				since, stop := cpu()
				defer stop()
				next, at := 0, batch
				for b.Loop() {
					if at == batch {
						at = 0
						for i := range bufs {
							copy(bufs[i], way.pkts[next][:])
							if next++; next == len(way.pkts) {
								next = 0
								c.now = c.now.Add(time.Millisecond) // so that timers are written
							}
						}
						if way.expect {
							c.Expect(way.from, bufs[:]...)
						}
					}
					if c.Handle(c.now, way.from, bufs[at], Offload{}).Action != Forward {
						b.Fatal("dropped")
					}
					at++
				}
				spent := since()
				b.ReportMetric(float64(spent)/float64(b.N), "cpu-ns/op")
				b.ReportMetric(float64(b.N)/spent.Seconds(), "packets/s")
			})
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

// TestMemoryPerMapping measures what a mapping with one session costs, all
// tables included, and what stays in use for good.
func TestMemoryPerMapping(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 200_000
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := newCrowd(t, n, Behaviour{Filtering: AddressAndPortDependent})
	c.fill(t, n)
	runtime.ReadMemStats(&after)
	// Nothing is thrown away but directories of pages and of chunks, and the
	// pages that were split.
	made := float64(after.TotalAlloc-before.TotalAlloc) / float64(n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
	t.Logf("%.0f bytes a mapping; %.0f were allocated for it", per, made)
	if s := c.Stats(); s.Mappings != n || per > 200 {
		t.Errorf("%d mappings, %.0f bytes each", s.Mappings, per)
	}
}

// BenchmarkMainMemory is what the machine takes to read from a place that
// nobody has read from for long, one place after the other: what the figures
// of a million mappings are to be measured by. A packet needs two.
func BenchmarkMainMemory(b *testing.B) {
	type line struct {
		next uint32
		_    [60]byte
	}
	lines := make([]line, 1<<20)
	order := rand.New(rand.NewPCG(5, 6)).Perm(len(lines))
	for i, at := range order {
		lines[at].next = uint32(order[(i+1)%len(order)])
	}
	since, stop := cpu()
	defer stop()
	at := uint32(0)
	for b.Loop() {
		at = lines[at].next
	}
	b.ReportMetric(float64(since())/float64(b.N), "cpu-ns/op")
	if at >= uint32(len(lines)) {
		b.Fatal("nowhere")
	}
}

// BenchmarkExpiry ends mappings among many others that live on.
func BenchmarkExpiry(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			const ending = 1000 // at a time
			c := newCrowd(b, n+ending, Behaviour{Timers: Timers{UDP: longest, ICMP: time.Second}})
			c.fill(b, n)
			pkt := make([]byte, 0, 64)
			var spent time.Duration
			ended := 0
			for b.Loop() {
				for i := range ending {
					src := netip.AddrFrom4([4]byte{10, 200, 0, byte(i)})
					pkt = ip.AppendEcho(pkt[:0], src, y1.Addr(), 64, ip.EchoRequest, uint16(i), 1, nil)
					if v := c.Handle(c.now, Inside, pkt, Offload{}); v.Action != Forward {
						b.Fatal(v.Reason)
					}
					c.now = c.now.Add(time.Millisecond)
				}
				before := c.Stats().Mappings
				c.now = c.now.Add(time.Second)
				since, stop := cpu()
				c.HandleTimeout(c.now)
				spent += since()
				stop()
				ended += before - c.Stats().Mappings
			}
			if c.Stats().Mappings != n {
				b.Fatalf("%d mappings are left", c.Stats().Mappings)
			}
			b.ReportMetric(float64(spent)/float64(ended), "cpu-ns/expiry")
		})
	}
}
