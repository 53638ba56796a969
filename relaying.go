package bodkin

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/link"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/netio"
)

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
