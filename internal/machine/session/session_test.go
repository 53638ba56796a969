package session

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// plans gives every stream of a world a size and a fate, the same seen from
// both ends.
func plans(seed uint64, largest int, faults bool) func(StreamID, int) *app {
	return func(id StreamID, side int) *app {
		rng := rand.New(rand.NewPCG(seed, uint64(id)+100))
		var two [2]*app
		for i := range two {
			a := &app{resetAt: -1, stopAt: -1, mine: byte(rng.Uint32()), chunkMin: rng.IntN(2)}
			if rng.IntN(5) > 0 {
				a.size = rng.IntN(largest)
			}
			a.chunkLimit = 1 + []int{100, 5000, 100_000}[rng.IntN(3)]
			if a.chunkLimit == 101 {
				a.size = min(a.size, 20_000)
			}
			if a.size > 0 {
				a.chunkMin = 1
			}
			if faults && rng.IntN(6) == 0 {
				a.resetAt = rng.IntN(a.size + 1)
			}
			if faults && rng.IntN(6) == 0 {
				a.stopAt = rng.IntN(largest)
			}
			two[i] = a
		}
		two[0].expect, two[1].expect = two[1].mine, two[0].mine
		odd := two[0].resetAt >= 0 || two[1].resetAt >= 0 || two[0].stopAt >= 0 || two[1].stopAt >= 0
		two[0].anyErr, two[1].anyErr = odd, odd
		return two[side]
	}
}

// randomPath is a link with a random temper and, unless steady, a fate.
func randomPath(w *world, steady bool) path {
	rng := w.rng
	p := path{
		rank:  rng.IntN(4),
		lanes: rng.IntN(2) == 0,
		delay: time.Duration(rng.IntN(150)) * time.Millisecond,
		rate:  []float64{50e3, 1e6, 100e6}[rng.IntN(3)],
		birth: w.now.Add(time.Duration(rng.IntN(3000)) * time.Millisecond),
	}
	p.jitter = time.Duration(rng.IntN(30)) * time.Millisecond
	if steady {
		p.rate = 10e6
		return p
	}
	at := p.birth.Add(time.Duration(rng.IntN(4000)) * time.Millisecond)
	switch rng.IntN(4) {
	case 0:
		p.deafAt = [2]time.Time{at, at}
	case 1:
		p.deafAt[rng.IntN(2)] = at
	case 2:
		p.cutAt = at
	}
	return p
}

// Whatever the links do, every byte of every stream arrives once and in
// order, both ends close, and no memory is left.
func TestRandomWorlds(t *testing.T) {
	seeds := uint64(1500)
	if testing.Short() {
		seeds = 300
	}
	for seed := range seeds {
		w := newWorld(seed, Config{Window: 1 + 70_000*int(seed%3), Memory: 300_000, MaxStreams: 16, Linger: 5 * time.Minute})
		for _, e := range w.end {
			e.plan = plans(seed, 80_000, seed%2 == 0)
			e.opens = 1 + w.rng.IntN(3)
			if w.rng.IntN(8) == 0 {
				e.opens = 40
				e.plan = plans(seed, 500, seed%2 == 0)
			}
		}
		w.end[0].closes = true
		w.end[1].closes = w.rng.IntN(2) == 0
		first := randomPath(w, w.rng.IntN(2) == 0)
		first.birth = w.now
		w.addPath(first)
		for range w.rng.IntN(6) {
			w.addPath(randomPath(w, false))
		}
		for rescues := 0; w.bad == nil && !w.bothClosed(); rescues++ {
			w.runUntil(w.now.Add(8*time.Second), w.bothClosed)
			switch links := w.end[0].m.Stats().Links; {
			case rescues == 40:
				w.failf("not over")
			case w.end[0].closed == nil && links == 0:
				w.addPath(randomPath(w, true))
			case w.end[0].closed != nil && w.end[1].m.Stats().Links == 0:
				// The last CLOSE went down with the last link.
				w.end[1].m.Close(w.now, frame.Timeout, "silence")
				w.end[1].act()
			}
		}
		w.settled(t)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
