package session

import (
	"slices"
	"testing"
	"time"
)

// whole is a stream of n bytes both ways, without faults.
func whole(n int) func(StreamID, int) *app {
	return func(id StreamID, side int) *app {
		return &app{size: n, resetAt: -1, stopAt: -1, mine: byte(side), expect: byte(1 - side), chunkMin: 1000, chunkLimit: 100_000}
	}
}

func relayPath(at time.Time) path {
	return path{rank: 1, delay: 60 * time.Millisecond, rate: 2e6, birth: at}
}

func directPath(at time.Time) path {
	return path{rank: 2, lanes: true, delay: 10 * time.Millisecond, jitter: 5 * time.Millisecond, rate: 10e6, birth: at}
}

// Relay, direct, relay, direct in the middle of a transfer both ways,
// whatever way the direct path dies: each end uses the links in that order,
// and the bytes are whole.
func TestSwitchInMidTransfer(t *testing.T) {
	for name, die := range map[string]func(*path, time.Time){
		"cut":                  func(p *path, at time.Time) { p.cutAt = at },
		"silent":               func(p *path, at time.Time) { p.deafAt = [2]time.Time{at, at} },
		"deaf from controller": func(p *path, at time.Time) { p.deafAt[0] = at },
		"deaf from responder":  func(p *path, at time.Time) { p.deafAt[1] = at },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(1, Config{})
			for _, e := range w.end {
				e.plan, e.closes = whole(30<<20), true
			}
			w.end[0].opens = 1
			w.addPath(relayPath(w.now))
			first := directPath(w.now.Add(time.Second))
			die(&first, w.now.Add(2*time.Second))
			w.addPath(first)
			w.addPath(directPath(w.now.Add(7 * time.Second)))
			w.run(2*time.Minute, w.bothClosed)
			w.settled(t)
			want := []LinkID{1, 2, 1, 3}
			for _, e := range w.end {
				if !slices.Equal(e.used, want) || e.nolink != 0 {
					t.Errorf("side %d used %v, %d times none, want %v", e.side, e.used, e.nolink, want)
				}
			}
		})
	}
}

// A better link that does not work one way costs nothing: the old one carries
// on, and is not taken for dead because of the other.
func TestBetterLinkThatNeverAnswers(t *testing.T) {
	for mute := range 2 {
		w := newWorld(1, Config{})
		for _, e := range w.end {
			e.plan, e.closes = whole(12<<20), true
		}
		w.end[0].opens = 1
		w.addPath(relayPath(w.now))
		better := directPath(w.now.Add(time.Second))
		better.deafAt[mute] = better.birth.Add(50 * time.Millisecond * time.Duration(1-mute))
		w.addPath(better)
		w.run(time.Minute, w.bothClosed)
		w.settled(t)
		if took := w.now.Sub(time.Unix(1000, 0)); mute == 1 && took > 7*time.Second {
			t.Errorf("took %v", took)
		}
		for side, e := range w.end {
			if w.paths[0].over[side] || e.nolink > 0 {
				t.Errorf("mute %d: side %d gave up the working link; used %v", mute, side, e.used)
			}
		}
	}
}

// The direct path dies while the switch to it is under way, at every
// millisecond of it.
func TestLinkDiesDuringSwitch(t *testing.T) {
	for ms := range 60 {
		w := newWorld(uint64(ms), Config{})
		for _, e := range w.end {
			e.plan, e.closes = whole(600_000), true
		}
		w.end[0].opens = 1
		w.end[1].opens = 1
		w.addPath(relayPath(w.now))
		p := directPath(w.now.Add(150 * time.Millisecond))
		at := p.birth.Add(time.Duration(ms) * time.Millisecond)
		p.deafAt = [2]time.Time{at, at}
		w.addPath(p)
		w.run(time.Minute, w.bothClosed)
		w.settled(t)
	}
}

// Two better links come up at once: both switches are under way together.
func TestTwoSwitchesInFlight(t *testing.T) {
	for ms := range 40 {
		w := newWorld(uint64(ms), Config{})
		for _, e := range w.end {
			e.plan, e.closes = whole(600_000), true
		}
		w.end[0].opens = 2
		w.addPath(relayPath(w.now))
		slow := relayPath(w.now.Add(150 * time.Millisecond))
		slow.rank = 2
		w.addPath(slow)
		fast := directPath(slow.birth.Add(time.Duration(ms) * 4 * time.Millisecond))
		fast.rank = 3
		w.addPath(fast)
		w.run(time.Minute, w.bothClosed)
		w.settled(t)
		for _, e := range w.end {
			if last := e.used[len(e.used)-1]; last != 3 {
				t.Errorf("%d ms: side %d ended on link %d", ms*4, e.side, last)
			}
		}
	}
}

// The first flight holds everything: HELLO, RESUME, OPEN, DATA, FIN leave
// before anything has come back.
func TestFirstFlight(t *testing.T) {
	now := time.Unix(0, 0)
	m := New(Config{Controller: true})
	id, _ := m.Open()
	if _, err := m.Write(id, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	m.CloseWrite(id)
	m.LinkUp(now, 1, 1, [8]byte{})
	var got string
	for {
		f, ok := m.Next(now, 1)
		if !ok {
			break
		}
		got += f.Type.String() + " "
		m.Sent(now, 1, f)
	}
	if want := "HELLO RESUME OPEN DATA FIN "; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}
