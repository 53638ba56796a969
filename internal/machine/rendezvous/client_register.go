package rendezvous

import (
	"time"

	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

func (c *Client) startGreeting(now time.Time) {
	c.state, c.reg = greeting, registeringState{}
	c.greet = greetingState{tx: c.rand.Uint64()}
	c.sendHello(now)
}

// sendHello sends a HELLO: after 250 ms, 500 ms and 1 s again, and then, or
// when the server was lost, every 1 to 3 s for ever.
func (c *Client) sendHello(now time.Time) {
	g := &c.greet
	if g.sent == len(answerWaits) {
		c.lost()
	}
	c.send(wire.Hello{Tx: g.tx, Client: c.id}.Append(nil))
	if g.sent < len(answerWaits) {
		g.next = now.Add(answerWaits[g.sent])
	} else {
		g.next = now.Add(c.between(minHelloWait, maxHelloWait))
	}
	g.sent++
}

func (c *Client) lost() {
	if c.up {
		c.up = false
		c.tell(Lost{})
	}
}

// greetSlowly is startGreeting for a server that does not answer.
func (c *Client) greetSlowly(now time.Time) {
	c.lost()
	c.state = greeting
	c.greet = greetingState{tx: c.rand.Uint64(), sent: len(answerWaits)}
	c.sendHello(now)
}

func (c *Client) handleCookie(now time.Time, m wire.Cookie) {
	if c.state != greeting || m.Tx != c.greet.tx {
		return
	}
	if want := c.cfg.ServerID; want != nil && m.Server != *want {
		// Nothing proves this answer. The right one may still come.
		if c.greet.wrong != m.Server {
			c.greet.wrong = m.Server
			c.tell(WrongServer{Got: m.Server})
		}
		return
	}
	if !c.agree(m.Server) {
		return
	}
	c.state = registering
	c.reg = registeringState{cookie: m.Cookie}
	c.register(now)
}

// register sends a new REGISTER, and all CONNECTs right behind it. Their
// handle is zero and their txids follow the REGISTER's.
func (c *Client) register(now time.Time) {
	r := &c.reg
	r.sequence = max(uint64(now.UnixNano()), c.last+1)
	c.last = r.sequence
	c.window = wire.NewWindow(r.sequence)
	m := wire.Register{
		Client:   c.id,
		Cookie:   r.cookie,
		Sequence: r.sequence,
		Lifetime: uint16(min(c.cfg.Lifetime/time.Second, 1<<16-1)),
	}
	if c.cfg.RelayOnly {
		m.Flags |= wire.RelayOnly
	}
	switch {
	case c.cfg.Guest:
		m.Flags |= wire.Guest
	case c.displaced:
		m.Flags |= wire.Guest | wire.Waiting
	}
	r.packet = c.mac.Append(m.Append(nil), 0, &c.key)
	r.sent = 0
	c.repeatRegister(now)
	for _, k := range c.connects {
		k.begin()
		c.sendConnect(now, k)
	}
}

func (c *Client) repeatRegister(now time.Time) {
	r := &c.reg
	if r.sent == len(answerWaits) {
		c.greetSlowly(now) // the cookie may be no good any more
		return
	}
	c.send(r.packet)
	r.next = now.Add(answerWaits[r.sent])
	r.sent++
}

func (c *Client) handleRegistered(now time.Time, m wire.Registered) {
	if c.state == registered || c.reg.packet == nil || m.Tx != c.reg.sequence {
		return
	}
	c.state, c.up = registered, true
	c.home = registeredState{
		handle:    m.Handle,
		keepAlive: max(time.Duration(m.KeepAlive)*time.Second, time.Second),
	}
	c.restKeepAlive(now)
	c.tell(Registered{Handle: m.Handle, Mapped: m.Mapped, ServerID: c.server, Guest: c.cfg.Guest || c.displaced})
	if c.mapped.IsValid() && c.mapped != m.Mapped {
		c.tell(MappedChanged{Old: c.mapped, New: m.Mapped})
	}
	c.mapped = m.Mapped
}

func (c *Client) handleRefused(now time.Time, m wire.Refused) {
	if c.state != registering || m.Tx != c.reg.sequence {
		return
	}
	c.reg.refused++
	if m.Reason == wire.ReasonSequence && c.reg.refused == 1 {
		// Our clock went back. Another process that uses the key and is
		// ahead of us makes it come again: then we wait.
		c.last = max(c.last, m.Sequence)
		c.register(now)
		return
	}
	c.lost()
	c.tell(Refused{Reason: m.Reason})
	c.state, c.reg = greeting, registeringState{}
	c.greet = greetingState{
		tx:   c.rand.Uint64(),
		sent: len(answerWaits),
		next: now.Add(c.between(fullWait/2, fullWait*3/2)),
	}
}

// handleWho registers again. A WHO proves nothing, but naming our handle takes
// the server or somebody on the path, and all it costs is a HELLO a second.
func (c *Client) handleWho(now time.Time, m wire.Who) {
	if c.state != registered || m.Handle != c.home.handle {
		return
	}
	if !c.who.IsZero() && now.Sub(c.who) < whoEvery {
		return
	}
	c.who = now
	c.startGreeting(now)
}

// handleDisplaced begins to wait for the place of another process, or ends it.
func (c *Client) handleDisplaced(now time.Time, m wire.Displaced) {
	if c.state != registered || c.cfg.Guest || m.Tx <= c.reg.sequence || m.Tx > c.last {
		return // it was said to an earlier registration
	}
	switch other := m.Sequence != 0; {
	case c.displaced && other:
		c.handleAlive(now, m.Tx)
		return
	case other:
		c.tell(Displaced{})
	}
	c.displaced = m.Sequence != 0
	c.startGreeting(now)
}

// restKeepAlive waits for the next KEEPALIVE, a little less than the server
// said, because NATs count from the packet they saw last.
func (c *Client) restKeepAlive(now time.Time) {
	c.home.unanswered = 0
	c.home.next = now.Add(c.between(c.home.keepAlive*85/100, c.home.keepAlive))
}

func (c *Client) sendKeepAlive(now time.Time) {
	h := &c.home
	if h.unanswered == keepAliveTries {
		c.reg = registeringState{}
		c.greetSlowly(now)
		return
	}
	h.last = c.tx()
	if h.unanswered == 0 {
		h.first = h.last
	}
	h.unanswered++
	h.next = now.Add(keepAliveRetry)
	c.sendMAC(wire.KeepAlive{Tx: h.last, Handle: h.handle}.Append(nil))
}

func (c *Client) handleAlive(now time.Time, tx uint64) {
	h := &c.home
	if c.state == registered && h.unanswered > 0 && tx >= h.first && tx <= h.last {
		c.restKeepAlive(now)
	}
}
