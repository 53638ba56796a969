package punch

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// up is two machines with a path, at the moment it was confirmed.
func up(t *testing.T) (w *world, inet *network, a, b *host) {
	w, inet, a, b = differentNATs(1, portRestricted, portRestricted)
	a.begin(true, b.candidates(true))
	b.begin(false, a.candidates(true))
	w.run(time.Second)
	a.mustPath(t, Punch)
	b.mustPath(t, Punch)
	return w, inet, a, b
}

// When a path dies, exactly when is it noticed? The offerer's last check before
// was the nomination at 120 ms; the answerer's path is in use since 160 ms.
func TestWatch(t *testing.T) {
	const dead = watchLimit * watchRepeat
	w, inet, a, b := up(t)
	inet.loss = 1
	w.run(time.Minute)
	for _, x := range []struct {
		h    *host
		want time.Duration
	}{{a, 120*ms + watchPeriod + dead}, {b, 160*ms + watchPeriod + dead}} {
		e := x.h.events[len(x.h.events)-1]
		if d, ok := e.(PathDown); !ok || d.Reason != Unanswered || x.h.at[len(x.h.at)-1] != x.want {
			t.Errorf("%s: %+v at %v, want PathDown at %v", x.h.name, e, x.h.at[len(x.h.at)-1], x.want)
		}
		if at, why := x.h.m.NextTimeout(); !at.IsZero() {
			t.Errorf("%s: waits for %s when done", x.h.name, why)
		}
	}
}

// A watched path stays up, with exactly the checks that were promised.
func TestWatchRate(t *testing.T) {
	w, _, a, b := up(t)
	before := a.sent[b.mapped().Addr()] + b.sent[a.mapped().Addr()]
	w.run(61 * time.Second)
	a.mustPath(t, Punch)
	b.mustPath(t, Punch)
	// In a minute, from each of two, a check and an answer to the other's.
	if n := a.sent[b.mapped().Addr()] + b.sent[a.mapped().Addr()] - before; n != 2*2*4 {
		t.Errorf("%d datagrams in a minute", n)
	}
}

// A path that one side gave up is given up by the other, by silence.
func TestSilence(t *testing.T) {
	w, _, a, b := up(t)
	a.m = nil // its process ended
	w.run(time.Minute)
	if _, _, ok := b.path(); ok {
		t.Errorf("the answerer still has a path: %v", b.events)
	}
}

// Losing fewer checks than the limit costs nothing.
func TestWatchSurvives(t *testing.T) {
	w, inet, a, b := up(t)
	// Both check within a second of 14, 30, 46 and 62 s from now.
	for at := 13500 * ms; at < 70*time.Second; at += 16 * time.Second {
		w.after(at, func() { inet.loss = 1 })
		w.after(at+(watchLimit-1)*watchRepeat-ms, func() { inet.loss = 0 })
	}
	w.run(75 * time.Second)
	a.mustPath(t, Punch)
	b.mustPath(t, Punch)
	if slices.ContainsFunc(append(a.events, b.events...), func(e Event) bool { _, down := e.(PathDown); return down }) {
		t.Error("a path went down")
	}
}

// When nothing answers, checks go out exactly as documented, and the attempt
// ends exactly when documented.
func TestSchedule(t *testing.T) {
	w := newWorld(1)
	inet := &network{w: w, delay: oneWay}
	a := w.host(inet, "a", "198.51.100.1")
	nobody := w.host(inet, "n", "198.51.100.9")
	var got []time.Duration
	nobody.handle = func(netip.AddrPort, netip.Addr, []byte) { got = append(got, w.now.Sub(epoch)-oneWay) }
	a.begin(true, nobody.candidates(false))
	w.run(time.Minute)
	want := []time.Duration{0, 20 * ms, 60 * ms, 140 * ms, 300 * ms}
	for at := 620 * ms; at < tryFor; at += 320 * ms {
		want = append(want, at)
	}
	if !slices.Equal(got, want) {
		t.Errorf("checks at\n%v, want\n%v", got, want)
	}
	f, at, ok := a.failed()
	if !ok || at != tryFor || f.Reason != NoAnswer || len(f.Tried) != 1 || f.Tried[0].Sent != len(want) || f.Tried[0].Result != NoAnswer {
		t.Errorf("failed %v %+v at %v", ok, f, at)
	}
}
