package session

import (
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// pair is two machines on one link without delay.
func pair(tb testing.TB) (m [2]*Machine, id StreamID, pump func()) {
	now := time.Unix(0, 0)
	m[0], m[1] = New(Config{Controller: true}), New(Config{})
	m[0].LinkUp(now, 1, 1, [8]byte{})
	m[1].LinkUp(now, 1, 1, [8]byte{})
	pump = func() {
		for moved := true; moved; {
			moved = false
			for i := range m {
				for {
					f, ok := m[i].Next(now, 1)
					if !ok {
						break
					}
					if err := m[1-i].HandleFrame(now, 1, &f); err != nil {
						tb.Fatal(err)
					}
					m[i].Sent(now, 1, f)
					moved = true
				}
			}
		}
	}
	id, err := m[0].Open()
	if err != nil {
		tb.Fatal(err)
	}
	pump()
	if got, ok := m[1].Accept(); !ok || got != id {
		tb.Fatal("not accepted")
	}
	return m, id, pump
}

// BenchmarkThrough: bytes through two machines, three copies in all: Write,
// HandleFrame, Read.
func BenchmarkThrough(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10} {
		b.Run(map[int]string{1 << 10: "1KiB", 16 << 10: "16KiB", 64 << 10: "64KiB"}[size], func(b *testing.B) {
			m, id, pump := pair(b)
			p, q := make([]byte, size), make([]byte, 64<<10)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if n, err := m[0].Write(id, p); n != size || err != nil {
					b.Fatal(n, err)
				}
				pump()
				for got := 0; got < size; {
					n, err := m[1].Read(id, q)
					if n == 0 || err != nil {
						b.Fatal(n, err)
					}
					got += n
				}
			}
		})
	}
}

// BenchmarkWindow: the same with megabytes in flight, so that nothing stays
// in the processor's nearer caches.
func BenchmarkWindow(b *testing.B) {
	const burst = 4 << 20
	m, id, pump := pair(b)
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	b.SetBytes(burst)
	b.ReportAllocs()
	for b.Loop() {
		written, read := 0, 0
		for read < burst {
			for written < burst {
				n, err := m[0].Write(id, p[:min(len(p), burst-written)])
				if err != nil {
					b.Fatal(err)
				}
				if written += n; n == 0 {
					break
				}
			}
			pump()
			for {
				n, err := m[1].Read(id, q)
				if err != nil {
					b.Fatal(err)
				}
				if read += n; n == 0 {
					break
				}
			}
		}
	}
}

// BenchmarkCopy is the yardstick: the three copies alone.
func BenchmarkCopy(b *testing.B) {
	var x [4][64 << 10]byte
	b.SetBytes(64 << 10)
	for b.Loop() {
		for i := range 3 {
			copy(x[i+1][:], x[i][:])
		}
	}
}

// TestNoAllocation: a stream in full flow makes no garbage.
func TestNoAllocation(t *testing.T) {
	m, id, pump := pair(t)
	p := make([]byte, 32<<10)
	if n := testing.AllocsPerRun(1000, func() {
		m[0].Write(id, p)
		pump()
		for n := 1; n > 0; {
			n, _ = m[1].Read(id, p)
		}
	}); n > 0.5 {
		t.Errorf("%v allocations for 32 KiB", n)
	}
}

// TestMemoryBound: a peer that fills all it may holds what Memory says.
func TestMemoryBound(t *testing.T) {
	now := time.Unix(0, 0)
	m := New(Config{Window: 1 << 20, Memory: 4 << 20, MaxStreams: 16})
	m.LinkUp(now, 1, 1, [8]byte{})
	must := func(f frame.Frame) {
		t.Helper()
		if err := m.HandleFrame(now, 1, &f); err != nil {
			t.Fatal(err)
		}
	}
	must(frame.Frame{Type: frame.HELLO})
	must(frame.Frame{Type: frame.RESUME, Epoch: 1})
	limit := map[uint64]uint64{}
	sent := map[uint64]uint64{}
	data := make([]byte, 64<<10)
	// Streams that are read earn windows; then reading stops everywhere.
	for round := range 400 {
		for s := uint64(0); s < 32; s += 2 {
			room := max(limit[s], initialWindow) - sent[s]
			n := min(room, uint64(len(data)))
			if n == 0 {
				continue
			}
			must(frame.Frame{Type: frame.DATA, Stream: s, Offset: sent[s], Data: data[:n]})
			sent[s] += n
			if round < 100 {
				m.Read(StreamID(s), data)
			}
		}
		for {
			f, ok := m.Next(now, 1)
			if !ok {
				break
			}
			if f.Type == frame.ACK {
				limit[f.Stream] = f.Limit
			}
		}
	}
	got := m.Stats()
	if got.Unread > 4<<20 || got.Chunks > 4<<20/chunkSize+2*16 {
		t.Errorf("holds %+v", got)
	}
	if got.Unread < 2<<20 {
		t.Errorf("only %d bytes got in", got.Unread)
	}
}
