package sim

import (
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/router"
)

// Status is what the network is like now.
func (n *Network) Status() snapshot.Snapshot {
	n.enter()
	defer n.leave()
	s := snapshot.Snapshot{Time: n.time(), Events: slices.Clone(n.told)}
	place := make(map[string]int)
	list := func(p snapshot.Port) {
		i, ok := place[p.Network]
		if !ok {
			i = len(s.Networks)
			place[p.Network] = i
			s.Networks = append(s.Networks, snapshot.Network{Name: p.Network})
		}
		s.Networks[i].Ports = append(s.Networks[i].Ports, p.Name)
	}
	for _, g := range n.topology.Gateways {
		status := n.gateways[g.Name].status()
		list(status.Inside)
		list(status.Outside)
		if status.DMZ != nil {
			list(*status.DMZ)
		}
		s.Gateways = append(s.Gateways, status)
	}
	for _, h := range n.topology.Hosts {
		status := n.hosts[h.Name].at.(*outlet).status()
		list(status.Port)
		s.Hosts = append(s.Hosts, status)
	}
	for _, r := range n.rules {
		s.Cuts = append(s.Cuts, snapshot.Cut{A: r.A, B: r.B, Protocol: map[ip.Proto]snapshot.Protocol{
			ip.Other: snapshot.AnyProtocol, ip.UDP: snapshot.UDP, ip.TCP: snapshot.TCP, ip.ICMP: snapshot.ICMP}[r.Proto]})
	}
	return s
}

func (p *port) status(dhcp bool) snapshot.Port {
	s := snapshot.Port{Name: p.name, Network: p.segment.name, Hardware: p.mac, DHCP: dhcp, Link: p.link, Sent: p.sent, Received: p.received}
	for _, a := range p.addrs {
		s.Addrs = append(s.Addrs, p.segment.prefixOf(a))
	}
	return s
}

// prefixOf is an address with the length of its network's prefix.
func (s *segment) prefixOf(a netip.Addr) netip.Prefix {
	for _, p := range s.onLink {
		if p.Contains(a) {
			return netip.PrefixFrom(a, p.Bits())
		}
	}
	return netip.PrefixFrom(a, s.lengths[a])
}

func (o *outlet) status() snapshot.Host {
	s := snapshot.Host{Name: o.h.name, Port: o.p.status(o.lease != nil)}
	if o.firewall != nil {
		stats := o.firewall.Stats()
		s.Firewall = &stats
	}
	if o.lease != nil {
		if g, ok := o.lease.client.Grant(); ok {
			s.Lease = &snapshot.Lease{Addr: g.Prefix.Addr(), Hardware: o.p.mac, Host: o.p.name, Expires: o.lease.client.Until()}
		}
	}
	return s
}

func (g *Gateway) status() snapshot.Gateway {
	n := g.n
	s := snapshot.Gateway{Name: g.name, NAT: g.data.NAT,
		Inside: g.ports[nat.Inside].status(false), Outside: g.ports[nat.Outside].status(g.data.Outside.DHCP),
		Stats: g.router.NAT().Stats(), Mappings: g.router.Mappings(n.time())}
	if p := g.ports[nat.DMZ]; p != nil {
		dmz := p.status(false)
		s.DMZ = &dmz
	}
	for _, l := range g.router.Leases() {
		if l.Until.IsZero() || l.Until.After(n.time()) {
			s.Leases = append(s.Leases, snapshot.Lease{Addr: l.Addr, Hardware: l.Client, Host: n.nameOf(l.Client), Expires: l.Until})
		}
	}
	return s
}

// nameOf is the port that has a hardware address; empty: none has.
func (n *Network) nameOf(mac router.MAC) string {
	for name := range n.ports {
		if router.MAC(scenario.HardwareAddr(name)) == mac {
			return name
		}
	}
	return ""
}
