package netns

import (
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Status is what the lab is like now.
func (l *Lab) Status() Snapshot {
	if l.wire != nil {
		l.wire.mu.Lock()
		defer l.wire.mu.Unlock()
	}
	s := Snapshot{Time: time.Now()}
	for _, n := range l.plan.networks {
		status := NetworkStatus{Name: n.name}
		for _, p := range n.ports {
			status.Ports = append(status.Ports, p.name())
		}
		if l.wire != nil {
			if c := l.wire.network(n.name).capture; c != nil {
				status.Capture = c.path
			}
		}
		s.Networks = append(s.Networks, status)
	}
	for _, n := range l.plan.nodes {
		if n.gateway == nil {
			s.Hosts = append(s.Hosts, l.hostStatus(n))
		} else {
			s.Gateways = append(s.Gateways, l.gatewayStatus(n))
		}
	}
	if l.wire != nil {
		s.Cuts = slices.Clone(l.wire.cuts)
		s.Events = slices.Clone(l.wire.events)
	}
	return s
}

func (l *Lab) portStatus(p *port) PortStatus {
	s := PortStatus{
		Name: p.name(), Network: p.Network, Interface: p.iface, Hardware: p.hardware(),
		Addrs: slices.Clone(p.ready), DHCP: p.DHCP, Link: p.Link,
	}
	if l.wire != nil {
		at := l.wire.port(p.name())
		s.Sent, s.Received = at.sent, at.received
	}
	return s
}

func (l *Lab) hostStatus(n *node) HostStatus {
	s := HostStatus{Name: n.name, Port: l.portStatus(n.ports[0])}
	if l.wire == nil {
		return s
	}
	p := l.wire.port(n.name)
	if f := p.firewall; f != nil {
		stats := f.Stats()
		s.Firewall = &stats
	}
	if p.client == nil {
		return s
	}
	if g, ok := p.client.Grant(); ok {
		s.Lease = &Lease{Addr: g.Prefix.Addr(), Hardware: p.hw, Host: n.name, Expires: p.client.Until()}
	}
	return s
}

func (l *Lab) gatewayStatus(n *node) GatewayStatus {
	s := GatewayStatus{Name: n.name, Kernel: !n.machine, NAT: n.gateway.NAT,
		Inside: l.portStatus(n.ports[nat.Inside]), Outside: l.portStatus(n.ports[nat.Outside])}
	if len(n.ports) > int(nat.DMZ) {
		dmz := l.portStatus(n.ports[nat.DMZ])
		s.DMZ = &dmz
	}
	if !n.machine {
		s.UDPBlocked = n.udpBlocked.Load()
		return s
	}
	w, g := l.wire, l.wire.gateway(n.name)
	s.Stats = g.router.NAT().Stats()
	s.Mappings = g.router.Mappings(w.clock(w.now()))
	s.UDPBlocked = g.blockUDP
	s.Stats.Dropped[nat.Blocked] += g.blocked
	s.Leases = w.leases(g)
	return s
}

// leases are those that a gateway has given and that have not ended.
func (w *wire) leases(g *gateway) (all []Lease) {
	for _, lease := range g.router.Leases() {
		if lease.Until.IsZero() || lease.Until.After(w.clock(w.now())) {
			all = append(all, Lease{Addr: lease.Addr, Hardware: lease.Client, Host: w.nameOf(lease.Client), Expires: lease.Until})
		}
	}
	return all
}

// nameOf is the port that has a hardware address; empty: none has.
func (w *wire) nameOf(hw mac) string {
	for _, p := range w.ports {
		if p.hw == hw {
			return p.name()
		}
	}
	return ""
}

// maxEvents bounds what is remembered of what happened.
const maxEvents = 256

// note remembers that something happened.
func (w *wire) note(name, text string) {
	if len(w.events) == maxEvents {
		w.events = slices.Delete(w.events, 0, 1)
	}
	w.events = append(w.events, Event{Time: time.Now(), Name: name, Text: text})
}
