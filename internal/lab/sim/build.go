package sim

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// build makes everything of a topology that can be built.
func (n *Network) build(t scenario.Topology) error {
	if err := scenario.Check(t); err != nil {
		return err
	}
	n.topology, n.short = t, scenario.Shortages(t)
	n.segment(scenario.Internet)
	for _, g := range t.Gateways { // the ways out say which prefixes a network has
		n.addGateway(g)
	}
	for _, h := range t.Hosts {
		host := newHost(n, h.Name)
		n.hosts[h.Name] = host
		if err := n.newOutlet(host, n.attach(h.Name, h.Port), h.Firewall); err != nil {
			return fmt.Errorf("host %q: %w", h.Name, err)
		}
	}
	for _, g := range t.Gateways {
		n.addRoutes(n.gateways[g.Name])
	}
	// The routes are needed before the machines: they tell what is inside.
	for _, g := range t.Gateways {
		if err := n.gateways[g.Name].start(); err != nil {
			return fmt.Errorf("gateway %q: %w", g.Name, err)
		}
	}
	for _, h := range t.Hosts {
		if o := n.hosts[h.Name].at.(*outlet); h.Port.DHCP {
			if err := o.newLease(slices.Clone(o.p.addrs)); err != nil {
				return fmt.Errorf("host %q: %w", h.Name, err)
			}
		}
	}
	return nil
}

func (n *Network) segment(name string) *segment {
	s := n.segments[name]
	if s == nil {
		s = &segment{n: n, name: name, claims: make(map[netip.Addr][]*port), lengths: make(map[netip.Addr]int), counts: make(map[pair]*Count)}
		n.segments[name] = s
		if name == scenario.Internet {
			s.hops = max(0, cmp.Or(n.opt.Hops, 1))
		}
	}
	return s
}

// attach makes a port, which the caller gives a node.
func (n *Network) attach(name string, sp scenario.Port) *port {
	s := n.segment(sp.Network)
	p := newPort(n, name, s, sp.Link)
	var addrs []netip.Addr
	for _, prefix := range sp.Addrs {
		addrs = append(addrs, prefix.Addr())
		s.lengths[prefix.Addr()] = prefix.Bits()
		if s.name != scenario.Internet {
			s.addPrefix(prefix.Masked())
		}
	}
	p.setAddrs(addrs)
	return p
}

// admit says which addresses these are, or why a port cannot have them there.
func (s *segment) admit(prefixes []netip.Prefix) (addrs []netip.Addr, err error) {
	for _, prefix := range prefixes {
		a := prefix.Addr()
		if err := scenario.CheckAddress(prefix); err != nil {
			return nil, err
		}
		switch {
		case slices.Contains(addrs, a):
			return nil, fmt.Errorf("%v is there twice", a)
		case s.name != scenario.Internet && !slices.Contains(s.onLink, prefix.Masked()):
			return nil, fmt.Errorf("%v is not in %v, which network %q is", prefix, s.onLink, s.name)
		}
		addrs = append(addrs, a)
		s.lengths[a] = prefix.Bits()
	}
	return addrs, nil
}

func (s *segment) addPrefix(p netip.Prefix) {
	if slices.Contains(s.onLink, p) {
		return
	}
	s.onLink = append(s.onLink, p)
	if last := lastOf(p); last.IsValid() {
		s.everyone = append(s.everyone, last)
	}
}

func (n *Network) addGateway(g scenario.Gateway) {
	gw := &Gateway{n: n, name: g.Name, data: g, self: newHost(n, g.Name)}
	add := func(side nat.Side, name string, sp scenario.Port) *segment {
		p := n.attach(g.Name+"/"+name, sp)
		gw.ports[side], p.node = p, gw
		return p.segment
	}
	add(nat.Outside, "outside", g.Outside)
	add(nat.Inside, "inside", g.Inside).gateway = gw.ports[nat.Inside]
	if g.DMZ != nil {
		add(nat.DMZ, "dmz", *g.DMZ).gateway = gw.ports[nat.DMZ]
	}
	gw.self.at, gw.self.port = gw, gw.ports[nat.Inside]
	n.gateways[g.Name] = gw
}

// addRoutes makes what is behind g without translation known to every network
// outside of it, as far as no translation is in between.
func (n *Network) addRoutes(g *Gateway) {
	for _, side := range []nat.Side{nat.Inside, nat.DMZ} {
		if g.ports[side] == nil {
			continue
		}
		for _, prefix := range g.ports[side].segment.onLink {
			for via := g; !via.data.Hides(prefix.Addr()); {
				out := via.ports[nat.Outside]
				out.segment.routes = append(out.segment.routes, route{prefix, out})
				if out.segment.gateway == nil {
					break
				}
				via = out.segment.gateway.node.(*Gateway)
			}
		}
	}
}
