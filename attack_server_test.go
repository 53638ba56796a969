package bodkin_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/signal"
)

// honestly makes the crooked server pass everything on as a server should. The
// tests replace what they attack.
func (s *crooked) honestly(t *testing.T) {
	parties := make(map[wire.RelayID][2]identity.ID)
	s.connect = func(from identity.ID, m wire.Connect) {
		parties[m.Relay] = [2]identity.ID{from, m.Target}
		s.tell(m.Target, wire.Request{Tx: s.next(m.Target), Relay: m.Relay, Requester: from, Peer: s.at(from), Kinds: m.Kinds, Sealed: m.Sealed}.Append(nil))
		s.tell(from, wire.Connected{Tx: m.Tx, Relay: m.Relay, Kinds: m.Kinds, Peer: s.at(m.Target)}.Append(nil))
	}
	s.signal = func(from identity.ID, m wire.Signal) {
		to := parties[m.Relay][0]
		s.tell(to, wire.Signalled{Tx: s.next(to), Relay: m.Relay, Sealed: m.Sealed}.Append(nil))
	}
	s.relayed = func(from netip.AddrPort, id relay.ID) netip.AddrPort {
		p := parties[id]
		if s.at(p[0]) == from {
			return s.at(p[1])
		}
		return s.at(p[0])
	}
}

// The server puts another machine, which may be its own, in the peer's place.
// Nobody is ever connected to another key than the one that was asked for.
func TestServerInTheMiddle(t *testing.T) {
	for _, c := range []struct {
		name   string
		attack func(t *testing.T, s *crooked, a, b, c bodkin.ID)
		works  bool // the attack does not even cost the connection
	}{
		{name: "none", works: true},
		{name: "the request and the relay go to another peer", attack: func(t *testing.T, s *crooked, a, _, c bodkin.ID) {
			honest := s.connect
			s.connect = func(from identity.ID, m wire.Connect) {
				m.Target = c
				honest(from, m)
			}
		}},
		{name: "another peer's endpoint and relay", attack: func(t *testing.T, s *crooked, a, b, c bodkin.ID) {
			s.connect = func(from identity.ID, m wire.Connect) {
				s.tell(b, wire.Request{Tx: s.next(b), Relay: m.Relay, Requester: from, Peer: s.at(c), Kinds: m.Kinds, Sealed: m.Sealed}.Append(nil))
				s.tell(from, wire.Connected{Tx: m.Tx, Relay: m.Relay, Kinds: m.Kinds, Peer: s.at(c)}.Append(nil))
			}
			s.signal = func(identity.ID, wire.Signal) {}
			s.relayed = func(from netip.AddrPort, _ relay.ID) netip.AddrPort {
				if from == s.at(a) {
					return s.at(c)
				}
				return s.at(a)
			}
		}},
		{name: "another endpoint beside the good ones", works: true, attack: func(t *testing.T, s *crooked, a, b, c bodkin.ID) {
			honest := s.connect
			s.connect = func(from identity.ID, m wire.Connect) {
				s.tell(from, wire.Connected{Tx: m.Tx, Relay: m.Relay, Kinds: m.Kinds, Peer: s.at(c)}.Append(nil))
				honest(from, m)
			}
		}},
		{name: "an offer signed by another, in the name of the asker", attack: func(t *testing.T, s *crooked, a, b, c bodkin.ID) {
			s.connect = func(from identity.ID, m wire.Connect) {
				forged, _ := signal.Seal(testKey("c"), b, signal.Signal{Type: signal.Offer, Attempt: [8]byte{1}, Session: [16]byte{1}})
				s.tell(b, wire.Request{Tx: s.next(b), Relay: m.Relay, Requester: from, Peer: s.at(c), Kinds: m.Kinds, Sealed: forged}.Append(nil))
				s.tell(from, wire.Connected{Tx: m.Tx, Relay: m.Relay, Kinds: m.Kinds}.Append(nil))
			}
		}},
		{name: "an answer signed by another", works: true, attack: func(t *testing.T, s *crooked, a, b, c bodkin.ID) {
			s.relayed = nil
			s.signal = func(from identity.ID, m wire.Signal) {
				forged, _ := signal.Seal(testKey("c"), a, signal.Signal{Type: signal.Answer, Candidates: []signal.Candidate{
					{Kind: signal.ServerReflexive, Transport: signal.UDP, Endpoint: s.at(c)}}})
				s.tell(a, wire.Signalled{Tx: s.next(a), Relay: m.Relay, Sealed: forged}.Append(nil))
			}
		}},
		{name: "an answer to an earlier offer", works: true, attack: func(t *testing.T, s *crooked, a, b, c bodkin.ID) {
			s.relayed = nil
			old, _ := signal.Seal(testKey("b"), a, signal.Signal{Type: signal.Answer, Attempt: [8]byte{1}, Session: [16]byte{1}})
			s.signal = func(from identity.ID, m wire.Signal) {
				s.tell(a, wire.Signalled{Tx: s.next(a), Relay: m.Relay, Sealed: old}.Append(nil))
			}
		}},
		{name: "statuses and kinds that contradict one another", works: true, attack: func(t *testing.T, s *crooked, a, b, c bodkin.ID) {
			honest := s.connect
			s.connect = func(from identity.ID, m wire.Connect) {
				honest(from, m)
				for status := range wire.Status(5) {
					s.tell(from, wire.Connected{Tx: m.Tx, Relay: m.Relay, Status: status, Kinds: wire.Kinds(status)}.Append(nil))
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtual(t, hostile(), 1, func(t *testing.T, w *world) {
				s := w.crook(t)
				defer s.Close()
				a, b, other := w.node("a"), w.node("b"), w.node("c", func(cfg *bodkin.Config) { cfg.Network = w.net.Host("rogue") })
				defer a.Close()
				defer b.Close()
				defer other.Close()
				var mu sync.Mutex
				wrong := 0
				for _, p := range []*peer{b, other} {
					l, err := p.Listen()
					if err != nil {
						t.Fatal(err)
					}
					go func() {
						for {
							conn, err := l.AcceptConn(context.Background())
							if err != nil {
								return
							}
							mu.Lock()
							if p == other || conn.Peer() != a.ID() {
								wrong++
							}
							mu.Unlock()
							go func() {
								conn.Write([]byte("b"))
								conn.CloseWrite()
							}()
						}
					}()
				}
				ready(t, a, b, other)
				time.Sleep(time.Second)
				s.mu.Lock()
				s.honestly(t)
				if c.attack != nil {
					c.attack(t, s, a.ID(), b.ID(), other.ID())
				}
				s.mu.Unlock()
				start := time.Now()
				conn, err := a.Dial(context.Background(), b.ID())
				switch {
				case err != nil && c.works:
					t.Errorf("dial: %v", err)
				case err == nil && !c.works:
					t.Errorf("connected over %v", conn.Path())
				case err == nil:
					got := make([]byte, 1)
					if _, err := conn.Read(got); err != nil || got[0] != 'b' {
						t.Errorf("read %q, %v", got, err)
					}
				}
				if took := time.Since(start); took > 70*time.Second {
					t.Errorf("an answer after %v", took)
				} else {
					t.Logf("after %v: %v", took, err)
				}
				mu.Lock()
				defer mu.Unlock()
				if wrong > 0 {
					t.Errorf("%d connections with the wrong peer", wrong)
				}
			})
		})
	}
}

// With RelayOnly, nothing goes to the peer's endpoint or comes from there, and
// no address of the host is in anything but the registration, whatever the
// server says is possible.
func TestRelayOnlyTellsNothing(t *testing.T) {
	for _, who := range []string{"a", "b"} {
		t.Run(who, func(t *testing.T) {
			virtual(t, hostile(), 1, func(t *testing.T, w *world) {
				s := w.crook(t)
				defer s.Close()
				var mu sync.Mutex
				to := make(map[netip.AddrPort]int)
				hide := func(c *bodkin.Config) {
					c.RelayOnly = true
					c.Network = tap{c.Network, func(at netip.AddrPort, _ []byte) {
						mu.Lock()
						to[at]++
						mu.Unlock()
					}}
				}
				change := map[string]func(*bodkin.Config){who: hide}
				nodes := make(map[string]*peer)
				for _, name := range []string{"a", "b"} {
					f := change[name]
					if f == nil {
						f = func(*bodkin.Config) {}
					}
					nodes[name] = w.node(name, f)
					defer nodes[name].Close()
				}
				s.mu.Lock()
				s.honestly(t)
				honest := s.connect
				s.connect = func(from identity.ID, m wire.Connect) {
					m.Kinds |= wire.Direct
					honest(from, m)
				}
				var answered []signal.Signal
				pass := s.signal
				s.signal = func(from identity.ID, m wire.Signal) {
					if got, err := signal.Open(testKey("a"), m.Sealed); err == nil {
						answered = append(answered, got)
					}
					pass(from, m)
				}
				s.mu.Unlock()
				ca, cb := connect(t, nodes["a"], nodes["b"])
				exchange(t, ca, cb, 50_000)
				// The peer's own socket calls on the endpoint that the server tells.
				r := w.rogueSocket(t, "a")
				defer r.Close()
				hidden := s.at(nodes[who].ID())
				for _, first := range []byte{0x00, 0x40, 0xc0} {
					r.WriteTo(slices.Concat([]byte{first, 0, 0, 0, 1, 8}, make([]byte, 1194)), hidden)
				}
				time.Sleep(20 * time.Second)
				if p := ca.Path(); p.Kind != bodkin.Relay {
					t.Errorf("path %v", p)
				}
				mu.Lock()
				defer mu.Unlock()
				for at := range to {
					if at.Addr() != scenario.ServerAddr {
						t.Errorf("%d packets to %v", to[at], at)
					}
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if who == "b" {
					for _, m := range answered {
						if len(m.Candidates) > 0 {
							t.Errorf("the answer tells of %v", m.Candidates)
						}
					}
					if len(answered) == 0 {
						t.Error("no answer was seen")
					}
				}
				for _, m := range s.said[hidden] {
					if sent, err := wire.ParseConnect(m); err == nil {
						if offer, err := signal.Open(testKey("b"), sent.Sealed); err != nil || len(offer.Candidates) > 0 {
							t.Errorf("the offer tells of %v, %v", offer.Candidates, err)
						}
						continue
					}
					for _, addr := range []string{"10.1.0.2", "10.2.0.2", "198.51.100.11", "198.51.100.12"} {
						if raw := netip.MustParseAddr(addr).AsSlice(); bytes.Contains(m, raw) && len(m) < 200 {
							t.Errorf("%v in a message of %d bytes", addr, len(m))
						}
					}
				}
			})
		})
	}
}

type rawSocket struct {
	close   func() error
	WriteTo func(b []byte, to netip.AddrPort)
}

func (r rawSocket) Close() { r.close() }

// rogueSocket is a socket on a host, beside the node's.
func (w *world) rogueSocket(t *testing.T, host string) rawSocket {
	t.Helper()
	pc, err := w.net.Host(host).ListenUDP(0)
	if err != nil {
		t.Fatal(err)
	}
	return rawSocket{pc.Close, func(b []byte, to netip.AddrPort) { pc.WriteTo(b, udpAddr(to)) }}
}

// A relay that is lost while the direct path stands is asked for again: to fall back on
// it takes no round trips then.
func TestRelayComesBack(t *testing.T) {
	pair(t, twoHomes, nil, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
		waitPath(t, ca, bodkin.Direct)
		w.stop()
		time.Sleep(time.Minute)
		w.serve()
		time.Sleep(90 * time.Second)
		count := func() int64 {
			return w.net.Counters(scenario.Internet, scenario.GatewayAAddr, scenario.ServerAddr).Packets
		}
		before := count()
		time.Sleep(time.Minute)
		// Four or five keep-alives for the registration, and the pings of the
		// relay's link.
		if n := count() - before; n < 8 {
			t.Errorf("%d packets to the server in a minute: no relay is kept", n)
		}
	})
}

// Dial does not wait for ever for a peer whose every packet but the signals is
// lost.
func TestDialGivesUp(t *testing.T) {
	virtual(t, hostile(), 1, func(t *testing.T, w *world) {
		s := w.crook(t)
		defer s.Close()
		s.mu.Lock()
		s.honestly(t)
		s.relayed = nil
		s.mu.Unlock()
		a, b := w.node("a", func(c *bodkin.Config) { c.RelayOnly = true }), w.node("b")
		defer a.Close()
		defer b.Close()
		if _, err := b.Listen(); err != nil {
			t.Fatal(err)
		}
		ready(t, a, b)
		time.Sleep(time.Second)
		start := time.Now()
		_, err := a.Dial(context.Background(), b.ID())
		if took := time.Since(start); !errors.Is(err, bodkin.NoAnswer) || took > 65*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// Where checks pass and the handshake does not, because somebody breaks it or
// the peer has no room just now, the direct path is tried again later.
func TestDirectHandshakeBroken(t *testing.T) {
	virtual(t, hostile(), 1, func(t *testing.T, w *world) {
		broken := time.Now().Add(20 * time.Second)
		a := w.node("a", func(c *bodkin.Config) {
			c.Network = lossy{c.Network, func(to netip.AddrPort, p []byte) bool {
				return p[0] >= 0x40 && to.Addr() != scenario.ServerAddr && time.Now().Before(broken)
			}}
		})
		b := w.node("b")
		defer a.Close()
		defer b.Close()
		ca, cb := connect(t, a, b)
		exchange(t, ca, cb, 10_000)
		if p := ca.Path(); p.Kind != bodkin.Relay {
			t.Fatalf("path %v", p)
		}
		waitPath(t, ca, bodkin.Direct)
		exchange(t, ca, cb, 10_000)
	})
}
