package sim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

func (n *Network) build(t scenario.Topology) error {
	n.segment(scenario.Internet)
	names := make(map[string]bool)
	for _, h := range t.Hosts {
		if h.Name == "" || names[h.Name] {
			return fmt.Errorf("host %q: a name is needed, and only once", h.Name)
		}
		names[h.Name] = true
		if err := n.addHost(h); err != nil {
			return fmt.Errorf("host %q: %w", h.Name, err)
		}
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
		s = &segment{n: n, name: name, claims: make(map[netip.Addr][]*port), counts: make(map[pair]*Count)}
		n.segments[name] = s
		if name == scenario.Internet {
			s.hops = max(0, cmp.Or(n.opt.Hops, 1))
		}
	}
	return s
}

func checkLink(l scenario.Link) error {
	switch {
	case l.Delay < 0 || l.Jitter < 0 || l.Rate < 0 || l.MTU < 0:
		return errors.New("a link's delay, jitter, rate and MTU are not negative")
	case !isShare(l.Loss) || !isShare(l.Reorder) || !isShare(l.Repeat):
		return errors.New("a link's loss, reorder and repeat are between 0 and 1")
	case l.MTU != 0 && (l.MTU < 576 || l.MTU > 65535):
		return errors.New("a link's MTU is between 576 and 65535")
	case l.Rate > 1e12:
		return errors.New("a link's rate is at most 1 Tbit/s")
	}
	return nil
}

func isShare(f float64) bool { return f >= 0 && f <= 1 }

func (n *Network) addHost(h scenario.Host) error {
	host := newHost(n, h.Name)
	p, err := n.attach(h.Name, h.Port)
	if err != nil {
		return err
	}
	n.hosts[h.Name] = host
	_, err = n.newOutlet(host, p, h.Firewall)
	return err
}

// attach makes a port, which the caller gives a node.
func (n *Network) attach(name string, sp scenario.Port) (*port, error) {
	if sp.Network == "" {
		return nil, errors.New("its port is on no network")
	}
	if err := checkLink(sp.Link); err != nil {
		return nil, err
	}
	if len(sp.Addrs) == 0 && !sp.DHCP {
		return nil, errors.New("its port has no address")
	}
	s := n.segment(sp.Network)
	addrs, err := s.admit(sp.Addrs)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if other := s.owner(a); other != nil {
			return nil, fmt.Errorf("%v is taken by %q", a, other.name)
		}
	}
	if s.name != scenario.Internet {
		for _, prefix := range sp.Addrs {
			s.addPrefix(prefix.Masked())
		}
	}
	p := newPort(n, name, s, sp.Link)
	p.setAddrs(addrs)
	return p, nil
}

// admit says which addresses these are, or why a port cannot have them there.
func (s *segment) admit(prefixes []netip.Prefix) (addrs []netip.Addr, err error) {
	for _, prefix := range prefixes {
		a := prefix.Addr()
		switch {
		case !prefix.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast():
			return nil, fmt.Errorf("%v is not an address for a port", prefix)
		case slices.Contains(addrs, a):
			return nil, fmt.Errorf("%v is there twice", a)
		}
		for _, other := range s.onLink {
			if other.Addr().Is4() == a.Is4() && other != prefix.Masked() {
				return nil, fmt.Errorf("%v is not in %v, which network %q is", prefix, other, s.name)
			}
		}
		addrs = append(addrs, a)
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

func (n *Network) addGateway(g scenario.Gateway) (err error) {
	gw := &Gateway{n: n, name: g.Name, data: g, self: newHost(n, g.Name)}
	add := func(side nat.Side, name string, sp scenario.Port) (*segment, error) {
		p, err := n.attach(g.Name+"/"+name, sp)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		gw.ports[side], p.node = p, gw
		return p.segment, nil
	}
	inner := map[nat.Side]scenario.Port{nat.Inside: g.Inside}
	if g.DMZ != nil {
		inner[nat.DMZ] = *g.DMZ
	}
	out, err := add(nat.Outside, "outside", g.Outside)
	if err != nil {
		return err
	}
	for _, side := range []nat.Side{nat.Inside, nat.DMZ} {
		sp, ok := inner[side]
		if !ok {
			continue
		}
		if sp.Network == scenario.Internet {
			return errors.New("the internet is inside of nothing")
		}
		s, err := add(side, []string{nat.Inside: "inside", nat.DMZ: "dmz"}[side], sp)
		if err != nil {
			return err
		}
		if s.gateway != nil {
			return fmt.Errorf("network %q has a gateway already: %q", s.name, s.gateway.name)
		}
		s.gateway = gw.ports[side]
		for _, p := range s.onLink {
			if slices.ContainsFunc(out.onLink, p.Overlaps) {
				return fmt.Errorf("%v is on both sides of it", p)
			}
		}
	}
	gw.self.at, gw.self.port = gw, gw.ports[nat.Inside]
	n.gateways[g.Name] = gw
	return nil
}

// addRoutes makes what is behind g without translation known to every network
// outside of it, as far as no translation is in between.
func (n *Network) addRoutes(g scenario.Gateway) error {
	gw := n.gateways[g.Name]
	for _, side := range []nat.Side{nat.Inside, nat.DMZ} {
		if gw.ports[side] == nil {
			continue
		}
		for _, prefix := range gw.ports[side].segment.onLink {
			if err := n.announce(gw, prefix); err != nil {
				return err
			}
		}
	}
	for s, steps := gw.ports[nat.Outside].segment, 0; s.name != scenario.Internet; steps++ {
		if s.gateway == nil || steps > len(n.segments) {
			return errors.New("it does not lead to the internet")
		}
		s = s.gateway.node.(*Gateway).ports[nat.Outside].segment
	}
	return nil
}

func (n *Network) announce(gw *Gateway, prefix netip.Prefix) error {
	via := gw
	for range n.segments {
		if prefix.Addr().Is4() && via.translates() {
			break
		}
		s := via.ports[nat.Outside].segment
		for _, r := range s.routes {
			if r.prefix.Overlaps(prefix) {
				return fmt.Errorf("%v is behind it and, as %v, behind %q", prefix, r.prefix, r.via.name)
			}
		}
		if via != gw && slices.ContainsFunc(s.onLink, prefix.Overlaps) {
			return fmt.Errorf("%v is also network %q", prefix, s.name)
		}
		s.routes = append(s.routes, route{prefix, via.ports[nat.Outside]})
		if s.gateway == nil {
			break
		}
		via = s.gateway.node.(*Gateway)
	}
	return nil
}
