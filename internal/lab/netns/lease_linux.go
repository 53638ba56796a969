package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/router"
)

// NewLease gives a host or a gateway's outside another IPv4 address, as
// providers do at night. One that has its address from DHCP loses its lease and
// is given another; a gateway with a fixed address gets the next free one of its
// network.
func (l *Lab) NewLease(name string) error {
	return l.renewing(name, func(w *wire, p *wirePort) error {
		if p.DHCP {
			return w.renumber(p)
		}
		return w.nextAddress(p)
	})
}

// CheckNewLease says why NewLease would be refused now.
func (l *Lab) CheckNewLease(name string) error {
	return l.renewing(name, func(*wire, *wirePort) error { return nil })
}

// renewing does something with a port that can have another address.
func (l *Lab) renewing(name string, f func(*wire, *wirePort) error) error {
	h := l.hosts[name]
	if h == nil {
		return fmt.Errorf("netns: no host or gateway %q", name)
	}
	err := l.onWire(func(w *wire) error {
		p := w.port(h.node.outer().name())
		switch {
		case p.DHCP:
			if !p.network.lends() {
				return errors.New("nobody on its network gives addresses")
			}
		case p.gateway != nil:
			if _, _, err := p.network.next(p); err != nil {
				return err
			}
		case p.owner.gateway != nil:
			return fmt.Errorf("the kernel's gateways get no other address while they run%w", quietUnsupported{})
		default:
			return errors.New("its address is fixed; move it")
		}
		return f(w, p)
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
	i, next, err := p.network.next(p)
	if err != nil {
		return err
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

// next is the next address that nobody on the network has, and the one of a
// port that it is to replace.
func (n *network) next(p *wirePort) (i int, free netip.Prefix, err error) {
	i = slices.IndexFunc(p.Addrs, func(a netip.Prefix) bool { return a.Addr().Is4() })
	if i < 0 {
		return i, free, errors.New("it has no IPv4 address")
	}
	after := p.Addrs[i]
	last := after.Addr()
	for a := last.Next(); ; a = a.Next() {
		if !after.Contains(a) {
			a = after.Masked().Addr()
		}
		if a == last {
			return i, free, fmt.Errorf("no address of %v is free", after.Masked())
		}
		free = netip.PrefixFrom(a, after.Bits())
		if _, taken := n.stations[a]; !taken && scenario.CheckAddress(free) == nil {
			return i, free, nil
		}
	}
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
