package netns

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Move takes a host to another network, or gives it other addresses where it
// is. Without any it asks for one by DHCP, and Move does not wait for it.
// Programs in the host see the cable pulled and put in again, and the addresses
// change.
func (l *Lab) Move(host, to string, addrs []netip.Prefix) error {
	var done <-chan error
	err := l.moving(host, to, addrs, func(w *wire, p *wirePort, n *network) error {
		if to != p.Network {
			w.plan.move(p.port, to)
			p.network.detach(p)
			p.Addrs = nil // who has the same there keeps it
			n.attach(p)
			w.note(host, "is on "+to)
		}
		w.setAddrs(p, addrs)
		for _, a := range addrs {
			w.announce(p, a.Addr())
		}
		done = w.configure(p, setup{pull: true, mtu: p.linkMTU(), routes: w.plan.routesOf(p.owner)})
		return w.change(p, len(addrs) == 0)
	})
	if err != nil {
		return err
	}
	if err := l.wire.await(done); err != nil {
		return fmt.Errorf("netns: move %s: %w", host, err)
	}
	return nil
}

// CheckMove says why Move would be refused now.
func (l *Lab) CheckMove(host, to string, addrs []netip.Prefix) error {
	return l.moving(host, to, addrs, func(*wire, *wirePort, *network) error { return nil })
}

// moving does something with a host that may move.
func (l *Lab) moving(host, to string, addrs []netip.Prefix, f func(*wire, *wirePort, *network) error) error {
	err := l.onWire(func(w *wire) error {
		p, n := w.port(host), w.network(to)
		switch {
		case p == nil || p.owner.gateway != nil:
			return errors.New("there is no such host")
		case n == nil:
			return fmt.Errorf("there is no network %q", to)
		case len(addrs) == 0 && !n.lends():
			return fmt.Errorf("nobody on network %q gives addresses", to)
		}
		for i, a := range addrs {
			if slices.ContainsFunc(addrs[:i], func(b netip.Prefix) bool { return a.Addr() == b.Addr() }) {
				return fmt.Errorf("%v is there twice", a.Addr())
			}
			if err := w.mayHave(p, n, a); err != nil {
				return err
			}
		}
		return f(w, p, n)
	})
	if err != nil {
		return fmt.Errorf("netns: move %s: %w", host, err)
	}
	return nil
}

// mayHave says why a port cannot have an address on a network.
func (w *wire) mayHave(p *wirePort, n *network, a netip.Prefix) error {
	if err := scenario.CheckAddress(a); err != nil {
		return err
	}
	if n.name != scenario.Internet && !slices.Contains(n.onLink, a.Masked()) {
		i := slices.IndexFunc(n.onLink, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Addr().Is4() })
		if i < 0 {
			return fmt.Errorf("%v is of another family than network %q", a, n.name)
		}
		return fmt.Errorf("%v is not in %v, which network %q is", a, n.onLink[i], n.name)
	}
	for _, inner := range w.networks {
		if up := inner.upstream; n.name == scenario.Internet && up != nil && up.owner.outer().Network == n.name {
			if i := slices.IndexFunc(inner.onLink, a.Overlaps); i >= 0 {
				return fmt.Errorf("%v overlaps %v, which is network %q behind %s", a, inner.onLink[i], inner.name, up.owner.name)
			}
		}
	}
	if s, taken := n.stations[a.Addr()]; taken && s.port != p {
		return fmt.Errorf("%v is taken by %s", a.Addr(), s.port.name())
	}
	if !n.lends() {
		return nil
	}
	for _, lease := range w.leases(n.upstream.gateway) {
		if lease.Addr == a.Addr() && lease.Hardware != p.hw {
			return fmt.Errorf("%v is lent to %s", a.Addr(), cmp.Or(lease.Host, dhcp.MAC(lease.Hardware).String()))
		}
	}
	return nil
}

// lends says that a gateway of ours gives the network's addresses.
func (n *network) lends() bool {
	up := n.upstream
	return up != nil && up.gateway != nil && up.side == nat.Inside && up.owner.gateway.DHCP != nil
}

// change lets a port that has moved have its address from DHCP, or not.
func (w *wire) change(p *wirePort, dhcp bool) error {
	p.DHCP = dhcp
	switch {
	case !dhcp && p.client != nil:
		w.dismiss(&p.client.driven)
		p.client = nil
	case !dhcp || p.left:
	case p.client == nil:
		if err := w.addClient(p, 0); err != nil {
			return err
		}
		w.pollClient(p, w.now())
	default:
		p.client.fixed = nil
		p.client.Reboot(w.clock(w.now()))
		w.pollClient(p, w.now())
	}
	return nil
}

// pullCable takes the carrier from a device, and gives it back.
func pullCable(d *device) error {
	for _, on := range []int{0, 1} {
		if err := unix.IoctlSetPointerInt(d.fd, unix.TUNSETCARRIER, on); err != nil {
			return fmt.Errorf("carrier: %w", err)
		}
	}
	return nil
}

// readdress gives an interface of the calling thread's namespace these
// addresses and these routes, and no others.
func readdress(iface string, addrs []netip.Prefix, routes []route) error {
	l, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("interface %s: %w", iface, err)
	}
	old, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", iface, err)
	}
	missing := slices.Clone(addrs)
	for _, a := range old {
		have := prefixOf(a.IPNet)
		switch {
		case a.Scope == int(netlink.SCOPE_LINK): // it made that itself
		case slices.Contains(missing, have):
			missing = slices.DeleteFunc(missing, func(p netip.Prefix) bool { return p == have })
		default:
			if err := netlink.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("address %v of %s: %w", a.IPNet, iface, err)
			}
		}
	}
	for _, a := range missing {
		if err := addAddress(l, a); err != nil {
			return err
		}
	}
	stale, err := netlink.RouteList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("routes of %s: %w", iface, err)
	}
	for _, r := range stale {
		wanted := slices.ContainsFunc(routes, func(w route) bool { return r.Dst != nil && prefixOf(r.Dst) == w.to })
		if wanted || r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("route %v: %w", r, err)
		}
	}
	return addRoutes(routes)
}

func prefixOf(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}
