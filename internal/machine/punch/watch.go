package punch

import "time"

const (
	idlePeriod = 15 * time.Second
	idleRepeat = time.Second
	idleLimit  = 3

	activePeriod = 400 * time.Millisecond
	activeRepeat = 300 * time.Millisecond
	activeLimit  = 8

	lastChoosingRepeat = 400 * time.Millisecond
)

// watch is the state of a machine that is up.
type watch struct {
	choosing   bool          // the nomination has not been answered
	repeat     time.Duration // while it has not
	next       time.Time
	last       time.Time // of the last check, or when the path was chosen
	unanswered int
	since      time.Time // of the first unanswered check
}

// SetActive says whether something is outstanding on the path, so that its
// death is to be noticed soon.
func (m *Machine) SetActive(now time.Time, active bool) {
	if m.active == active {
		return
	}
	m.active = active
	if m.done || m.chosen == nil || m.watch.choosing {
		return
	}
	w := &m.watch
	switch {
	case w.unanswered > 0 && active:
		w.next = earliest(w.next, later(w.last.Add(activeRepeat), now))
	case w.unanswered > 0:
		w.next = later(w.next, w.last.Add(idleRepeat))
	case active:
		// At once, but not more often than if it had been active all along.
		w.next = earliest(w.next, later(w.last.Add(activePeriod), now))
	default:
		w.next = later(w.last.Add(idlePeriod), now)
	}
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
	w := &m.watch
	if m.chosen == nil || now.Before(w.next) {
		return
	}
	dead := w.unanswered >= activeLimit
	if !m.active && !w.choosing {
		// Both, because a change from active to idle leaves many checks that
		// had little time to be answered.
		dead = w.unanswered >= idleLimit && now.Sub(w.since) >= idleLimit*idleRepeat
	}
	if dead {
		m.finish(PathDown{Remote: m.chosen.remote, Reason: Unanswered})
		return
	}
	m.watchSend(now)
}

func (m *Machine) watchSend(now time.Time) {
	w := &m.watch
	if w.unanswered == 0 {
		w.since = now
	}
	w.unanswered++
	w.last = now
	switch {
	case w.choosing:
		w.next = now.Add(w.repeat)
		w.repeat = min(2*w.repeat, lastChoosingRepeat)
	case m.active:
		w.next = now.Add(activeRepeat)
	default:
		w.next = now.Add(idleRepeat)
	}
	m.request(now, m.chosen, toWatch)
}

// watchAnswered notes that the path in use works.
func (m *Machine) watchAnswered(now time.Time) {
	w := &m.watch
	w.choosing, w.unanswered = false, 0
	w.next = later(w.last.Add(m.watchPeriod()), now)
}
