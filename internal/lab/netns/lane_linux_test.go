package netns

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

func TestLane(t *testing.T) {
	const ms = int64(time.Millisecond)
	rng := rand.New(rand.NewPCG(1, 2))
	admit := func(l *lane, now int64, size int) int64 {
		at, times := l.admit(now, size, size, rng)
		if times == 0 {
			return -1
		}
		return at[0]
	}

	delay := &lane{link: scenario.Link{Delay: 20 * time.Millisecond}}
	if at := admit(delay, 5*ms, 1500); at != 25*ms {
		t.Errorf("delayed until %d", at)
	}
	if at := admit(delay, 0, 1501); at != -1 {
		t.Errorf("too large, but arrives at %d", at)
	}

	// A megabyte a second: 1000 bytes take a millisecond, and 100 ms is more
	// than 64 KiB.
	rate := &lane{link: scenario.Link{Rate: 8_000_000, Delay: time.Millisecond}}
	for i := range int64(100) {
		if at := admit(rate, 0, 1000); at != (i+2)*ms {
			t.Fatalf("packet %d arrives at %d", i, at)
		}
	}
	if at := admit(rate, 0, 1000); at != -1 {
		t.Errorf("a full queue took a packet until %d", at)
	}
	if at := admit(rate, ms, 1000); at != 102*ms {
		t.Errorf("a queue with room sent it at %d", at)
	}

	slow := &lane{link: scenario.Link{Rate: 8000}}
	queued := 0
	for admit(slow, 0, 1024) >= 0 {
		queued++
	}
	if queued != 64 {
		t.Errorf("a slow link queues %d KiB, want 64", queued)
	}

	// What waits there, 66 seconds long, keeps a faster one busy for as long as
	// that one takes for it: 65 ms.
	for _, rates := range [][]int64{{8_000_000}, {0, 8_000_000}, {80_000, 8_000_000}} {
		faster, now := *slow, int64(0)
		for _, r := range rates {
			faster.change(now, scenario.Link{Rate: r})
		}
		if at := admit(&faster, now, 1000); at < ms || at > 67*ms {
			t.Errorf("after the rates %v it arrives at %d", rates, at)
		}
	}
	slower := &lane{link: scenario.Link{Rate: 8_000_000}}
	admit(slower, 0, 1000)
	slower.change(0, scenario.Link{Rate: 8000})
	if at := admit(slower, 0, 10); at != 11*ms {
		t.Errorf("on a slower link it arrives at %d", at)
	}

	lost := 0
	loss := &lane{link: scenario.Link{Loss: 0.25}}
	for range 10000 {
		if admit(loss, 0, 100) < 0 {
			lost++
		}
	}
	if lost < 2300 || lost > 2700 { // standard deviation 43
		t.Errorf("%d of 10000 lost, want a quarter", lost)
	}

	early := 0
	var late []int64
	reorder := &lane{link: scenario.Link{Reorder: 0.1, Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond}}
	for range 10000 {
		if at := admit(reorder, 0, 100); at == 0 {
			early++
		} else {
			late = append(late, at)
		}
	}
	if early < 850 || early > 1150 { // standard deviation 30
		t.Errorf("%d of 10000 overtake, want a tenth", early)
	}
	slices.Sort(late)
	least, median, most := late[0], late[len(late)/2], late[len(late)-1]
	if least < 20*ms || most > 30*ms || median < 24*ms || median > 26*ms {
		t.Errorf("delays from %d by %d to %d", least, median, most)
	}
}

func TestRepeat(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	l := &lane{link: scenario.Link{Repeat: 0.2, Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond}}
	twice, apart := 0, 0
	for range 10000 {
		at, times := l.admit(0, 100, 100, rng)
		if times == 2 {
			twice++
			if at[0] != at[1] {
				apart++
			}
		} else if times != 1 {
			t.Fatalf("arrives %d times", times)
		}
	}
	if twice < 1880 || twice > 2120 || apart < twice-2 { // standard deviation 40
		t.Errorf("%d of 10000 arrive twice, %d of them at two times; want a fifth", twice, apart)
	}
}

func TestQueue(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var q queue
	var want []queued
	for round := range 2000 {
		if rng.IntN(3) > 0 || len(want) == 0 {
			p := &packet{}
			due := rng.Int64N(50)
			q.push(due, p)
			want = append(want, queued{due, uint64(round), p})
			continue
		}
		slices.SortStableFunc(want, func(a, b queued) int { return int(a.due - b.due) })
		if due, p := q.pop(); due != want[0].due || p != want[0].packet {
			t.Fatalf("popped a packet due %d, want the first due %d", due, want[0].due)
		}
		want = want[1:]
	}
	if due, ok := q.next(); !ok || len(q.heap) != len(want) || due != slices.MinFunc(want, func(a, b queued) int { return int(a.due - b.due) }).due {
		t.Errorf("next %d %v, %d left of %d", due, ok, len(q.heap), len(want))
	}
}
