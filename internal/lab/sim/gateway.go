package sim

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/service"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/router"
)

// Gateway is a gateway of the topology: a router between its ports, with an IP
// stack of its own.
type Gateway struct {
	n      *Network
	name   string
	data   scenario.Gateway
	router *router.Router
	ports  [nat.Local]*port // by side; without a DMZ, nil there
	fixed  []netip.Addr     // outside, those that are not from DHCP
	self   *Host
	wake   wake

	services *service.Services
}

// start makes the machine; all routes and addresses must be known.
func (g *Gateway) start() (err error) {
	in, out := g.ports[nat.Inside], g.ports[nat.Outside]
	cfg := router.Config{
		NAT: nat.Config{
			Behaviour:   g.data.NAT,
			Inside:      g.behind(nat.Inside),
			DMZ:         g.behind(nat.DMZ),
			Static:      g.data.Static,
			MaxMappings: g.data.MaxMappings,
			Rand:        rand.NewPCG(g.n.opt.Seed, hash(g.name)),
		},
		DHCP:        g.data.DHCP,
		OutsideDHCP: g.data.Outside.DHCP,
		OutsideMAC:  out.mac,
	}
	service.Configure(&g.data, &cfg)
	for side, p := range g.ports {
		if p != nil {
			cfg.NAT.Own[side], cfg.NAT.MTU[side] = p.addrs, p.mtu()
		}
	}
	for _, p := range in.segment.ports {
		if p != in {
			cfg.Fixed = append(cfg.Fixed, p.addrs...)
		}
	}
	// Hosts here need no routes, since the segment finds the way; what the server
	// says is the same as in namespaces.
	for _, r := range in.segment.routes {
		if i := slices.IndexFunc(r.via.addrs, netip.Addr.Is4); i >= 0 && r.prefix.Addr().Is4() {
			cfg.Routes = append(cfg.Routes, dhcp.Route{To: r.prefix, Via: r.via.addrs[i]})
		}
	}
	for _, s := range g.data.Static {
		out.segment.claim(s.External, out)
	}
	g.fixed = out.addrs
	g.wake = newWake(g.n, func() {
		g.router.HandleTimeout(g.n.time())
		g.drain()
	})
	if g.router, err = router.New(g.n.time(), cfg); err != nil {
		return err
	}
	g.drain()
	return g.serve()
}

// behind is every prefix on a side and beyond.
func (g *Gateway) behind(side nat.Side) []netip.Prefix {
	p := g.ports[side]
	if p == nil {
		return nil
	}
	all := slices.Clone(p.segment.onLink)
	for _, r := range p.segment.routes {
		all = append(all, r.prefix)
	}
	return all
}

// Host is what runs on the gateway itself, with the addresses of all its ports.
func (g *Gateway) Host() *Host { return g.self }

// Mappings are the gateway's, as of now.
func (g *Gateway) Mappings() []nat.Mapping {
	g.n.enter()
	defer g.n.leave()
	return g.router.Mappings(g.n.time())
}

// Stats are the gateway's.
func (g *Gateway) Stats() nat.Stats {
	g.n.enter()
	defer g.n.leave()
	return g.router.NAT().Stats()
}

// External are the gateway's outside addresses.
func (g *Gateway) External() []netip.Addr {
	g.n.enter()
	defer g.n.leave()
	return slices.Clone(g.ports[nat.Outside].addrs)
}

func (g *Gateway) receive(p *port, pkt *buffer) {
	side := nat.Side(slices.Index(g.ports[:], p))
	if src, dst := addresses(pkt.b); side == nat.Outside && g.n.cut(g.name, pkt.b, src, dst) {
		g.n.drop(p, pkt, "cut")
		return
	}
	g.handle(side, p, pkt)
}

// handle lets the router decide about a packet; p is for the trace.
func (g *Gateway) handle(from nat.Side, p *port, pkt *buffer) {
	n := g.n
	v := g.router.Handle(n.time(), from, pkt.link(), pkt.b, nat.Offload{})
	switch {
	case v.Action == nat.Forward:
		g.forward(v.To, p, pkt)
	case v.Reason == nat.Kept:
		n.give(pkt)
	default:
		n.drop(p, pkt, v.Reason.String())
	}
	g.drain()
}

// forward sends a packet on; p is where it came in.
func (g *Gateway) forward(to nat.Side, p *port, pkt *buffer) {
	if to == nat.Local {
		g.self.receive(p, pkt)
		return
	}
	out := g.ports[to]
	if out == nil {
		g.n.drop(p, pkt, "no such side")
		return
	}
	if src, dst := addresses(pkt.b); to == nat.Outside && g.n.cut(g.name, pkt.b, src, dst) {
		g.n.drop(out, pkt, "cut")
		return
	}
	g.n.trace(Forwarded, out, pkt.b, "")
	out.send(pkt)
}

// drain does what the router wants done.
func (g *Gateway) drain() {
	n := g.n
	for out, ok := g.router.Poll(); ok; out, ok = g.router.Poll() {
		pkt := n.take()
		pkt.b = append(pkt.b, out.Packet...)
		g.forward(out.To, g.ports[nat.Inside], pkt)
	}
	for e, ok := g.router.Event(); ok; e, ok = g.router.Event() {
		n.note(g.name, e.String())
		if e.Kind == router.OutsideAddress && g.data.Outside.DHCP {
			addrs := g.fixed
			if e.Outside.IsValid() {
				addrs = append([]netip.Addr{e.Outside}, g.fixed...)
			}
			g.ports[nat.Outside].setAddrs(addrs)
			n.readdressed.Broadcast()
		}
	}
	g.wake.set(g.router.NextTimeout())
}

// The attachment of the gateway's own host.

func (g *Gateway) addresses() (all []netip.Addr) {
	for _, p := range g.ports {
		if p != nil {
			all = append(all, p.addrs...)
		}
	}
	return all
}

// side is where the gateway itself sends to dst.
func (g *Gateway) side(dst netip.Addr) *port {
	for _, side := range []nat.Side{nat.Inside, nat.DMZ} {
		p := g.ports[side]
		if p != nil && slices.ContainsFunc(g.behind(side), func(in netip.Prefix) bool { return in.Contains(dst) }) {
			return p
		}
	}
	return g.ports[nat.Outside]
}

func (g *Gateway) source(dst netip.Addr) netip.Addr { return g.side(dst).addr(dst.Is4()) }
func (g *Gateway) mtu(dst netip.Addr) int           { return g.side(dst).mtu() }
func (g *Gateway) transmit(pkt *buffer)             { g.handle(nat.Local, g.ports[nat.Inside], pkt) }
