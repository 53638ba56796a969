package netns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
)

// client gets a host's IPv4 address by DHCP, from its network and as real as
// others'. It reads packets before any firewall does, as DHCP clients do.
type client struct {
	driven
	*dhcp.Client
	fixed []netip.Prefix // the port's other addresses
}

func (w *wire) addClient(p *wirePort, seed uint64) (err error) {
	c := &client{fixed: slices.Clone(p.Addrs)}
	c.Client, err = dhcp.NewClient(w.clock(w.now()), dhcp.ClientConfig{MAC: p.hw, Rand: rand.NewPCG(seed, hash(p.name()+" dhcp"))})
	if err != nil {
		return fmt.Errorf("netns: %s: %w", p.name(), err)
	}
	c.next = func() (time.Time, bool) { return c.NextTimeout() }
	c.ring = func(now int64) {
		c.HandleTimeout(w.clock(now))
		w.pollClient(p, now)
	}
	p.client = c
	w.machines = append(w.machines, &c.driven)
	w.touch(&c.driven)
	return nil
}

// answered is true when a packet is for the client of a port.
func (w *wire) answered(p *wirePort, now int64, buf []byte) bool {
	v, ok := parse(buf)
	if !ok || !v.isTo(dhcp.ClientPort) {
		return false
	}
	finishChecksum(v.buf)
	if !p.client.HandlePacket(w.clock(now), v.ip) {
		return false
	}
	w.pollClient(p, now)
	return true
}

// isTo says that a packet is UDP to a port.
func (v *view) isTo(port uint16) bool {
	return v.proto == UDP && len(v.ip) >= v.transit+8 && uint16(v.ip[v.transit+2])<<8|uint16(v.ip[v.transit+3]) == port
}

// pollClient does what the client wants done.
func (w *wire) pollClient(p *wirePort, now int64) {
	c := p.client
	for more := true; more; {
		more = false
		for pkt, ok := c.Poll(); ok; pkt, ok = c.Poll() {
			q := w.wrap(pkt)
			if v, ok := parse(q.buf); ok {
				setEther(q.buf, mac{}, p.hw, typeIPv4)
				w.carry(p, now, &v)
			}
			w.recycle(q)
		}
		for e, ok := c.Event(); ok; e, ok = c.Event() {
			w.heed(p, e, now)
			more = true
		}
	}
	w.touch(&c.driven)
}

func (w *wire) heed(p *wirePort, e dhcp.ClientEvent, now int64) {
	c, a := p.client, e.Grant.Prefix.Addr()
	has := slices.Contains(p.Addrs, e.Grant.Prefix)
	if e.Kind == dhcp.LostAddress {
		if has {
			w.note(p.name(), fmt.Sprintf("has lost %v: %s", a, e.Why))
			w.reassign(p, c.fixed, nil)
		}
		return
	}
	if g, ok := c.Grant(); !ok || g.Prefix != e.Grant.Prefix {
		return // lost again meanwhile
	}
	// Who has the address would answer an ARP probe (RFC 5227 section 2.1).
	if s, known := p.network.stations[a]; known && s.port != p && !has {
		w.note(p.name(), fmt.Sprintf("declines %v: %s has it", a, s.port.name()))
		c.Conflict(w.clock(now))
		return
	}
	if !has {
		w.note(p.name(), fmt.Sprintf("has got %v from %v", e.Grant.Prefix, e.Grant.Server))
	}
	w.reassign(p, append([]netip.Prefix{e.Grant.Prefix}, c.fixed...), &e.Grant)
}

// reassign gives a port other addresses, and has its owner's kernel follow. The
// IPv4 routes are those of a grant, or there are none.
func (w *wire) reassign(p *wirePort, addrs []netip.Prefix, g *dhcp.Grant) {
	fresh := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Prefix) bool { return slices.Contains(p.Addrs, a) })
	w.setAddrs(p, addrs)
	for _, a := range fresh {
		w.announce(p, a.Addr())
	}
	routes := slices.DeleteFunc(w.plan.routesOf(p.owner), func(r route) bool { return r.to.Addr().Is4() })
	s := setup{mtu: p.deviceMTU(), routes: routes}
	if g != nil && g.Router.IsValid() {
		s.routes = append(s.routes, p.route(allIPv4, g.Router))
	}
	if g != nil {
		for _, r := range g.Routes {
			s.routes = append(s.routes, p.route(r.To, r.Via))
		}
	}
	w.configure(p, s)
}

// setAddrs makes addresses those of a port, in everything that the wire knows.
func (w *wire) setAddrs(p *wirePort, addrs []netip.Prefix) {
	n := p.network
	n.forget(p)
	p.Addrs = slices.Clone(addrs)
	for _, a := range addrs {
		n.give(p, a.Addr())
		if n.name != scenario.Internet && !n.isOnLink(a.Addr()) {
			n.onLink = append(n.onLink, a.Masked())
		}
	}
	if p.gateway != nil {
		for _, pair := range p.owner.gateway.Static {
			if p == p.gateway.sides[1] {
				n.give(p, pair.External)
			}
		}
	}
	if p.firewall != nil {
		p.firewall.protect(p.hosts())
	}
	p.flow, p.count = Flow{}, nil
}
