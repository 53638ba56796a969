package punch

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/signal"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

// stepper drives one machine by hand; the test plays the peer.
type stepper struct {
	t    *testing.T
	m    *Machine
	now  time.Time
	sent []sentCheck
	ids  byte
}

type sentCheck struct {
	to   netip.AddrPort
	id   stun.TransactionID
	full bool
	at   time.Duration
}

func newStepper(t *testing.T, offerer bool, remote ...signal.Candidate) *stepper {
	s := &stepper{t: t, now: epoch}
	s.m = New(epoch, Config{
		Offerer: offerer, Attempt: attempt, Key: key, Seed: [32]byte{1},
		Remote: remote, Local: []netip.Addr{netip.MustParseAddr("10.0.0.2")},
	})
	s.drain()
	return s
}

func (s *stepper) drain() {
	for p, ok := s.m.Poll(); ok; p, ok = s.m.Poll() {
		if q, err := stun.Parse(p.Data); err == nil && q.Type == stun.BindingRequest {
			s.sent = append(s.sent, sentCheck{p.To, q.ID, len(p.Data) >= FullSize, s.now.Sub(epoch)})
		}
	}
}

// until lets time pass, timeouts included.
func (s *stepper) until(at time.Duration) {
	end := epoch.Add(at)
	for t, _ := s.m.NextTimeout(); !t.IsZero() && !t.After(end); t, _ = s.m.NextTimeout() {
		s.now = later(s.now, t)
		s.m.HandleTimeout(s.now)
		s.drain()
	}
	s.now = end
}

// asked plays a request of the peer.
func (s *stepper) asked(from netip.AddrPort) {
	user := userO
	if s.m.cfg.Offerer {
		user = userA
	}
	s.ids++
	s.m.HandlePacket(s.now, from, forge(stun.BindingRequest, stun.TransactionID{s.ids}, user, netip.AddrPort{}, key, 0, 0))
	s.drain()
}

// answer plays the answer to the last check that went to from.
func (s *stepper) answer(from netip.AddrPort, full bool) []byte {
	for i := len(s.sent) - 1; i >= 0; i-- {
		if c := s.sent[i]; c.to == from && c.full == full {
			size := 0
			if full {
				size = FullSize
			}
			b := forge(stun.BindingSuccess, c.id, "", ep("192.0.2.1:1"), key, size, 0)
			s.m.HandlePacket(s.now, from, b)
			s.drain()
			return b
		}
	}
	s.t.Fatalf("no check (full-size %v) to %v", full, from)
	return nil
}

func (s *stepper) ups() (out []PathUp) {
	for e, ok := s.m.Event(); ok; e, ok = s.m.Event() {
		if up, ok := e.(PathUp); ok {
			out = append(out, up)
		}
	}
	return out
}

var (
	lanEnd    = ep("10.0.0.3:1")
	publicEnd = ep("198.51.100.9:2")
	bothEnds  = []signal.Candidate{
		{Kind: signal.Host, Transport: signal.UDP, Endpoint: lanEnd},
		{Kind: signal.ServerReflexive, Transport: signal.UDP, Endpoint: publicEnd},
	}
)

// A better endpoint that has been heard from gets half a round trip more.
func TestHold(t *testing.T) {
	start := func() *stepper {
		s := newStepper(t, true, bothEnds...)
		s.until(10 * ms)
		s.asked(lanEnd)
		s.until(40 * ms)
		s.answer(publicEnd, false) // to the check after 20 ms
		s.until(60 * ms)
		s.answer(publicEnd, true)
		if up := s.ups(); up != nil {
			t.Fatalf("did not wait: %+v", up)
		}
		return s
	}
	s := start()
	s.until(65 * ms)
	s.answer(lanEnd, true)
	if up := s.ups(); len(up) != 1 || up[0].Remote != lanEnd {
		t.Errorf("the better one answered in time: %+v", up)
	}
	s = start()
	s.until(70*ms - 1)
	if up := s.ups(); up != nil {
		t.Errorf("too early: %+v", up)
	}
	s.until(70 * ms)
	if up := s.ups(); len(up) != 1 || up[0].Remote != publicEnd || up[0].RTT != 20*ms {
		t.Errorf("the better one did not answer: %+v", up)
	}
}

// An answer counts once: repeated by somebody on the path, it keeps no dead
// path alive.
func TestRepeatedAnswer(t *testing.T) {
	s := newStepper(t, true, bothEnds[1])
	s.until(10 * ms)
	s.answer(publicEnd, false)
	s.until(20 * ms)
	s.answer(publicEnd, true)
	s.drain()
	s.until(30 * ms)
	again := s.answer(publicEnd, false) // the nomination's
	if up := s.ups(); len(up) != 1 {
		t.Fatalf("%+v", up)
	}
	down := time.Duration(0)
	for at := 40 * ms; at < 30*time.Second && down == 0; at += 10 * ms {
		s.until(at)
		s.m.HandlePacket(s.now, publicEnd, again)
		for e, ok := s.m.Event(); ok; e, ok = s.m.Event() {
			if _, ok := e.(PathDown); ok {
				down = at
			}
		}
	}
	if want := 20*ms + watchPeriod + watchLimit*watchRepeat; down != want {
		t.Errorf("down at %v, want %v", down, want)
	}
}

// A full-size check that was lost on the way to an endpoint not yet proved is
// repeated when a small answer has shown how long an answer takes.
func TestFullRepeatedSooner(t *testing.T) {
	s := newStepper(t, true, bothEnds[1])
	s.until(10 * ms)
	s.asked(publicEnd) // a full-size check goes out, and is lost
	s.until(14 * ms)
	s.answer(publicEnd, false) // to the first: a round trip of 14 ms
	s.until(200 * ms)
	var full []time.Duration
	for _, c := range s.sent {
		if c.full {
			full = append(full, c.at)
		}
	}
	if len(full) < 2 || full[0] != 10*ms || full[1] != 30*ms {
		t.Errorf("full-size checks at %v", full)
	}
}

// A path that small checks alone have shown is never up, however many.
func TestSmallAnswersAreNotEnough(t *testing.T) {
	s := newStepper(t, true, bothEnds[1])
	for at := 10 * ms; at < tryFor; at += 50 * ms {
		s.until(at)
		s.asked(publicEnd)
		if s.m.pairs[0].state < answered {
			s.answer(publicEnd, false)
		}
	}
	s.until(tryFor)
	for e, ok := s.m.Event(); ok; e, ok = s.m.Event() {
		if up, ok := e.(PathUp); ok {
			t.Errorf("%+v", up)
		}
	}
}
