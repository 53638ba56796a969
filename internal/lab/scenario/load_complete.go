package scenario

import (
	"fmt"
	"net/netip"
	"slices"
)

// complete gives addresses to the ports that have none, as Load promises, or
// says with a *Fault why one cannot have any.
func (r *reader) complete(t *Topology) error {
	a := addressing{nets: map[string]*network{}}
	ports := t.ports()
	for _, p := range ports {
		a.add(p)
	}
	for _, g := range t.Gateways {
		for _, s := range g.Static {
			a.nets[g.Outside.Network].taken[s.External] = true
		}
		if g.DHCP != nil {
			for _, reserved := range g.DHCP.Manual {
				a.nets[g.Inside.Network].taken[reserved] = true
			}
		}
	}
	for i, p := range ports {
		if len(p.Addrs) > 0 || p.DHCP || p.Network == "" {
			continue
		}
		if n := a.nets[p.Network]; n.dhcp && !p.leads && !r.noDHCP[p.path] {
			ports[i].DHCP = true
		}
	}
	// A gateway is the first of its network.
	slices.SortStableFunc(ports, func(p, q attachment) int {
		switch {
		case p.leads && !q.leads:
			return -1
		case q.leads && !p.leads:
			return 1
		}
		return 0
	})
	for _, p := range ports {
		if len(p.Addrs) > 0 || p.DHCP || p.Network == "" {
			continue
		}
		free, err := a.next(a.nets[p.Network])
		if err != nil {
			return fault(p.path, "no address, and %v", err)
		}
		p.Addrs = []netip.Prefix{free}
	}
	return nil
}

// attachment is a port of a topology, with where it stands.
type attachment struct {
	*Port
	path string
	name string // in labs
	// leads says that this is the way out of its network; serves that there is
	// DHCP too.
	leads, serves bool
}

// ports are all, in the order of the file: hosts first.
func (t *Topology) ports() (all []attachment) {
	for i := range t.Hosts {
		h := &t.Hosts[i]
		all = append(all, attachment{Port: &h.Port, path: "hosts." + h.Name, name: h.Name})
	}
	for i := range t.Gateways {
		g := &t.Gateways[i]
		path := "gateways." + g.Name
		all = append(all, attachment{Port: &g.Inside, path: path + ".inside", name: g.Name + "/inside", leads: true, serves: g.DHCP != nil})
		all = append(all, attachment{Port: &g.Outside, path: path + ".outside", name: g.Name + "/outside"})
		if g.DMZ != nil {
			all = append(all, attachment{Port: g.DMZ, path: path + ".dmz", name: g.Name + "/dmz", leads: true})
		}
	}
	return all
}

// addressing is which addresses the networks of a topology have.
type addressing struct {
	nets map[string]*network
	used []netip.Prefix // of all of them
}

type network struct {
	name     string
	dhcp     bool
	asked    bool // for an address
	prefixes []netip.Prefix
	taken    map[netip.Addr]bool
}

func (a *addressing) add(p attachment) {
	n := a.nets[p.Network]
	if n == nil {
		n = &network{name: p.Network, taken: map[netip.Addr]bool{}}
		a.nets[p.Network] = n
	}
	n.dhcp = n.dhcp || p.serves
	for _, prefix := range p.Addrs {
		n.taken[prefix.Addr()] = true
		a.used = append(a.used, prefix.Masked())
		if CheckAddress(prefix) == nil && !slices.Contains(n.prefixes, prefix.Masked()) {
			n.prefixes = append(n.prefixes, prefix.Masked())
		}
	}
}

// next is an address on n that nobody has.
func (a *addressing) next(n *network) (netip.Prefix, error) {
	if !n.asked {
		n.asked = true
		if err := a.choose(n); err != nil {
			return netip.Prefix{}, err
		}
	}
	// Of a prefix, the address is the one to look at next.
	for i, p := range n.prefixes {
		for addr := p.Addr(); p.Contains(addr); addr = addr.Next() {
			free := netip.PrefixFrom(addr, p.Bits())
			if n.taken[addr] || CheckAddress(free) != nil {
				continue
			}
			n.taken[addr] = true
			n.prefixes[i] = free
			return free, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("none is free on network %q, which is %v", n.name, n.prefixes[0].Masked())
}

// choose leaves those of a network's prefixes that addresses are taken from,
// and finds one for a network that has none.
func (a *addressing) choose(n *network) error {
	written := len(n.prefixes) > 0
	n.prefixes = slices.DeleteFunc(n.prefixes, netip.Prefix.IsSingleIP)
	is4 := func(p netip.Prefix) bool { return p.Addr().Is4() }
	if slices.ContainsFunc(n.prefixes, is4) {
		n.prefixes = slices.DeleteFunc(n.prefixes, func(p netip.Prefix) bool { return !is4(p) })
	}
	if len(n.prefixes) > 0 {
		return nil
	}
	candidates := insides()
	if n.name == Internet {
		candidates = publics
	} else if written {
		return fmt.Errorf("those of network %q do not say which others it has", n.name)
	}
	for _, p := range candidates {
		if !slices.ContainsFunc(a.used, p.Overlaps) {
			n.prefixes = []netip.Prefix{p}
			a.used = append(a.used, p)
			return nil
		}
	}
	return fmt.Errorf("no prefix is left for network %q", n.name)
}

// publics are prefixes for the internet, which look public (RFC 5737, RFC 2544).
var publics = []netip.Prefix{
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/24"),
}

// insides are prefixes for the networks behind gateways.
func insides() (all []netip.Prefix) {
	for n := 1; n <= 255; n++ {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), 0, 0}), 24))
	}
	return all
}
