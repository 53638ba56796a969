package punch

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/signal"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

const (
	// FullSize is the UDP payload that a path must carry both ways: what QUIC
	// starts with (RFC 9000 section 14.1).
	FullSize = 1200

	startBurst = 3
	pacing     = 5 * time.Millisecond // RFC 8445 section 14.2

	firstRepeat = 20 * time.Millisecond
	lastRepeat  = 320 * time.Millisecond

	fullRepeatUnproved = 100 * time.Millisecond
	lastFullRepeat     = 500 * time.Millisecond
	maxFull            = 12

	maxUnproved          = 100 // small checks to an address that has not answered
	maxFullUnproved      = 2   // the same, full-size, to an endpoint
	maxFullUnprovedTotal = 6

	// To each endpoint: who repeats the peer's requests from elsewhere must not
	// use up what the peer may ask for.
	answerBurst = 20
	answerRate  = 20 // a second
)

type pairState uint8

const (
	waiting pairState = iota
	probing
	answered
	valid
	ended
)

// pair is our socket and one endpoint of the peer.
type pair struct {
	remote    netip.AddrPort
	kind      signal.Kind
	learnt    bool // peer-reflexive at first, though a signal may have named it since
	technique Technique
	nth       int // among those of its technique
	state     pairState
	result    Reason // why it ended

	recent [16]check
	sent   int
	last   time.Time // of the last small check
	next   time.Time // of the next, in probing
	repeat time.Duration

	fullSent int
	fullLast time.Time
	fullNext time.Time // zero: none is due by itself

	heard     time.Time // when a request first came from there
	heardFull bool
	disturbed bool
	nominated uint32 // by the offerer, in a request from there
	answers   bucket

	rtt     time.Duration // the shortest; zero until the first answer
	proved  bool          // something was answered
	validAt time.Time
	mapped  netip.AddrPort
}

// check is a request that may still be answered.
type check struct {
	id      stun.TransactionID
	sent    time.Time
	purpose purpose
	open    bool
}

// purpose is what a request is to find out.
type purpose uint8

const (
	toReach purpose = iota // small
	toFill                 // full-size
	toWatch                // small, on the path in use
)

func (p *pair) check(id stun.TransactionID) *check {
	for i := range p.recent {
		if c := &p.recent[i]; c.open && c.id == id {
			return c
		}
	}
	return nil
}

// packet is a datagram waiting for Poll.
type packet struct {
	to       netip.AddrPort
	id       stun.TransactionID
	mapped   netip.AddrPort // valid: an answer
	size     int            // to pad to
	nominate uint32
}

func (m *Machine) encode(b []byte, p packet) []byte {
	t := stun.BindingRequest
	if p.mapped.IsValid() {
		t = stun.BindingSuccess
	}
	w := stun.Begin(b, t, p.id)
	if p.mapped.IsValid() {
		w.AddMapped(p.mapped)
	} else {
		w.Add(stun.Username, m.user[:])
		if p.nominate != 0 {
			w.Add(stun.UseCandidate, nil)
			var n [4]byte
			binary.BigEndian.PutUint32(n[:], p.nominate)
			w.Add(stun.Nomination, n[:])
		}
	}
	if p.size != 0 {
		w.PadTo(p.size)
	}
	w.AddIntegrity(m.mac)
	w.AddFingerprint()
	return w.Bytes()
}

func (m *Machine) enqueue(p packet) {
	if len(m.queue) < maxQueued {
		m.queue = append(m.queue, p)
	}
}

// request sends a check.
func (m *Machine) request(now time.Time, p *pair, why purpose) {
	c := &p.recent[p.sent%len(p.recent)]
	*c = check{sent: now, purpose: why, open: true}
	binary.BigEndian.PutUint64(c.id[:], m.rand.Uint64())
	binary.BigEndian.PutUint32(c.id[8:], uint32(m.rand.Uint64()))
	p.sent++
	out := packet{to: p.remote, id: c.id}
	switch {
	case why == toFill:
		out.size = FullSize
	case why == toWatch && m.cfg.Offerer:
		out.nominate = m.nomination
	}
	m.enqueue(out)
}

// startPairs starts the pairs whose turn it is: the first of each technique
// before the second of any.
func (m *Machine) startPairs(now time.Time) {
	for {
		var first *pair
		for _, p := range m.pairs {
			if p.state == waiting && (first == nil || p.nth < first.nth ||
				p.nth == first.nth && p.technique.rank() > first.technique.rank()) {
				first = p
			}
		}
		if first == nil || m.burst == 0 && now.Before(m.lastStart.Add(pacing)) {
			return
		}
		if m.burst > 0 {
			m.burst--
		}
		m.lastStart = now
		m.start(now, first)
	}
}

func (m *Machine) start(now time.Time, p *pair) {
	p.state = probing
	p.repeat = firstRepeat
	p.next = now.Add(p.repeat)
	m.small(now, p)
}

// small sends a small check, if the budget of its address allows.
func (m *Machine) small(now time.Time, p *pair) {
	if !p.proved && m.unproved(p.remote.Addr()) >= maxUnproved {
		p.end(Budget)
		return
	}
	p.last = now
	m.request(now, p, toReach)
}

// unproved counts the checks sent to an address that has not answered.
func (m *Machine) unproved(a netip.Addr) int {
	n := 0
	for _, p := range m.pairs {
		if p.remote.Addr() != a {
			continue
		}
		if p.proved {
			return 0
		}
		n += p.sent - p.fullSent
	}
	return n
}

func (p *pair) end(why Reason) {
	if p.state != ended {
		p.state, p.result = ended, why
	}
}

// repeat sends what is due to an endpoint.
func (m *Machine) repeat(now time.Time, p *pair) {
	if p.state == probing && !now.Before(p.next) {
		p.repeat = min(2*p.repeat, lastRepeat)
		p.next = now.Add(p.repeat)
		m.small(now, p)
	}
	if p.state < valid && !p.fullNext.IsZero() && !now.Before(p.fullNext) {
		m.full(now, p)
	}
}

// patience is how long an answer of an endpoint that has answered may take.
func (p *pair) patience() time.Duration { return max(p.rtt*5/4, firstRepeat) }

// full sends a full-size check and plans the next.
func (m *Machine) full(now time.Time, p *pair) {
	p.fullNext = time.Time{}
	wait := fullRepeatUnproved
	switch {
	case p.proved:
		if p.fullSent >= maxFull {
			p.end(MTULimited)
			m.emit(PathLimited{Remote: p.remote, Technique: p.technique})
			return
		}
		wait = p.patience()
	case p.fullSent >= maxFullUnproved || m.fullUnproved >= maxFullUnprovedTotal:
		return
	default:
		m.fullUnproved++
	}
	p.fullNext = now.Add(min(wait<<p.fullSent, lastFullRepeat))
	p.fullLast = now
	p.fullSent++
	m.request(now, p, toFill)
}

// handleRequest takes an authenticated request of the peer.
func (m *Machine) handleRequest(now time.Time, from netip.AddrPort, msg stun.Message) {
	p := m.find(from)
	if p == nil {
		if !m.usable(from) {
			return
		}
		if p = m.add(signal.PeerReflexive, from); p == nil {
			return
		}
		m.emit(PeerReflexive{Remote: from})
	}
	if p.answers.take(now) {
		out := packet{to: from, id: msg.ID, mapped: from}
		if msg.Has(stun.Padding) {
			out.size = min(msg.Len(), FullSize)
		}
		m.enqueue(out)
	}
	if p.heard.IsZero() {
		p.heard = now
	}
	p.heardFull = p.heardFull || msg.Len() >= FullSize
	m.trigger(now, p)
	if v, ok := msg.Get(stun.Nomination); ok && len(v) == 4 && msg.Has(stun.UseCandidate) && !m.cfg.Offerer {
		p.nominated = max(p.nominated, binary.BigEndian.Uint32(v))
		m.accept(now, p)
	}
}

// trigger answers a request by checks of our own, while there is something to
// learn from them.
func (m *Machine) trigger(now time.Time, p *pair) {
	switch {
	case p.proved || p.result == Budget || !now.Before(m.deadline):
		// Nothing.
	case p.state == ended && m.cfg.Offerer:
		// Nothing: we shall not choose it. The answerer goes on, because the
		// offerer may.
	case p.state == waiting:
		m.start(now, p)
	case now.Sub(p.last) >= firstRepeat:
		p.next = now.Add(p.repeat)
		m.small(now, p)
	}
	if m.cfg.Offerer && p.state < valid && p.fullSent == 0 && now.Before(m.deadline) {
		m.full(now, p)
	}
}

// handleAnswer takes an authenticated answer to c.
func (m *Machine) handleAnswer(now time.Time, p *pair, c *check, mapped netip.AddrPort, full bool) {
	c.open = false
	rtt := now.Sub(c.sent)
	if !p.proved || rtt < p.rtt {
		p.rtt = rtt
	}
	p.proved = true
	p.mapped = mapped
	if p.state <= probing || p.result == Budget {
		p.state, p.result = answered, ""
		if m.cfg.Offerer {
			m.emit(Answered{Remote: p.remote, Technique: p.technique})
		}
	}
	if !m.cfg.Offerer {
		m.accept(now, p)
	} else if p.state == answered {
		switch {
		case c.purpose == toFill && full:
			p.state, p.validAt = valid, now
		case p.fullNext.IsZero():
			m.full(now, p)
		default: // one is under way since before we knew the round trip
			p.fullNext = earliest(p.fullNext, later(now, p.fullLast.Add(p.patience())))
		}
		m.choose(now)
	}
	if p == m.chosen && c.purpose == toWatch {
		m.watchAnswered(now)
	}
}

// bucket limits answers; the zero value is full.
type bucket struct {
	used float64
	last time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.used = max(0, b.used-now.Sub(b.last).Seconds()*answerRate)
	b.last = now
	if b.used > answerBurst-1 {
		return false
	}
	b.used++
	return true
}
