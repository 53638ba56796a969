package bodkin

import (
	"time"

	rendezvous "github.com/bodkin-net/bodkin/internal/machine/rendezvous"
)

const (
	retryMin     = 500 * time.Millisecond
	retryMax     = time.Minute
	holelessMin  = 15 * time.Second // between attempts where no hole could be made
	holelessMax  = 10 * time.Minute
	silenceLimit = time.Minute // without any path and without the server
)

// watch sees to it that a session has the links it should have: the one in use,
// and the other to fall back on or to move up to. The side that dialled makes
// new attempts; the other only notices when everything is gone.
type watch struct {
	s             *session
	relay, direct int // links that stand
	hadLink       bool
	streamsOnly   bool // the packet relay did not work last time

	current *attempt // the latest of ours
	why     error    // the last relay did not work; nil if none was tried
	nextTry time.Time
	backoff time.Duration

	silentSince time.Time // no link since then; zero while there is one
	reached     time.Time // the server, since then; zero until it is
}

// watchSession begins to look after a session.
func (c *control) watchSession(now time.Time, s *session) *watch {
	// What a peer began had a link, even if it went before anyone could look.
	w := &watch{s: s, nextTry: now, backoff: retryMin, silentSince: now, hadLink: !s.controller}
	c.watched[s] = w
	return w
}

// missing is what the session lacks.
func (w *watch) missing(cfg *Config) (kinds rendezvous.Kinds) {
	if w.relay == 0 && !cfg.DirectOnly {
		kinds |= rendezvous.PacketRelay | rendezvous.StreamRelay
		if w.streamsOnly {
			kinds &^= rendezvous.PacketRelay
		}
	}
	if w.direct == 0 && !cfg.RelayOnly {
		kinds |= rendezvous.Direct
	}
	return kinds
}

// update takes in which links stand now.
func (w *watch) update(now time.Time) {
	relay, direct := w.s.counts()
	lost := relay < w.relay || direct < w.direct
	gained := relay > w.relay || direct > w.direct
	w.relay, w.direct = relay, direct
	if gained {
		w.hadLink, w.backoff = true, retryMin
		w.silentSince, w.reached = time.Time{}, time.Time{}
	}
	if lost {
		w.nextTry = now.Add(w.backoff)
	}
	if w.hadLink && relay+direct == 0 && w.silentSince.IsZero() {
		w.silentSince, w.nextTry = now, now
	}
}

// noHole says that the latest attempt found no direct path: the next is not soon.
func (w *watch) noHole(now time.Time) {
	w.backoff = min(max(2*w.backoff, holelessMin), holelessMax)
	w.nextTry = now.Add(w.backoff)
}

// settleWatch begins an attempt when one is due, and ends the session when
// nobody answers any more.
func (c *control) settleWatch(now time.Time, w *watch, at func(time.Time)) {
	if isClosed(w.s.done) {
		c.unwatch(w.s)
		return
	}
	w.update(now)
	if err := c.lost(now, w, at); err != nil {
		w.s.fail(err)
		c.unwatch(w.s)
		return
	}
	kinds := w.missing(&c.n.cfg)
	if !w.s.controller || kinds == 0 {
		return
	}
	if w.current != nil && c.attempts[w.current.id] == w.current && w.busy() {
		return // it has its own time limits
	}
	if w.nextTry.After(now) {
		at(w.nextTry)
		return
	}
	w.backoff = min(2*w.backoff, retryMax)
	w.nextTry = now.Add(w.backoff)
	if w.relay+w.direct == 0 {
		w.nextTry = now.Add(time.Second)
	}
	w.current = c.offer(now, w.s, kinds)
	at(w.nextTry)
}

// busy tells whether the latest attempt may still bring a link.
func (w *watch) busy() bool {
	a := w.current
	if w.hadLink && w.relay+w.direct == 0 {
		return false // do not wait for an old attempt while there is nothing
	}
	return !a.answered || a.relaying && !a.relayed && w.relay == 0 || a.punch != nil && !a.carried()
}

// lost says why a session that has no link is over, or nil while there is hope.
func (c *control) lost(now time.Time, w *watch, at func(time.Time)) error {
	if w.silentSince.IsZero() {
		return nil
	}
	if !w.hadLink { // Dial itself is still going on
		limit := c.patience(w.silentSince)
		switch {
		case c.active() != nil: // each attempt has its own limits
			if limit = w.silentSince.Add(silenceLimit); limit.After(now) {
				at(limit)
				return nil
			}
			return &Error{Code: NoAnswer, Remote: true, Text: "the peer answers, but no connection to it comes about", Err: w.why,
				Hint: "something in between lets the requests through and nothing else"}
		case c.wrong != nil:
			return c.wrong
		case limit.After(now):
			at(limit)
			return nil
		}
		return c.unreachable()
	}
	// If the server answers, our network is fine, and the peer would answer too
	// if it were there. Without the server it may be we who are cut off.
	limit := w.silentSince.Add(silenceLimit)
	if u := c.active(); u != nil && w.reached.IsZero() {
		if u.heard.After(w.silentSince) {
			w.reached = now
		} else {
			u.client.Probe(now)
		}
	}
	if !w.reached.IsZero() {
		limit = w.reached.Add(c.n.cfg.PeerTimeout)
	}
	if limit.After(now) {
		at(limit)
		return nil
	}
	return &Error{Code: PeerLost, Remote: true, Text: "the peer is gone: no path to it answers any more"}
}

// unwatch forgets a session that is over, and its attempts.
func (c *control) unwatch(s *session) {
	delete(c.watched, s)
	for _, a := range c.attempts {
		if a.about == s.id {
			c.forget(a)
		}
	}
}
