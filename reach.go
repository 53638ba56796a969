package bodkin

import (
	"context"
	"net/netip"
	"time"
)

// waiter is a caller that waits for a registration.
type waiter struct {
	since time.Time
	done  chan error // of capacity 1
}

// listening tells the server, with the next registration at the latest, whether
// this node is to be found.
func (c *control) listening(yes bool) {
	c.n.spawn(func() {
		c.do(func(now time.Time) {
			c.listens = yes
			for _, u := range c.uplinks() {
				u.up = false // until it has registered in its new role
				u.client.SetGuest(now, !yes)
			}
		})
	})
}

// resolve turns the server string's hosts into endpoints, again and again until
// it has one.
func (c *control) resolve() {
	for {
		var udp, tcp []netip.AddrPort
		for _, p := range c.n.where.Places {
			addrs, err := c.n.cfg.Network.LookupIP(c.n.ctx, p.Host)
			if err != nil {
				c.n.cfg.Log.Debug("cannot resolve the server's name", "host", p.Host, "err", err)
			}
			for _, a := range addrs {
				at := netip.AddrPortFrom(a.Unmap(), p.Port)
				if p.UDP {
					udp = append(udp, at)
				}
				if p.TCP {
					tcp = append(tcp, at)
				}
			}
		}
		if len(udp)+len(tcp) > 0 {
			c.do(func(now time.Time) { c.begin(now, udp, tcp) })
			return
		}
		select {
		case <-time.After(resolveRetry):
		case <-c.n.ctx.Done():
			return
		}
	}
}

func (c *control) begin(now time.Time, udp, tcp []netip.AddrPort) {
	if len(udp) > 0 {
		c.servers.Store(&udp)
		c.udp = c.newUplink("udp", udp)
		c.udp.client.Start(now)
	}
	if len(tcp) > 0 {
		c.tcp = c.newUplink("tcp", tcp)
		c.tcp.wanted, c.tcp.nextDial = true, now
		if c.udp != nil {
			c.tcp.nextDial = now.Add(udpHeadStart)
		}
	}
	for _, a := range c.attempts {
		c.ask(now, a)
	}
}

// patience is until when who began at since waits for a server: not as long
// when nobody listens where it should be.
func (c *control) patience(since time.Time) time.Time {
	limit := c.n.cfg.ServerTimeout
	if c.tcp != nil && c.tcp.refused {
		limit = min(limit, refusedTimeout)
	}
	return since.Add(limit)
}

// unreachable is why there is no server.
func (c *control) unreachable() error {
	if c.wrong != nil {
		return c.wrong
	}
	if c.udp == nil && c.tcp == nil {
		return &Error{Code: ServerUnreachable, Text: "the server's name cannot be resolved", Hint: "check the name in the server string, and this machine's DNS"}
	}
	if c.tcp != nil && c.tcp.refused {
		return &Error{Code: ServerUnreachable, Text: "nothing listens at the server's address " + c.tcp.places[0].String(),
			Hint: "check that `bodkin serve` runs there, and the port in the server string"}
	}
	return &Error{Code: ServerUnreachable, Text: "no answer from the server at " + c.n.where.Places[0].Host,
		Hint: "check that `bodkin serve` runs there, and that nothing in between blocks its UDP and TCP port"}
}

func (c *control) failWaiting(err error) {
	for _, w := range c.waiting {
		w.done <- err
	}
	c.waiting = nil
	for _, a := range c.attempts {
		if a.offerer && !a.asked {
			c.failAttempt(a, err)
		}
	}
}

// awaitServer returns when a server has registered us, or when it takes too long.
func (c *control) awaitServer(ctx context.Context) error {
	done := make(chan error, 1)
	ok := c.do(func(now time.Time) {
		switch {
		case c.active() != nil:
			done <- nil
		case c.wrong != nil:
			done <- c.wrong
		default:
			c.waiting = append(c.waiting, waiter{now, done})
		}
	})
	if !ok {
		return c.n.closedError()
	}
	select {
	case err := <-done:
		return err
	case <-c.done:
		return c.n.closedError()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bye tells the server that this node goes, so that peers are told so too.
func (c *control) bye() {
	c.do(func(now time.Time) {
		for _, u := range c.uplinks() {
			u.client.Bye(now)
		}
	})
	c.do(func(time.Time) {}) // taken after settle has sent the first
}
