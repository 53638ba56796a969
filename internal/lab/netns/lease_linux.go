package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/router"
)

// NewLease gives a host or a gateway's outside another IPv4 address, as
// providers do at night. One that has its address from DHCP loses its lease and
// is given another; a gateway with a fixed address gets the next free one of its
// network.
func (l *Lab) NewLease(name string) error {
	h := l.hosts[name]
	if h == nil {
		return fmt.Errorf("netns: no host or gateway %q", name)
	}
	err := l.onWire(func(w *wire) error {
		p := w.port(h.node.outer().name())
		switch {
		case p.DHCP:
			return w.renumber(p)
		case p.gateway != nil:
			return w.nextAddress(p)
		case p.owner.gateway != nil:
			return fmt.Errorf("the kernel's gateways get no other address while they run%w", quietUnsupported{})
		}
		return errors.New("its address is fixed; move it")
	})
	if err != nil {
		return fmt.Errorf("netns: %s: %w", name, err)
	}
	return nil
}

// renumber has the server forget a port's lease, and the client ask. A program
// that is a client of its own learns of it when it renews.
func (w *wire) renumber(p *wirePort) error {
	now := w.now()
	server := p.network.upstream
	if server == nil || server.gateway == nil {
		return errors.New("nobody on its network gives addresses")
	}
	server.gateway.router.Forget(w.clock(now), p.hw)
	w.poll(server.gateway, now)
	switch {
	case p.gateway != nil:
		if err := p.gateway.router.Renumber(w.clock(now)); err != nil {
			return err
		}
		w.poll(p.gateway, now)
	case p.client != nil:
		p.client.Reboot(w.clock(now))
		w.pollClient(p, now)
	}
	return nil
}

// nextAddress gives the outside of a gateway of ours the next free IPv4 address
// in the place of its first.
func (w *wire) nextAddress(p *wirePort) error {
	i := slices.IndexFunc(p.Addrs, func(a netip.Prefix) bool { return a.Addr().Is4() })
	if i < 0 {
		return errors.New("it has no IPv4 address")
	}
	next, ok := p.network.free(p.Addrs[i])
	if !ok {
		return fmt.Errorf("no address of %v is free", p.Addrs[i].Masked())
	}
	addrs := slices.Clone(p.Addrs)
	addrs[i] = next
	if err := p.gateway.router.SetOutside(w.clock(w.now()), plain(addrs)); err != nil {
		return err
	}
	w.poll(p.gateway, w.now())
	w.moveOutside(p, addrs)
	return nil
}

// free is the next address of a prefix that nobody on the network has.
func (n *network) free(after netip.Prefix) (netip.Prefix, bool) {
	last := after.Addr()
	for a := last.Next(); a != last; a = a.Next() {
		if !after.Contains(a) {
			a = after.Masked().Addr() // which itself is no host's
			continue
		}
		if _, taken := n.stations[a]; !taken && after.Contains(a.Next()) {
			return netip.PrefixFrom(a, after.Bits()), true
		}
	}
	return netip.Prefix{}, false
}

func plain(prefixes []netip.Prefix) (addrs []netip.Addr) {
	for _, p := range prefixes {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// news reads what a gateway has to tell.
func (w *wire) news(g *gateway) {
	for e, ok := g.router.Event(); ok; e, ok = g.router.Event() {
		w.note(g.node.name, e.String())
		p := g.sides[nat.Outside]
		if e.Kind != router.OutsideAddress || !p.DHCP {
			continue
		}
		addrs := slices.DeleteFunc(slices.Clone(p.Addrs), func(a netip.Prefix) bool { return a.Addr().Is4() })
		if e.Outside.IsValid() {
			addrs = append([]netip.Prefix{e.Grant.Prefix}, addrs...)
		}
		w.moveOutside(p, addrs)
	}
}

// moveOutside follows a gateway that has other addresses outside.
func (w *wire) moveOutside(p *wirePort, addrs []netip.Prefix) {
	w.setAddrs(p, addrs)
	for _, a := range addrs {
		w.announce(p, a.Addr())
	}
	routes := slices.DeleteFunc(w.plan.routesOf(p.owner), func(r route) bool { return r.iface != p.iface })
	w.configure(p, setup{mtu: p.deviceMTU(), routes: routes})
}
