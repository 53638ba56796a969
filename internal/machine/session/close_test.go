package session

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// drain takes all that m sends on the link.
func drain(m *Machine, now time.Time, id LinkID) (out []frame.Frame) {
	for {
		f, ok := m.Next(now, id)
		if !ok {
			return out
		}
		out = append(out, f)
		m.Sent(now, id, f)
	}
}

// wait handles timeouts until Closed, and says how long that took.
func wait(t *testing.T, m *Machine, now time.Time) (time.Duration, *Closed) {
	t.Helper()
	start := now
	for range 100 {
		if c := lastEvent(m); c != nil {
			return now.Sub(start), c
		}
		next, ok := m.NextTimeout()
		if !ok {
			break
		}
		now = next
		m.HandleTimeout(now)
	}
	t.Fatal("never closed")
	return 0, nil
}

func TestCloseLingers(t *testing.T) {
	now := time.Unix(0, 0)
	for name, c := range map[string]struct {
		code    uint64
		write   string
		link    bool
		took    time.Duration
		unacked uint64
	}{
		"nothing, never a link":           {0, "", false, 0, 0},
		"bytes, never a link":             {0, "abc", false, 10 * time.Second, 3},
		"nothing, the peer mute":          {0, "", true, 6 * time.Second, 0}, // found dead, then another link hoped for
		"bytes, the peer mute":            {0, "abc", true, 10 * time.Second, 3},
		"abort with bytes, no link":       {300, "abc", false, 0, 3},
		"abort with bytes, the peer mute": {300, "abc", true, 3 * time.Second, 3},
	} {
		m := New(Config{Controller: true})
		if c.link {
			m.LinkUp(now, 1, 1, [8]byte{})
			drain(m, now, 1)
			m.HandleFrame(now, 1, &frame.Frame{Type: frame.RESUME, Epoch: 1})
		}
		if c.write != "" {
			id, _ := m.Open()
			m.Write(id, []byte(c.write))
		}
		m.Close(now, c.code, "")
		if c.link {
			drain(m, now, 1)
		}
		took, closed := wait(t, m, now)
		if took != c.took || closed.Unacked != c.unacked || closed.Err.Remote || closed.Err.Code != c.code {
			t.Errorf("%s: took %v, want %v: %+v, %v", name, took, c.took, closed, closed.Err)
		}
	}
}

// The peer has all, and closes before the one who waits for that looks again.
func TestFlushedThenClosed(t *testing.T) {
	now := time.Unix(0, 0)
	m := New(Config{Controller: true})
	m.LinkUp(now, 1, 1, [8]byte{})
	drain(m, now, 1)
	m.HandleFrame(now, 1, &frame.Frame{Type: frame.RESUME, Epoch: 1})
	whole, _ := m.Open()
	part, _ := m.Open()
	endless, _ := m.Open()
	for _, id := range []StreamID{whole, part, endless} {
		m.Write(id, []byte("abc"))
	}
	m.CloseWrite(whole)
	m.CloseWrite(part)
	drain(m, now, 1)
	m.HandleFrame(now, 1, &frame.Frame{Type: frame.FIN, Stream: uint64(whole)})
	if _, err := m.Read(whole, make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if done, err := m.Flushed(whole); done || err != nil {
		t.Fatalf("flushed before the ACK: %v, %v", done, err)
	}
	for _, f := range []frame.Frame{
		{Type: frame.ACK, Stream: uint64(whole), Offset: 3, Done: true},
		{Type: frame.ACK, Stream: uint64(part), Offset: 2},
		{Type: frame.CLOSE},
	} {
		if err := m.HandleFrame(now, 1, &f); err != nil {
			t.Fatal(err)
		}
	}
	drain(m, now, 1)
	if lastEvent(m) == nil {
		t.Fatal("not closed")
	}
	if done, err := m.Flushed(whole); !done || err != nil {
		t.Errorf("the stream that the peer has is flushed: %v, %v", done, err)
	}
	for _, id := range []StreamID{part, endless} {
		if done, _ := m.Flushed(id); done {
			t.Errorf("stream %d, that the peer has not all of, is flushed", id)
		}
	}
}

// What was received can be read after the peer's CLOSE; then its word comes.
func TestReadAfterClose(t *testing.T) {
	now := time.Unix(0, 0)
	m := New(Config{})
	m.LinkUp(now, 1, 1, [8]byte{})
	for _, f := range []frame.Frame{
		{Type: frame.RESUME, Epoch: 1},
		{Type: frame.DATA, Stream: 0, Data: []byte("whole")},
		{Type: frame.FIN, Stream: 0, Offset: 5},
		{Type: frame.DATA, Stream: 2, Data: []byte("part")},
		{Type: frame.CLOSE, Code: 300, Text: "enough"},
	} {
		if err := m.HandleFrame(now, 1, &f); err != nil {
			t.Fatal(err)
		}
	}
	if c := lastEvent(m); c != nil {
		t.Error("Closed before the answer was handed to the link")
	}
	out := drain(m, now, 1)
	if last := out[len(out)-1]; last.Type != frame.CLOSE || last.Code != 300 {
		t.Errorf("answered %v, code %d", last.Type, last.Code)
	}
	c := lastEvent(m)
	if c == nil || !c.Err.Remote || c.Err.Code != 300 || c.Err.Text != "enough" {
		t.Fatalf("Closed: %+v", c)
	}
	for id, want := range map[StreamID]struct {
		text string
		err  error
	}{0: {"whole", io.EOF}, 2: {"part", c.Err}} {
		b := make([]byte, 10)
		n, err := m.Read(id, b)
		if string(b[:n]) != want.text || err != nil {
			t.Errorf("stream %d: %q, %v", id, b[:n], err)
		}
		if _, err := m.Read(id, b); err != want.err {
			t.Errorf("stream %d: then %v, want %v", id, err, want.err)
		}
		if _, err := m.Write(id, b); !errors.Is(err, ErrClosed) {
			t.Errorf("stream %d: Write: %v", id, err)
		}
	}
	if s := m.Stats(); s.Chunks != 0 {
		t.Errorf("holds %+v", s)
	}
}

// A peer that started again does not know the session.
func TestUnknownSession(t *testing.T) {
	now := time.Unix(0, 0)
	m := New(Config{Controller: true})
	m.LinkUp(now, 1, 1, [8]byte{7})
	if f := drain(m, now, 1)[0]; f.Type != frame.HELLO || f.Flags != frame.NewSession || f.Attempt != [8]byte{7} {
		t.Errorf("first link: %+v", f)
	}
	m.HandleFrame(now, 1, &frame.Frame{Type: frame.RESUME, Epoch: 1})
	m.LinkDown(now, 1)
	m.LinkUp(now, 2, 1, [8]byte{})
	if f := drain(m, now, 2)[0]; f.Type != frame.HELLO || f.Flags != 0 {
		t.Errorf("second link: %+v", f)
	}
	m.HandleFrame(now, 2, &frame.Frame{Type: frame.CLOSE, Code: frame.UnknownSession})
	drain(m, now, 2)
	if c := lastEvent(m); c == nil || c.Err.Code != frame.UnknownSession || !c.Err.Remote {
		t.Errorf("%+v", c)
	}
}

// A link that owes an answer is dead after 3 s; an idle one is asked first.
func TestLiveness(t *testing.T) {
	start := time.Unix(0, 0)
	for name, c := range map[string]struct {
		write bool
		want  time.Duration
	}{
		"bytes unacknowledged": {true, deadAfter},
		"idle":                 {false, pingIdle + deadAfter},
	} {
		m := New(Config{Controller: true})
		m.LinkUp(start, 1, 1, [8]byte{})
		drain(m, start, 1)
		m.HandleFrame(start, 1, &frame.Frame{Type: frame.RESUME, Epoch: 1})
		if c.write {
			id, _ := m.Open()
			m.Write(id, []byte("x"))
		}
		drain(m, start, 1)
		now, dead := start, false
		for !dead {
			next, ok := m.NextTimeout()
			if !ok || next.Sub(start) > time.Minute {
				t.Fatalf("%s: no timeout, or a late one: %v", name, next.Sub(start))
			}
			now = next
			m.HandleTimeout(now)
			drain(m, now, 1)
			for e, ok := m.Event(); ok; e, ok = m.Event() {
				if d, is := e.(LinkDead); is {
					dead = d.Link == 1
				}
			}
		}
		if got := now.Sub(start); got != c.want {
			t.Errorf("%s: dead after %v, want %v", name, got, c.want)
		}
		if got := m.Silence(now); got != c.want {
			t.Errorf("%s: silent for %v, want %v", name, got, c.want)
		}
	}
}

// The peer's word on streams is obeyed, and asked again when it is raised.
func TestStreamCredit(t *testing.T) {
	now := time.Unix(0, 0)
	m := New(Config{Controller: true, MaxStreams: 20})
	for range initialStreams {
		if _, err := m.Open(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Open(); err != ErrStreams {
		t.Errorf("one too many: %v", err)
	}
	m.LinkUp(now, 1, 1, [8]byte{})
	m.HandleFrame(now, 1, &frame.Frame{Type: frame.RESUME, Epoch: 1, Limit: 100})
	woken := false
	for w, ok := m.Wake(); ok; w, ok = m.Wake() {
		woken = woken || w.Kind == WakeOpen
	}
	n := 0
	for ; n < 100; n++ {
		if _, err := m.Open(); err != nil {
			break
		}
	}
	if !woken || n != 20-initialStreams {
		t.Errorf("woken %v, %d more streams, want %d", woken, n, 20-initialStreams)
	}
}
