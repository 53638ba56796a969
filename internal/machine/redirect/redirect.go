// Package redirect hands TCP connections that go out through a gateway to a
// proxy on the gateway itself, and has the proxy's answers look as if they came
// from where the connections were to go. It is what a transparent proxy needs
// beside itself.
//
//	from inside   client -> elsewhere:80      becomes   client -> gateway:proxy
//	to inside     gateway:proxy -> client     becomes   elsewhere:80 -> client
//
// A client that reaches two remotes from one port gets another port towards
// the proxy for the second. IPv4 only; fragments, and ICMP about such
// connections, are left alone.
package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Config says what is redirected.
type Config struct {
	// Proxy is the endpoint on the gateway that listens.
	Proxy netip.AddrPort
	// Ports are the destination ports that are redirected, Except the
	// destinations that are not: what is not outside.
	Ports  []uint16
	Except []netip.Prefix
	// Max bounds the connections; zero is 4096.
	Max int
}

const (
	defaultMax = 4096

	transitory  = 4 * time.Minute             // opening or closing: the proxy has said its FIN
	established = 2*time.Hour + 4*time.Minute // RFC 5382 REQ-5
)

// Redirect is the machine. It is not safe for concurrent use.
type Redirect struct {
	cfg       Config
	byClient  map[pair]*connection
	byProxied map[netip.AddrPort]*connection
	// Oldest first, by what was last seen of them. Those that close are among
	// the opening ones.
	opening, open list
	port          uint16 // tried last
}

// pair is a connection as its client sees it.
type pair struct{ client, remote netip.AddrPort }

type connection struct {
	pair
	proxied    netip.AddrPort // the client, as the proxy sees it
	expires    time.Time
	finished   [2]bool // FIN seen: from the client, from the proxy
	in         *list
	prev, next *connection
}

// New refuses what cannot be.
func New(cfg Config) (*Redirect, error) {
	if !cfg.Proxy.Addr().Is4() || cfg.Proxy.Port() == 0 || len(cfg.Ports) == 0 || slices.Contains(cfg.Ports, 0) {
		return nil, fmt.Errorf("redirect: ports %v to %v", cfg.Ports, cfg.Proxy)
	}
	if cfg.Max < 0 || cfg.Max > 1<<15 {
		return nil, errors.New("redirect: no such bound")
	}
	if cfg.Max == 0 {
		cfg.Max = defaultMax
	}
	cfg.Ports, cfg.Except = slices.Clone(cfg.Ports), slices.Clone(cfg.Except)
	r := &Redirect{cfg: cfg}
	r.Reset()
	return r, nil
}

// Reset forgets every connection, as a reboot does.
func (r *Redirect) Reset() {
	r.byClient, r.byProxied = map[pair]*connection{}, map[netip.AddrPort]*connection{}
	r.opening, r.open = list{timeout: transitory}, list{timeout: established}
}

// Len is how many connections are known.
func (r *Redirect) Len() int { return len(r.byClient) }

// Original is where the connection was to go whose client the proxy sees at an
// endpoint.
func (r *Redirect) Original(now time.Time, proxied netip.AddrPort) (client, remote netip.AddrPort, ok bool) {
	r.expire(now)
	c := r.byProxied[proxied]
	if c == nil {
		return client, remote, false
	}
	return c.client, c.remote, true
}

// FromInside rewrites a packet that came from inside, if it is to be
// redirected. It is not ok if the table is full of open connections, or if the
// packet begins in the middle of one: then it goes nowhere.
func (r *Redirect) FromInside(now time.Time, p *ip.Packet) (ok bool) {
	if p.Proto != ip.TCP || p.Fragment || !p.Is4() || !slices.Contains(r.cfg.Ports, p.Dst.Port()) ||
		slices.ContainsFunc(r.cfg.Except, func(e netip.Prefix) bool { return e.Contains(p.Dst.Addr()) }) {
		return true
	}
	r.expire(now)
	key := pair{p.Src, p.Dst}
	c := r.byClient[key]
	if c != nil && p.TCPFlags()&(ip.SYN|ip.ACK) == ip.SYN && c.in == &r.opening && c.finished != [2]bool{} {
		r.forget(c) // the port is used anew
		c = nil
	}
	if c == nil {
		if p.TCPFlags()&(ip.SYN|ip.ACK|ip.RST|ip.FIN) != ip.SYN {
			return false // the middle of something that is not known
		}
		if c = r.add(key); c == nil {
			return false
		}
	}
	r.see(now, c, p, 0)
	if p.Src != c.proxied {
		p.SetSrc(c.proxied)
	}
	p.SetDst(r.cfg.Proxy)
	return true
}

// FromProxy rewrites a packet that the gateway's own stack sends to the inside,
// if it belongs to a redirected connection.
func (r *Redirect) FromProxy(now time.Time, p *ip.Packet) {
	if p.Proto != ip.TCP || p.Fragment || p.Src != r.cfg.Proxy {
		return
	}
	r.expire(now)
	c := r.byProxied[p.Dst]
	if c == nil {
		return
	}
	r.see(now, c, p, 1)
	p.SetSrc(c.remote)
	if c.proxied != c.client {
		p.SetDst(c.client)
	}
}

func (r *Redirect) add(key pair) *connection {
	if len(r.byClient) >= r.cfg.Max {
		// Connections that did not come about, or are over, make room.
		if r.opening.first == nil {
			return nil
		}
		r.forget(r.opening.first)
	}
	c := &connection{pair: key, proxied: key.client}
	for r.byProxied[c.proxied] != nil {
		// The next one above 1023, which ends: there are more ports than
		// connections.
		if r.port++; r.port < 1024 {
			r.port = 1024
		}
		c.proxied = netip.AddrPortFrom(key.client.Addr(), r.port)
	}
	r.byClient[key], r.byProxied[c.proxied] = c, c
	r.opening.push(c)
	return c
}

func (r *Redirect) forget(c *connection) {
	c.in.remove(c)
	delete(r.byClient, c.pair)
	delete(r.byProxied, c.proxied)
}

// see notes what a packet says of its connection: a side has spoken.
func (r *Redirect) see(now time.Time, c *connection, p *ip.Packet, from int) {
	flags := p.TCPFlags()
	to := c.in
	switch {
	case flags&ip.RST != 0:
		c.finished = [2]bool{true, true}
		to = &r.opening
	case flags&ip.FIN != 0:
		c.finished[from] = true
		if c.finished[1] {
			to = &r.opening
		}
	case flags&(ip.SYN|ip.ACK) == ip.ACK && from == 0 && c.finished == [2]bool{}:
		to = &r.open
	}
	c.in.remove(c)
	c.expires = now.Add(to.timeout)
	to.push(c)
}

func (r *Redirect) expire(now time.Time) {
	for _, l := range []*list{&r.opening, &r.open} {
		for l.first != nil && !l.first.expires.After(now) {
			r.forget(l.first)
		}
	}
}

// list is connections of one timeout, the oldest first.
type list struct {
	timeout     time.Duration
	first, last *connection
}

func (l *list) push(c *connection) {
	c.in, c.prev, c.next = l, l.last, nil
	if l.last != nil {
		l.last.next = c
	} else {
		l.first = c
	}
	l.last = c
}

func (l *list) remove(c *connection) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.last = c.prev
	}
	c.prev, c.next = nil, nil
}
