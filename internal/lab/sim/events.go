package sim

import (
	"math"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/router"
)

const never = math.MaxInt64

// target is what an event happens to.
type target interface {
	fire(*buffer)
}

type event struct {
	at  int64
	seq uint64 // first come, first served among equals
	to  target
	pkt *buffer
}

// events is a heap with the next one on top.
type events []event

func (e *event) before(f *event) bool {
	return e.at < f.at || e.at == f.at && e.seq < f.seq
}

func (h *events) push(e event) {
	q := append(*h, e)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(&q[up]) {
			break
		}
		q[i] = q[up]
		i = up
	}
	q[i] = e
	*h = q
}

func (h *events) pop() event {
	q := *h
	top, last := q[0], q[len(q)-1]
	q[len(q)-1] = event{}
	q = q[:len(q)-1]
	for i := 0; len(q) > 0; {
		down := 2*i + 1
		if down+1 < len(q) && q[down+1].before(&q[down]) {
			down++
		}
		if down >= len(q) || !q[down].before(&last) {
			q[i] = last
			break
		}
		q[i] = q[down]
		i = down
	}
	*h = q
	return top
}

func (n *Network) schedule(at int64, to target, pkt *buffer) {
	n.seq++
	n.events.push(event{at, n.seq, to, pkt})
}

// enter locks the network and brings it up to date.
func (n *Network) enter() {
	n.mu.Lock()
	n.run(int64(time.Since(n.epoch)))
}

// leave does what has become due, sets the timer and unlocks.
func (n *Network) leave() {
	n.settle()
	n.mu.Unlock()
}

func (n *Network) settle() {
	n.run(n.now)
	if n.closed || len(n.events) == 0 || n.events[0].at >= n.armed {
		return
	}
	n.armed = n.events[0].at
	wait := time.Duration(n.armed) - time.Since(n.epoch)
	if n.timer == nil {
		n.firing.Add(1)
		n.timer = time.AfterFunc(wait, n.alarm)
	} else if !n.timer.Reset(wait) {
		n.firing.Add(1)
	}
}

func (n *Network) alarm() {
	defer n.firing.Done()
	n.mu.Lock()
	n.armed = never
	n.run(int64(time.Since(n.epoch)))
	n.leave()
}

// run lets the events up to now happen, each at its own time.
func (n *Network) run(now int64) {
	for len(n.events) > 0 && n.events[0].at <= now {
		e := n.events.pop()
		n.now = max(n.now, e.at)
		n.happened++
		e.to.fire(e.pkt)
	}
	n.now = max(n.now, now)
}

// buffer holds one packet. Whoever has it last gives it back.
type buffer struct {
	b    []byte
	from *port    // that has put it on its network; nil: nobody's, or not there yet
	on   *segment // that network
}

func (n *Network) take() *buffer {
	if last := len(n.spare) - 1; last >= 0 {
		pkt := n.spare[last]
		n.spare = n.spare[:last]
		return pkt
	}
	return &buffer{b: make([]byte, 0, 2048)}
}

// duplicate is another buffer with the same packet.
func (n *Network) duplicate(pkt *buffer) *buffer {
	again := n.take()
	again.b, again.from, again.on = append(again.b, pkt.b...), pkt.from, pkt.on
	return again
}

// link is the hardware address of who has sent it last.
func (b *buffer) link() (mac router.MAC) {
	if b.from != nil {
		mac = b.from.mac
	}
	return mac
}

func (n *Network) give(pkt *buffer) {
	if len(n.spare) < 256 && cap(pkt.b) <= 1<<14 {
		*pkt = buffer{b: pkt.b[:0]}
		n.spare = append(n.spare, pkt)
	}
}
