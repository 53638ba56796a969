package bodkin

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/punch"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

const (
	packetQueue  = 1024 // checks that wait for the control goroutine
	messageQueue = 256  // and messages of servers
	packetBurst  = 64   // checks handled at a time
	resolveRetry = 3 * time.Second
	// Where TCP is refused, UDP has this long to answer.
	refusedTimeout = 3 * time.Second
)

// control owns the machines that make connections come about: the rendezvous
// clients and, for each attempt, the hole punching. One goroutine runs it;
// others hand it packets and functions.
type control struct {
	n        *Node
	packets  chan packet
	messages chan packet // apart, so that whoever floods us cuts us off from no server
	servers  atomic.Pointer[[]netip.AddrPort]
	calls    chan func(now time.Time)
	kicked   chan struct{} // of capacity 1: look at the sessions again
	done     chan struct{}

	udp, tcp *uplink // either may be nil: no such place in the server string
	listens  bool    // peers may ask for this node
	wrong    *Error  // a server answered that is not the pinned one
	waiting  []waiter

	attempts map[attemptID]*attempt
	relays   map[rendezvous.RelayID]*attempt
	seen     remembered[attemptID] // offers that were taken
	unproved budget
	watched  map[*session]*watch
}

type packet struct {
	from netip.AddrPort
	data []byte
}

func newControl(n *Node) *control {
	return &control{
		n:        n,
		packets:  make(chan packet, packetQueue),
		messages: make(chan packet, messageQueue),
		calls:    make(chan func(time.Time)),
		kicked:   make(chan struct{}, 1),
		done:     make(chan struct{}),
		attempts: make(map[attemptID]*attempt),
		relays:   make(map[rendezvous.RelayID]*attempt),
		watched:  make(map[*session]*watch),
	}
}

// HandlePacket queues a datagram that is neither QUIC nor relayed. When the
// queue is full it is lost, and whoever sent it sends again.
func (c *control) HandlePacket(from netip.AddrPort, b []byte) {
	queue := c.packets
	if b[0] == wire.First {
		if servers := c.servers.Load(); servers == nil || !slices.Contains(*servers, from) {
			return
		}
		queue = c.messages
	}
	if len(queue) == cap(queue) {
		return
	}
	select {
	case queue <- packet{from, slices.Clone(b)}:
	default:
	}
}

// do runs f in the control goroutine and returns when it was taken, or false
// when the node is closed. It must not be called from that goroutine.
func (c *control) do(f func(now time.Time)) bool {
	select {
	case c.calls <- f:
		return true
	case <-c.done:
		return false
	}
}

// kick makes the control goroutine look at the sessions. It never blocks.
func (c *control) kick() { notify(c.kicked) }

func (c *control) run() {
	defer close(c.done)
	c.n.spawn(c.resolve)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(c.settle(time.Now()))
		select {
		case p := <-c.messages:
			c.message(time.Now(), p)
		case p := <-c.packets:
			now := time.Now()
			c.check(now, p)
			for range min(len(c.packets), packetBurst) {
				c.check(now, <-c.packets)
			}
		case f := <-c.calls:
			f(time.Now())
		case <-c.kicked:
		case <-timer.C:
		case <-c.n.ctx.Done():
			c.shutdown()
			return
		}
	}
}

// settle does what is due, sends what the machines want sent, and returns how
// long there is nothing to do.
func (c *control) settle(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	at := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if u := c.tcp; u != nil && u.wanted && u.conn == nil && !u.dialing {
		if u.nextDial.After(now) {
			at(u.nextDial)
		} else {
			u.dial()
		}
	}
	for _, u := range c.uplinks() {
		if t, ok := u.client.NextTimeout(); ok && !t.After(now) {
			u.client.HandleTimeout(now)
		}
		c.drain(now, u)
	}
	for _, a := range c.attempts {
		c.settleAttempt(now, a, at)
	}
	for _, w := range c.watched {
		c.settleWatch(now, w, at)
	}
	c.waiting = slices.DeleteFunc(c.waiting, func(w waiter) bool {
		if limit := c.patience(w.since); limit.After(now) {
			at(limit)
			return false
		}
		w.done <- c.unreachable()
		return true
	})
	for _, u := range c.uplinks() { // the others may have given it work
		c.drain(now, u)
		if t, ok := u.client.NextTimeout(); ok {
			at(t)
		}
	}
	return max(next.Sub(now), 0)
}

func (c *control) uplinks() []*uplink {
	var all []*uplink
	for _, u := range []*uplink{c.udp, c.tcp} {
		if u != nil {
			all = append(all, u)
		}
	}
	return all
}

// active is the uplink through which the server knows us now, UDP before TCP.
func (c *control) active() *uplink {
	for _, u := range c.uplinks() {
		if u.up {
			return u
		}
	}
	return nil
}

// drain sends a client's messages and handles its events.
func (c *control) drain(now time.Time, u *uplink) {
	for {
		b, ok := u.client.Poll()
		if !ok {
			break
		}
		u.send(b)
		if t, _, _ := wire.Header(b); t == wire.TypeConnect {
			if m, err := wire.ParseConnect(b); err == nil {
				c.requestLeft(now, u, m.Relay)
			}
		}
	}
	for {
		e, ok := u.client.Event()
		if !ok {
			return
		}
		c.clientEvent(now, u, e)
	}
}

func (c *control) clientEvent(now time.Time, u *uplink, e rendezvous.ClientEvent) {
	log := c.n.cfg.Log
	switch e := e.(type) {
	case rendezvous.Registered:
		c.registered(now, u, e)
	case rendezvous.MappedChanged:
		u.mapped = e.New
		log.Debug("the server sees another endpoint", "old", e.Old, "new", e.New)
	case rendezvous.Lost:
		u.up = false
		log.Debug("the server does not answer", "transport", u.transport)
		if u == c.udp && c.tcp != nil {
			c.tcp.wanted, c.tcp.nextDial = true, now
		}
	case rendezvous.WrongServer:
		c.wrong = &Error{Code: WrongServer, Remote: true,
			Text: "the server proved another identity: " + e.Got.String(),
			Hint: "compare the server string with the one that `bodkin serve` prints; somebody may be in between"}
		c.failWaiting(c.wrong)
	case rendezvous.Refused:
		log.Debug("the server refuses the registration", "reason", e.Reason)
	case rendezvous.Displaced:
		c.displaced(u)
	case rendezvous.Connected:
		c.connected(now, u, e)
	case rendezvous.Requested:
		c.requested(now, u, e)
	case rendezvous.Signalled:
		c.signalled(now, e)
	}
}

// displaced tells that peers now find another process with our key, if it is
// not we ourselves by the other uplink.
func (c *control) displaced(u *uplink) {
	for _, other := range c.uplinks() {
		if other != u && other.up {
			return
		}
	}
	u.displaced = true
	c.n.emit(Event{Type: EventError, Code: Displaced, Message: "another process listens with this key now",
		Hint: "peers reach that one, until it ends; give each process a key of its own"})
}

func (c *control) registered(now time.Time, u *uplink, e rendezvous.Registered) {
	if u == c.udp && c.tcp != nil {
		c.tcp.wanted = false
		if c.tcp.conn != nil {
			// The server may have the one over TCP as the later of the two, and
			// would forget us with the connection: once more, to be the last.
			c.tcp.detach()
			c.tcp.client.Bye(now) // it has nothing to send on: it only stops
			u.client.Start(now)
			return
		}
	}
	fresh := !u.up || u.forgotten || u.displaced && !e.Guest
	u.displaced = u.displaced && e.Guest
	u.up, u.forgotten, u.mapped, c.wrong = true, false, e.Mapped, nil
	for _, w := range c.waiting {
		w.done <- nil
	}
	c.waiting = nil
	for _, a := range c.attempts {
		c.askAgain(now, u, a)
	}
	if fresh {
		c.n.emit(Event{Type: EventRegistered, ID: c.n.ID(), Server: u.server.String(), Transport: u.transport})
	}
}

// message hands a rendezvous message to the machine.
func (c *control) message(now time.Time, p packet) {
	if c.udp != nil {
		c.udp.handle(now, p.from, p.data)
	}
}

// check hands a STUN message to the attempt it is for.
func (c *control) check(now time.Time, p packet) {
	for _, a := range c.attempts {
		if a.punch != nil && a.punch.HandlePacket(now, p.from, p.data) {
			return
		}
	}
}

// techniqueTo says how the direct path to an endpoint came about, as far as the
// hole punching knows.
func (c *control) techniqueTo(remote netip.AddrPort) string {
	found := make(chan string, 1)
	ok := c.do(func(time.Time) {
		for _, a := range c.attempts {
			if t := a.ways[remote]; t != "" {
				found <- string(t)
				return
			}
		}
		found <- string(punch.Punch)
	})
	if !ok {
		return ""
	}
	return <-found
}

func (c *control) sendUDP(to netip.AddrPort, b []byte) {
	if err := c.n.socket.Send(to, b); err != nil {
		c.n.cfg.Log.Debug("cannot send", "to", to, "err", err)
	}
}

func (c *control) shutdown() {
	if c.tcp != nil {
		c.tcp.detach()
	}
	c.failWaiting(c.n.closedError())
}
