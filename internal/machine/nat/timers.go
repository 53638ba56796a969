package nat

import (
	"math"
	"time"
)

// class is a timeout that sessions share. Since it is constant, a list in the
// order of the last refresh is a list in the order of expiry, and both
// refresh and expiry take constant time.
type class uint8

const (
	classUDP class = iota
	classICMP
	classTransitory  // TCP opening or closing
	classEstablished // TCP
	classes
	noClass = classes // without a timer
)

const (
	defaultUDPTimeout  = 5 * time.Minute             // RFC 4787 REQ-5
	icmpTimeout        = time.Minute                 // RFC 5508 REQ-2
	transitoryTimeout  = 4 * time.Minute             // RFC 5382 REQ-5
	establishedTimeout = 2*time.Hour + 4*time.Minute // RFC 5382 REQ-5
)

// list links the sessions of one class, the next to expire first.
type list struct {
	head, tail uint32
	timeout    int64
}

// touch starts the session's timer anew, in class c.
func (g *Gateway) touch(ref uint32, c class) {
	s := &g.sessions[ref]
	l := &g.lists[c]
	if s.class == c && l.tail == ref {
		s.expires = g.now + l.timeout
		return
	}
	g.unlink(ref)
	s.class = c
	s.expires = g.now + l.timeout
	s.prev, s.next = l.tail, 0
	if l.tail != 0 {
		g.sessions[l.tail].next = ref
	} else {
		l.head = ref
	}
	l.tail = ref
}

// unlink takes the session out of its list; it may be in none (noClass).
func (g *Gateway) unlink(ref uint32) {
	s := &g.sessions[ref]
	if s.class == noClass {
		return
	}
	l := &g.lists[s.class]
	if s.prev != 0 {
		g.sessions[s.prev].next = s.next
	} else {
		l.head = s.next
	}
	if s.next != 0 {
		g.sessions[s.next].prev = s.prev
	} else {
		l.tail = s.prev
	}
	s.class = noClass
}

// advance moves the clock, which never runs backwards, and ends what expired.
func (g *Gateway) advance(now time.Time) {
	g.now = max(g.now, now.UnixNano())
	for c := range g.lists {
		l := &g.lists[c]
		for l.head != 0 && g.sessions[l.head].expires <= g.now {
			g.dropSession(l.head)
		}
	}
}

// HandleTimeout ends what has expired. Calling it is never needed for correct
// behaviour; it gives memory and ports back early.
func (g *Gateway) HandleTimeout(now time.Time) {
	g.advance(now)
	if g.now >= g.soon {
		g.overdue()
	}
}

// NextTimeout is when something expires next, unless it is used until then.
func (g *Gateway) NextTimeout() (time.Time, bool) {
	next := g.soon
	for c := range g.lists {
		if head := g.lists[c].head; head != 0 {
			next = min(next, g.sessions[head].expires)
		}
	}
	return time.Unix(0, next), next != math.MaxInt64
}
