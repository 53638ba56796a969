package rendezvous

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// model is the server as one would write it for ten peers: maps, and a look
// at everything each time.
type model struct {
	peers  map[*puppet]*modelPeer
	relays map[RelayID]*modelRelay
}

type modelPeer struct {
	addr   Addr
	handle Handle
	end    time.Time
}

type modelRelay struct {
	party   [2]*puppet
	kinds   Kinds
	agreed  bool
	packets int
	end     time.Time
}

func (m *model) expire(now time.Time) {
	maps.DeleteFunc(m.peers, func(_ *puppet, p *modelPeer) bool { return !now.Before(p.end) })
	maps.DeleteFunc(m.relays, func(_ RelayID, r *modelRelay) bool {
		return !now.Before(r.end) || m.peers[r.party[0]] == nil || m.peers[r.party[1]] == nil
	})
}

// up is the server's grain: whole seconds since the start.
func up(t time.Time) time.Time {
	return epoch.Add((t.Sub(epoch) + time.Second - 1).Truncate(time.Second))
}

func (m *model) use(r *modelRelay, side int, now time.Time) bool {
	if !r.agreed && side == 0 {
		r.packets++
		return r.packets <= 32
	}
	r.agreed = true
	r.end = up(now.Add(5 * time.Minute))
	return true
}

// The server against the model: registrations that move between endpoints and
// connections, keep-alives, BYE, relays, time.
func TestRandomWalk(t *testing.T) {
	fast := Rate{1e6, 1e6}
	for n := range uint64(60) {
		r := rand.New(rand.NewPCG(n, 5))
		s := testServer(ServerConfig{MaxPeers: 16, MaxRelays: 64, HelloRate: fast, RegisterRate: fast, NewKeyRate: fast,
			ConnectRate: fast, SignalRate: fast, RequestRate: fast, PairRate: fast})
		m := model{map[*puppet]*modelPeer{}, map[RelayID]*modelRelay{}}
		now := epoch
		s.HandleTimeout(now) // seconds count from the first call
		var all []*puppet
		for k := range uint64(8) {
			p := newPuppet(t, s, k+1, Addr{})
			all = append(all, p)
		}
		conn := uint64(0)
		for step := range 3000 {
			fail := func(format string, args ...any) {
				t.Helper()
				t.Fatalf("seed %d, step %d: %s", n, step, fmt.Sprintf(format, args...))
			}
			p, q := all[r.IntN(len(all))], all[r.IntN(len(all))]
			mp := m.peers[p]
			id := RelayID{byte(r.IntN(12))}
			switch op := r.IntN(16); {
			case op < 2: // register, mostly somewhere else
				if r.IntN(3) > 0 || !p.addr.Endpoint.IsValid() {
					p.addr = udp(fmt.Sprintf("192.0.2.%d:%d", r.IntN(4), 1+r.IntN(1000)))
					if r.IntN(4) == 0 {
						conn++
						p.addr.Conn = conn
					}
				}
				p.tx += uint64(r.IntN(200))
				p.register(now)
				m.peers[p] = &modelPeer{p.addr, p.handle, up(now.Add(time.Minute))}
			case op < 8 && mp != nil && p.addr == mp.addr:
				p.only(p.ask(now, p.keepAlive()), wire.TypeAlive)
				mp.end = up(now.Add(time.Minute))
			case op == 8 && mp != nil:
				if r.IntN(2) == 0 {
					p.ask(now, p.bye())
					delete(m.peers, p)
				} else if s.ConnClosed(now, mp.addr.Conn); mp.addr.Conn != 0 {
					delete(m.peers, p)
				}
			case op < 11 && mp != nil:
				kinds := Kinds(r.IntN(8))
				want, rel := wire.StatusOK, m.relays[id]
				switch {
				case m.peers[q] == nil:
					want = wire.StatusNotRegistered
				case p == q || rel != nil && rel.party != [2]*puppet{p, q}:
					want = wire.StatusBadRelay
				case rel != nil:
					rel.kinds = kinds
				default:
					m.relays[id] = &modelRelay{party: [2]*puppet{p, q}, kinds: kinds, end: up(now.Add(15 * time.Second))}
				}
				if got := p.connect(now, q, id, kinds); got != want {
					fail("CONNECT: %v, want %v", got, want)
				}
			case op == 11 && mp != nil:
				var want []Addr
				if rel := m.relays[id]; rel != nil {
					if side := slices.Index(rel.party[:], p); side >= 0 && m.use(rel, side, now) {
						want = append(want, m.peers[rel.party[1-side]].addr)
					}
				}
				got := p.ask(now, p.signal(id, nil))
				if len(got) != len(want) || len(got) == 1 && got[0].to != want[0] {
					fail("SIGNAL: to %v, want %v", got, want)
				}
			case op < 15:
				// From where p is, or was.
				if !p.addr.Endpoint.IsValid() {
					break
				}
				want := false
				if rel := m.relays[id]; rel != nil && rel.kinds&PacketRelay != 0 {
					for side, x := range rel.party {
						mx, other := m.peers[x], m.peers[rel.party[1-side]]
						if mx.addr == (Addr{Endpoint: p.addr.Endpoint}) {
							want = other.addr.Conn == 0 && m.use(rel, side, now)
							break
						}
					}
				}
				if got := p.relay(now, id, 20); got != want {
					fail("packet from %v: %v, want %v", p.addr, got, want)
				}
			default:
				now = now.Add(time.Duration(r.Int64N(int64(12 * time.Second))))
				if r.IntN(50) == 0 {
					now = now.Add(time.Duration(r.Int64N(int64(10 * time.Minute))))
				}
				if r.IntN(3) > 0 {
					s.HandleTimeout(now)
				}
			}
			m.expire(now)
			s.HandleTimeout(now)
			if st := s.Stats(); st.Peers != len(m.peers) || st.Relays != len(m.relays) {
				fail("%d peers and %d relays, want %d and %d", st.Peers, st.Relays, len(m.peers), len(m.relays))
			}
		}
		for p := range m.peers {
			s.forget(must(t, s, p))
		}
		if len(s.conns) != 0 || s.relays.len() != 0 {
			t.Errorf("seed %d: something is left", n)
		}
		for _, c := range s.crowd {
			if c != 0 {
				t.Fatalf("seed %d: a place is left", n)
			}
		}
	}
}

func must(t *testing.T, s *Server, p *puppet) (uint32, *peer) {
	t.Helper()
	is := s.byID(p.id)
	if is.p == nil {
		t.Fatal("not in the index")
	}
	return is.i, is.p
}

// The index against a map, with hashes that collide all the time.
func TestIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	x := newIndex(64)
	hash := func(i uint32) uint64 { return uint64(i%7)<<32 | uint64(i%3)<<60 }
	in := map[uint32]bool{}
	for range 20000 {
		i := uint32(r.IntN(100))
		switch {
		case in[i]:
			x.remove(hash(i), i)
			delete(in, i)
		case len(in) < 64:
			x.insert(hash(i), i)
			in[i] = true
		}
		for i := range uint32(100) {
			got, ok := x.find(hash(i), func(k uint32) bool { return k == i })
			if ok != in[i] || ok && got != i {
				t.Fatalf("%d: found %d, %v; want %v", i, got, ok, in[i])
			}
		}
	}
}

// The wheel ends everything in its second, however often it was moved later.
func TestWheel(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	var timers [200]timer
	w := wheel{timer: func(i uint32) *timer { return &timers[i] }}
	due := map[uint32]uint32{}
	for now, step := uint32(0), 0; step < 20000; step++ {
		i := uint32(r.IntN(len(timers)))
		_, armed := due[i]
		switch r.IntN(3) {
		case 0:
			if !armed {
				timers[i].due = now + uint32(r.IntN(700))
				w.arm(i)
			} else {
				timers[i].due += uint32(r.IntN(300))
			}
			due[i] = timers[i].due
		case 1:
			if armed && r.IntN(4) == 0 {
				w.disarm(i)
				delete(due, i)
			}
		default:
			now += uint32(r.IntN(8))
			if r.IntN(100) == 0 {
				now += uint32(r.IntN(1000))
			}
			for {
				w.advance(now, 1+r.IntN(50), func(i uint32) {
					if due[i] > now || due[i] == 0 && now != 0 {
						t.Fatalf("%d ended at %d, due %d", i, now, due[i])
					}
					w.disarm(i)
					delete(due, i)
				})
				if at, ok := w.next(); !ok || at > now {
					break
				}
			}
			for i, d := range due {
				if d <= now {
					t.Fatalf("%d not ended at %d, due %d", i, now, d)
				}
			}
		}
	}
}

// A bucket that is forgotten gives its owner a full one: so it is never that
// of who floods, and the table never grows.
func TestRateTable(t *testing.T) {
	table := newRateTable(Rate{10, 10})
	now, flood := int64(time.Hour), uint64(12345)
	granted := 0
	for n := range uint64(1 << 20) {
		now += int64(time.Microsecond)
		if table.take(flood, now) {
			granted++
		}
		if !table.take(n*0x9e3779b97f4a7c15+1, now) {
			t.Fatalf("stranger %d has no token", n)
		}
	}
	if granted > 10+11 {
		t.Errorf("who floods got %d tokens in a second", granted)
	}
	if len(table.buckets) != rateSets*rateWays {
		t.Errorf("%d buckets", len(table.buckets))
	}
}
