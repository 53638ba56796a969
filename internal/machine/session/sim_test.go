package session

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// world is two machines, the links between them, and the time.
type world struct {
	rng    *rand.Rand
	now    time.Time
	end    [2]*end // the controller, the responder
	paths  []*path
	nextID LinkID
	bad    error

	scratch, wanted []byte
}

// path is a link and its fate.
type path struct {
	id          LinkID
	rank        int
	lanes       bool // DATA apart from control, as in QUIC
	delay       time.Duration
	jitter      time.Duration
	rate        float64 // bytes a second
	birth       time.Time
	deafAt      [2]time.Time // nothing sent by that side arrives any more
	cutAt       time.Time
	born        bool
	up          [2]bool
	over        [2]bool
	idle        [2]bool
	sending     [2]*frame.Frame
	sum         [2]uint64
	sentAt      [2]time.Time
	queue       [2]map[string][]arrival // by sending side and lane
	lanesOpened [2]map[uint64]lane
	helloAt     time.Time
	downAt      [2]time.Time
}

type lane struct {
	n    int
	next uint64
}

type arrival struct {
	at time.Time
	b  []byte
}

func newWorld(seed uint64, cfg Config) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0)}
	w.scratch, w.wanted = make([]byte, 200_000), make([]byte, 200_000)
	for side := range 2 {
		c := cfg
		c.Controller = side == 0
		w.end[side] = &end{w: w, side: side, m: New(c), apps: map[StreamID]*app{}}
	}
	return w
}

func (w *world) failf(format string, args ...any) {
	if w.bad == nil {
		w.bad = fmt.Errorf("%v: %s", w.now.Sub(time.Unix(1000, 0)), fmt.Sprintf(format, args...))
	}
}

func (w *world) addPath(p path) *path {
	w.nextID++
	p.id = w.nextID
	for side := range 2 {
		p.queue[side] = map[string][]arrival{}
		p.lanesOpened[side] = map[uint64]lane{}
		p.idle[side] = true
	}
	w.paths = append(w.paths, &p)
	return &p
}

func sum(b []byte) (s uint64) {
	for i := 0; i < len(b); i += 61 {
		s = s*31 + uint64(b[i])
	}
	return s*31 + uint64(len(b))
}

// close ends a link at one side; the other learns of it if the path carries.
func (w *world) close(p *path, side int) {
	if p.over[side] {
		return
	}
	p.over[side] = true
	if d := p.deafAt[side]; d.IsZero() || w.now.Before(d) {
		if p.downAt[1-side].IsZero() {
			p.downAt[1-side] = w.now.Add(p.delay)
		}
	}
}

// sent puts a frame on its way and gives its memory back.
func (w *world) sent(p *path, s int) {
	f := *p.sending[s]
	p.sending[s] = nil
	if sum(f.Data) != p.sum[s] {
		w.failf("link %d: memory changed while it was being sent", p.id)
	}
	at := w.now.Add(p.delay + time.Duration(w.rng.Int64N(int64(p.jitter)+1)))
	key := "control"
	if p.lanes && f.Type == frame.DATA {
		l, ok := p.lanesOpened[s][f.Stream]
		if !ok || l.next != f.Offset {
			if ok && w.rng.IntN(2) == 0 {
				delete(p.queue[s], fmt.Sprint(f.Stream, "/", l.n)) // reset
			}
			l.n++
		}
		l.next = f.Offset + uint64(len(f.Data))
		p.lanesOpened[s][f.Stream] = l
		key = fmt.Sprint(f.Stream, "/", l.n)
		if s == 0 && !at.After(p.helloAt) {
			at = p.helloAt.Add(1) // a link waits for HELLO before it looks at lanes
		}
	}
	if q := p.queue[s][key]; len(q) > 0 && at.Before(q[len(q)-1].at) {
		at = q[len(q)-1].at
	}
	if f.Type == frame.HELLO {
		p.helloAt = at
	}
	if d := p.deafAt[s]; !p.over[s] && (d.IsZero() || w.now.Before(d)) {
		p.queue[s][key] = append(p.queue[s][key], arrival{at, frame.Append(nil, &f)})
	}
	w.end[s].m.Sent(w.now, p.id, f)
}

func (w *world) deliver(p *path, s int, b []byte) {
	to := w.end[1-s]
	var d frame.Decoder
	for len(b) > 0 {
		var f frame.Frame
		n, err := d.Next(b, &f)
		if n == 0 || err != nil {
			w.failf("link %d: %d, %v", p.id, n, err)
			return
		}
		if f.Type == frame.HELLO {
			if to.closed != nil { // what a shell says that has no such session
				w.end[0].m.HandleFrame(w.now, p.id, &frame.Frame{Type: frame.CLOSE, Code: frame.UnknownSession})
				return
			}
			p.up[1] = true
			to.m.LinkUp(w.now, p.id, 0, f.Attempt)
		}
		if err := to.m.HandleFrame(w.now, p.id, &f); err != nil {
			w.failf("side %d refuses %v{stream %d offset %d limit %d}: %v", 1-s, f.Type, f.Stream, f.Offset, f.Limit, err)
			return
		}
		clear(b[:n])
		b = b[n:]
	}
}

// step does what is due now and says when something is due next.
func (w *world) step() (next time.Time, ok bool) {
	soon := func(t time.Time) {
		if !t.IsZero() && (!ok || t.Before(next)) {
			next, ok = t, true
		}
	}
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(w.now) }
	for _, p := range w.paths {
		if !p.born {
			if due(p.birth) {
				p.born, p.up[0] = true, true
				w.end[0].m.LinkUp(w.now, p.id, p.rank, [8]byte{byte(p.id)})
			} else {
				soon(p.birth)
			}
			continue
		}
		if due(p.cutAt) {
			for s := range 2 {
				if !p.over[s] && p.downAt[s].IsZero() {
					p.downAt[s] = w.now.Add(time.Duration(w.rng.Int64N(int64(200 * time.Millisecond))))
				}
				clear(p.queue[s])
			}
			p.cutAt = time.Time{}
			p.deafAt = [2]time.Time{w.now, w.now}
		}
		soon(p.cutAt)
		for s := range 2 {
			if p.sending[s] != nil && due(p.sentAt[s]) {
				w.sent(p, s)
			}
			if due(p.downAt[s]) && !p.over[s] {
				p.over[s] = true
				if p.up[s] {
					w.end[s].m.LinkDown(w.now, p.id)
				}
			}
			if !p.over[s] {
				soon(p.downAt[s])
			}
			for _, key := range sortedKeys(p.queue[s]) {
				for q := p.queue[s][key]; len(q) > 0 && due(q[0].at); q = p.queue[s][key] {
					p.queue[s][key] = q[1:]
					if p.over[1-s] || !p.deafAt[s].IsZero() && !w.now.Before(p.deafAt[s]) {
						continue
					}
					w.deliver(p, s, q[0].b)
				}
				if q := p.queue[s][key]; len(q) > 0 {
					soon(q[0].at)
				} else {
					delete(p.queue[s], key)
				}
			}
		}
	}
	for _, e := range w.end {
		if t, ok := e.m.NextTimeout(); ok && !t.After(w.now) {
			e.m.HandleTimeout(w.now)
			if t, ok := e.m.NextTimeout(); ok && !t.After(w.now) {
				w.failf("side %d: a timeout handled is due still", e.side)
			}
		}
		e.act()
		e.check()
	}
	for _, e := range w.end {
		if t, ok := e.m.NextTimeout(); ok {
			soon(t)
		}
	}
	for _, p := range w.paths {
		for s := range 2 {
			if p.sending[s] != nil {
				soon(p.sentAt[s])
			}
		}
	}
	return next, ok
}

func sortedKeys(m map[string][]arrival) []string {
	if len(m) < 2 {
		for k := range m {
			return []string{k}
		}
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// runUntil goes on until done, or until that time.
func (w *world) runUntil(end time.Time, done func() bool) {
	for w.bad == nil && w.now.Before(end) {
		next, ok := w.step()
		if w.bad != nil || done() {
			return
		}
		if !ok || next.After(end) {
			next = end
		}
		w.now = later(w.now, next)
	}
}

// run goes on until done, which must come within the limit of virtual time.
func (w *world) run(limit time.Duration, done func() bool) {
	if w.runUntil(w.now.Add(limit), done); w.bad == nil && !done() {
		w.failf("not done after %v", limit)
	}
}

func (w *world) bothClosed() bool { return w.end[0].closed != nil && w.end[1].closed != nil }

// settled fails the test unless everything went over whole.
func (w *world) settled(t *testing.T) {
	t.Helper()
	if w.bad == nil {
		for _, e := range w.end {
			e.verify()
		}
	}
	if w.bad != nil {
		t.Errorf("%v", w.bad)
		for _, e := range w.end {
			t.Logf("side %d: %+v closed %v used %v", e.side, e.m.Stats(), e.closed, e.used)
			for _, id := range e.ids {
				if a := e.apps[id]; !a.readDone || !a.writeDone {
					t.Logf("  %+v", *a)
				}
			}
			for _, s := range e.m.order {
				h := s.send
				h.buf = buffer{}
				r := s.recv
				r.buf = buffer{}
				t.Logf("  stream %d due %d lane %d: send %+v recv %+v", s.id, s.due, e.m.lane, h, r)
			}
		}
	}
}
