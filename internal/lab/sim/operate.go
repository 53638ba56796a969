package sim

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// What can be done to a network while it runs.

// SetLink changes what happens to packets on a port from now on. The port is
// named like its host; a gateway's are named "NAME/inside", "NAME/outside" and
// "NAME/dmz". Hosts and gateways know the MTU of their links at once.
func (n *Network) SetLink(name string, l scenario.Link) error {
	if err := scenario.CheckLink(l); err != nil {
		return fmt.Errorf("sim: %s: %w", name, err)
	}
	n.enter()
	defer n.leave()
	p := n.ports[name]
	if p == nil {
		return fmt.Errorf("sim: no port %q", name)
	}
	p.change(l)
	switch at := p.node.(type) {
	case *Gateway:
		return at.router.SetMTU(nat.Side(slices.Index(at.ports[:], p)), l.MTU)
	case *outlet:
		if at.firewall != nil {
			return errors.Join(at.firewall.SetMTU(nat.Inside, l.MTU), at.firewall.SetMTU(nat.Outside, l.MTU))
		}
	}
	return nil
}

// RebootGateway makes a gateway forget its mappings.
func (n *Network) RebootGateway(name string) error {
	n.enter()
	defer n.leave()
	g := n.gateways[name]
	if g == nil {
		return fmt.Errorf("sim: no gateway %q", name)
	}
	g.router.Reset(n.time())
	g.drain()
	return nil
}

// NewLease has a host or a gateway lose its address by DHCP: whoever leases it
// forgets that, the plug is pulled and put in again, and it gets another one.
// Where the address outside a gateway is a fixed one, addrs are those that it
// has from now on.
func (n *Network) NewLease(name string, addrs ...netip.Prefix) error {
	n.enter()
	defer n.leave()
	if err := n.newLease(name, addrs); err != nil {
		return fmt.Errorf("sim: %s: %w", name, err)
	}
	return nil
}

func (n *Network) newLease(name string, prefixes []netip.Prefix) error {
	if h := n.hosts[name]; h != nil && len(prefixes) == 0 {
		o := h.at.(*outlet)
		if o.lease == nil {
			return errors.New("its address does not come from DHCP")
		}
		o.p.forgotten()
		o.lease.client.Reboot(n.time())
		o.lease.drain()
		return nil
	}
	g := n.gateways[name]
	if g == nil {
		return errors.New("there is no such gateway")
	}
	out := g.ports[nat.Outside]
	if len(prefixes) == 0 {
		if !g.data.Outside.DHCP {
			return errors.New("its address does not come from DHCP: say which it is to have")
		}
		out.forgotten()
		if err := g.router.Renumber(n.time()); err != nil {
			return err
		}
		g.drain()
		return nil
	}
	addrs, err := out.segment.admit(prefixes)
	if err == nil {
		err = g.router.SetOutside(n.time(), addrs)
	}
	if err != nil {
		return err
	}
	out.setAddrs(addrs)
	g.fixed = out.addrs
	g.drain()
	return nil
}

// forgotten has the gateway that leases the addresses of the network forget the
// port.
func (p *port) forgotten() {
	if up := p.segment.gateway; up != nil {
		g := up.node.(*Gateway)
		g.router.Forget(p.n.time(), p.mac)
		g.drain()
	}
}

// Move takes a host to another network, or gives it other addresses where it
// is; without any it asks for one by DHCP. Its sockets go on. What is bound to
// an address that it has no more, as each TCP connection is, gets nothing and
// sends nothing until the address is back.
//
// An address that another has is taken from it, as by a thief: of several that
// claim one the last gets what is sent there.
func (n *Network) Move(host, network string, addrs []netip.Prefix) error {
	n.enter()
	defer n.leave()
	if err := n.move(host, network, addrs); err != nil {
		return fmt.Errorf("sim: host %q: %w", host, err)
	}
	return nil
}

func (n *Network) move(host, network string, prefixes []netip.Prefix) error {
	h, s := n.hosts[host], n.segments[network]
	if h == nil {
		return errors.New("there is none")
	}
	if s == nil {
		return fmt.Errorf("there is no network %q", network)
	}
	addrs, err := s.admit(prefixes)
	if err != nil {
		return err
	}
	o := h.at.(*outlet)
	if o.p.segment != s {
		o.p.moveTo(s)
		n.note(host, "is on "+network)
	}
	o.setAddrs(addrs)
	switch {
	case len(addrs) > 0:
		o.lease = nil
	case o.lease == nil:
		return o.newLease(nil)
	default: // it asks for the address that it had
		o.lease.fixed = nil
		o.lease.client.Reboot(n.time())
		o.lease.drain()
	}
	return nil
}
