package bodkin

import (
	"crypto/rand"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/link"
	"github.com/bodkin-net/bodkin/internal/machine/punch"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/signal"
)

type attemptID [8]byte

const (
	answerTimeout = 8 * time.Second  // the offer went out, the peer said nothing
	attemptLife   = 30 * time.Second // an attempt that brought nothing is forgotten
	// A handshake through the packet relay: several round trips to the far side
	// of the world, with repetitions.
	packetDialTimeout = 4 * time.Second
	maxAnswers        = 1024 // attempts of others, at once
	maxRefused        = 256  // and those of peers that may not connect
	maxAnswersPeer    = 64   // of one peer
	maxBlind          = 64   // of all, those that send where nobody has answered
	maxBlindPeer      = 4    // and those of one peer
)

// attempt is one exchange of candidates with a peer and what comes of it: a
// relay, a hole, or both. Only the control goroutine touches it.
type attempt struct {
	id      attemptID
	relay   rendezvous.RelayID
	peer    ID
	offerer bool
	session *session  // the offerer's; the answerer finds his by the link's HELLO
	about   sessionID // the session that the links will carry
	kinds   rendezvous.Kinds
	key     [32]byte
	own     []byte // our sealed signal, for repeating
	began   time.Time
	until   time.Time // forgotten then, unless punch lives

	asked    bool // the request left through uplink
	granted  bool // the server passed it on
	uplink   *uplink
	detours  int  // uplinks it was asked through before this one
	relaying bool // a relay link stands or is being made
	relayed  bool // it came about
	routed   bool // packets of the relay are let in, and have a way out
	packets  packetDials
	answered bool
	refused  bool

	punch     *punch.Machine
	failed    error // why there will be no direct path
	direct    map[netip.AddrPort]*directDial
	nominated netip.AddrPort                     // full-size packets went both ways there
	ways      map[netip.AddrPort]punch.Technique // how a direct path to there came about
}

// directDial is the direct link to an endpoint that answers checks.
type directDial struct {
	link   link.Link // handshake done; joins the session once the path is nominated
	joined bool
	spare  bool // not wanted any more
}

// offer begins an attempt for a session.
func (c *control) offer(now time.Time, s *session, kinds rendezvous.Kinds) *attempt {
	a := &attempt{peer: s.peer, offerer: true, session: s, about: s.id, kinds: kinds, began: now,
		until: now.Add(attemptLife), ways: make(map[netip.AddrPort]punch.Technique), direct: make(map[netip.AddrPort]*directDial)}
	rand.Read(a.id[:])
	rand.Read(a.relay[:])
	rand.Read(a.key[:])
	c.supersede(a)
	c.attempts[a.id], c.relays[a.relay] = a, a
	own, err := signal.Seal(c.n.cfg.Key, a.peer, signal.Signal{Type: signal.Offer, Flags: c.flags(), Attempt: a.id,
		Session: a.about, Key: a.key, Candidates: c.candidates(a.kinds)})
	if err != nil {
		c.failAttempt(a, &Error{Code: PeerNotFound, Text: "nobody can have this id", Err: err})
		return a
	}
	a.own = own
	c.ask(now, a)
	return a
}

// ask sends the attempt's request by the best way there is: the uplink that is
// registered, or else the one that will be first.
func (c *control) ask(now time.Time, a *attempt) {
	u := c.active()
	if u == nil {
		if u = c.udp; u == nil {
			u = c.tcp
		}
	}
	if u != nil {
		c.askAgain(now, u, a)
	}
}

// askAgain sends it through u, unless it went that way before.
func (c *control) askAgain(now time.Time, u *uplink, a *attempt) {
	if !a.offerer || a.answered || a.uplink == u || a.own == nil {
		return
	}
	if a.uplink != nil {
		a.uplink.client.StopConnect(a.relay)
		a.detours++
	}
	a.uplink = u
	u.client.Connect(now, a.peer, a.relay, c.possible(u, a.kinds), a.own)
}

// possible leaves the kinds that can work from this side.
func (c *control) possible(u *uplink, kinds rendezvous.Kinds) rendezvous.Kinds {
	if u == c.tcp {
		kinds &= rendezvous.StreamRelay
	}
	return kinds
}

// dialLink runs a handshake outside the control goroutine and brings its end
// back there.
func (n *Node) dialLink(dial func() (link.Link, error), done func(now time.Time, l link.Link, err error)) {
	n.spawn(func() {
		l, err := dial()
		if !n.ctl.do(func(now time.Time) { done(now, l, err) }) && l != nil {
			l.Close("closing")
		}
	})
}

func (c *control) flags() (f signal.Flags) {
	if c.n.cfg.RelayOnly {
		f |= signal.RelayOnly
	}
	if c.n.cfg.DirectOnly {
		f |= signal.DirectOnly
	}
	return f
}

// candidates are the endpoints the peer may try: the host's addresses and the
// one that the server sees.
func (c *control) candidates(kinds rendezvous.Kinds) []signal.Candidate {
	if kinds&rendezvous.Direct == 0 || c.n.cfg.RelayOnly {
		return nil // whatever kinds the server says are possible
	}
	var all []signal.Candidate
	add := func(kind signal.Kind, at netip.AddrPort) {
		if at.IsValid() && len(all) < signal.MaxCandidates &&
			!slices.ContainsFunc(all, func(o signal.Candidate) bool { return o.Endpoint == at }) {
			all = append(all, signal.Candidate{Kind: kind, Transport: signal.UDP, Endpoint: at})
		}
	}
	for _, addr := range c.localAddrs() {
		add(signal.Host, netip.AddrPortFrom(addr, c.n.localPort()))
	}
	if c.udp != nil && c.udp.up {
		add(signal.ServerReflexive, c.udp.mapped)
	}
	return all
}

func (c *control) localAddrs() []netip.Addr {
	addrs, err := c.n.cfg.Network.Addrs()
	if err != nil {
		c.n.cfg.Log.Warn("cannot list this host's addresses", "err", err)
	}
	return addrs
}

// supersede ends the hole punching of a session's earlier attempts: their watch
// over a path that is given up must not end the links of the next.
func (c *control) supersede(next *attempt) {
	for _, a := range c.attempts {
		if a.about == next.about && a.peer == next.peer && next.kinds&rendezvous.Direct != 0 {
			a.punch = nil
			a.closeSpare("another attempt began")
		}
	}
}

// forget drops an attempt and whatever of it still runs.
func (c *control) forget(a *attempt) {
	delete(c.attempts, a.id)
	if c.relays[a.relay] == a {
		delete(c.relays, a.relay)
	}
	for _, u := range c.uplinks() {
		u.client.StopConnect(a.relay)
	}
	c.unroute(a)
	a.nominated = netip.AddrPort{}
	a.closeSpare("not needed")
}

// failAttempt ends an attempt of ours. A session that never had a link fails
// with it; another one lives on, and tries again.
func (c *control) failAttempt(a *attempt, err error) {
	c.n.cfg.Log.Debug("attempt failed", "peer", a.peer.Short(), "err", err)
	c.forget(a)
	if a.session != nil && !a.session.linked() {
		w := c.watched[a.session]
		if w != nil && w.hadLink && errorCode(err) != PeerRefused {
			return
		}
		a.session.fail(err)
	}
}
