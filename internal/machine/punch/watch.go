package punch

import "time"

const (
	watchPeriod = 15 * time.Second

	// With a fifth of all packets lost, fewer repetitions would declare a path
	// dead every few minutes.
	watchRepeat = 300 * time.Millisecond
	watchLimit  = 8

	lastChoosingRepeat = 400 * time.Millisecond
)

// watch is the state of a machine that is up.
type watch struct {
	choosing   bool          // the nomination has not been answered
	repeat     time.Duration // while it has not
	next       time.Time
	last       time.Time // of the last check, or when the path was chosen
	unanswered int
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// keepWatch does what is due on the path in use.
func (m *Machine) keepWatch(now time.Time) {
	switch {
	case m.chosen == nil || now.Before(m.watch.next):
		return
	case m.watch.unanswered >= watchLimit:
		m.finish(PathDown{Remote: m.chosen.remote, Reason: Unanswered})
		return
	}
	m.watchSend(now)
}

func (m *Machine) watchSend(now time.Time) {
	w := &m.watch
	w.unanswered++
	w.last = now
	w.next = now.Add(watchRepeat)
	if w.choosing {
		w.next = now.Add(w.repeat)
		w.repeat = min(2*w.repeat, lastChoosingRepeat)
	}
	m.request(now, m.chosen, toWatch)
}

// watchAnswered notes that the path in use works.
func (m *Machine) watchAnswered(now time.Time) {
	w := &m.watch
	w.choosing, w.unanswered = false, 0
	w.next = later(w.last.Add(watchPeriod), now)
}
