package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// plan is a topology that was checked, with every route worked out.
type plan struct {
	nodes    []*node
	networks []*segment
	userWire bool
	short    map[string]scenario.Shortage // by network
}

// node is a host or a gateway: one namespace.
type node struct {
	name     string
	gateway  *scenario.Gateway // nil for a host
	machine  bool              // a gateway that is ours, not the kernel's
	firewall *nat.Behaviour    // of a host; nil: none
	ports    []*port           // a host's only one; a gateway's by nat.Side, the DMZ's if it has one
	routes   []route

	udpBlocked atomic.Bool // by a gateway that is the kernel's
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
	// ready are the addresses that its owner's kernel has by now.
	ready []netip.Prefix
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
	allIPv4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	allIPv6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

type behind struct {
	prefix netip.Prefix
	port   *port
}

func compile(t scenario.Topology, opt Options) (*plan, error) {
	if err := scenario.Check(t); err != nil {
		return nil, fmt.Errorf("netns: %w", err)
	}
	p := &plan{userWire: opt.UserWire || opt.Plain, short: map[string]scenario.Shortage{}}
	for _, s := range scenario.Shortages(t, opt.Unconfigured...) {
		p.short[s.Network] = s
	}
	for i := range t.Gateways {
		g := &t.Gateways[i]
		n := &node{name: g.Name, gateway: g, machine: !g.Kernel && !opt.Kernel}
		n.udpBlocked.Store(g.NAT.BlockUDP)
		p.nodes = append(p.nodes, n)
		p.userWire = p.userWire || n.machine
		p.attach(n, InsideInterface, g.Inside)
		p.attach(n, OutsideInterface, g.Outside)
		leading := n.ports[:1]
		if g.DMZ != nil {
			p.attach(n, DMZInterface, *g.DMZ)
			leading = append(leading[:1:1], n.ports[nat.DMZ])
		}
		for _, q := range leading {
			p.segment(q.Network).upstream = q
		}
	}
	for _, h := range t.Hosts {
		n := &node{name: h.Name, firewall: h.Firewall}
		p.nodes = append(p.nodes, n)
		p.userWire = p.userWire || n.firewall != nil
		p.attach(n, HostInterface, h.Port)
		n.ports[0].left = h.Port.DHCP && slices.Contains(opt.Unconfigured, n.name)
	}
	for _, name := range opt.Unconfigured {
		if !slices.ContainsFunc(p.nodes, func(n *node) bool { return n.name == name && n.ports[0].left }) {
			return nil, fmt.Errorf("netns: no host %q with DHCP to leave unconfigured", name)
		}
	}
	for _, s := range p.networks {
		s.behind = p.below(s)
	}
	for _, n := range p.nodes {
		n.routes = p.routesOf(n)
	}
	return p, nil
}

// attach gives a node an interface, and the network a port.
func (p *plan) attach(n *node, iface string, sp scenario.Port) {
	s := p.segment(sp.Network)
	if s == nil {
		s = &segment{name: sp.Network, byAddr: map[netip.Addr]*port{}}
		p.networks = append(p.networks, s)
	}
	q := &port{Port: sp, owner: n, iface: iface, ready: sp.Addrs}
	n.ports = append(n.ports, q)
	s.ports = append(s.ports, q)
	p.userWire = p.userWire || sp.Link != (scenario.Link{}) || sp.DHCP
	for _, a := range sp.Addrs {
		s.byAddr[a.Addr()] = q
		if s.name != scenario.Internet && !slices.Contains(s.onLink, a.Masked()) {
			s.onLink = append(s.onLink, a.Masked())
		}
	}
	if n.gateway != nil && iface == OutsideInterface {
		for _, pair := range n.gateway.Static {
			s.byAddr[pair.External] = q
		}
	}
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
				if !n.gateway.Hides(prefix.Addr()) {
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

// segment is a network by its name; nil: there is none.
func (p *plan) segment(name string) *segment {
	i := slices.IndexFunc(p.networks, func(s *segment) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	return p.networks[i]
}

// taught are the IPv4 routes that hosts of a network learn by DHCP: to what is
// behind gateways beside the one that leads out of it. A gateway whose own
// address is lent has none yet.
func (s *segment) taught() (routes []dhcp.Route) {
	for _, b := range s.behind {
		if via := b.port.addr(true); b.prefix.Addr().Is4() && via.IsValid() {
			routes = append(routes, dhcp.Route{To: b.prefix, Via: via})
		}
	}
	return routes
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
			routes = append(routes, q.onward(s.upstream, p.userWire)...)
		}
	}
	return routes
}

// onward are the routes to everything, by the gateway at another port of the
// network; without one this is the internet. No router is there on the kernel's
// wire: whoever is on it is on the link.
func (p *port) onward(upstream *port, userWire bool) (routes []route) {
	for _, to := range []netip.Prefix{allIPv4, allIPv6} {
		via := routerIPv6
		if to.Addr().Is4() {
			via = routerIPv4
		}
		ok := p.addr(to.Addr().Is4()).IsValid()
		switch {
		case upstream != nil:
			via, ok = p.neighbour(upstream, to.Addr())
		case !userWire:
			via = netip.Addr{}
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
