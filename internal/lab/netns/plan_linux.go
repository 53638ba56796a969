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
	name     string
	gateway  *scenario.Gateway // nil for a host
	machine  bool              // a gateway that is ours, not the kernel's
	firewall *nat.Behaviour    // of a host; nil: none
	ports    []*port           // a host's only one; a gateway's by nat.Side, the DMZ's if it has one
	routes   []route
}

// outer is the port that leads to the internet.
func (n *node) outer() *port {
	if n.gateway == nil {
		return n.ports[0]
	}
	return n.ports[nat.Outside]
}

// port is an interface of a node.
type port struct {
	scenario.Port
	owner *node
	iface string
	left  bool // with DHCP, but left to a program
}

// name is that of a host, or of a gateway with the side.
func (p *port) name() string {
	if p.owner.gateway == nil {
		return p.owner.name
	}
	return p.owner.name + "/" + p.iface
}

// hardware is its hardware address.
func (p *port) hardware() mac { return scenario.HardwareAddr(p.name()) }

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
	upstream *port // inside or DMZ port of the gateway that this network hangs from
}

var (
	interfaces = [...]string{nat.Inside: InsideInterface, nat.Outside: OutsideInterface, nat.DMZ: DMZInterface}

	allIPv4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	allIPv6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

type behind struct {
	prefix netip.Prefix
	port   *port
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
		q := &port{Port: sp, owner: n, iface: iface}
		if err := s.attach(q); err != nil {
			return fmt.Errorf("netns: %s: %w", n.name, err)
		}
		n.ports = append(n.ports, q)
		if sp.Link != (scenario.Link{}) || sp.DHCP {
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
		n.machine = !g.Kernel && !opt.Kernel
		p.userWire = p.userWire || n.machine
		sides := []scenario.Port{nat.Inside: g.Inside, nat.Outside: g.Outside}
		if g.DMZ != nil {
			sides = append(sides, *g.DMZ)
		}
		for side, port := range sides {
			if err := add(n, interfaces[side], port); err != nil {
				return nil, err
			}
			if s := segments[port.Network]; s.upstream == nil && side != int(nat.Outside) {
				s.upstream = n.ports[side]
			}
		}
	}
	for _, h := range t.Hosts {
		n, err := newNode(h.Name, nil)
		if err != nil {
			return nil, err
		}
		n.firewall = h.Firewall
		p.userWire = p.userWire || n.firewall != nil
		if err := add(n, HostInterface, h.Port); err != nil {
			return nil, err
		}
		n.ports[0].left = n.ports[0].DHCP && slices.Contains(opt.Unconfigured, n.name)
	}
	for _, name := range opt.Unconfigured {
		if !slices.ContainsFunc(p.nodes, func(n *node) bool { return n.name == name && n.gateway == nil && n.ports[0].DHCP }) {
			return nil, fmt.Errorf("netns: no host %q with DHCP to leave unconfigured", name)
		}
	}
	if err := p.checkTree(segments); err != nil {
		return nil, err
	}
	for _, s := range p.networks {
		s.behind = p.below(s)
	}
	for _, n := range p.nodes {
		n.routes = p.routesOf(n)
	}
	return p, nil
}

func (s *segment) attach(p *port) error {
	if err := checkLink(p.Link); err != nil {
		return err
	}
	if len(p.Addrs) == 0 && !p.DHCP {
		return fmt.Errorf("port on network %q needs an address", s.name)
	}
	for _, a := range p.Addrs {
		if err := s.claim(p, a.Addr()); err != nil {
			return err
		}
		if s.name != scenario.Internet && !slices.Contains(s.onLink, a.Masked()) {
			s.onLink = append(s.onLink, a.Masked())
		}
	}
	if g := p.owner.gateway; g != nil && p.iface == OutsideInterface {
		for _, pair := range g.Static {
			if s.byAddr[pair.External] == p {
				continue
			}
			if err := s.claim(p, pair.External); err != nil {
				return err
			}
		}
	}
	s.ports = append(s.ports, p)
	return nil
}

// claim gives an address of the network to a port.
func (s *segment) claim(p *port, a netip.Addr) error {
	if a == routerIPv4 || a == routerIPv6 {
		return fmt.Errorf("%s belongs to the routers of the internet", a)
	}
	if other := s.byAddr[a]; other != nil {
		return fmt.Errorf("%s on network %q belongs to %s", a, s.name, other.owner.name)
	}
	s.byAddr[a] = p
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
			at = segments[at.upstream.owner.outer().Network]
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
		for side := range n.ports {
			if side == int(nat.Outside) {
				continue
			}
			for _, prefix := range p.within(n, nat.Side(side)) {
				if !translates(n.gateway.NAT, prefix.Addr()) {
					out = append(out, behind{prefix, n.outer()})
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b behind) int { return b.prefix.Bits() - a.prefix.Bits() })
	return out
}

// within are the prefixes on and beyond a side of a gateway.
func (p *plan) within(n *node, side nat.Side) (prefixes []netip.Prefix) {
	for _, a := range n.ports[side].Addrs {
		prefixes = append(prefixes, a.Masked())
	}
	for _, b := range p.below(p.segment(n.ports[side].Network)) {
		prefixes = append(prefixes, b.prefix)
	}
	return prefixes
}

// move puts a port on another network.
func (p *plan) move(q *port, network string) {
	from, to := p.segment(q.Network), p.segment(network)
	from.ports = slices.DeleteFunc(from.ports, func(x *port) bool { return x == q })
	to.ports = append(to.ports, q)
	q.Network = network
}

func (p *plan) segment(name string) *segment {
	i := slices.IndexFunc(p.networks, func(s *segment) bool { return s.name == name })
	return p.networks[i]
}

func (p *plan) routesOf(n *node) []route {
	var routes []route
	for _, q := range n.ports {
		s := p.segment(q.Network)
		for _, b := range s.behind {
			if b.port.owner == n {
				continue
			}
			if via, ok := q.neighbour(b.port, b.prefix.Addr()); ok {
				routes = append(routes, q.route(b.prefix, via))
			}
		}
		if q == n.outer() {
			routes = append(routes, q.onward(s.upstream)...)
		}
	}
	return routes
}

// onward are the routes to everything, by the gateway at another port of the
// network; without one this is the internet.
func (p *port) onward(upstream *port) (routes []route) {
	for _, to := range []netip.Prefix{allIPv4, allIPv6} {
		via := routerIPv6
		if to.Addr().Is4() {
			via = routerIPv4
		}
		ok := p.addr(to.Addr().Is4()).IsValid()
		if upstream != nil {
			via, ok = p.neighbour(upstream, to.Addr())
		}
		if ok || p.owner.machine && (to.Addr().Is4() || p.owner.hasIPv6()) {
			routes = append(routes, p.route(to, via))
		}
	}
	return routes
}

// route is one by a neighbour. In the namespace of a gateway of ours the next
// one is the gateway itself.
func (p *port) route(to netip.Prefix, via netip.Addr) route {
	if p.owner.machine {
		via = netip.Addr{}
	}
	return route{to, via, p.iface}
}

// neighbour is the address of q's family on the same network as p.
func (p *port) neighbour(q *port, family netip.Addr) (netip.Addr, bool) {
	if !p.addr(family.Is4()).IsValid() {
		return netip.Addr{}, false
	}
	via := q.addr(family.Is4())
	return via, via.IsValid()
}

func (p *port) addr(v4 bool) netip.Addr { return first(p.Addrs, v4) }

// first is the first address of a family, invalid if there is none.
func first(addrs []netip.Prefix, v4 bool) netip.Addr {
	for _, a := range addrs {
		if a.Addr().Is4() == v4 {
			return a.Addr()
		}
	}
	return netip.Addr{}
}
