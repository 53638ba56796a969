package netns

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// The functions of this file run on a thread inside the namespace: /proc/sys/net
// shows the namespace of the thread that opens it.

type sysctl struct{ name, value string }

func (s sysctl) write() error {
	f, err := os.OpenFile("/proc/sys/"+s.name, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(s.value); err != nil {
		return fmt.Errorf("netns: sysctl %s=%s: %w", s.name, s.value, err)
	}
	return nil
}

func writeSysctls(list []sysctl) error {
	for _, s := range list {
		if err := s.write(); err != nil {
			return err
		}
	}
	return nil
}

// allowPing lets everyone ping, as far as the user namespace has groups.
func allowPing() error {
	const name = "net/ipv4/ping_group_range"
	err := sysctl{name, "0 2147483647"}.write()
	if errors.Is(err, unix.EINVAL) {
		err = sysctl{name, "0 0"}.write()
	}
	return err
}

// baseSysctls hold in every namespace: addresses that work at once, no
// router or redirect of anyone else, no reverse path filter.
var baseSysctls = []sysctl{
	{"net/ipv6/conf/all/accept_dad", "0"},
	{"net/ipv6/conf/default/accept_dad", "0"},
	{"net/ipv6/conf/default/accept_ra", "0"},
	{"net/ipv6/conf/default/router_solicitations", "0"},
	{"net/ipv4/conf/all/rp_filter", "0"},
	{"net/ipv4/conf/default/rp_filter", "0"},
	{"net/ipv4/conf/all/send_redirects", "0"},
	{"net/ipv4/conf/default/send_redirects", "0"},
	{"net/ipv4/conf/all/promote_secondaries", "1"},
}

// sysctls of a node without IPv6 keep it from sending what no test asked for.
func (n *node) sysctls() []sysctl {
	switch {
	case !n.hasIPv6():
		return []sysctl{{"net/ipv6/conf/default/disable_ipv6", "1"}}
	case n.machine: // its neighbours are nobody's business but the machine's
		return []sysctl{{"net/ipv6/conf/default/addr_gen_mode", "1"}}
	}
	return nil
}

func (n *node) hasIPv6() bool {
	return slices.ContainsFunc(n.ports, func(p *port) bool { return p.addr(false).IsValid() })
}

// gatewaySysctls make a router of a namespace. Conntrack counts whole seconds.
func gatewaySysctls(b nat.Behaviour) []sysctl {
	answered := udpTimeout(b)
	unanswered := cmp.Or(b.Timers.UDPUnanswered, answered)
	all := []sysctl{
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv6/conf/all/forwarding", "1"},
		{"net/ipv4/icmp_ratelimit", "0"},
		{"net/ipv6/icmp/ratelimit", "0"},
		{"net/netfilter/nf_conntrack_udp_timeout", seconds(unanswered)},
		{"net/netfilter/nf_conntrack_udp_timeout_stream", seconds(answered)},
	}
	if isLinux(b) {
		all = append(all, sysctl{"net/netfilter/nf_conntrack_tcp_timeout_established", seconds(b.Timers.Established)})
	}
	return all
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

func udpTimeout(b nat.Behaviour) time.Duration {
	if b.Timers.UDP == 0 {
		return 5 * time.Minute
	}
	return b.Timers.UDP
}

func setUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("netns: interface %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("netns: interface %s up: %w", name, err)
	}
	return nil
}

// configure gives the node its addresses and routes. Its interfaces exist.
func (n *node) configure() error {
	if err := setUp("lo"); err != nil {
		return err
	}
	for _, p := range n.ports {
		l, err := netlink.LinkByName(p.iface)
		if err != nil {
			return fmt.Errorf("netns: interface %s: %w", p.iface, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("netns: interface %s up: %w", p.iface, err)
		}
		if l.Type() == "veth" {
			if err := awaitCarrier(p.iface); err != nil {
				return err
			}
		}
		for _, a := range p.Addrs {
			if err := addAddress(l, a); err != nil {
				return err
			}
		}
	}
	return addRoutes(n.routes)
}

// addAddress gives an interface an address that works when it returns.
func addAddress(l netlink.Link, a netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(a)}
	if a.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
		on := sysctl{"net/ipv6/conf/" + l.Attrs().Name + "/disable_ipv6", "0"}
		if err := writeSysctls([]sysctl{on}); err != nil {
			return err
		}
	}
	if err := netlink.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("netns: address %s on %s: %w", a, l.Attrs().Name, err)
	}
	return awaitLocal(a.Addr())
}

func addRoutes(routes []route) error {
	for _, r := range routes {
		l, err := netlink.LinkByName(r.iface)
		if err != nil {
			return fmt.Errorf("netns: interface %s: %w", r.iface, err)
		}
		nr := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(r.to), Scope: netlink.SCOPE_LINK}
		if r.via.IsValid() {
			nr.Gw, nr.Scope, nr.Flags = r.via.AsSlice(), netlink.SCOPE_UNIVERSE, int(netlink.FLAG_ONLINK)
		}
		if r.to.Addr().Is6() {
			nr.Scope = netlink.SCOPE_UNIVERSE
		}
		if err := netlink.RouteReplace(nr); err != nil {
			return fmt.Errorf("netns: route %s via %s dev %s: %w", r.to, r.via, r.iface, err)
		}
	}
	return nil
}

// awaitCarrier waits until the kernel has noticed that a veth pair is up at both
// ends, which it does in its own time, and before which IPv6 does not work.
func awaitCarrier(name string) error {
	return awaitReady("interface "+name, func() (bool, error) {
		l, err := netlink.LinkByName(name)
		return err == nil && l.Attrs().OperState == netlink.OperUp, err
	})
}

// awaitLocal waits for the route that brings packets to an address of IPv6,
// which a worker of the kernel adds some time after the address.
func awaitLocal(a netip.Addr) error {
	if a.Is4() || a.IsLinkLocalUnicast() {
		return nil
	}
	return awaitReady("address "+a.String(), func() (bool, error) {
		routes, err := netlink.RouteGet(a.AsSlice())
		if errors.Is(err, unix.ENETUNREACH) {
			return false, nil
		}
		return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, err
	})
}

func awaitReady(what string, ready func() (bool, error)) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if ok, err := ready(); ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("netns: %s does not come up", what)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
