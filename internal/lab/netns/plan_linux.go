package netns

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// plan is a topology that was checked, with every route worked out.
type plan struct {
	nodes    []*node
	networks []*segment
	userWire bool
}

// node is a host or a gateway: one namespace.
type node struct {
	name    string
	gateway *scenario.Gateway // nil for a host
	ports   []*port
	routes  []route
}

// port is an interface of a node.
type port struct {
	scenario.Port
	owner *node
	iface string
	index int // in its network
}

// name is that of a host, or of a gateway with the side.
func (p *port) name() string {
	if p.owner.gateway == nil {
		return p.owner.name
	}
	return p.owner.name + "/" + p.iface
}

// route leads to a prefix, by a neighbour or, without one, on the link itself.
type route struct {
	to    netip.Prefix
	via   netip.Addr
	iface string
}

// segment is a network with what leads out of it: the addresses on it, the
// prefixes behind its gateways, and the gateway for everything else.
type segment struct {
	name     string
	ports    []*port
	byAddr   map[netip.Addr]*port
	onLink   []netip.Prefix // empty on the internet
	behind   []behind
	upstream *port // inside port of the gateway that this network hangs from
}

type behind struct {
	prefix netip.Prefix
	port   *port
}

func (s *segment) lookup(dst netip.Addr) *port {
	if p := s.byAddr[dst]; p != nil {
		return p
	}
	for _, p := range s.onLink {
		if p.Contains(dst) {
			return nil
		}
	}
	for _, b := range s.behind {
		if b.prefix.Contains(dst) {
			return b.port
		}
	}
	return s.upstream
}

func compile(t scenario.Topology, opt Options) (*plan, error) {
	p := &plan{userWire: opt.UserWire}
	names := map[string]bool{}
	segments := map[string]*segment{}
	add := func(n *node, iface string, sp scenario.Port) error {
		s := segments[sp.Network]
		if s == nil {
			s = &segment{name: sp.Network, byAddr: map[netip.Addr]*port{}}
			segments[sp.Network] = s
			p.networks = append(p.networks, s)
		}
		q := &port{Port: sp, owner: n, iface: iface, index: len(s.ports)}
		if err := s.attach(q); err != nil {
			return fmt.Errorf("netns: %s: %w", n.name, err)
		}
		n.ports = append(n.ports, q)
		if sp.Link != (scenario.Link{}) {
			p.userWire = true
		}
		return nil
	}
	newNode := func(name string, g *scenario.Gateway) (*node, error) {
		if name == "" || names[name] {
			return nil, fmt.Errorf("netns: name %q is empty or used twice", name)
		}
		names[name] = true
		n := &node{name: name, gateway: g}
		p.nodes = append(p.nodes, n)
		return n, nil
	}

	for i := range t.Gateways {
		g := &t.Gateways[i]
		n, err := newNode(g.Name, g)
		if err != nil {
			return nil, err
		}
		if err := add(n, InsideInterface, g.Inside); err != nil {
			return nil, err
		}
		if err := add(n, OutsideInterface, g.Outside); err != nil {
			return nil, err
		}
		if s := segments[g.Inside.Network]; s.upstream == nil {
			s.upstream = n.ports[0]
		}
	}
	for _, h := range t.Hosts {
		n, err := newNode(h.Name, nil)
		if err != nil {
			return nil, err
		}
		if err := add(n, HostInterface, h.Port); err != nil {
			return nil, err
		}
	}
	if err := p.checkTree(segments); err != nil {
		return nil, err
	}
	for _, s := range p.networks {
		s.behind = p.below(s)
	}
	for _, n := range p.nodes {
		n.routes = p.routesOf(n, segments)
	}
	return p, nil
}

func (s *segment) attach(p *port) error {
	if err := checkLink(p.Link); err != nil {
		return err
	}
	var v4, v6 int
	for _, a := range p.Addrs {
		if a.Addr() == routerIPv4 || a.Addr() == routerIPv6 {
			return fmt.Errorf("%s belongs to the routers of the internet", a.Addr())
		}
		if a.Addr().Is4() {
			v4++
		} else {
			v6++
		}
		if other := s.byAddr[a.Addr()]; other != nil {
			return fmt.Errorf("%s on network %q belongs to %s", a.Addr(), s.name, other.owner.name)
		}
		s.byAddr[a.Addr()] = p
		if s.name != scenario.Internet && !slices.Contains(s.onLink, a.Masked()) {
			s.onLink = append(s.onLink, a.Masked())
		}
	}
	if v4 > 1 || v6 > 1 || v4+v6 == 0 {
		return fmt.Errorf("port on network %q needs one address, at most one a family", s.name)
	}
	s.ports = append(s.ports, p)
	return nil
}

// checkTree refuses networks from which no gateways lead to the internet.
func (p *plan) checkTree(segments map[string]*segment) error {
	for _, s := range p.networks {
		seen := map[*segment]bool{}
		for at := s; at.name != scenario.Internet; {
			if seen[at] {
				return fmt.Errorf("netns: network %q hangs from itself", s.name)
			}
			seen[at] = true
			if at.upstream == nil {
				return fmt.Errorf("netns: network %q has no gateway", at.name)
			}
			at = segments[at.upstream.owner.ports[1].Network]
		}
		if s.name == scenario.Internet && s.upstream != nil {
			return fmt.Errorf("netns: the internet is inside gateway %q", s.upstream.owner.name)
		}
	}
	return nil
}

// translates says whether the addresses inside are hidden from outside.
func translates(b nat.Behaviour, a netip.Addr) bool {
	return a.Is4() && b.Mode == nat.Translate
}

// below is every prefix that is reached through a gateway standing on s.
func (p *plan) below(s *segment) []behind {
	var out []behind
	for _, n := range p.nodes {
		if n.gateway == nil || n.gateway.Outside.Network != s.name {
			continue
		}
		inner := p.segment(n.gateway.Inside.Network)
		var prefixes []netip.Prefix
		for _, a := range n.gateway.Inside.Addrs {
			prefixes = append(prefixes, a.Masked())
		}
		for _, b := range p.below(inner) {
			prefixes = append(prefixes, b.prefix)
		}
		for _, prefix := range prefixes {
			if !translates(n.gateway.NAT, prefix.Addr()) {
				out = append(out, behind{prefix, n.ports[1]})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b behind) int { return b.prefix.Bits() - a.prefix.Bits() })
	return out
}

func (p *plan) segment(name string) *segment {
	i := slices.IndexFunc(p.networks, func(s *segment) bool { return s.name == name })
	return p.networks[i]
}

func (p *plan) routesOf(n *node, segments map[string]*segment) []route {
	var routes []route
	for i, q := range n.ports {
		s := segments[q.Network]
		for _, b := range s.behind {
			if b.port.owner == n {
				continue
			}
			if via, ok := q.neighbour(b.port, b.prefix.Addr()); ok {
				routes = append(routes, route{b.prefix, via, q.iface})
			}
		}
		if i != len(n.ports)-1 {
			continue // only a host's port and a gateway's outside one lead on
		}
		for _, a := range q.Addrs {
			all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if a.Addr().Is6() {
				all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			if s.upstream == nil {
				routes = append(routes, route{to: all, iface: q.iface})
			} else if via, ok := q.neighbour(s.upstream, a.Addr()); ok {
				routes = append(routes, route{all, via, q.iface})
			}
		}
	}
	return routes
}

// neighbour is the address of q's family on the same network as p.
func (p *port) neighbour(q *port, family netip.Addr) (netip.Addr, bool) {
	if !p.addr(family.Is4()).IsValid() {
		return netip.Addr{}, false
	}
	via := q.addr(family.Is4())
	return via, via.IsValid()
}

func (p *port) addr(v4 bool) netip.Addr {
	for _, a := range p.Addrs {
		if a.Addr().Is4() == v4 {
			return a.Addr()
		}
	}
	return netip.Addr{}
}
