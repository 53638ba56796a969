package session

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// two is a controller and a responder with one link, and a stream from the one
// to the other.
type two struct {
	t    *testing.T
	now  time.Time
	a, b *Machine
	id   StreamID
}

func newTwo(t *testing.T) *two {
	w := &two{t: t, now: time.Unix(0, 0), a: New(Config{Controller: true}), b: New(Config{})}
	w.up(1, 1)
	var err error
	if w.id, err = w.a.Open(); err != nil {
		t.Fatal(err)
	}
	w.exchange(1)
	return w
}

func (w *two) up(id LinkID, rank int) {
	w.a.LinkUp(w.now, id, rank, [8]byte{})
	w.b.LinkUp(w.now, id, rank, [8]byte{})
}

// exchange carries frames on a link until neither side has any.
func (w *two) exchange(id LinkID) {
	w.t.Helper()
	for range 100 {
		fromA, fromB := drain(w.a, w.now, id), drain(w.b, w.now, id)
		if len(fromA)+len(fromB) == 0 {
			return
		}
		w.deliver(w.b, id, fromA)
		w.deliver(w.a, id, fromB)
	}
	w.t.Fatal("they never stop")
}

func (w *two) deliver(to *Machine, id LinkID, fs []frame.Frame) {
	w.t.Helper()
	for i := range fs {
		if err := to.HandleFrame(w.now, id, &fs[i]); err != nil {
			w.t.Fatal(err)
		}
	}
}

func woken(m *Machine, kind WakeKind) (n int) {
	for {
		wake, ok := m.Wake()
		if !ok {
			return n
		}
		if wake.Kind == kind {
			n++
		}
	}
}

func TestFlushed(t *testing.T) {
	w := newTwo(t)
	check := func(want bool) {
		t.Helper()
		if got, err := w.a.Flushed(w.id); got != want || err != nil {
			t.Fatalf("%v, %v; want %v", got, err, want)
		}
	}
	check(true)
	if _, err := w.a.Write(w.id, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	check(false)
	w.exchange(1)
	w.now = w.now.Add(ackDelay)
	w.b.HandleTimeout(w.now)
	w.exchange(1)
	if n := woken(w.a, WakeFlush); n != 1 {
		t.Errorf("%d wakes after the bytes were acknowledged", n)
	}
	check(true)
	w.a.CloseWrite(w.id)
	check(false)
	w.exchange(1)
	if n := woken(w.a, WakeFlush); n != 1 {
		t.Errorf("%d wakes after the end was acknowledged", n)
	}
	check(true)
}

func TestPing(t *testing.T) {
	w := newTwo(t)
	w.a.Ping(w.now)
	fs := drain(w.a, w.now, 1)
	w.now = w.now.Add(30 * time.Millisecond)
	w.deliver(w.b, 1, fs)
	w.exchange(1)
	for {
		e, ok := w.a.Event()
		if !ok {
			t.Fatal("no Ponged")
		}
		if p, ok := e.(Ponged); ok {
			if p.Link != 1 || p.RTT != 30*time.Millisecond {
				t.Errorf("%+v", p)
			}
			return
		}
	}
}

// The peer's goodbye may be overtaken by the end of its link.
func TestLinkClosedIsAnAnswer(t *testing.T) {
	w := newTwo(t)
	w.a.Reset(w.id, 1)
	w.a.Close(w.now, 300, "enough")
	drain(w.a, w.now, 1) // CLOSE is on its way
	w.a.LinkClosed(w.now, 1)
	if lastEvent(w.a) == nil {
		t.Error("not closed")
	}
	w = newTwo(t)
	w.a.LinkClosed(w.now, 1) // without a CLOSE it is just a link that ended
	if lastEvent(w.a) != nil {
		t.Error("closed")
	}
}

// When the link in use stops answering, the other is asked too, so that a peer
// that vanished is known gone soon, on both.
func TestDoubt(t *testing.T) {
	w := newTwo(t)
	w.up(2, 2)
	w.exchange(2)
	w.exchange(1)
	start := w.now
	for w.a.countLinks() > 0 {
		next, ok := w.a.NextTimeout()
		if !ok || next.Sub(start) > time.Minute {
			t.Fatalf("%d links left at %v", w.a.countLinks(), w.now.Sub(start))
		}
		w.now = next
		w.a.HandleTimeout(w.now)
		drain(w.a, w.now, 1)
		drain(w.a, w.now, 2)
	}
	if took := w.now.Sub(start); took != pingOpen+doubtAfter+deadAfter {
		t.Errorf("both links were known dead after %v", took)
	}
}

// A peer that stops reading has not taken what was written, however the stream
// ends, and the writer is told so.
func TestFlushedRefused(t *testing.T) {
	w := newTwo(t)
	if _, err := w.a.Write(w.id, make([]byte, 3*initialWindow)); err != nil {
		t.Fatal(err)
	}
	w.a.CloseWrite(w.id)
	w.exchange(1)
	w.a.Flushed(w.id)
	id, ok := w.b.Accept()
	if !ok {
		t.Fatal("no stream")
	}
	w.b.CloseRead(id)
	w.b.CloseWrite(id)
	w.exchange(1)
	if n := woken(w.a, WakeFlush); n != 1 {
		t.Errorf("%d wakes", n)
	}
	if _, err := w.a.Read(w.id, make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v", err)
	}
	if done, err := w.a.Flushed(w.id); done || !errors.Is(err, ErrStopped) {
		t.Errorf("flushed %v, %v", done, err)
	}
	w.exchange(1)
	if n := w.a.Stats().Streams; n != 0 {
		t.Errorf("%d streams are kept after the user was told", n)
	}
}

// The peer took everything and forgot the stream; its last word on it was lost
// with a link. What was sent is flushed all the same.
func TestFlushedForgotten(t *testing.T) {
	w := newTwo(t)
	w.b.Write(w.id, []byte("answer"))
	w.b.CloseWrite(w.id)
	w.exchange(1)
	buf := make([]byte, 10)
	if n, _ := w.a.Read(w.id, buf); n != 6 {
		t.Fatalf("read %d", n)
	}
	if _, err := w.a.Read(w.id, buf); err != io.EOF {
		t.Fatal(err)
	}
	w.exchange(1)
	if done, err := w.b.Flushed(w.id); !done {
		t.Fatalf("b is not flushed: %v", err)
	}
	w.a.Write(w.id, []byte("question"))
	w.a.CloseWrite(w.id)
	w.deliver(w.b, 1, drain(w.a, w.now, 1))
	if n, _ := w.b.Read(w.id, buf); n != 8 {
		t.Fatalf("read %d", n)
	}
	if _, err := w.b.Read(w.id, buf); err != io.EOF {
		t.Fatal(err)
	}
	drain(w.b, w.now, 1) // lost
	if n := w.b.Stats().Streams; n != 0 {
		t.Fatalf("b keeps %d streams", n)
	}
	if done, _ := w.a.Flushed(w.id); done {
		t.Fatal("flushed before the peer said so")
	}
	w.a.LinkDown(w.now, 1)
	w.b.LinkDown(w.now, 1)
	w.up(2, 1)
	w.exchange(2)
	if done, err := w.a.Flushed(w.id); !done || err != nil {
		t.Errorf("flushed: %v, %v", done, err)
	}
}
