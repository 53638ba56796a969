package sim

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

func (n *Network) build(t scenario.Topology) error {
	n.segment(scenario.Internet)
	names := make(map[string]bool)
	for _, h := range t.Hosts {
		if h.Name == "" || names[h.Name] {
			return fmt.Errorf("host %q: a name is needed, and only once", h.Name)
		}
		names[h.Name] = true
		host := newHost(n, h.Name)
		p, err := n.attach(h.Name, h.Port, host)
		if err != nil {
			return fmt.Errorf("host %q: %w", h.Name, err)
		}
		host.port = p
		n.hosts[h.Name] = host
	}
	for _, g := range t.Gateways {
		if g.Name == "" || names[g.Name] {
			return fmt.Errorf("gateway %q: a name is needed, and only once", g.Name)
		}
		names[g.Name] = true
		if err := n.addGateway(g); err != nil {
			return fmt.Errorf("gateway %q: %w", g.Name, err)
		}
	}
	for _, g := range t.Gateways {
		if err := n.addRoutes(g); err != nil {
			return fmt.Errorf("gateway %q: %w", g.Name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.segments)) {
		if name != scenario.Internet && n.segments[name].gateway == nil {
			return fmt.Errorf("network %q: no gateway leads out of it", name)
		}
	}
	// The routes are needed before the machines: they tell what is inside.
	for _, g := range t.Gateways {
		if err := n.gateways[g.Name].start(); err != nil {
			return fmt.Errorf("gateway %q: %w", g.Name, err)
		}
	}
	return nil
}

func (n *Network) segment(name string) *segment {
	s := n.segments[name]
	if s == nil {
		s = &segment{name: name, byAddr: make(map[netip.Addr]*port), counts: make(map[pair]*Count)}
		n.segments[name] = s
	}
	return s
}

func checkLink(l scenario.Link) error {
	switch {
	case l.Delay < 0 || l.Jitter < 0 || l.Rate < 0 || l.MTU < 0:
		return errors.New("a link's delay, jitter, rate and MTU are not negative")
	case !(l.Loss >= 0 && l.Loss <= 1 && l.Reorder >= 0 && l.Reorder <= 1):
		return errors.New("a link's loss and reorder are between 0 and 1")
	case l.MTU != 0 && (l.MTU < 576 || l.MTU > 65535):
		return errors.New("a link's MTU is between 576 and 65535")
	case l.Rate > 1e12:
		return errors.New("a link's rate is at most 1 Tbit/s")
	}
	return nil
}

func (n *Network) attach(name string, sp scenario.Port, owner node) (*port, error) {
	if sp.Network == "" {
		return nil, errors.New("its port is on no network")
	}
	if err := checkLink(sp.Link); err != nil {
		return nil, err
	}
	if len(sp.Addrs) == 0 {
		return nil, errors.New("its port has no address")
	}
	s := n.segment(sp.Network)
	p := &port{n: n, name: name, node: owner, segment: s, link: sp.Link}
	p.out = lane{p: p, rnd: n.rand(name + ">")}
	p.in = lane{p: p, rnd: n.rand(name + "<")}
	for _, prefix := range sp.Addrs {
		a := prefix.Addr()
		switch {
		case !prefix.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast():
			return nil, fmt.Errorf("%v is not an address for a port", prefix)
		case p.addr(a.Is4()).IsValid():
			return nil, errors.New("its port has two addresses of one family")
		case s.byAddr[a] != nil:
			return nil, fmt.Errorf("%v is taken by %q", a, s.byAddr[a].name)
		}
		if s.name != scenario.Internet {
			for _, other := range s.onLink {
				if other.Addr().Is4() == a.Is4() && other != prefix.Masked() {
					return nil, fmt.Errorf("%v is not in %v, which network %q is", prefix, other, s.name)
				}
			}
			if !slices.Contains(s.onLink, prefix.Masked()) {
				s.onLink = append(s.onLink, prefix.Masked())
			}
		}
		s.byAddr[a] = p
		p.addrs = append(p.addrs, a)
	}
	s.ports = append(s.ports, p)
	n.ports[name] = p
	return p, nil
}

func (n *Network) addGateway(g scenario.Gateway) (err error) {
	if g.Inside.Network == scenario.Internet {
		return errors.New("the internet is inside of nothing")
	}
	gw := &Gateway{n: n, name: g.Name, behaviour: g.NAT}
	if gw.inside, err = n.attach(g.Name+"/inside", g.Inside, gw); err != nil {
		return fmt.Errorf("inside: %w", err)
	}
	if gw.outside, err = n.attach(g.Name+"/outside", g.Outside, gw); err != nil {
		return fmt.Errorf("outside: %w", err)
	}
	s := gw.inside.segment
	if s.gateway != nil {
		return fmt.Errorf("network %q has a gateway already: %q", s.name, s.gateway.name)
	}
	for _, in := range s.onLink {
		for _, out := range gw.outside.segment.onLink {
			if in.Overlaps(out) {
				return fmt.Errorf("%v is on both sides of it", in)
			}
		}
	}
	s.gateway = gw.inside
	n.gateways[g.Name] = gw
	return nil
}

// addRoutes makes what is behind g without translation known to every network
// outside of it, as far as no translation is in between.
func (n *Network) addRoutes(g scenario.Gateway) error {
	gw := n.gateways[g.Name]
	for _, prefix := range gw.inside.segment.onLink {
		via := gw
		for range n.segments {
			if prefix.Addr().Is4() && via.translates() {
				break
			}
			s := via.outside.segment
			for _, r := range s.routes {
				if r.prefix.Overlaps(prefix) {
					return fmt.Errorf("%v is behind it and, as %v, behind %q", prefix, r.prefix, r.via.name)
				}
			}
			if via != gw && slices.ContainsFunc(s.onLink, prefix.Overlaps) {
				return fmt.Errorf("%v is also network %q", prefix, s.name)
			}
			s.routes = append(s.routes, route{prefix, via.outside})
			if s.gateway == nil {
				break
			}
			via = s.gateway.node.(*Gateway)
		}
	}
	for s, steps := gw.outside.segment, 0; s.name != scenario.Internet; steps++ {
		if s.gateway == nil || steps > len(n.segments) {
			return errors.New("it does not lead to the internet")
		}
		s = s.gateway.node.(*Gateway).outside.segment
	}
	return nil
}
