package session

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// end is one machine with its shell: it acts on hints alone.
type end struct {
	w      *world
	side   int
	m      *Machine
	apps   map[StreamID]*app
	ids    []StreamID // of apps, ascending
	plan   func(id StreamID, side int) *app
	opens  int // streams still to be opened
	closed *Closed
	used   []LinkID // of every LinkInUse
	nolink int
	closes bool // calls Close when all its streams are over
	asked  bool
}

// app is what one end does with one stream.
type app struct {
	id                   StreamID
	size, written, read  int
	resetAt, stopAt      int // after so many bytes written, read; -1: never
	canRead, canWrite    bool
	readDone, writeDone  bool
	readErr              error
	expect               byte // seed of what comes
	mine                 byte // seed of what goes
	anyErr               bool // a reset or a stop is planned at one of the ends
	chunkMin, chunkLimit int
}

// noise is what streams carry: no part of it looks like another.
var noise = func() []byte {
	b := make([]byte, 1<<18)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}()

// fill writes what a stream carries from offset on.
func fill(b []byte, seed byte, offset int) {
	for at := offset + 100*int(seed); len(b) > 0; {
		n := copy(b, noise[at%len(noise):])
		at, b = at+n, b[n:]
	}
}

// act lets an end's applications and link writers do all they can.
func (e *end) act() {
	for again := true; again && e.w.bad == nil; {
		again = false
		for e.opens > 0 {
			id, err := e.m.Open()
			if err != nil {
				break
			}
			e.opens--
			e.start(id)
		}
		for {
			id, ok := e.m.Accept()
			if !ok {
				break
			}
			e.start(id)
		}
		for _, id := range e.ids {
			again = e.apps[id].act(e) || again
		}
		again = e.hints() || again
		again = e.writers() || again
		for {
			ev, ok := e.m.Event()
			if !ok {
				break
			}
			again = true
			e.event(ev)
		}
	}
	if o := e.w.end[1-e.side]; e.closes && !e.asked && e.opens+o.opens == 0 && slices.Equal(e.ids, o.ids) && e.finished() {
		e.asked = true
		e.m.Close(e.w.now, frame.NoError, "done")
		e.act()
	}
}

func (e *end) start(id StreamID) {
	a := e.plan(id, e.side)
	a.id, a.canRead, a.canWrite = id, true, true
	e.apps[id] = a
	i, _ := slices.BinarySearch(e.ids, id)
	e.ids = slices.Insert(e.ids, i, id)
}

func (e *end) finished() bool {
	for _, a := range e.apps {
		if !a.readDone || !a.writeDone {
			return false
		}
	}
	return true
}

func (e *end) hints() (any bool) {
	for {
		h, ok := e.m.Wake()
		if !ok {
			return any
		}
		any = true
		switch h.Kind {
		case WakeRead:
			e.apps[h.Stream].canRead = true
		case WakeWrite:
			e.apps[h.Stream].canWrite = true
		case WakeLink:
			for _, p := range e.w.paths {
				if p.id == h.Link {
					p.idle[e.side] = false
				}
			}
		}
	}
}

func (a *app) act(e *end) (any bool) {
	w := e.w
	if !a.writeDone && a.canWrite {
		any = true
		n := min(a.chunkMin+w.rng.IntN(a.chunkLimit), a.size-a.written)
		if a.resetAt >= 0 {
			n = min(n, a.resetAt-a.written)
		}
		b := w.scratch[:n]
		fill(b, a.mine, a.written)
		got, err := 0, error(nil)
		if n > 0 {
			got, err = e.m.Write(a.id, b)
		}
		clear(b) // Write keeps nothing of it
		a.written += got
		if err != nil {
			if !a.anyErr {
				w.failf("side %d stream %d: Write: %v", e.side, a.id, err)
			}
			a.writeDone = true
			e.m.CloseWrite(a.id)
		} else if got < n {
			a.canWrite = false
		}
		switch {
		case a.writeDone:
		case a.written == a.resetAt:
			e.m.Reset(a.id, 77)
			a.writeDone, a.readDone = true, true
		case a.written == a.size:
			e.m.CloseWrite(a.id)
			a.writeDone = true
		}
	}
	if !a.readDone && a.canRead {
		any = true
		n, err := e.m.Read(a.id, w.scratch[:1+w.rng.IntN(40_000)])
		want := w.wanted[:n]
		if fill(want, a.expect, a.read); !bytes.Equal(want, w.scratch[:n]) {
			w.failf("side %d stream %d: wrong bytes between %d and %d", e.side, a.id, a.read, a.read+n)
		}
		a.read += n
		switch {
		case err != nil:
			a.readDone, a.readErr = true, err
		case n == 0:
			a.canRead = false
		case a.stopAt >= 0 && a.read >= a.stopAt:
			e.m.CloseRead(a.id)
			a.readDone = true
		}
	}
	return any
}

func (e *end) event(ev Event) {
	switch ev := ev.(type) {
	case LinkInUse:
		e.used = append(e.used, ev.Link)
	case NoLink:
		e.nolink++
	case LinkDead:
		for _, p := range e.w.paths {
			if p.id == ev.Link {
				e.w.close(p, e.side)
			}
		}
	case Closed:
		if e.closed != nil {
			e.w.failf("side %d: Closed twice", e.side)
		}
		e.closed = &ev
	}
}

func (e *end) writers() (any bool) {
	w, s := e.w, e.side
	for _, p := range w.paths {
		if !p.up[s] || p.idle[s] || p.sending[s] != nil || p.over[s] {
			continue
		}
		any = true
		f, ok := e.m.Next(w.now, p.id)
		if !ok {
			p.idle[s] = true
			continue
		}
		size := 30 + len(f.Data)
		p.sending[s], p.sum[s] = &f, sum(f.Data)
		p.sentAt[s] = w.now.Add(time.Duration(float64(size) / p.rate * 1e9))
	}
	return any
}

// check compares the machine's running counts with what they count.
func (e *end) check() {
	m := e.m
	var retained, extra uint64
	waiting := 0
	for _, s := range m.order {
		h, r := &s.send, &s.recv
		if h.acked > h.sent || h.sent > max(h.high, h.acked) || h.acked > h.written || r.read > r.received || r.received > r.limit {
			e.w.failf("side %d stream %d: offsets in disorder: %+v", e.side, s.id, *s)
		}
		retained += h.written - h.acked
		extra += r.extra()
		if s.waiting {
			waiting++
		}
	}
	if retained != m.retained || extra != m.extra || waiting != m.waiting {
		e.w.failf("side %d: counts retained %d extra %d waiting %d, are %d %d %d", e.side, m.retained, m.extra, m.waiting, retained, extra, waiting)
	}
}

func (e *end) verify() {
	other := e.w.end[1-e.side]
	for id, a := range e.apps {
		b := other.apps[id]
		if b == nil {
			e.w.failf("stream %d was never accepted by side %d", id, other.side)
			return
		}
		if a.anyErr {
			var r *ResetError
			if a.readErr != nil && a.readErr != io.EOF && !errors.As(a.readErr, &r) && a.readErr != ErrReadClosed {
				e.w.failf("side %d stream %d: reading ended with %v", e.side, id, a.readErr)
			}
			continue
		}
		if a.readErr != io.EOF || a.read != b.size || a.written != a.size {
			e.w.failf("side %d stream %d: read %d of %d, wrote %d of %d, end %v", e.side, id, a.read, b.size, a.written, a.size, a.readErr)
		}
	}
	for _, p := range e.w.paths {
		if p.sending[e.side] != nil {
			e.w.sent(p, e.side)
		}
	}
	if s := e.m.Stats(); s.Chunks != 0 || s.Retained != 0 || s.Unread != 0 {
		e.w.failf("side %d still holds %+v", e.side, s)
	}
	if e.closed.Unacked != 0 && e.closed.Err.Code == frame.NoError {
		e.w.failf("side %d: %d bytes unacknowledged at the end", e.side, e.closed.Unacked)
	}
	if len(e.m.pool.free) > keepFree {
		e.w.failf("side %d keeps %d free chunks", e.side, len(e.m.pool.free))
	}
}
