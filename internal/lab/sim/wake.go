package sim

import "time"

// wake calls do when the time has come that was set last. At most one event is
// pending for it unless it is moved forward.
type wake struct {
	n       *Network
	do      func()
	at      int64 // never
	pending int64 // when the next event comes; never
}

func newWake(n *Network, do func()) wake { return wake{n, do, never, never} }

// set takes what NextTimeout of a machine gives.
func (w *wake) set(t time.Time, ok bool) {
	w.at = never
	if !ok {
		return
	}
	w.at = max(int64(t.Sub(w.n.epoch)), w.n.now)
	if w.at < w.pending {
		w.pending = w.at
		w.n.schedule(w.at, w, nil)
	}
}

func (w *wake) fire(*buffer) {
	if w.n.now < w.pending {
		return // moved forward, and done
	}
	w.pending = never
	switch {
	case w.at == never:
	case w.n.now < w.at:
		w.pending = w.at
		w.n.schedule(w.at, w, nil)
	default:
		w.at = never
		w.do()
	}
}
