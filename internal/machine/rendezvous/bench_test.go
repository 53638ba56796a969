package rendezvous

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// enrol registers peers past the cookie and the key agreement, which would
// take minutes for a million of them.
func enrol(s *Server, now time.Time, n int) {
	s.begin(now)
	for k := range n {
		var id identity.ID
		binary.BigEndian.PutUint64(id[:], uint64(k)*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint64(id[8:], uint64(k))
		i, p := s.peers.alloc()
		p.id, p.key = id, wire.MACKeyOf(id)
		s.begin(now)
		s.admit(benchAddr(k), wire.Register{Client: id, Sequence: 1}, i, p)
		s.Poll()
	}
}

func benchAddr(k int) Addr {
	return Addr{Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(k >> 16), byte(k >> 8)}), uint16(k%256+1024))}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A million idle peers fit in 300 bytes each, all tables included.
func TestBytesPerPeer(t *testing.T) {
	const n = 1 << 17
	before := heap()
	s := testServer(ServerConfig{MaxPeers: n})
	fixed := heap() - before - uint64(len(s.byKey.cells))*8
	enrol(s, epoch, n)
	each := float64(heap()-before-fixed) / n
	t.Logf("peer %d bytes, relay %d bytes; all included %.0f bytes a peer and %d KiB", unsafe.Sizeof(peer{}), unsafe.Sizeof(relayEntry{}), each, fixed>>10)
	if each > 300 {
		t.Errorf("%.0f bytes a peer", each)
	}
	if s.Stats().Peers != n {
		t.Errorf("%d peers", s.Stats().Peers)
	}
	runtime.KeepAlive(s)
}

// BenchmarkKeepAlive handles authentic keep-alives of a million peers in
// random order; each peer's are made outside the timer.
func BenchmarkKeepAlive(b *testing.B) {
	const n, batch = 1 << 20, 1 << 15
	before := heap()
	s := testServer(ServerConfig{MaxPeers: n})
	now := epoch
	enrol(s, now, n)
	each := float64(heap()-before) / n
	mac := wire.NewMAC()
	r := rand.New(rand.NewPCG(1, 2))
	type question struct {
		from Addr
		b    []byte
	}
	questions := make([]question, batch)
	for q := range questions {
		questions[q].b = make([]byte, 0, 64)
	}
	tx := uint64(2)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += batch {
		b.StopTimer()
		for q := range questions {
			tx++
			k := r.IntN(n)
			p := s.peers.at(uint32(k))
			m := wire.KeepAlive{Tx: tx, Handle: handleOf(uint32(k), p.generation)}.Append(questions[q].b[:0])
			questions[q] = question{benchAddr(k), mac.Append(m, 0, &p.key)}
		}
		now = now.Add(time.Millisecond)
		b.StartTimer()
		for q := range min(batch, b.N-done) {
			s.HandlePacket(now, questions[q].from, questions[q].b)
			if _, ok := s.Poll(); !ok {
				b.Fatal("not answered")
			}
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keepalives/s")
	b.ReportMetric(each, "B/peer")
}

func BenchmarkRelay(b *testing.B) {
	const n, relays = 1 << 17, 1 << 16
	s := testServer(ServerConfig{MaxPeers: n, MaxRelays: relays, RelayIdle: 24 * time.Hour})
	now := epoch
	enrol(s, epoch, n)
	packets := make([][]byte, relays)
	for k := range packets {
		id := RelayID{byte(k), byte(k >> 8), byte(k >> 16)}
		s.beginRelay(id, PacketRelay, uint32(2*k), uint32(2*k+1))
		packets[k] = append(relay.AppendHeader(nil, id), make([]byte, 1200)...)
		if _, ok := s.RelayTarget(now, benchAddr(2*k+1).Endpoint, packets[k]); !ok {
			b.Fatal("no relay")
		}
	}
	for _, many := range []struct {
		name string
		n    int
	}{{"one", 1}, {"65536", relays}} {
		b.Run(many.name, func(b *testing.B) {
			b.ReportAllocs()
			k := 0
			for b.Loop() {
				now = now.Add(20 * time.Microsecond) // 60 MB/s, below the volume of one key
				if _, ok := s.RelayTarget(now, benchAddr(2*k).Endpoint, packets[k]); !ok {
					b.Fatal("not relayed")
				}
				if k++; k == many.n {
					k = 0
				}
			}
		})
	}
}

func BenchmarkHello(b *testing.B) {
	s := testServer(ServerConfig{HelloRate: Rate{1e9, 1e9}})
	m := wire.Hello{Tx: 1}.Append(nil)
	from := benchAddr(1)
	b.ReportAllocs()
	for b.Loop() {
		s.HandlePacket(epoch, from, m)
		if _, ok := s.Poll(); !ok {
			b.Fatal("not answered")
		}
	}
}

// BenchmarkRegister is a first registration: one X25519.
func BenchmarkRegister(b *testing.B) {
	s := testServer(ServerConfig{RegisterRate: Rate{1e9, 1e9}, NewKeyRate: Rate{1e9, 1e9}})
	key := identity.FromSeed(seed(7))
	shared, _ := key.Shared(s.id)
	k := wire.NewMACKey(shared, key.ID(), s.id)
	from := benchAddr(1)
	s.begin(epoch)
	m := wire.NewMAC().Append(wire.Register{Client: key.ID(), Cookie: s.cookie(epoch.UnixMilli(), from, key.ID()), Sequence: 1}.Append(nil), 0, &k)
	for b.Loop() {
		s.HandlePacket(epoch, from, m)
		agree(s, epoch)
		if _, ok := s.Poll(); !ok {
			b.Fatal("not answered")
		}
		s.forget(0, s.peers.at(0))
	}
}

// What is frequent allocates nothing.
func TestAllocations(t *testing.T) {
	s := testServer(ServerConfig{HelloRate: Rate{1e9, 1e9}})
	enrol(s, epoch, 8)
	s.beginRelay(relayID, PacketRelay, 0, 1)
	mac, tx := wire.NewMAC(), uint64(10)
	packet := append(relay.AppendHeader(nil, relayID), make([]byte, 100)...)
	hello := wire.Hello{Tx: 1}.Append(nil)
	question := make([]byte, 0, 64)
	ask := func(b []byte, from Addr) {
		s.HandlePacket(epoch, from, b)
		if _, ok := s.Poll(); !ok {
			t.Fatal("not answered")
		}
	}
	for name, f := range map[string]func(){
		"keep-alive": func() {
			tx++
			p := s.peers.at(3)
			question = mac.Append(wire.KeepAlive{Tx: tx, Handle: handleOf(3, p.generation)}.Append(question[:0]), 0, &p.key)
			ask(question, benchAddr(3))
		},
		"who":   func() { ask(question, benchAddr(4)) },
		"hello": func() { ask(hello, benchAddr(5)) },
		"relay": func() {
			if _, ok := s.RelayTarget(epoch, benchAddr(1).Endpoint, packet); !ok {
				t.Fatal("not relayed")
			}
		},
	} {
		if name == "who" {
			question = wire.KeepAlive{Tx: 1, Handle: Handle{9}}.Append(question[:0])
			question = append(question, make([]byte, wire.MACLen)...)
		}
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
