package server

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/server/load"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

func peers(t testing.TB, server netip.AddrPort, n int) *load.Peers {
	t.Helper()
	p, err := load.Start(load.Config{Server: server, ServerID: seed(1).ID(), Count: n, PerSecond: 5000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Duration(n)*time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx, uint64(n)); err != nil {
		now, ever := p.Registered()
		t.Fatalf("%d of %d peers registered, %d registrations: %v", now, n, ever, err)
	}
	return p
}

func TestPeersComeBackAfterKill(t *testing.T) {
	const n = 1000
	state := filepath.Join(t.TempDir(), "peers")
	first := spawn(t, childConfig{Mode: "server", UDP: "127.0.0.1:0", State: state, Log: testing.Verbose()})
	p := peers(t, first.addr, n)
	time.Sleep(2 * writeDelay) // what a restart file may lag behind
	first.kill()

	info, err := os.Stat(state)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("restart file is %v", info.Mode())
	}
	if want := int64(stateHeader + n*recordLen); info.Size() != want {
		t.Errorf("restart file has %d bytes, want %d", info.Size(), want)
	}
	start := time.Now()
	second := spawn(t, childConfig{Mode: "server", UDP: first.addr.String(), State: state, Log: testing.Verbose()})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := p.Wait(ctx, 2*n); err != nil {
		now, ever := p.Registered()
		t.Fatalf("after 5 s: %d registered, %d registrations of %d", now, ever, 2*n)
	}
	if got := second.ask("").Stats.Peers; got != n {
		t.Errorf("the new server has %d peers", got)
	}
	t.Logf("%d peers registered again %v after the restart", n, time.Since(start))
}

func TestPacketRelay(t *testing.T) {
	s := start(t, open(t, "127.0.0.1"))
	p := peers(t, s.udp, 4)
	id := rendezvous.RelayID{1, 2, 3}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if status, err := p.Connect(ctx, 0, 1, id); status != 0 || err != nil {
		t.Fatalf("connect: %v, %v", status, err)
	}
	count := p.Relayed.Load()
	packet := append(relay.AppendHeader(nil, id), make([]byte, 1190)...)
	send := func(peer, n int) {
		t.Helper()
		if err := p.Socket.Send([]load.Datagram{{Peer: peer, B: bytes.Repeat(packet, n), Segment: len(packet)}}); err != nil {
			t.Fatal(err)
		}
	}
	send(2, 7) // not a party; first, so that they are counted when the others are through
	send(3, 1)
	send(0, 20)
	send(1, 30) // segmented: the server gets them coalesced
	for deadline := time.Now().Add(5 * time.Second); p.Relayed.Load() < count+50 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	st := s.Stats()
	if got := p.Relayed.Load() - count; got != 50 {
		t.Errorf("%d packets came through, want 50", got)
	}
	if st.Dropped[rendezvous.DropRelay] != 8 {
		t.Errorf("%d packets of strangers refused, want 8", st.Dropped[rendezvous.DropRelay])
	}
}

func TestRelayAllocatesNothing(t *testing.T) {
	cfg := open(t, "127.0.0.1")
	s := start(t, cfg)
	p := peers(t, s.udp, 2)
	id := rendezvous.RelayID{1}
	if status, err := p.Connect(t.Context(), 0, 1, id); status != 0 || err != nil {
		t.Fatalf("connect: %v, %v", status, err)
	}
	sink := new(nowhere)
	o := newOutbox([]socket{sink})
	packet := append(relay.AppendHeader(nil, id), make([]byte, 1190)...)
	in := []datagram{{p.Socket.Endpoint(0), packet}, {p.Socket.Endpoint(1), packet}}
	if n := testing.AllocsPerRun(100, func() { s.serveBatch(0, in, o) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
	if sink.sent != 2*101 {
		t.Errorf("forwarded %d packets", sink.sent)
	}
}

// A stranger's million datagrams, of all first bytes and lengths, leave nothing
// behind and do not keep peers from registering.
func TestMillionRandomDatagrams(t *testing.T) {
	s := start(t, open(t, "127.0.0.1"))
	peers(t, s.udp, 10)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	sock, err := load.Open(s.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	before, in := heap(), s.Stats().PacketsIn
	r := rand.New(rand.NewPCG(1, 2))
	batch := make([]load.Datagram, 64)
	for i := range batch {
		batch[i].B = make([]byte, 0, 300)
	}
	total := 1_000_000
	if testing.Short() {
		total /= 10
	}
	for sent := 0; sent < total; sent += len(batch) {
		for i := range batch {
			b := batch[i].B[:1+r.IntN(200)]
			for j := 0; j < len(b); j += 8 {
				x := r.Uint64()
				for k := j; k < min(j+8, len(b)); k++ {
					b[k] = byte(x >> (8 * (k - j)))
				}
			}
			if kind := r.IntN(4); kind < 3 && len(b) > 3 {
				// Garbage that looks like something reaches further in.
				copy(b, [][]byte{{0, 1, 0, byte(len(b) - 20)}, {4, 1, byte(r.IntN(16)), 0}, {5, 1}}[kind])
			}
			if r.IntN(8) == 0 {
				b = append(b[:0], 4, 1, 1, 0) // HELLO of its proper length: the only one that costs anything
				b = b[:128]
				clear(b[44:])
			}
			batch[i] = load.Datagram{Peer: r.IntN(1 << 20), B: b}
		}
		if err := sock.Send(batch); err != nil {
			t.Fatal(err)
		}
		// Loopback has no flow control of its own; what is lost is not waited for.
		for spins := 0; spins < 1000 && in+uint64(sent) > s.count.packetsIn.Load()+4000; spins++ {
			runtime.Gosched()
		}
	}
	if got := s.Stats().PacketsIn - in; got < uint64(total/2) {
		t.Errorf("only %d datagrams arrived", got)
	}
	if after := heap(); after > before+32<<20 {
		t.Errorf("%d bytes of heap before, %d after", before, after)
	}
	peers(t, s.udp, 20)
}
