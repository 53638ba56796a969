package bodkin_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/link"
	"github.com/bodkin-net/bodkin/internal/machine/punch"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
	"github.com/bodkin-net/bodkin/internal/wire/signal"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

const allKinds = rendezvous.PacketRelay | rendezvous.Direct

// listening is a world with b listening on host b.
func listening(t *testing.T, allow []bodkin.ID, f func(t *testing.T, w *world, b *peer)) {
	t.Helper()
	virtual(t, hostile(), 1, func(t *testing.T, w *world) {
		b := w.node("b")
		defer b.Close()
		if _, err := b.Listen(allow...); err != nil {
			t.Fatal(err)
		}
		ready(t, b)
		time.Sleep(time.Second)
		f(t, w, b)
	})
}

// fromB counts what b's home has sent to an address.
func (w *world) fromB(to netip.Addr) int {
	return int(w.net.Counters(scenario.Internet, scenario.GatewayBAddr, to).Packets)
}

// An offer works once: replayed by whoever has it, it is not answered, and
// nothing is sent to whom it names.
func TestReplayedOffer(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world, b *peer) {
		r := w.rogue(t, "rogue")
		defer r.Close()
		sealed, err := signal.Seal(r.key, b.ID(), r.offer(netip.AddrPortFrom(victimAddr, 7)))
		if err != nil {
			t.Fatal(err)
		}
		r.replay(b.ID(), rendezvous.RelayID{1}, sealed, allKinds)
		time.Sleep(20 * time.Second)
		once := w.fromB(victimAddr)
		if n := len(r.answers(rendezvous.RelayID{1})); n != 1 || once == 0 {
			t.Fatalf("%d answers, %d checks", n, once)
		}
		for i := range byte(20) {
			time.Sleep(2 * time.Second)
			id := rendezvous.RelayID{2, i}
			r.replay(b.ID(), id, sealed, allKinds)
			time.Sleep(4 * oneWay)
			if n := len(r.answers(id)); n > 0 {
				t.Errorf("replay %d was answered", i)
			}
		}
		time.Sleep(20 * time.Second)
		if n := w.fromB(victimAddr); n != once {
			t.Errorf("%d checks for the replays", n-once)
		}
	})
}

// Who may not connect learns no address, makes nothing be sent, finishes no
// handshake, and takes no place from those who may.
func TestNotAllowed(t *testing.T) {
	listening(t, []bodkin.ID{testKey("a").ID()}, func(t *testing.T, w *world, b *peer) {
		var rogues []*rogue
		for i := range 12 {
			r := w.rogue(t, fmt.Sprint("rogue ", i))
			defer r.Close()
			rogues = append(rogues, r)
		}
		for i := range 60 { // 12 * 30 at once, and 2 a second from then on
			for _, r := range rogues {
				id := r.ask(b.ID(), r.offer(netip.AddrPortFrom(victimAddr, 7)), allKinds)
				if i > 0 || r != rogues[0] {
					continue
				}
				time.Sleep(4 * oneWay)
				for _, s := range r.answers(id) {
					if s.Flags&signal.Refused == 0 || len(s.Candidates) > 0 {
						t.Errorf("answer %+v", s)
					}
				}
				l, err := r.dial(id, b.ID())
				if err != nil {
					continue
				}
				go l.Receive(func(f frame.Frame) error { t.Errorf("frame %+v", f); return nil })
				l.Send(frame.Frame{Type: frame.HELLO, Session: [16]byte{1}, Flags: frame.NewSession})
				select {
				case <-l.Done():
				case <-time.After(4 * oneWay):
					t.Error("the link stands")
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		a := w.node("a")
		defer a.Close()
		start := time.Now()
		c, err := a.Dial(context.Background(), b.ID())
		if err != nil {
			t.Fatal(err)
		}
		waitPath(t, c, bodkin.Direct)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the peer that may connect has its path after %v", took)
		}
		if n := w.fromB(victimAddr) + w.fromB(rogueAddr); n > 0 {
			t.Errorf("%d packets where refused peers wanted them", n)
		}
		for len(b.events) > 0 {
			if e := <-b.events; e.Peer != a.ID() && e.Type != bodkin.EventRegistered {
				t.Errorf("event %+v", e)
			}
		}
	})
}

// What all registered peers of one address can make a node send to somebody who
// did not ask for it, in a minute.
func TestSpray(t *testing.T) {
	for _, keys := range []int{1, 8} {
		t.Run(fmt.Sprint(keys), func(t *testing.T) {
			listening(t, nil, func(t *testing.T, w *world, b *peer) {
				var rogues []*rogue
				for i := range keys {
					r := w.rogue(t, fmt.Sprint("rogue ", i))
					defer r.Close()
					rogues = append(rogues, r)
				}
				var victim []netip.AddrPort
				for port := range uint16(16) {
					victim = append(victim, netip.AddrPortFrom(victimAddr, 7000+port))
				}
				for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(250 * time.Millisecond) {
					for _, r := range rogues {
						r.ask(b.ID(), r.offer(victim...), allKinds)
					}
				}
				c := w.net.Counters(scenario.Internet, scenario.GatewayBAddr, victimAddr)
				t.Logf("%d packets, %d bytes in a minute", c.Packets, c.Bytes)
				if limit := int64(2400); c.Packets > limit || c.Packets == 0 {
					t.Errorf("%d packets in a minute, at most %d are right", c.Packets, limit)
				}
				// Nor where nobody but a fool would send.
				for _, bad := range []string{"127.0.0.1", "224.0.0.1", "169.254.1.1", "255.255.255.255", scenario.ServerAddr.String()} {
					r := rogues[0]
					before := w.fromB(netip.MustParseAddr(bad))
					r.ask(b.ID(), r.offer(netip.AddrPortFrom(netip.MustParseAddr(bad), 3478)), allKinds)
					time.Sleep(2 * time.Second)
					if n := w.fromB(netip.MustParseAddr(bad)) - before; n > 3 { // the answer, and the registration's
						t.Errorf("%d packets to %s", n, bad)
					}
				}
			})
		})
	}
}

// A peer that answers checks and never makes a connection of it is not kept.
func TestChecksWithoutSession(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world, b *peer) {
		r := w.rogue(t, "rogue")
		defer r.Close()
		for range 5 {
			o := r.offer()
			id := r.ask(b.ID(), o, allKinds)
			time.Sleep(4 * oneWay)
			answers := r.answers(id)
			if len(answers) != 1 {
				t.Fatalf("%d answers", len(answers))
			}
			r.do(func(now time.Time) {
				r.checks = append(r.checks, punch.New(now, punch.Config{Offerer: true, Attempt: o.Attempt, Key: o.Key, Remote: answers[0].Candidates}))
			})
			time.Sleep(3 * time.Second)
		}
		if w.fromB(rogueAddr) == 0 {
			t.Fatal("no path was checked")
		}
		time.Sleep(time.Minute)
		before := w.fromB(rogueAddr)
		time.Sleep(2 * time.Minute)
		if n := w.fromB(rogueAddr) - before; n > 0 {
			t.Errorf("%d packets to a peer without a session", n)
		}
	})
}

// begin makes a link and says HELLO for a session.
func (r *rogue) begin(t *testing.T, to bodkin.ID, session [16]byte) link.Link {
	t.Helper()
	l, err := r.dial(r.ask(to, r.offer(), rendezvous.PacketRelay), to)
	if err != nil {
		t.Fatal(err)
	}
	l.Send(frame.Frame{Type: frame.HELLO, Session: session, Flags: frame.NewSession})
	return l
}

// Sessions whose peer goes at once leave nothing behind.
func TestVanishingSessions(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world, b *peer) {
		r := w.rogue(t, "rogue")
		defer r.Close()
		for i := range byte(40) {
			l := r.begin(t, b.ID(), [16]byte{1, i})
			go l.Receive(func(frame.Frame) error { return nil })
			if i%2 == 0 {
				time.Sleep(2 * oneWay)
			}
			l.Close("")
			time.Sleep(600 * time.Millisecond)
		}
		time.Sleep(2 * time.Minute)
		refused := make(chan bool, 1)
		l := r.begin(t, b.ID(), [16]byte{2})
		go l.Receive(func(f frame.Frame) error {
			if f.Type == frame.CLOSE {
				refused <- true
			}
			return nil
		})
		time.Sleep(time.Second)
		select {
		case <-refused:
			t.Error("no room for another session")
		default:
		}
		l.Close("")
	})
}

// A link that comes late, for a session that is over, does not begin it again:
// whoever accepted it once would read it a second time.
func TestLateLink(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world, b *peer) {
		r := w.rogue(t, "rogue")
		defer r.Close()
		session := [16]byte{1}
		l := r.begin(t, b.ID(), session)
		l.Send(frame.Frame{Type: frame.RESUME, Epoch: 1})
		l.Send(frame.Frame{Type: frame.CLOSE})
		if err := l.Receive(func(frame.Frame) error { return nil }); err == nil {
			t.Error("the session goes on")
		}
		late := r.begin(t, b.ID(), session)
		refused := errors.New("refused")
		if err := late.Receive(func(f frame.Frame) error {
			if f.Type == frame.CLOSE && f.Code == frame.UnknownSession {
				return refused
			}
			return nil
		}); !errors.Is(err, refused) {
			t.Errorf("the late link is not refused: %v", err)
		}
	})
}

// Sessions and attempts of one peer are nothing that another can touch.
func TestSessionOfAnother(t *testing.T) {
	virtual(t, hostile(), 1, func(t *testing.T, w *world) {
		var mu sync.Mutex
		var attempt string
		a := w.node("a", func(c *bodkin.Config) {
			c.Network = tap{c.Network, func(to netip.AddrPort, p []byte) {
				if m, err := stun.Parse(p); err == nil && m.Type == stun.BindingRequest {
					user, _ := m.Get(stun.Username)
					mu.Lock()
					attempt, _, _ = strings.Cut(string(user), ":")
					mu.Unlock()
				}
			}}
		})
		b := w.node("b")
		defer a.Close()
		defer b.Close()
		if _, err := a.Listen(); err != nil {
			t.Fatal(err)
		}
		ca, cb := connect(t, a, b)
		waitPath(t, ca, bodkin.Direct)
		r := w.rogue(t, "rogue")
		defer r.Close()
		mu.Lock()
		raw, err := hex.DecodeString(attempt)
		mu.Unlock()
		if err != nil || len(raw) != 8 {
			t.Fatalf("attempt %q", attempt)
		}
		for len(a.events) > 0 {
			<-a.events
		}
		for _, n := range []*peer{a, b} {
			o := r.offer(netip.AddrPortFrom(rogueAddr, 9))
			o.Attempt = [8]byte(raw)
			if id := r.ask(n.ID(), o, allKinds); true {
				time.Sleep(time.Second)
				if len(r.answers(id)) > 0 {
					t.Error("an offer with the attempt of another was answered")
				}
			}
		}
		time.Sleep(2 * time.Minute)
		exchange(t, ca, cb, 10_000)
		if p := ca.Path(); p.Kind != bodkin.Direct {
			t.Errorf("path %v", p)
		}
		for len(a.events) > 0 {
			if e := <-a.events; e.Type == bodkin.EventPath || e.Result == "lost" {
				t.Errorf("event %+v", e)
			}
		}
	})
}

// Links that never say what they are for are few, whoever makes them, and in
// nobody's way.
func TestSilentLinks(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world, b *peer) {
		r := w.rogue(t, "rogue")
		defer r.Close()
		var links []link.Link
		for range 25 {
			l, err := r.dial(r.ask(b.ID(), r.offer(), rendezvous.PacketRelay), b.ID())
			if err != nil {
				t.Fatal(err)
			}
			links = append(links, l)
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(2 * oneWay)
		open := 0
		for _, l := range links {
			select {
			case <-l.Done():
			default:
				open++
			}
		}
		if open > 8 {
			t.Errorf("%d silent links of one peer", open)
		}
		a := w.node("a")
		start := time.Now()
		c, err := a.Dial(context.Background(), b.ID())
		if err != nil || time.Since(start) > time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		} else {
			c.Close()
		}
		a.Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		if left := running("receiveLink"); len(left) > 0 {
			t.Errorf("left behind: %s", left)
		}
	})
}

// Streams without end, reset, and never taken by the program.
func TestEndlessStreams(t *testing.T) {
	listening(t, nil, func(t *testing.T, w *world, b *peer) {
		a := w.node("a")
		defer a.Close()
		first, err := a.Dial(context.Background(), b.ID()) // so that the session stays
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		for range 300 {
			c, err := a.Dial(context.Background(), b.ID())
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte("x"))
			c.Reset()
		}
		time.Sleep(5 * time.Second)
		in := 0
		for len(b.events) > 0 {
			if e := <-b.events; e.Type == bodkin.EventStream {
				in++
			}
		}
		if in > 64 {
			t.Errorf("%d streams were taken that nobody accepts", in)
		}
	})
}

// Close ends while peers begin sessions, and so does a Dial that comes then.
func TestCloseUnderAttack(t *testing.T) {
	virtual(t, hostile(), 1, func(t *testing.T, w *world) {
		a, b := w.node("a"), w.node("b")
		defer b.Close()
		ca, _ := connect(t, a, b)
		if _, err := a.Listen(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		ca.SetWriteDeadline(time.Now().Add(5 * time.Second))
		ca.Write(make([]byte, 1<<20)) // which b does not read, so Close has to wait
		r := w.rogue(t, "rogue")
		defer r.Close()
		var ids []rendezvous.RelayID
		for range 8 {
			ids = append(ids, r.ask(a.ID(), r.offer(), rendezvous.PacketRelay))
		}
		var wg sync.WaitGroup
		start := time.Now()
		wg.Go(func() { a.Close() })
		for i, id := range ids {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 200 * time.Millisecond)
				l, err := r.dial(id, a.ID())
				if err != nil {
					return
				}
				var session [16]byte
				rand.Read(session[:])
				l.Send(frame.Frame{Type: frame.HELLO, Session: session, Flags: frame.NewSession})
				l.Receive(func(frame.Frame) error { return nil })
			})
		}
		time.Sleep(time.Second)
		if _, err := a.Dial(context.Background(), b.ID()); !errors.Is(err, bodkin.Closed) {
			t.Errorf("Dial: %v", err)
		}
		if _, err := a.Dial(context.Background(), r.key.ID()); !errors.Is(err, bodkin.Closed) {
			t.Errorf("Dial: %v", err)
		}
		wg.Wait()
		if took := time.Since(start); took > 45*time.Second { // the rogue's links see the silence after 30 s
			t.Errorf("closed after %v", took)
		}
	})
}
