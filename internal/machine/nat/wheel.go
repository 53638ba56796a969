package nat

import (
	"math"
	"math/bits"
	"time"
)

// wheel is a hierarchical timing wheel of sessions, exact to the nanosecond. A
// session stands in a slot that begins no later than the session expires. A
// packet that puts the end off writes it into the session and nowhere else;
// the slot finds out when its time has come, and puts the session where it
// belongs by then. So neither a packet nor an expiry costs more when more
// sessions live.
//
// A slot of level n is 256^n ns long. A session is on the level of the highest
// byte in which its end differs from the wheel's time, in the slot of that
// byte; with time this stays true until the slot is due.
type wheel struct {
	now    int64 // all slots that begin until then are empty
	due    int64 // no slot that is not empty begins earlier
	levels [8]*level
	moving uint32 // first of the sessions that look for a new place
}

type level struct {
	slots    [256]uint32 // first session
	occupied [4]uint64
}

const (
	never = math.MaxInt64
	// A session's prev is another session, or the place in the wheel that
	// leads to it, told apart by this.
	fromSlot   = 1 << 30
	fromMoving = fromSlot | 8<<8
)

func (w *wheel) reset(now int64) { *w = wheel{now: now, due: never} }

// file puts a session that is in no slot into the one of its end.
func (g *Gateway) file(ref uint32, s *session) {
	w := &g.wheel
	end := max(s.expires, w.now+1)
	n := (bits.Len64(uint64(end^w.now)) - 1) / 8
	if w.levels[n] == nil {
		w.levels[n] = new(level)
	}
	i := uint32(end>>(8*n)) % 256
	w.levels[n].occupied[i/64] |= 1 << (i % 64)
	g.push(&w.levels[n].slots[i], fromSlot|uint32(n)<<8|i, ref, s)
	w.due = min(w.due, end>>(8*n)<<(8*n))
}

func (g *Gateway) push(head *uint32, from, ref uint32, s *session) {
	s.prev, s.next = from, *head
	if s.next != 0 {
		g.session(s.next).prev = ref
	}
	*head = ref
}

// unfile takes a session out of the wheel, if it is there.
func (g *Gateway) unfile(s *session) {
	switch {
	case s.prev == 0:
		return
	case s.prev == fromMoving:
		g.wheel.moving = s.next
	case s.prev&fromSlot != 0:
		l, i := g.wheel.levels[s.prev>>8&7], s.prev%256
		if l.slots[i] = s.next; s.next == 0 {
			l.occupied[i/64] &^= 1 << (i % 64)
		}
	default:
		g.session(s.prev).next = s.next
	}
	if s.next != 0 {
		g.session(s.next).prev = s.prev
	}
	s.prev, s.next = 0, 0
}

// first is the earliest slot that is not empty, and its time.
func (w *wheel) first() (l *level, i uint32, begins, ends int64) {
	for n, l := range w.levels {
		if l == nil {
			continue
		}
		for word, set := range l.occupied {
			if set != 0 {
				i := uint32(word*64 + bits.TrailingZeros64(set))
				begins := w.now>>(8*n)&^255 | int64(i)
				return l, i, begins << (8 * n), (begins + 1) << (8 * n)
			}
		}
	}
	return nil, 0, never, never
}

// touch starts the session's timer anew, in class c.
func (g *Gateway) touch(ref uint32, c class) {
	s := g.session(ref)
	end := g.now + g.timeouts[c]
	s.class = c
	if s.prev != 0 {
		if end >= s.expires {
			s.expires = end
			return
		}
		g.unfile(s)
	}
	s.expires = end
	g.file(ref, s)
}

// advance moves the clock, which never runs backwards, and ends what expired.
func (g *Gateway) advance(now time.Time) {
	g.now = max(g.now, now.UnixNano())
	if g.now >= g.wheel.due {
		g.expire()
	}
	if g.now >= g.held.due() {
		g.unhold(g.now)
	}
	if g.now >= g.soon {
		g.overdue()
	}
}

func (g *Gateway) expire() {
	w := &g.wheel
	l, i, begins, _ := w.first()
	for ; begins <= g.now; l, i, begins, _ = w.first() {
		w.now = begins
		for l.slots[i] != 0 {
			ref := l.slots[i]
			s := g.session(ref)
			switch {
			case s.expires <= begins || s.expires <= g.now && g.cfg.Ports.HoldDown == 0:
				g.outlive(ref, s)
			case s.expires <= g.now: // one after the other, since ports rest from then on
				g.unfile(s)
				g.file(ref, s)
			default:
				g.unfile(s)
				g.push(&w.moving, fromMoving, ref, s)
			}
		}
	}
	w.now, w.due = g.now, begins
	for w.moving != 0 {
		ref := w.moving
		s := g.session(ref)
		g.unfile(s)
		g.file(ref, s)
	}
}

// HandleTimeout does what is due at now: it ends what has expired, which the
// next packet would do as well.
func (g *Gateway) HandleTimeout(now time.Time) { g.advance(now) }

// lookahead bounds the work of NextTimeout.
const lookahead = 8

// NextTimeout is when HandleTimeout may have something to do next: never later
// than when something expires, but perhaps earlier.
func (g *Gateway) NextTimeout() (time.Time, bool) {
	l, i, next, ends := g.wheel.first()
	if l == nil {
		return time.Unix(0, g.soon), g.soon != never
	}
	// Where few are waiting, it is when the first of them expires.
	at := l.slots[i]
	for range lookahead {
		s := g.session(at)
		ends = min(ends, s.expires)
		if at = s.next; at == 0 {
			next = ends
			break
		}
	}
	return time.Unix(0, min(next, g.soon)), true
}

// class is a timeout that sessions share.
type class uint8

const (
	classUDP        class = iota
	classUnanswered       // UDP
	classICMP
	classTransitory  // TCP opening or closing
	classEstablished // TCP
	classAfterFIN    // TCP, of both sides
	classAfterRST    // TCP
	classes
	noClass     = classes     // without a timer
	classMapped = classes + 1 // stands for what Map made; no remote
)

// timeouts are those of the RFCs where the behaviour names none.
func timeouts(t *Timers) (all [classes]int64) {
	for c, d := range [classes][2]time.Duration{
		classUDP:         {t.UDP, 5 * time.Minute},                     // RFC 4787 REQ-5
		classUnanswered:  {t.UDPUnanswered, 0},                         // unused without
		classICMP:        {t.ICMP, time.Minute},                        // RFC 5508 REQ-2
		classTransitory:  {t.Transitory, 4 * time.Minute},              // RFC 5382 REQ-5
		classEstablished: {t.Established, 2*time.Hour + 4*time.Minute}, // RFC 5382 REQ-5
		classAfterFIN:    {t.AfterFIN, 4 * time.Minute},                // RFC 5382 REQ-5
		classAfterRST:    {t.AfterRST, 4 * time.Minute},                // RFC 7857 section 2.2
	} {
		if all[c] = int64(d[0]); d[0] == 0 {
			all[c] = int64(d[1])
		}
	}
	return all
}
