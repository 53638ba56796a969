package sim

import (
	"sync"
	"time"
)

// deadline wakes those who wait on a condition when its time has come. At most
// one event is pending for it unless it is moved forward.
type deadline struct {
	n       *Network
	cond    *sync.Cond
	set     bool
	at      int64
	pending int64 // when the next event comes; never
}

func newDeadline(n *Network, cond *sync.Cond) deadline {
	return deadline{n: n, cond: cond, pending: never}
}

func (d *deadline) move(t time.Time) {
	d.set = !t.IsZero()
	d.at = int64(t.Sub(d.n.epoch))
	if d.passed() {
		d.cond.Broadcast()
	} else if d.set && d.at < d.pending {
		d.pending = d.at
		d.n.schedule(d.at, d, nil)
	}
}

func (d *deadline) passed() bool { return d.set && d.at <= d.n.now }

func (d *deadline) fire(*buffer) {
	if d.n.now < d.pending {
		return
	}
	d.pending = never
	if d.passed() {
		d.cond.Broadcast()
	} else if d.set {
		d.pending = d.at
		d.n.schedule(d.at, d, nil)
	}
}

// wait blocks on cond, a condition of the network's lock. What is due is done
// first; if that was anything, the caller must look again, because it may have
// been what he waits for.
func (n *Network) wait(cond *sync.Cond) {
	before := n.happened
	n.settle()
	if n.happened == before {
		cond.Wait()
	}
}
