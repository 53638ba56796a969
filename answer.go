package bodkin

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/punch"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/signal"
)

// requested handles a peer's request: answer with candidates, and punch.
func (c *control) requested(now time.Time, u *uplink, e rendezvous.Requested) {
	if a := c.relays[e.Relay]; a != nil {
		if !a.offerer && a.peer == e.Requester {
			u.client.Signal(now, a.relay, a.own) // the answer was lost
		}
		return
	}
	load := c.answering(e.Requester)
	full := load.taken >= maxAnswers
	if !c.n.admits(e.Requester) { // only to be told so; this takes no place from others
		full = load.refused >= maxRefused
	}
	if full || load.peer >= maxAnswersPeer {
		return
	}
	offer, err := signal.Open(c.n.cfg.Key, e.Sealed)
	if err != nil || offer.Type != signal.Offer || offer.From != e.Requester ||
		c.attempts[offer.Attempt] != nil || !c.seen.add(offer.Attempt) {
		c.n.cfg.Log.Debug("request dropped", "from", e.Requester.Short(), "err", err)
		return
	}
	a := &attempt{id: offer.Attempt, relay: e.Relay, peer: offer.From, about: offer.Session, kinds: e.Kinds, key: offer.Key,
		began: now, until: now.Add(attemptLife), asked: true, answered: true, ways: make(map[netip.AddrPort]punch.Technique), direct: make(map[netip.AddrPort]*directDial)}
	c.supersede(a)
	c.attempts[a.id], c.relays[a.relay] = a, a
	known := c.n.admit(a.peer, a.about)
	answer := signal.Signal{Type: signal.Answer, Flags: c.flags(), Attempt: a.id, Session: a.about}
	if known == refused {
		answer.Flags |= signal.Refused
		a.refused = true
	} else {
		answer.Candidates = c.candidates(a.kinds)
	}
	if a.own, err = signal.Seal(c.n.cfg.Key, a.peer, answer); err != nil {
		c.forget(a)
		return
	}
	u.client.Signal(now, a.relay, a.own)
	if known == refused {
		return
	}
	if known == newcomer {
		c.n.emit(Event{Type: EventRequest, Peer: a.peer})
	}
	if c.n.cfg.DirectOnly {
		a.kinds &^= rendezvous.PacketRelay | rendezvous.StreamRelay
	}
	if a.kinds&rendezvous.PacketRelay != 0 {
		c.route(a, u.server)
	} else if a.kinds&rendezvous.StreamRelay != 0 {
		c.streamRelay(a)
	}
	// Whoever may ask us could make us send checks to a victim: each attempt has
	// its budget, and here is how many there may be.
	if load.blind >= maxBlind || load.blindPeer >= maxBlindPeer {
		c.stopPunch(a, "too many attempts at once")
		return
	}
	c.startPunch(now, a, offer.Flags, append(offer.Candidates, reflexive(e.Peer)...))
}

// answerLoad counts attempts of others.
type answerLoad struct {
	taken, refused   int
	peer             int // of one peer, whatever became of them
	blind, blindPeer int // whose checks nobody has answered yet: all, and those of the peer
}

// answering counts what this node does for others, and for a peer.
func (c *control) answering(peer ID) (l answerLoad) {
	for _, a := range c.attempts {
		if a.offerer {
			continue
		}
		if a.peer == peer {
			l.peer++
		}
		if a.refused {
			l.refused++
			continue
		}
		l.taken++
		if a.punch != nil && len(a.ways) == 0 {
			l.blind++
			if a.peer == peer {
				l.blindPeer++
			}
		}
	}
	return l
}

// reflexive is the candidate that the server vouches for.
func reflexive(at netip.AddrPort) []signal.Candidate {
	if !at.IsValid() {
		return nil
	}
	return []signal.Candidate{{Kind: signal.ServerReflexive, Transport: signal.UDP, Endpoint: at}}
}

// connected handles the server's answer to an offer.
func (c *control) connected(now time.Time, u *uplink, e rendezvous.Connected) {
	a := c.relays[e.Relay]
	if a == nil || !a.offerer {
		return
	}
	switch e.Status {
	case wire.StatusOK:
	case wire.StatusNotRegistered:
		c.failAttempt(a, &Error{Code: PeerNotFound, Remote: true, Text: "the server knows no peer " + a.peer.Short() + "... just now",
			Hint: "check that `bodkin listen` runs there, with the same server"})
		return
	case wire.StatusBadRelay:
		// The request went two ways, and the server took us for two: one of them
		// has the relay, and its answer is lost. The next attempt goes one way.
		if w := c.watched[a.session]; a.detours > 0 && w != nil {
			c.stopPacketRelay(a)
			c.forget(a)
			w.current, w.nextTry = nil, now
			return
		}
		c.failAttempt(a, refusedByServer(e.Status))
		return
	case rendezvous.StatusNoAnswer:
		u.up = false // until it has registered again
		u.client.Start(now)
		c.failAttempt(a, c.unreachable())
		return
	default:
		c.failAttempt(a, refusedByServer(e.Status))
		return
	}
	if !a.granted {
		a.granted, a.until = true, now.Add(attemptLife)
	}
	lacking := a.kinds &^ e.Kinds
	a.kinds &= e.Kinds
	if lacking&rendezvous.PacketRelay != 0 {
		c.stopPacketRelay(a)
	}
	if a.kinds&rendezvous.PacketRelay == 0 && a.kinds&rendezvous.StreamRelay != 0 {
		c.streamRelay(a)
	}
	if lacking&rendezvous.Direct != 0 {
		c.noHole(a, "udp-punch", "one of the two sides has no UDP to the server, or uses the relay only")
		return
	}
	c.startPunch(now, a, 0, reflexive(e.Peer))
}

func refusedByServer(status wire.Status) *Error {
	return &Error{Code: Busy, Remote: true, Text: "the server refuses the request: " + status.String(), Hint: "try again in a minute"}
}

// signalled handles the peer's answer.
func (c *control) signalled(now time.Time, e rendezvous.Signalled) {
	a := c.relays[e.Relay]
	if a == nil || !a.offerer || a.answered {
		return
	}
	answer, err := signal.Open(c.n.cfg.Key, e.Sealed)
	if err != nil || answer.Type != signal.Answer || answer.From != a.peer || answer.Attempt != a.id || answer.Session != a.about {
		c.n.cfg.Log.Debug("answer dropped", "err", err)
		return
	}
	a.answered = true
	for _, u := range c.uplinks() {
		u.client.StopConnect(a.relay)
	}
	if answer.Flags&signal.Refused != 0 {
		c.failAttempt(a, &Error{Code: PeerRefused, Remote: true, Text: "the peer does not accept this connection",
			Hint: "check that `bodkin listen` runs there, and that its --allow names this machine: " + c.n.ID().String()})
		return
	}
	if answer.Flags&signal.DirectOnly != 0 {
		c.stopPacketRelay(a) // nobody takes it there
	}
	if answer.Flags&signal.RelayOnly != 0 {
		c.stopPunch(a, "the peer uses the relay only")
		return
	}
	c.startPunch(now, a, answer.Flags, answer.Candidates)
}
