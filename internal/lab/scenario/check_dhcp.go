package scenario

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
)

// leased: who wants an address by DHCP is on a network that has some to give.
func (c *checker) leased(p *Port, path string) error {
	if !p.DHCP {
		return nil
	}
	up := c.nets[p.Network].up
	switch {
	case up == nil:
		return fault(path, "DHCP, but nobody on the internet gives addresses")
	case up.DHCP == nil:
		return fault(path, "DHCP, but gateway %s serves none", up.Name)
	case up.Inside.Network != p.Network:
		return fault(path, "DHCP, but gateway %s serves its inside and not its DMZ", up.Name)
	}
	return nil
}

// pool: the addresses to lease are of the inside network.
func (c *checker) pool(t *Topology, g *Gateway, path string) error {
	if g.DHCP == nil {
		return nil
	}
	path += ".dhcp"
	prefix := c.nets[g.Inside.Network].prefix[0]
	if !prefix.IsValid() {
		return fault(path, "no IPv4 address inside, so none to lease")
	}
	p := g.DHCP
	if p.First.IsValid() != p.Last.IsValid() {
		return fault(path, "first and last come together")
	}
	for _, a := range []netip.Addr{p.First, p.Last} {
		if a.IsValid() && !prefix.Contains(a) {
			return fault(path, "%v is not in %v, which network %q is", a, prefix, g.Inside.Network)
		}
	}
	if p.First.IsValid() && p.Last.Less(p.First) {
		return fault(path, "the addresses from %v to %v run backwards", p.First, p.Last)
	}
	if p.Lease < 0 || p.Lease%time.Second != 0 {
		return fault(path, "a lease of %v; it is whole seconds", p.Lease)
	}
	if err := manual(p, prefix, path+".manual"); err != nil {
		return err
	}
	// For the rest, the machine itself is asked whether it can be.
	if _, err := dhcp.NewServer(lender(t, g)); err != nil {
		return fault(path, "%s", words(err))
	}
	return nil
}

func manual(p *dhcp.Pool, prefix netip.Prefix, path string) error {
	var owners []string
	for link := range p.Manual {
		owners = append(owners, link)
	}
	slices.Sort(owners)
	seen := map[netip.Addr]string{}
	for _, link := range owners {
		a := p.Manual[link]
		switch {
		case !isMAC(link):
			return fault(path, "%q is no hardware address, like 02:00:00:00:00:01", link)
		case !prefix.Contains(a):
			return fault(path+"."+link, "%v is not in %v", a, prefix)
		case seen[a] != "":
			return fault(path+"."+link, "%v belongs to %s", a, seen[a])
		}
		seen[a] = link
	}
	return nil
}

// isMAC says whether s is six bytes in hexadecimal with colons between.
func isMAC(s string) bool {
	for i, c := range []byte(s) {
		hex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		if i%3 == 2 && c != ':' || i%3 != 2 && !hex {
			return false
		}
	}
	return len(s) == 17
}

// lender is what a gateway's DHCP server is made of.
func lender(t *Topology, g *Gateway) dhcp.ServerConfig {
	cfg := dhcp.ServerConfig{Pool: *g.DHCP}
	for _, p := range t.ports() {
		if p.Network != g.Inside.Network {
			continue
		}
		for _, a := range p.Addrs {
			if p.Port == &g.Inside && a.Addr().Is4() && !cfg.Addr.IsValid() {
				cfg.Addr = a
			}
			cfg.Fixed = append(cfg.Fixed, a.Addr())
		}
	}
	return cfg
}

// Shortage is a network on which more ports want an address by DHCP than its
// gateway can lend. Somebody may want that, so Check allows it.
type Shortage struct {
	Gateway, Network string
	Lends, Wanted    int
}

func (s Shortage) String() string {
	return fmt.Sprintf("addresses to lend: %d, wanted: %d", s.Lends, s.Wanted)
}

// Shortages are those of a topology that Check has accepted. Absent are hosts
// that do not ask.
func Shortages(t Topology, absent ...string) (all []Shortage) {
	for i := range t.Gateways {
		g := &t.Gateways[i]
		if g.DHCP == nil {
			continue
		}
		reserved := map[dhcp.MAC]bool{}
		for link := range g.DHCP.Manual {
			if m, err := dhcp.ParseMAC(link); err == nil {
				reserved[m] = true
			}
		}
		wanted := 0
		for _, p := range t.ports() {
			if p.DHCP && p.Network == g.Inside.Network && !slices.Contains(absent, p.name) && !reserved[HardwareAddr(p.name)] {
				wanted++
			}
		}
		if lends, err := lender(&t, g).Lends(); err == nil && lends < wanted {
			all = append(all, Shortage{g.Name, g.Inside.Network, lends, wanted})
		}
	}
	return all
}

// doubts are what of a topology may be a mistake.
func doubts(t Topology) (all []*Fault) {
	for _, s := range Shortages(t) {
		all = append(all, &Fault{"gateways." + s.Gateway + ".dhcp", s.String()})
	}
	return all
}
