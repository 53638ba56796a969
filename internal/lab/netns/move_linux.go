package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// Move takes a host to another network, or gives it other addresses where it
// is. Without any it asks for one by DHCP. Programs in the host see the cable
// pulled and put in again, and the addresses change.
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
	var routes []route
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
		p := w.port(host)
		l.plan.move(p.port, network)
		p.network.detach(p)
		p.Addrs = slices.Clone(addrs)
		n.attach(p)
		if p.firewall != nil {
			p.firewall.protect(w, p.hosts())
		}
		for _, a := range addrs {
			w.announce(p, a.Addr())
		}
		w.note(host, "is on "+network)
		routes = l.plan.routesOf(h.node)
		return nil
	})
	if err != nil {
		return err
	}
	return h.space.own(func() error {
		if err := pullCable(l.devices[h.node.ports[0]]); err != nil {
			return err
		}
		return readdress(HostInterface, addrs, routes)
	})
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
	for _, a := range old {
		if a.Scope == int(netlink.SCOPE_LINK) {
			continue // it made that itself
		}
		if err := netlink.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("address %v of %s: %w", a.IPNet, iface, err)
		}
	}
	stale, err := netlink.RouteList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("routes of %s: %w", iface, err)
	}
	for _, r := range stale {
		if r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("route %v: %w", r, err)
		}
	}
	for _, a := range addrs {
		if err := addAddress(l, a); err != nil {
			return err
		}
	}
	return addRoutes(routes)
}
