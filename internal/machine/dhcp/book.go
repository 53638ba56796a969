package dhcp

import (
	"container/heap"
	"net/netip"
	"time"
)

// state is what is known of an address that was ever given a thought. An
// address without a record is free.
//
//	free    nobody's. Leaves by: probing, offered, leased, aside.
//	idle    a lease that ended, kept for who had it until someone else needs
//	        the address. Leaves as free does.
//	probing it is pinged before it is offered. Leaves by: silence (offered), an
//	        answer (aside).
//	offered Leaves by: the client's choice (leased), another server's offer
//	        taken, time or another client's need (free; idle if it had it before).
//	leased  Leaves by: time or RELEASE (idle), DECLINE (aside), Forget (free).
//	aside   somebody uses it without asking. Leaves by: time, or too many others
//	        being set aside (free).
type state uint8

const (
	free state = iota
	idle
	probing
	offered
	leased
	aside
	states
)

// record is what is known of one address.
type record struct {
	addr  netip.Addr
	state state
	until time.Time // of probing, offered, leased, aside; zero: no end
	since time.Time // in this state

	key    string // whose it is; empty: nobody's
	hw     MAC
	sender MAC  // who got it for the client: hw, or who stands in front of it
	had    bool // the client has had a lease here before

	asked *message // probing: what is to be answered

	at         int // in the timers; -1: not there
	prev, next *record
}

// queue links records in the order in which they came into a state.
type queue struct {
	head, tail *record
	n          int
}

func (q *queue) push(r *record) {
	r.prev, r.next = q.tail, nil
	if q.tail != nil {
		q.tail.next = r
	} else {
		q.head = r
	}
	q.tail = r
	q.n++
}

func (q *queue) remove(r *record) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		q.head = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		q.tail = r.prev
	}
	r.prev, r.next = nil, nil
	q.n--
}

// timers is a heap, the first to end on top.
type timers []*record

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].until.Before(t[j].until) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i]; t[i].at, t[j].at = i, j }
func (t *timers) Push(x any)        { r := x.(*record); r.at = len(*t); *t = append(*t, r) }
func (t *timers) Pop() any {
	old := *t
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	r.at = -1
	return r
}

// book has a record of each address that was ever lent, and no more of them
// than max.
type book struct {
	space    *space
	max      int
	byAddr   map[netip.Addr]*record
	byKey    map[string]*record
	queues   [states]queue
	timers   timers
	bySender map[MAC]int // addresses that a sender holds
	next     uint32      // the first address that was never lent
	known    users
}

func newBook(s *space, max int) *book {
	return &book{
		space:    s,
		max:      max,
		byAddr:   map[netip.Addr]*record{},
		byKey:    map[string]*record{},
		bySender: map[MAC]int{},
		next:     s.first,
	}
}

// held are the states in which an address is somebody's.
func (r *record) held() bool { return r.state == probing || r.state == offered || r.state == leased }

// move puts a record into a state, until a time or for ever.
func (b *book) move(now time.Time, r *record, to state, until time.Time) {
	b.known.forget(r.addr)
	if r.held() {
		if b.bySender[r.sender]--; b.bySender[r.sender] == 0 {
			delete(b.bySender, r.sender)
		}
	}
	b.queues[r.state].remove(r)
	if r.at >= 0 {
		heap.Remove(&b.timers, r.at)
	}
	if to == free || to == aside {
		b.disown(r)
	}
	if to != probing {
		r.asked = nil
	}
	r.state, r.until, r.since = to, until, now
	b.queues[to].push(r)
	if !until.IsZero() {
		heap.Push(&b.timers, r)
	}
	if r.held() {
		b.bySender[r.sender]++
	}
}

// disown makes a record nobody's.
func (b *book) disown(r *record) {
	if b.byKey[r.key] == r {
		delete(b.byKey, r.key)
	}
	r.key, r.hw, r.had = "", MAC{}, false
}

// give makes the address this client's and its only one, in a state that holds
// it. sender is not among what tells clients apart; who asks once more for what
// another one got has no say over it.
func (b *book) give(now time.Time, a netip.Addr, key string, hw, sender MAC, to state, until time.Time) *record {
	if old := b.byKey[key]; old != nil && old.addr != a {
		b.move(now, old, free, time.Time{})
	}
	r := b.record(a)
	had := r.had && r.key == key
	if r.held() && r.key == key && sender != hw {
		sender = r.sender
	}
	b.move(now, r, free, time.Time{})
	r.key, r.hw, r.sender, r.had = key, hw, sender, had || to == leased
	b.byKey[key] = r
	b.move(now, r, to, until)
	return r
}

func (b *book) record(a netip.Addr) *record {
	r := b.byAddr[a]
	if r == nil {
		r = &record{addr: a, at: -1}
		b.byAddr[a] = r
		b.queues[free].push(r)
	}
	return r
}

// pick is an address for a client that has none: one that was nobody's before
// one that somebody might come back for. An offer that nobody took for a
// while is taken back before anyone is left without an address.
func (b *book) pick(now time.Time, barred netip.Addr) (netip.Addr, bool) {
	for r := b.queues[free].head; r != nil; r = r.next {
		if r.addr != barred && b.space.dynamic(r.addr) {
			return r.addr, true
		}
	}
	for ; b.next <= b.space.last && len(b.byAddr) < b.max; b.next++ {
		a := addrOf(b.next)
		if !b.space.dynamic(a) || b.byAddr[a] != nil {
			continue
		}
		if a != barred {
			return a, true
		}
		b.record(a) // for the next client
	}
	for r := b.queues[idle].head; r != nil; r = r.next {
		if r.addr != barred && b.space.dynamic(r.addr) {
			return r.addr, true
		}
	}
	for r := b.queues[offered].head; r != nil && now.Sub(r.since) >= offerAtLeast; r = r.next {
		if r.addr != barred && b.space.dynamic(r.addr) {
			return r.addr, true
		}
	}
	return netip.Addr{}, false
}
