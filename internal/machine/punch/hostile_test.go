package punch

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/signal"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

// forge makes a message under any key.
func forge(t stun.Type, id stun.TransactionID, user string, mapped netip.AddrPort, k [32]byte, size int, nominate uint32) []byte {
	w := stun.Begin(nil, t, id)
	if user != "" {
		w.Add(stun.Username, []byte(user))
	}
	if mapped.IsValid() {
		w.AddMapped(mapped)
	}
	if nominate != 0 {
		w.Add(stun.UseCandidate, nil)
		w.Add(stun.Nomination, binary.BigEndian.AppendUint32(nil, nominate))
	}
	if size != 0 {
		w.PadTo(size)
	}
	w.AddIntegrity(hmac.New(sha256.New, k[:]))
	w.AddFingerprint()
	return w.Bytes()
}

const (
	userO = "0102030405060708:o"
	userA = "0102030405060708:a"
)

// A stranger has the peer's private address on our own network, and speaks. Our
// peer is elsewhere. Whatever the stranger does, the path goes to the peer, as
// soon as without the stranger, and nothing full-size goes to the stranger.
func TestStranger(t *testing.T) {
	// A recording of another attempt between the same two, under another key,
	// and one under this key but another attempt id.
	otherKey := [32]byte{99}
	for _, tt := range []struct {
		name   string
		answer func(s *host, from netip.AddrPort, b []byte)
	}{
		{"echoes", func(s *host, from netip.AddrPort, b []byte) { s.sendRaw(from, b) }},
		{"answers without integrity", func(s *host, from netip.AddrPort, b []byte) {
			out, _ := stun.AppendBindingResponse(nil, b, from)
			s.sendRaw(from, out)
		}},
		{"answers with its own key", func(s *host, from netip.AddrPort, b []byte) {
			m, _ := stun.Parse(b)
			s.sendRaw(from, forge(stun.BindingSuccess, m.ID, "", from, otherKey, 0, 0))
			s.sendRaw(from, forge(stun.BindingSuccess, m.ID, "", from, otherKey, FullSize, 0))
		}},
		{"turns the request into an answer", func(s *host, from netip.AddrPort, b []byte) {
			b = bytes.Clone(b)
			b[0] = 1
			s.sendRaw(from, b)
		}},
		{"asks with its own key", func(s *host, from netip.AddrPort, b []byte) {
			m, _ := stun.Parse(b)
			for _, u := range []string{userO, userA} {
				s.sendRaw(from, forge(stun.BindingRequest, m.ID, u, netip.AddrPort{}, otherKey, FullSize, 9))
			}
		}},
		{"talks garbage", func(s *host, from netip.AddrPort, b []byte) {
			g := make([]byte, len(b))
			for i := range g {
				g[i] = byte(s.w.rand.Uint32())
			}
			g[0] &= 3
			s.sendRaw(from, g)
			s.sendRaw(from, nil)
		}},
		{"repeats another attempt", func(s *host, from netip.AddrPort, b []byte) {
			m, _ := stun.Parse(b)
			s.sendRaw(from, forge(stun.BindingRequest, m.ID, "ff02030405060708:a", netip.AddrPort{}, key, FullSize, 9))
			s.sendRaw(from, forge(stun.BindingRequest, m.ID, "ff02030405060708:o", netip.AddrPort{}, key, FullSize, 9))
			s.sendRaw(from, forge(stun.BindingSuccess, stun.TransactionID{1}, "", from, key, FullSize, 0))
		}},
	} {
		for _, side := range []string{"offerer", "answerer"} {
			t.Run(tt.name+" at the "+side, func(t *testing.T) {
				w, _, a, b := differentNATs(1, portRestricted, portRestricted)
				victim, peer := a, b
				if side == "answerer" {
					victim, peer = b, a
				}
				stranger := w.host(victim.net, "stranger", peer.addrs[0].String())
				stranger.port = peer.port
				largest := 0
				stranger.handle = func(from netip.AddrPort, _ netip.Addr, in []byte) {
					largest = max(largest, len(in))
					tt.answer(stranger, from, in)
				}
				a.begin(true, b.candidates(false))
				b.begin(false, a.candidates(false))
				w.run(20 * time.Second)
				pa, up := a.mustPath(t, Punch)
				pb, _ := b.mustPath(t, Punch)
				if pa.Remote != b.mapped() || pb.Remote != a.mapped() || up != 120*ms {
					t.Errorf("paths %+v, %+v, up after %v", pa, pb, up)
				}
				if largest == 0 || largest > 100 {
					t.Errorf("the stranger got up to %d bytes", largest)
				}
			})
		}
	}
}

// The stranger alone: it is named in the reasons.
func TestStrangerAlone(t *testing.T) {
	w := newWorld(1)
	lan := &network{w: w, delay: ms}
	a, s := w.host(lan, "a", "10.0.0.2"), w.host(lan, "s", "10.0.0.3")
	s.handle = func(from netip.AddrPort, _ netip.Addr, b []byte) { s.sendRaw(from, b) }
	a.begin(true, s.candidates(false))
	w.run(20 * time.Second)
	if f, _, ok := a.failed(); !ok || f.Reason != Stranger || f.Tried[0].Result != Stranger {
		t.Errorf("failed %v %+v", ok, f)
	}
}

// A stranger on each side that sees all packets of its neighbour, repeats those
// that come before they arrive, and the last 40, out and in, all the time. (Two who pass on to each other
// what they see would be a path, and rightly taken for one: who is at its end is
// for the link to prove.)
func TestReplay(t *testing.T) {
	for seed := range uint64(10) {
		w, inet, a, b := differentNATs(seed, portRestricted, portRestricted)
		inet.loss, inet.jitter = 0.1, 20*ms
		stranger := w.host(a.net, "stranger", "10.0.0.77")
		stranger2 := w.host(b.net, "stranger2", "10.1.0.77")
		stranger.handle = func(netip.AddrPort, netip.Addr, []byte) {}
		stranger2.handle = stranger.handle
		a.begin(true, b.candidates(true))
		b.begin(false, a.candidates(true))
		for _, x := range []struct{ h, stranger *host }{{a, stranger}, {b, stranger2}} {
			var seen [][]byte
			x.h.tap = func(in bool, p []byte) {
				seen = append(seen, bytes.Clone(p))
				if in { // and it is faster than the network
					x.h.m.HandlePacket(w.now, netip.AddrPortFrom(x.stranger.addrs[0], x.stranger.port), p)
				}
			}
			for at := time.Duration(0); at < time.Second; at += 5 * ms {
				w.after(at, func() {
					for _, p := range seen[max(0, len(seen)-40):] {
						x.stranger.sendRaw(netip.AddrPortFrom(x.h.addrs[0], x.h.port), p)
					}
				})
			}
		}
		w.run(3 * time.Second)
		pa, _ := a.mustPath(t, Punch)
		pb, _ := b.mustPath(t, Punch)
		if pa.Remote != b.mapped() || pb.Remote != a.mapped() {
			t.Fatalf("seed %d: paths %+v, %+v", seed, pa, pb)
		}
		if a.sent[stranger.addrs[0]] == 0 || b.sent[stranger2.addrs[0]] == 0 {
			t.Fatal("the strangers were not even heard")
		}
	}
}

// The offerer's nomination, repeated from another endpoint that the peer also
// has: the answerer takes no path that it has not checked itself.
func TestNominationNeedsACheck(t *testing.T) {
	m := New(epoch, Config{Attempt: attempt, Key: key, Seed: [32]byte{1}})
	from := ep("198.51.100.9:1000")
	m.HandlePacket(epoch, from, forge(stun.BindingRequest, stun.TransactionID{1}, userO, netip.AddrPort{}, key, 0, 1))
	for e, ok := m.Event(); ok; e, ok = m.Event() {
		if _, up := e.(PathUp); up {
			t.Fatalf("%+v by a request alone", e)
		}
	}
	var id *stun.TransactionID
	for s, ok := m.Poll(); ok; s, ok = m.Poll() {
		if q, _ := stun.Parse(s.Data); q.Type == stun.BindingRequest && s.To == from {
			id = &q.ID
		}
	}
	if id == nil {
		t.Fatal("no check in return")
	}
	now := epoch.Add(ms)
	mapped := ep("192.0.2.1:1")
	good := forge(stun.BindingSuccess, *id, "", mapped, key, 0, 0)
	// Off the path: the right answer from elsewhere, a guessed id, no fingerprint, no address.
	m.HandlePacket(now, ep("198.51.100.9:1001"), good)
	m.HandlePacket(now, from, forge(stun.BindingSuccess, stun.TransactionID{7}, "", mapped, key, 0, 0))
	m.HandlePacket(now, from, forge(stun.BindingSuccess, *id, "", netip.AddrPort{}, key, 0, 0))
	w := stun.Begin(nil, stun.BindingSuccess, *id)
	w.AddMapped(mapped)
	w.AddIntegrity(hmac.New(sha256.New, key[:]))
	m.HandlePacket(now, from, w.Bytes())
	if _, ok := m.Event(); ok || m.pairs[0].proved {
		t.Fatal("accepted what proves nothing")
	}
	m.HandlePacket(now, from, good)
	if e, _ := m.Event(); e != (PathUp{Remote: from, Technique: Punch, RTT: ms, Mapped: mapped}) {
		t.Errorf("then %+v", e)
	}
	// An older nomination, and one of a role that is not the peer's, change nothing.
	m.HandlePacket(now, from, forge(stun.BindingRequest, stun.TransactionID{2}, userO, netip.AddrPort{}, key, 0, 1))
	m.HandlePacket(now, from, forge(stun.BindingRequest, stun.TransactionID{3}, userA, netip.AddrPort{}, key, 0, 2))
	if e, ok := m.Event(); ok {
		t.Errorf("then %+v", e)
	}
}

// What belongs to this attempt, and what somebody else should look at.
func TestHandlePacketSaysWhoseItIs(t *testing.T) {
	m := New(epoch, Config{Offerer: true, Attempt: attempt, Key: key, Seed: [32]byte{1}})
	from := ep("198.51.100.9:1000")
	for _, tt := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"ours", forge(stun.BindingRequest, stun.TransactionID{1}, userA, netip.AddrPort{}, key, 0, 0), true},
		{"ours, reflected", forge(stun.BindingRequest, stun.TransactionID{1}, userO, netip.AddrPort{}, key, 0, 0), true},
		{"ours, wrong key", forge(stun.BindingRequest, stun.TransactionID{1}, userA, netip.AddrPort{}, [32]byte{}, 0, 0), true},
		{"another attempt", forge(stun.BindingRequest, stun.TransactionID{1}, "1102030405060708:a", netip.AddrPort{}, key, 0, 0), false},
		{"a request without username", forge(stun.BindingRequest, stun.TransactionID{1}, "", netip.AddrPort{}, key, 0, 0), false},
		{"an answer to nothing", forge(stun.BindingSuccess, stun.TransactionID{1}, "", from, key, 0, 0), false},
		{"garbage", []byte{0, 1, 2}, false},
		{"nothing", nil, false},
	} {
		if got := m.HandlePacket(epoch, from, tt.b); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// The peer names sixteen ports of a victim, calls itself from eight more with a
// spoofed source, floods us with requests, and never answers.
func TestBudget(t *testing.T) {
	for _, offerer := range []bool{true, false} {
		victim := netip.MustParseAddr("203.0.113.66")
		var named []signal.Candidate
		for i := range uint16(40) {
			named = append(named, signal.Candidate{Kind: signal.Host, Transport: signal.UDP, Endpoint: netip.AddrPortFrom(victim, 1000+i)})
		}
		now := epoch
		m := New(now, Config{Offerer: offerer, Attempt: attempt, Key: key, Remote: named, Seed: [32]byte{1}})
		small, full, answers, answered, asked := 0, 0, 0, 0, 0
		user := userO
		if offerer {
			user = userA
		}
		endpoints := map[netip.AddrPort]bool{}
		for ; now.Before(epoch.Add(20 * time.Second)); now = now.Add(ms) {
			m.AddRemote(now, named[16:])
			for i := range 2 {
				n := int(now.Sub(epoch)/ms)*2 + i
				b := forge(stun.BindingRequest, stun.TransactionID{byte(n), byte(n >> 8), byte(n >> 16)}, user, netip.AddrPort{}, key, 0, 1)
				asked += len(b)
				m.HandlePacket(now, netip.AddrPortFrom(victim, 1000+uint16(n)%60), b)
			}
			m.HandleTimeout(now)
			for s, ok := m.Poll(); ok; s, ok = m.Poll() {
				q, err := stun.Parse(s.Data)
				switch {
				case err != nil:
					t.Fatal(err)
				case q.Type == stun.BindingSuccess:
					answers++
					answered += len(s.Data)
				case len(s.Data) >= FullSize:
					full++
					endpoints[s.To] = true
				default:
					small++
					endpoints[s.To] = true
				}
			}
		}
		if small > maxUnproved || full > maxFullUnprovedTotal || len(endpoints) > maxSignalled+maxPeerReflexive {
			t.Errorf("offerer %v: %d small and %d full-size checks to %d endpoints of a victim", offerer, small, full, len(endpoints))
		}
		if small < maxUnproved/2 || offerer && full == 0 {
			t.Errorf("offerer %v: %d small and %d full-size checks; the test reaches no limit", offerer, small, full)
		}
		if answers > (maxSignalled+maxPeerReflexive)*(answerBurst+answerRate*11) || answered > asked {
			t.Errorf("%d answers of %d bytes to requests of %d bytes", answers, answered, asked)
		}
	}
}

// No answer is larger than its question, and padding is returned.
func TestAnswerSize(t *testing.T) {
	for _, from := range []string{"198.51.100.9:1000", "[2001:db8::9]:1000"} {
		for _, size := range []int{0, 400, 402, FullSize, 1400} {
			m := New(epoch, Config{Attempt: attempt, Key: key, Seed: [32]byte{1}})
			q := forge(stun.BindingRequest, stun.TransactionID{1}, userO, netip.AddrPort{}, key, size, 0)
			m.HandlePacket(epoch, ep(from), q)
			s, _ := m.Poll()
			if want := min(len(q), FullSize); size%4 == 0 && size > 0 && len(s.Data) != want || len(s.Data) > len(q) {
				t.Errorf("%s: %d bytes for %d", from, len(s.Data), len(q))
			}
		}
	}
}

func TestUsable(t *testing.T) {
	m := New(epoch, Config{
		Attempt: attempt, Key: key, Seed: [32]byte{1},
		Mapped: ep("198.51.100.1:5000"), Server: ep("10.9.9.1:3478"),
		Local: []netip.Addr{netip.MustParseAddr("192.168.7.2")},
	})
	for _, tt := range []struct {
		ep   string
		want bool
	}{
		{"198.51.100.2:1", true},
		{"192.168.7.3:1", true},
		{"10.8.0.1:1", true},
		{"100.64.0.1:1", true},
		{"[2001:db8::1]:1", true},
		{"[fd00::1]:1", true},
		{"198.51.100.1:5000", false}, // ourselves
		{"198.51.100.1:5001", true},  // behind the same NAT
		{"10.9.9.1:3478", false},     // the server
		{"10.9.9.7:1", false},        // its private network
		{"10.9.10.7:1", true},
		{"198.51.100.2:0", false},
		{"0.0.0.0:1", false},
		{"0.1.2.3:1", false},
		{"127.0.0.1:1", false},
		{"169.254.1.1:1", false},
		{"224.0.0.1:1", false},
		{"255.255.255.255:1", false},
		{"240.0.0.1:1", false},
		{"192.168.7.255:1", false},
		{"[::]:1", false},
		{"[::1]:1", false},
		{"[fe80::1]:1", false},
		{"[fe80::1%eth0]:1", false},
		{"[ff02::1]:1", false},
	} {
		c := []signal.Candidate{{Kind: signal.Host, Transport: signal.UDP, Endpoint: ep(tt.ep)}}
		before := len(m.pairs)
		m.AddRemote(epoch, c)
		if got := len(m.pairs) > before; got != tt.want {
			t.Errorf("%s: tried %v", tt.ep, got)
		}
	}
	if m.usable(netip.AddrPort{}) {
		t.Error("the zero endpoint is usable")
	}
	before := len(m.pairs)
	m.AddRemote(epoch, []signal.Candidate{{Kind: signal.Host, Transport: signal.TCP, Endpoint: ep("198.51.100.77:1")}})
	m.AddRemote(epoch, []signal.Candidate{{Kind: signal.Host, Transport: signal.UDP, Endpoint: ep("[::ffff:198.51.100.2]:1")}})
	if len(m.pairs) != before {
		t.Error("a TCP candidate, or a known one in another form, was added")
	}
	// The server is on our own network: so may the peer be.
	m.cfg.Local = append(m.cfg.Local, netip.MustParseAddr("10.9.9.2"))
	if !m.usable(ep("10.9.9.7:1")) {
		t.Error("our own network is not usable, because the server is in it")
	}
}

// FuzzHostile lets anything happen to a machine: packets that are garbage,
// mutated, or authentic from any source, and time in any steps.
func FuzzHostile(f *testing.F) {
	f.Add(uint64(1), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add(uint64(2), bytes.Repeat([]byte{7, 0xff, 3, 0x40}, 50))
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		r := rand.New(rand.NewPCG(seed, 7))
		offerer := seed%2 == 0
		now := epoch
		m := New(now, Config{
			Offerer: offerer, Attempt: attempt, Key: key, Seed: [32]byte{byte(seed)},
			Remote: []signal.Candidate{{Kind: signal.Host, Transport: signal.UDP, Endpoint: ep("10.0.0.9:1")}},
			Local:  []netip.Addr{netip.MustParseAddr("10.0.0.2")},
		})
		froms := []netip.AddrPort{ep("10.0.0.9:1"), ep("198.51.100.9:2"), ep("[2001:db8::9]:3"), ep("127.0.0.1:4"), ep("10.0.0.2:5")}
		user := userO
		if offerer {
			user = userA
		}
		sent := map[stun.TransactionID]netip.AddrPort{}
		answered := map[netip.AddrPort]bool{}
		full := map[netip.AddrPort]bool{}
		for _, op := range script {
			from := froms[r.IntN(len(froms))]
			var id stun.TransactionID
			binary.BigEndian.PutUint64(id[:], r.Uint64())
			size := []int{0, FullSize}[r.IntN(2)]
			switch op % 8 {
			case 0:
				now = now.Add(time.Duration(op) * ms)
				m.HandleTimeout(now)
			case 1:
				if at, _ := m.NextTimeout(); !at.IsZero() {
					now = later(now, at)
					m.HandleTimeout(now)
				}
			case 2:
				m.HandlePacket(now, from, forge(stun.BindingRequest, id, user, netip.AddrPort{}, key, size, uint32(op/8)))
			case 3: // an authentic answer, to one of ours, from anywhere
				for id, to := range sent {
					if r.IntN(4) > 0 {
						from = to
					}
					m.HandlePacket(now, from, forge(stun.BindingSuccess, id, "", froms[1], key, size, 0))
					if from == to {
						answered[to] = true
						full[to] = full[to] || size == FullSize
					}
					delete(sent, id)
					break
				}
			case 4: // one byte wrong
				b := forge(stun.BindingRequest, id, user, netip.AddrPort{}, key, size, 3)
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
				m.HandlePacket(now, from, b)
			case 5:
				g := make([]byte, r.IntN(64))
				for i := range g {
					g[i] = byte(r.Uint32())
				}
				m.HandlePacket(now, from, g)
			case 7:
				m.AddRemote(now, []signal.Candidate{{Kind: signal.Kind(op/8%4 + 1), Transport: signal.UDP, Endpoint: froms[int(op/8)%len(froms)]}})
			}
			for s, ok := m.Poll(); ok; s, ok = m.Poll() {
				if s.To == froms[3] {
					t.Fatal("sent to loopback")
				}
				q, err := stun.Parse(s.Data)
				if err != nil {
					t.Fatal(err)
				}
				if q.Type == stun.BindingRequest {
					sent[q.ID] = s.To
				}
			}
			for e, ok := m.Event(); ok; e, ok = m.Event() {
				if up, ok := e.(PathUp); ok && (!answered[up.Remote] || offerer && !full[up.Remote]) {
					t.Fatalf("%+v was never proved", up)
				}
			}
			if at, why := m.NextTimeout(); !at.IsZero() && why == "" {
				t.Fatal("a timeout without a reason")
			}
			if len(m.pairs) > maxSignalled+maxPeerReflexive {
				t.Fatal(fmt.Sprint(len(m.pairs), " pairs"))
			}
		}
	})
}
