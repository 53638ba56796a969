package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Move takes a host to another network, or gives it other addresses where it
// is. Without any it asks for one by DHCP, and Move does not wait for it.
// Programs in the host see the cable pulled and put in again, and the addresses
// change.
//
// An address that another has is taken from it, as by a thief.
func (l *Lab) Move(host, network string, addrs []netip.Prefix) error {
	if err := l.move(host, network, addrs); err != nil {
		return fmt.Errorf("netns: move %s: %w", host, err)
	}
	return nil
}

func (l *Lab) move(host, network string, addrs []netip.Prefix) error {
	h := l.hosts[host]
	if h == nil || h.node.gateway != nil {
		return errors.New("there is no such host")
	}
	var done <-chan error
	err := l.onWire(func(w *wire) error {
		n := w.network(network)
		if n == nil {
			return fmt.Errorf("there is no network %q", network)
		}
		for _, a := range addrs {
			if !a.IsValid() || network != scenario.Internet && !slices.Contains(n.onLink, a.Masked()) {
				return fmt.Errorf("%v is not of network %q", a, network)
			}
		}
		if len(addrs) == 0 && !n.lends() {
			return fmt.Errorf("nobody on network %q gives addresses", network)
		}
		p := w.port(host)
		if network != p.Network {
			w.plan.move(p.port, network)
			p.network.detach(p)
			n.attach(p)
			w.note(host, "is on "+network)
		}
		w.setAddrs(p, addrs)
		for _, a := range addrs {
			w.announce(p, a.Addr())
		}
		done = w.configure(p, setup{pull: true, mtu: p.deviceMTU(), routes: w.plan.routesOf(p.owner)})
		return w.change(p, len(addrs) == 0)
	})
	if err != nil {
		return err
	}
	return <-done
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
