package netns

import (
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// network is a segment at work: a switch that knows who has which address, and
// a router for what is not on it.
type network struct {
	name     string
	hops     int
	ports    []*wirePort
	stations map[netip.Addr]station
	byMAC    map[mac]*wirePort
	onLink   []netip.Prefix
	behind   []way
	upstream *wirePort
	flows    map[Flow]*Count
	capture  *capture
	changes  uint64 // of what lookup goes by; 0 is none
}

type way struct {
	prefix netip.Prefix
	port   *wirePort
}

// station is who has an address. One that was given by the topology or by the
// lab stays where it is, whoever else claims it; others were seen.
type station struct {
	port  *wirePort
	hw    mac
	given bool
}

// What is learnt from traffic is bounded. Flows that there is no room for are
// counted as one a protocol.
const (
	maxStations = 4096
	maxFlows    = 1 << 17
)

// wirePort is a port at work. Behind it is either a device or the side of a
// gateway of ours. What the plan knows of the port changes with it.
type wirePort struct {
	*port
	network  *network
	hw       mac
	up, down lane

	device   *device
	firewall *firewall // between the device and the network; nil: none
	client   *client   // DHCP; nil: none

	gateway *gateway
	side    nat.Side

	sent, received Count

	// The flow of the last packet, and where it went: the next is likely of the
	// same.
	flow  Flow
	count *Count
	way   struct {
		at   uint64 // the network's changes when it was looked up
		sent mac
		dst  netip.Addr
		to   *wirePort
		hw   mac
	}
}

// wayTo is lookup on the port's network, which is not asked twice in a row.
func (p *wirePort) wayTo(sent mac, dst netip.Addr) (*wirePort, mac) {
	if c := &p.way; c.at != p.network.changes || c.dst != dst || c.sent != sent {
		c.at, c.sent, c.dst = p.network.changes, sent, dst
		c.to, c.hw = p.network.lookup(sent, dst)
	}
	return p.way.to, p.way.hw
}

// lookup is who gets a packet that was sent to a hardware address, zero if
// that says nothing, and that one's hardware address.
func (n *network) lookup(hw mac, dst netip.Addr) (*wirePort, mac) {
	if s, ok := n.stations[dst]; ok {
		return s.port, s.hw
	}
	if p := n.byMAC[hw]; p != nil {
		return p, hw
	}
	if n.isOnLink(dst) {
		return nil, mac{}
	}
	for _, b := range n.behind {
		if b.prefix.Contains(dst) {
			return b.port, b.port.hw
		}
	}
	if n.upstream != nil {
		return n.upstream, n.upstream.hw
	}
	return nil, mac{}
}

func (n *network) isOnLink(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || slices.ContainsFunc(n.onLink, func(p netip.Prefix) bool { return p.Contains(a) })
}

// give makes an address that of a port.
func (n *network) give(p *wirePort, a netip.Addr) {
	n.stations[a] = station{p, p.hw, true}
	n.changes++
}

// learn notes that a port has an address. One who says so itself (by ARP or
// neighbour discovery) is believed more than the source of a packet, which may
// be forged, and less than the lab.
func (n *network) learn(p *wirePort, a netip.Addr, hw mac, said bool) {
	if s, known := n.stations[a]; known && (s.given || !said) || isGroup(hw) ||
		!a.IsValid() || a.IsUnspecified() || isEveryone(a) || a.IsLoopback() || !known && len(n.stations) >= maxStations {
		return
	}
	if n.upstream != nil && !n.isOnLink(a) || slices.ContainsFunc(n.behind, func(b way) bool { return b.prefix.Contains(a) }) {
		return // passed on by somebody
	}
	n.stations[a] = station{port: p, hw: hw}
	n.changes++
}

// attach adds a port with its addresses.
func (n *network) attach(p *wirePort) {
	p.network, p.flow, p.count, p.way.at = n, Flow{}, nil, 0
	n.ports = append(n.ports, p)
	n.byMAC[p.hw] = p
	n.changes++
	for _, a := range p.Addrs {
		n.give(p, a.Addr())
	}
}

// detach forgets a port and what it had.
func (n *network) detach(p *wirePort) {
	n.ports = slices.DeleteFunc(n.ports, func(q *wirePort) bool { return q == p })
	delete(n.byMAC, p.hw)
	n.changes++
	n.forget(p)
}

// forget forgets the addresses of a port.
func (n *network) forget(p *wirePort) {
	n.changes++
	for a, s := range n.stations {
		if s.port == p {
			delete(n.stations, a)
		}
	}
}

func (n *network) flow(f Flow) *Count {
	c := n.flows[f]
	if c == nil && len(n.flows) >= maxFlows && f.Src.IsValid() {
		return n.flow(Flow{Network: n.name, Protocol: f.Protocol})
	}
	if c == nil {
		c = new(Count)
		n.flows[f] = c
	}
	return c
}
