package punch

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/signal"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

const (
	// tryFor is how long the offerer looks for a path; the answerer goes on a
	// little, so that a choice made at the last moment still finds it there.
	tryFor       = 10 * time.Second
	answererMore = time.Second

	maxQueued = 256
)

// Config is one attempt. Addresses are unmapped: IPv4 is never written as IPv6.
type Config struct {
	Offerer bool               // we asked; the offerer chooses the path
	Attempt [8]byte            // from the offer
	Key     [32]byte           // from the offer
	Remote  []signal.Candidate // the peer's, as far as they are known
	Mapped  netip.AddrPort     // our own endpoint as the server sees it
	Server  netip.AddrPort     // the rendezvous server's endpoint
	Local   []netip.Addr       // our own addresses

	// Techniques are the ones to try; empty is all.
	Techniques []Technique

	// Seed is secret randomness for this attempt alone, unknown to the peer
	// too: who can guess transaction ids can answer for an address not its own.
	Seed [32]byte
}

// Machine is UDP hole punching in one attempt.
type Machine struct {
	cfg  Config
	mac  hash.Hash
	rand *rand.ChaCha8
	user [18]byte // our USERNAME; the peer's differs in the last byte

	started   time.Time
	deadline  time.Time // of checking
	pairs     []*pair   // in the order in which they became known
	burst     int       // pairs that may still start without pacing
	lastStart time.Time

	fullUnproved int // full-size checks sent to endpoints that had not answered
	holdUntil    time.Time
	nomination   uint32
	chosen       *pair
	watch        watch
	done         bool

	queue  []packet
	events []Event
	buf    []byte
}

// New starts an attempt.
func New(now time.Time, cfg Config) *Machine {
	m := &Machine{
		cfg:      cfg,
		mac:      hmac.New(sha256.New, cfg.Key[:]),
		rand:     rand.NewChaCha8(cfg.Seed),
		started:  now,
		deadline: now.Add(tryFor),
		burst:    startBurst,
	}
	hex.Encode(m.user[:], cfg.Attempt[:])
	m.user[16], m.user[17] = ':', 'a'
	if cfg.Offerer {
		m.user[17] = 'o'
	} else {
		m.deadline = m.deadline.Add(answererMore)
	}
	m.AddRemote(now, cfg.Remote)
	return m
}

// AddRemote adds candidates that the peer told later. Those known already, and
// those that may not be used, change nothing.
func (m *Machine) AddRemote(now time.Time, candidates []signal.Candidate) {
	if m.done {
		return
	}
	for _, c := range candidates {
		if c.Transport != signal.UDP {
			continue
		}
		ep := netip.AddrPortFrom(c.Endpoint.Addr().Unmap(), c.Endpoint.Port())
		if p := m.find(ep); p != nil {
			if t := m.technique(c.Kind, ep.Addr()); p.kind == signal.PeerReflexive && m.wanted(t) {
				p.kind, p.technique = c.Kind, t
			}
			continue
		}
		m.add(c.Kind, ep)
	}
	m.startPairs(now)
	m.choose(now)
}

// HandlePacket takes a STUN message from the shared socket. It is false when
// the message has nothing to do with this attempt.
func (m *Machine) HandlePacket(now time.Time, from netip.AddrPort, b []byte) bool {
	msg, err := stun.Parse(b)
	if err != nil {
		m.disturbed(from)
		return false
	}
	switch msg.Type {
	case stun.BindingRequest:
		user, _ := msg.Get(stun.Username)
		if len(user) != len(m.user) || string(user[:17]) != string(m.user[:17]) {
			return false
		}
		role := user[17]
		_, strange := msg.Unknown(stun.Username, stun.Padding, stun.UseCandidate)
		switch {
		case role == m.user[17] || (role != 'o' && role != 'a') || !msg.HasFingerprint() || !msg.Verify(m.mac):
			m.disturbed(from)
		case !strange && !m.done:
			m.handleRequest(now, from, msg)
		}
		return true
	case stun.BindingSuccess:
		p := m.find(from)
		if p == nil {
			return false
		}
		c := p.check(msg.ID)
		if c == nil {
			m.disturbed(from)
			return false
		}
		mapped, ok := msg.Mapped()
		_, strange := msg.Unknown(stun.XORMappedAddress, stun.Padding)
		switch {
		case !ok || !msg.HasFingerprint() || !msg.Verify(m.mac):
			m.disturbed(from)
		case !strange && !m.done:
			m.handleAnswer(now, p, c, mapped, msg.Len() >= FullSize)
		}
		return true
	}
	return false
}

// disturbed notes that something at a candidate endpoint speaks, but not as the peer.
func (m *Machine) disturbed(from netip.AddrPort) {
	if p := m.find(from); p != nil {
		p.disturbed = true
	}
}

// HandleTimeout does what is due.
func (m *Machine) HandleTimeout(now time.Time) {
	if m.done {
		return
	}
	if !now.Before(m.deadline) {
		if m.chosen == nil {
			m.fail()
			return
		}
		m.endOthers(func(*pair) bool { return true })
	}
	m.startPairs(now)
	for _, p := range m.pairs {
		m.repeat(now, p)
	}
	m.choose(now)
	m.keepWatch(now)
}

// NextTimeout says when HandleTimeout is to be called next, and what for; the
// zero time is never.
func (m *Machine) NextTimeout() (at time.Time, why string) {
	if m.done {
		return time.Time{}, ""
	}
	earlier := func(t time.Time, reason string) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at, why = t, reason
		}
	}
	open := m.chosen == nil
	for _, p := range m.pairs {
		switch p.state {
		case waiting:
			earlier(m.lastStart.Add(pacing), "pacing")
			open = true
		case probing:
			earlier(p.next, "check")
			open = true
		case answered:
			open = true
		}
		if p.state < valid {
			earlier(p.fullNext, "full-size check")
		}
	}
	if open {
		earlier(m.deadline, "give up")
	}
	earlier(m.holdUntil, "choose")
	if m.chosen != nil {
		earlier(m.watch.next, "watch")
	}
	return at, why
}

// Poll returns the next datagram to send.
func (m *Machine) Poll() (Send, bool) {
	if len(m.queue) == 0 {
		m.queue = nil
		return Send{}, false
	}
	p := m.queue[0]
	m.queue = m.queue[1:]
	m.buf = m.encode(m.buf[:0], p)
	return Send{To: p.to, Data: m.buf}, true
}

// Event returns the next thing that has happened.
func (m *Machine) Event() (Event, bool) {
	if len(m.events) == 0 {
		m.events = nil
		return nil, false
	}
	e := m.events[0]
	m.events = m.events[1:]
	return e, true
}

func (m *Machine) emit(e Event) { m.events = append(m.events, e) }

// finish ends the attempt. From now on the peer hears nothing from us, which
// ends its watch too.
func (m *Machine) finish(e Event) {
	m.done = true
	m.queue = nil
	m.emit(e)
}

func (m *Machine) fail() {
	f := Failed{Reason: NoCandidates}
	best := 0
	for _, p := range m.pairs {
		r := m.result(p)
		f.Tried = append(f.Tried, Tried{Remote: p.remote, Technique: p.technique, Sent: p.sent, Result: r})
		if n := r.progress(); n > best {
			f.Reason, best = r, n
		}
	}
	m.finish(f)
}

// result says what came of an endpoint.
func (m *Machine) result(p *pair) Reason {
	switch {
	case p.result != "":
		return p.result
	case p.state == answered && m.cfg.Offerer && p.fullSent >= 4:
		return MTULimited
	case p.state == answered && m.cfg.Offerer:
		return Unfinished
	case p.state == answered && !p.heardFull:
		return MTULimited
	case p.state >= answered:
		return NotNominated
	case !p.heard.IsZero():
		return OneWay
	case p.disturbed:
		return Stranger
	}
	return NoAnswer
}

// progress orders reasons by how near a path was.
func (r Reason) progress() int {
	for i, x := range [...]Reason{Budget, Stranger, NoAnswer, OneWay, Unfinished, NotNominated, MTULimited} {
		if r == x {
			return i + 1
		}
	}
	return 0
}
