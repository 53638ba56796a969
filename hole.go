package bodkin

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bodkin-net/bodkin/internal/link"
	"github.com/bodkin-net/bodkin/internal/machine/punch"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/signal"
)

// startPunch begins hole punching towards the candidates, or adds them.
func (c *control) startPunch(now time.Time, a *attempt, flags signal.Flags, remote []signal.Candidate) {
	if a.kinds&rendezvous.Direct == 0 || a.failed != nil || c.n.cfg.RelayOnly {
		return
	}
	if flags&signal.RelayOnly != 0 {
		c.stopPunch(a, "the peer uses the relay only")
		return
	}
	if a.punch != nil {
		a.punch.AddRemote(now, remote)
		return
	}
	cfg := punch.Config{Offerer: a.offerer, Attempt: a.id, Key: a.key, Remote: remote, Local: c.localAddrs(),
		Techniques: techniques(c.n.cfg.Techniques)}
	rand.Read(cfg.Seed[:])
	if c.udp != nil {
		cfg.Server, cfg.Mapped = c.udp.server, c.udp.mapped
	}
	a.punch = punch.New(now, cfg)
}

func techniques(names []string) []punch.Technique {
	var all []punch.Technique
	for _, name := range names {
		all = append(all, punch.Technique(name))
	}
	return all
}

func (c *control) stopPunch(a *attempt, why string) {
	a.punch = nil
	c.noHole(a, "udp-punch", why)
}

// settleAttempt lets an attempt do what is due.
func (c *control) settleAttempt(now time.Time, a *attempt, at func(time.Time)) {
	if a.punch != nil {
		if t, _ := a.punch.NextTimeout(); !t.IsZero() && !t.After(now) {
			a.punch.HandleTimeout(now)
		}
	}
	for a.punch != nil {
		s, ok := a.punch.Poll()
		if !ok {
			break
		}
		if a.ways[s.To] != "" || c.unproved.take(now, s.To.Addr()) {
			c.sendUDP(s.To, s.Data)
		}
	}
	for a.punch != nil {
		e, ok := a.punch.Event()
		if !ok {
			break
		}
		c.punchEvent(now, a, e)
	}
	if a.offerer && a.granted && !a.answered && !a.session.linked() {
		if limit := a.began.Add(answerTimeout); limit.After(now) {
			at(limit)
		} else {
			c.failAttempt(a, &Error{Code: NoAnswer, Remote: true, Text: "the peer is registered but does not answer",
				Hint: "it may have gone a moment ago; try again in a minute"})
		}
	}
	// A peer that only answers checks, for ever, is no reason to go on.
	idle := a.punch == nil || !a.offerer && c.n.session(a.about) == nil
	if idle && a.until.After(now) {
		at(a.until)
	} else if idle {
		c.forget(a)
		return
	}
	if a.punch == nil {
		return
	}
	if t, _ := a.punch.NextTimeout(); !t.IsZero() {
		at(t)
	}
}

func (c *control) punchEvent(now time.Time, a *attempt, e punch.Event) {
	switch e := e.(type) {
	case punch.Answered:
		a.ways[e.Remote] = e.Technique
		c.dialDirect(a, e.Remote)
	case punch.PathUp:
		a.ways[e.Remote] = e.Technique
		c.n.emit(Event{Type: EventAttempt, Peer: a.peer, Technique: string(e.Technique), Result: "ok", Reason: fmt.Sprintf("%v answers, round trip %v", e.Remote, e.RTT.Round(time.Microsecond))})
		if a.offerer {
			a.nominated = e.Remote
			c.dialDirect(a, e.Remote)
			c.joinDirect(a)
		}
	case punch.PathLimited:
		c.n.emit(Event{Type: EventAttempt, Peer: a.peer, Technique: string(e.Technique), Result: "failed", Reason: string(punch.MTULimited)})
	case punch.PathDown:
		a.punch = nil
		c.n.emit(Event{Type: EventAttempt, Peer: a.peer, Technique: string(a.ways[e.Remote]), Result: "lost", Reason: string(e.Reason)})
		if s := c.n.session(a.about); s != nil && s.peer == a.peer {
			s.dropDirect(e.Remote, string(e.Reason))
		}
	case punch.Failed:
		a.punch = nil
		c.noHole(a, "udp-punch", explainFailed(e))
	}
}

// explainFailed says in one line what was tried and what came of it.
func explainFailed(e punch.Failed) string {
	var parts []string
	for _, t := range e.Tried {
		parts = append(parts, fmt.Sprintf("%v (%s): %s", t.Remote, t.Technique, t.Result))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return string(e.Reason)
	}
	return fmt.Sprintf("%s [%s]", e.Reason, strings.Join(parts, "; "))
}

// noHole is the end of an attempt's hole punching without a path.
func (c *control) noHole(a *attempt, technique, why string) {
	a.failed = errors.New(why)
	a.nominated = netip.AddrPort{}
	a.closeSpare("no path")
	c.n.emit(Event{Type: EventAttempt, Peer: a.peer, Technique: technique, Result: "failed", Reason: why})
	if w := c.watched[a.session]; a.offerer && w != nil {
		w.noHole(time.Now())
	}
	if a.offerer && c.n.cfg.DirectOnly {
		a.session.fail(&Error{Code: NoDirectPath, Text: "no direct path: " + why, Hint: "without --direct-only the relay would carry it"})
	}
}

// maxDirectDials bounds the handshakes of one attempt on paths that answer.
const maxDirectDials = 4

// dialDirect begins the QUIC handshake on a path that answers, while the
// full-size packets are still on their way.
func (c *control) dialDirect(a *attempt, to netip.AddrPort) {
	if !a.offerer || a.direct[to] != nil || len(a.direct) >= maxDirectDials {
		return
	}
	d := &directDial{}
	a.direct[to] = d
	c.n.dialLink(func() (link.Link, error) {
		return c.n.direct.Dial(a.session.handshake, net.UDPAddrFromAddrPort(to), a.peer)
	}, func(now time.Time, l link.Link, err error) {
		switch {
		case d.spare:
			if l != nil {
				l.Close("another path was chosen")
			}
		case err == nil:
			d.link = l
			c.joinDirect(a)
		default:
			delete(a.direct, to)
			if to == a.nominated {
				a.punch = nil // or its watch keeps the next attempt away
				c.noHole(a, string(a.ways[to]), "the handshake failed: "+err.Error())
			}
		}
	})
}

// joinDirect gives the link on the nominated path to the session once its
// handshake is done: full-size packets went both ways there.
func (c *control) joinDirect(a *attempt) {
	d := a.direct[a.nominated]
	if d == nil || d.link == nil || d.joined {
		return
	}
	d.joined = true
	a.session.join(d.link, c.directPath(a.nominated, a.ways[a.nominated]), a.id)
	a.closeSpare("another path was chosen")
}

// closeSpare ends the handshakes, and the links that came of them, on all
// paths but the nominated one and those that the session has.
func (a *attempt) closeSpare(why string) {
	for to, d := range a.direct {
		if to == a.nominated || d.joined {
			continue
		}
		d.spare = true
		delete(a.direct, to)
		if d.link != nil {
			d.link.Close(why)
		}
	}
}

// carried tells whether the attempt brought a direct link.
func (a *attempt) carried() bool {
	d := a.direct[a.nominated]
	return d != nil && d.joined
}

func (c *control) directPath(remote netip.AddrPort, technique punch.Technique) Path {
	return Path{Kind: Direct, Transport: "udp", Technique: string(technique), Local: c.n.localFor(remote.Addr()), Remote: remote}
}
