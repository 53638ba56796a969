package punch

import "time"

const (
	idlePeriod   = 15 * time.Second
	activePeriod = 400 * time.Millisecond

	// What is repeated, and how often, is the same in idle and active: with a
	// fifth of all packets lost, fewer checks would declare a path dead every
	// few minutes.
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

// SetActive says whether something is outstanding on the path, so that its
// death is to be noticed soon.
func (m *Machine) SetActive(now time.Time, active bool) {
	if m.active == active {
		return
	}
	m.active = active
	if m.done || m.chosen == nil || m.watch.unanswered > 0 {
		return // checks are repeated already
	}
	// At once if one would have been due, but never more often than that.
	m.watch.next = later(m.watch.last.Add(m.watchPeriod()), now)
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

func (m *Machine) watchPeriod() time.Duration {
	if m.active {
		return activePeriod
	}
	return idlePeriod
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
	w.next = later(w.last.Add(m.watchPeriod()), now)
}
