package scenario

import (
	"net/netip"
	"slices"
)

// complete gives addresses to the ports that have none, as Load promises.
func (r *reader) complete(t *Topology) {
	a := addressing{nets: map[string]*network{}}
	ports := t.ports()
	for _, p := range ports {
		a.add(p)
	}
	for _, g := range t.Gateways {
		for _, s := range g.Static {
			a.nets[g.Outside.Network].taken[s.External] = true
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
		n := a.nets[p.Network]
		if len(p.Addrs) > 0 || p.DHCP || p.Network == "" || n.dhcp && !p.leads {
			continue
		}
		if free := a.next(n); free.IsValid() {
			p.Addrs = []netip.Prefix{free}
		}
	}
}

// attachment is a port of a topology, with where it stands.
type attachment struct {
	*Port
	path string
	// leads says that this is the way out of its network; serves that there is
	// DHCP too.
	leads, serves bool
}

// ports are all, in the order of the file: hosts first.
func (t *Topology) ports() (all []attachment) {
	for i := range t.Hosts {
		h := &t.Hosts[i]
		all = append(all, attachment{Port: &h.Port, path: "hosts." + h.Name})
	}
	for i := range t.Gateways {
		g := &t.Gateways[i]
		path := "gateways." + g.Name
		all = append(all, attachment{Port: &g.Inside, path: path + ".inside", leads: true, serves: g.DHCP != nil})
		all = append(all, attachment{Port: &g.Outside, path: path + ".outside"})
		if g.DMZ != nil {
			all = append(all, attachment{Port: g.DMZ, path: path + ".dmz", leads: true})
		}
	}
	return all
}

// addressing is which addresses the networks of a topology have.
type addressing struct {
	nets   map[string]*network
	chosen int // the last N of 10.N.0.0/24
}

type network struct {
	dhcp    bool
	given   bool // some address is
	prefix4 netip.Prefix
	taken   map[netip.Addr]bool
	last    netip.Addr // given by next
}

var (
	autoInternet = netip.MustParsePrefix("198.51.100.0/24")
	autoInside   = func(n int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), 0, 0}), 24)
	}
)

func (a *addressing) add(p attachment) {
	n := a.nets[p.Network]
	if n == nil {
		n = &network{taken: map[netip.Addr]bool{}}
		a.nets[p.Network] = n
		if p.Network == Internet {
			n.prefix4, n.given = autoInternet, true
		}
	}
	n.dhcp = n.dhcp || p.serves
	for _, prefix := range p.Addrs {
		n.taken[prefix.Addr()] = true
		n.given = true
		if !n.prefix4.IsValid() && prefix.Addr().Is4() && !prefix.IsSingleIP() {
			n.prefix4 = prefix.Masked()
		}
	}
}

// next is an address on n that nobody has, or invalid.
func (a *addressing) next(n *network) netip.Prefix {
	if !n.given {
		n.given = true
		n.prefix4 = a.unused()
	}
	if !n.prefix4.IsValid() {
		return netip.Prefix{}
	}
	if !n.last.IsValid() {
		n.last = n.prefix4.Addr()
	}
	for addr := n.last.Next(); n.prefix4.Contains(addr.Next()); addr = addr.Next() { // not the broadcast address
		n.last = addr
		if !n.taken[addr] {
			return netip.PrefixFrom(addr, n.prefix4.Bits())
		}
	}
	return netip.Prefix{}
}

// unused is a prefix that overlaps no other network.
func (a *addressing) unused() netip.Prefix {
	for a.chosen < 255 {
		a.chosen++
		p := autoInside(a.chosen)
		free := true
		for _, n := range a.nets {
			free = free && !(n.prefix4.IsValid() && n.prefix4.Overlaps(p))
		}
		if free {
			return p
		}
	}
	return netip.Prefix{}
}
