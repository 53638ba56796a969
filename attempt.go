package bodkin

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/link"
	"github.com/bodkin-net/bodkin/internal/machine/punch"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/netio"
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

// requestLeft is called when the request is on the wire: what the relay is to
// carry may follow it at once.
func (c *control) requestLeft(now time.Time, u *uplink, id rendezvous.RelayID) {
	a := c.relays[id]
	if a == nil {
		return
	}
	a.asked = true
	d := &a.packets
	if u == c.udp && a.kinds&rendezvous.PacketRelay != 0 && !a.granted && !d.done && d.begun < maxPacketDials {
		c.dialRelay(a, u.server)
	}
}

// packetDials are the handshakes through the packet relay.
type packetDials struct {
	begun, running int
	done           bool // one succeeded, or they were given up
	cancel         context.CancelFunc
}

// maxPacketDials bounds them: one follows every request that might have been
// the first to reach the server or the peer, because what came on the heels of
// one that did not is lost, and QUIC would be slow to repeat it.
const maxPacketDials = 4

// dialRelay begins a QUIC handshake through the packet relay.
func (c *control) dialRelay(a *attempt, server netip.AddrPort) {
	a.relaying = true
	to := c.route(a, server)
	ctx, cancel := context.WithTimeout(a.session.handshake, packetDialTimeout)
	d, earlier := &a.packets, a.packets.cancel
	d.cancel = func() {
		cancel()
		if earlier != nil {
			earlier()
		}
	}
	d.begun++
	d.running++
	c.n.dialLink(func() (link.Link, error) {
		return c.n.relay.Dial(ctx, to, a.peer)
	}, func(now time.Time, l link.Link, err error) {
		d.running--
		switch {
		case err == nil && !d.done:
			d.done, a.relayed = true, true
			d.cancel()
			a.session.join(l, c.relayPath("udp", server), a.id)
		case err == nil:
			l.Close("another handshake was faster")
		case !d.done && d.running == 0:
			c.stopPacketRelay(a)
			c.relayFailed(now, a, err)
		}
	})
}

// stopPacketRelay gives the packet relay up, with the handshakes through it.
func (c *control) stopPacketRelay(a *attempt) {
	if a.packets.cancel == nil || a.packets.done {
		return
	}
	a.packets.done = true
	a.packets.cancel()
	a.relaying = false
	c.unroute(a)
}

// route opens the packet relay, for as long as the attempt is remembered; each
// link over it keeps it open for itself.
func (c *control) route(a *attempt, server netip.AddrPort) netio.RelayAddr {
	if !a.routed {
		a.routed = true
		c.n.socket.AddRelay(a.relay, server)
	}
	return netio.RelayAddr{ID: a.relay}
}

func (c *control) unroute(a *attempt) {
	if a.routed {
		a.routed = false
		c.n.socket.RemoveRelay(a.relay)
	}
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

func (c *control) relayPath(transport string, server netip.AddrPort) Path {
	return Path{Kind: Relay, Transport: transport, Technique: "relay", Local: c.n.localFor(server.Addr()), Remote: server}
}

// streamRelay connects to the server's stream relay; both sides do.
func (c *control) streamRelay(a *attempt) {
	u := c.active()
	if u == nil || a.relaying {
		return
	}
	preface, err := u.client.Preface(a.relay)
	places := c.tcpPlaces()
	if err != nil || len(places) == 0 {
		return
	}
	a.relaying = true
	n := c.n
	var server netip.AddrPort
	n.dialLink(func() (link.Link, error) {
		conn, from, err := dialFirst(n.ctx, n.cfg.Network, 0, places)
		if err != nil {
			return nil, err
		}
		server = from
		if err := openStreamRelay(conn, preface); err != nil {
			conn.Close()
			return nil, err
		}
		if a.offerer {
			return n.proof.Client(a.session.handshake, conn, a.peer)
		}
		return n.proof.Server(n.ctx, conn)
	}, func(now time.Time, l link.Link, err error) {
		switch {
		case err != nil:
			a.relaying = false
			c.relayFailed(now, a, err)
		case a.offerer:
			a.relayed = true
			a.session.join(l, c.relayPath("tcp", server), a.id)
		default:
			if !n.spawn(func() { n.receiveLink(l, c.relayPath("tcp", server)) }) {
				l.Close("closing")
			}
		}
	})
}

// openStreamRelay says which relay the connection is for and waits for the one
// byte that says that the other side is there too.
func openStreamRelay(conn net.Conn, preface []byte) error {
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	defer conn.SetDeadline(time.Time{})
	if _, err := conn.Write(preface); err != nil {
		return err
	}
	var status [1]byte
	if _, err := io.ReadFull(conn, status[:]); err != nil {
		return err
	}
	if status[0] != 0 {
		return fmt.Errorf("the server's stream relay says %#x", status[0])
	}
	return nil
}

func (c *control) tcpPlaces() []netip.AddrPort {
	if c.tcp == nil {
		return nil
	}
	if c.tcp.server.IsValid() {
		return []netip.AddrPort{c.tcp.server}
	}
	return c.tcp.places
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

// relayFailed is called when no link through the relay came about. The next
// attempt tries the other kind of relay: a network may let small datagrams
// through, and so a registration, but not large ones.
func (c *control) relayFailed(now time.Time, a *attempt, err error) {
	c.n.emit(Event{Type: EventAttempt, Peer: a.peer, Technique: "relay", Result: "failed", Reason: err.Error()})
	w := c.watched[a.session]
	if w == nil || w.current != a {
		return
	}
	w.why = err
	w.streamsOnly = a.kinds&rendezvous.PacketRelay != 0 && len(c.tcpPlaces()) > 0
	if !a.session.linked() {
		w.current, w.nextTry = nil, now.Add(w.backoff)
	}
}
