package dhcp

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// State is where a client is (RFC 2131 figure 5). In each it does what is
// said, and leaves it by what stands in parentheses.
//
//	Stopped    nothing (Start: Selecting)
//	Waiting    nothing for a while, after a refusal or a conflict: INIT
//	           (time: Selecting)
//	Selecting  repeats DISCOVER (an offer that will do: Requesting)
//	Requesting repeats REQUEST for what was offered (ACK: Bound; NAK: Waiting;
//	           no answer to the fourth: Selecting)
//	Rebooting  repeats REQUEST for what it had (ACK: Bound; NAK: Waiting; no
//	           answer to the third: Selecting)
//	Bound      nothing (T1: Renewing)
//	Renewing   asks the server that it has the lease from (ACK: Bound; NAK:
//	           Waiting; T2: Rebinding)
//	Rebinding  asks every server (ACK: Bound; NAK: Waiting; the lease ends:
//	           Selecting)
//
// From any: Release to Stopped; from those with an address: Conflict to
// Waiting, Reboot to Rebooting.
type State uint8

const (
	Stopped State = iota
	Waiting
	Selecting
	Requesting
	Rebooting
	Bound
	Renewing
	Rebinding
	clientStates
)

func (s State) String() string {
	return [clientStates]string{
		"stopped", "waiting", "selecting", "requesting", "rebooting", "bound", "renewing", "rebinding",
	}[s]
}

const (
	firstRetry = 4 * time.Second // then twice as long each time, give or take a second
	lastRetry  = 64 * time.Second

	requestTries = 4
	rebootTries  = 3

	afterConflict = 10 * time.Second // RFC 2131 section 3.1 point 5
	leastRenewal  = time.Minute      // between two tries (section 4.4.5)
)

// ClientConfig is who the client is. Rand draws transaction ids and delays; who
// can guess it can answer for a server.
type ClientConfig struct {
	MAC  MAC
	ID   string     // client identifier; empty: none
	Last netip.Addr // what it had before; it asks for that first
	Rand rand.Source
}

// Grant is what a client has been told by its server.
type Grant struct {
	Prefix netip.Prefix // its address, with the length of the network's prefix
	Server netip.Addr
	Router netip.Addr // invalid: none
	Routes []Route    // beside the one by Router
	DNS    []netip.Addr
	MTU    int           // zero: not told
	Lease  time.Duration // Forever: no end
}

// ClientEventKind is what happened at a client.
type ClientEventKind uint8

const (
	GotAddress  ClientEventKind = iota // it is to be configured
	KeptAddress                        // renewed; what else was told may have changed
	LostAddress                        // it must not be used any longer
)

// ClientEvent is something to do for who has the network interface.
type ClientEvent struct {
	Kind  ClientEventKind
	Grant Grant
	Why   string // of LostAddress
}

// Client gets an address for one interface. It is not safe for concurrent use.
type Client struct {
	cfg   ClientConfig
	rnd   *rand.Rand
	state State

	xid      [4]byte
	began    time.Time // in this transaction: DISCOVER or the first REQUEST
	secs     uint16    // since then, as was said last
	asked    time.Time // the first REQUEST of this state: a lease counts from there
	tries    int       // in this state
	next     time.Time // retransmission, or the end of this state; zero: none
	last     netip.Addr
	offered  *message
	refusals int // one after the other

	grant      Grant
	have       bool      // grant is in force
	t1, t2, to time.Time // of the grant; zero: never

	out    [][]byte
	events []ClientEvent
}

// NewClient starts to ask at once. RFC 2131 section 4.4.1 wants a random wait
// first, against everybody asking at once after a power cut; here nobody does.
func NewClient(now time.Time, cfg ClientConfig) (*Client, error) {
	if !cfg.MAC.single() || cfg.Rand == nil || len(cfg.ID) > maxClientID || cfg.Last.IsValid() && !cfg.Last.Is4() {
		return nil, errors.New("dhcp: a client needs a hardware address and randomness")
	}
	c := &Client{cfg: cfg, rnd: rand.New(cfg.Rand), last: cfg.Last}
	if c.last.IsValid() {
		c.enter(now, Rebooting)
	} else {
		c.enter(now, Selecting)
	}
	return c, nil
}

// State is where the client is.
func (c *Client) State() State { return c.state }

// Grant is what the client has; ok is false while it has nothing.
func (c *Client) Grant() (g Grant, ok bool) { return c.grant, c.have }

// Until is when what the client has ends; zero: never.
func (c *Client) Until() time.Time { return c.to }

// Poll takes the next packet to send.
func (c *Client) Poll() ([]byte, bool) { return dequeue(&c.out) }

// Event takes the next event.
func (c *Client) Event() (ClientEvent, bool) { return dequeue(&c.events) }

// NextTimeout is when HandleTimeout has something to do.
func (c *Client) NextTimeout() (time.Time, bool) { return c.next, !c.next.IsZero() }

// Start asks for an address, after Release.
func (c *Client) Start(now time.Time) {
	if c.state == Stopped {
		c.enter(now, Selecting)
	}
}

// Release gives the address back and stops.
func (c *Client) Release(now time.Time) {
	if c.have {
		c.transmit(now, release)
		c.lose("released")
	}
	c.enter(now, Stopped)
}

// Conflict says that somebody else uses the address that was just got.
func (c *Client) Conflict(now time.Time) {
	if !c.have {
		return
	}
	c.renew() // a new transaction
	c.transmit(now, decline)
	c.last = netip.Addr{}
	c.lose("in use by somebody else")
	c.wait(now, afterConflict)
}

// Reboot asks whether the address is still right, as after a plug was pulled:
// it may be another network. Until there is an answer it is kept.
func (c *Client) Reboot(now time.Time) {
	switch {
	case c.state == Stopped:
	case c.last.IsValid():
		c.enter(now, Rebooting)
	default:
		c.enter(now, Selecting)
	}
}

// enter begins a state: what asks anew does so in a new transaction.
func (c *Client) enter(now time.Time, s State) {
	if s == Selecting || s == Rebooting || s == Renewing || s == Rebinding {
		c.renew()
		c.began = now
	}
	c.state, c.tries, c.next, c.asked = s, 0, time.Time{}, now
	switch s {
	case Bound:
		c.next = c.t1
	case Selecting, Requesting, Rebooting, Renewing, Rebinding:
		c.ask(now)
	}
}

// renew draws a transaction id.
func (c *Client) renew() {
	x := c.rnd.Uint32()
	c.xid = [4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)}
}

// ask sends what the state asks, and sets the time of the next try.
func (c *Client) ask(now time.Time) {
	switch c.state {
	case Renewing:
		c.next = c.again(now, c.t2)
	case Rebinding:
		c.next = c.again(now, c.to)
	default:
		d := min(firstRetry<<min(c.tries, 8), lastRetry)
		c.next = now.Add(d - time.Second + time.Duration(c.rnd.Int64N(int64(2*time.Second))))
		if c.have && !c.to.IsZero() && c.to.Before(c.next) { // Rebooting
			c.next = c.to
		}
	}
	c.tries++
	k := request
	if c.state == Selecting {
		k = discover
	}
	c.transmit(now, k)
}

// again is when to renew once more before end: after half of the time that
// remains. RFC 2131 section 4.4.5 wants a minute at least, which leaves a short
// lease no second try, so that they have a sixteenth.
func (c *Client) again(now, end time.Time) time.Time {
	half := end.Sub(now) / 2
	if half < min(leastRenewal, c.grant.Lease/16) {
		return end
	}
	return now.Add(half)
}

// HandleTimeout does what is due.
func (c *Client) HandleTimeout(now time.Time) {
	for !c.next.IsZero() && !c.next.After(now) {
		switch c.state {
		case Waiting:
			c.enter(now, Selecting)
		case Requesting:
			c.retry(now, requestTries)
		case Rebooting:
			c.retry(now, rebootTries)
		case Selecting:
			c.ask(now)
		case Bound:
			c.enter(now, Renewing)
		case Renewing:
			if now.Before(c.t2) {
				c.ask(now)
			} else {
				c.enter(now, Rebinding)
			}
		case Rebinding:
			if now.Before(c.to) {
				c.ask(now)
			} else {
				c.lose("its lease ended")
				c.enter(now, Selecting)
			}
		}
	}
}

func (c *Client) retry(now time.Time, tries int) {
	over := c.have && !c.to.IsZero() && !now.Before(c.to)
	if c.tries < tries && !over {
		c.ask(now)
		return
	}
	c.lose("no server answers for it")
	c.enter(now, Selecting)
}

func (c *Client) lose(why string) {
	if c.have {
		c.have = false
		c.events = enqueue(c.events, ClientEvent{LostAddress, c.grant, why})
	}
}

// wait is INIT with a pause.
func (c *Client) wait(now time.Time, d time.Duration) {
	c.enter(now, Waiting)
	c.next = now.Add(d)
}

// transmit sends a message of the present state (RFC 2131 table 5).
func (c *Client) transmit(now time.Time, k kind) {
	m := message{kind: k, xid: c.xid, broadcast: true, hw: c.cfg.MAC, id: c.cfg.ID}
	src, dst := netip.IPv4Unspecified(), everyone
	if k == discover || k == request {
		// The choice of an offer says what the DISCOVER said, for relay agents
		// to treat both alike (section 3.1 point 3).
		if c.state != Requesting {
			c.secs = uint16(min(now.Sub(c.began)/time.Second, 1<<16-1))
		}
		m.secs = c.secs
	}
	switch {
	case k == discover:
		m.requested = c.last
	case k == decline:
		m.requested, m.server = c.grant.Prefix.Addr(), c.grant.Server
	case k == release:
		src, dst = c.grant.Prefix.Addr(), c.grant.Server
		m.client, m.server, m.broadcast = src, dst, false
	case c.state == Requesting:
		m.requested, m.server = c.offered.yours, c.offered.server
	case c.state == Rebooting:
		m.requested = c.last
	default: // Renewing, Rebinding
		src = c.grant.Prefix.Addr()
		m.client, m.broadcast = src, false
		if c.state == Renewing {
			dst = c.grant.Server
		}
	}
	c.out = enqueue(c.out, ip.AppendUDP(nil,
		netip.AddrPortFrom(src, ClientPort), netip.AddrPortFrom(dst, ServerPort), ip.DefaultTTL, m.bytes()))
}
