package scenario

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Fault is why a topology cannot be.
type Fault struct {
	// Path is what it is about, in the words of files: gateways.home.inside.
	Path string
	What string
}

func (f *Fault) Error() string { return f.Path + ": " + f.What }

func fault(path, format string, args ...any) error {
	return &Fault{path, fmt.Sprintf(format, args...)}
}

// Check refuses what cannot be built, whatever builds it, with a *Fault.
func Check(t Topology) error {
	c := checker{nets: map[string]*checked{}}
	for _, check := range []func(*Topology) error{
		c.names, c.attach, c.tree, c.prefixes, c.routes, c.gateways, c.hosts,
	} {
		if err := check(&t); err != nil {
			return err
		}
	}
	return nil
}

type checker struct {
	nets  map[string]*checked
	order []*checked
}

// checked is a network.
type checked struct {
	name   string
	first  string                // path of a port on it
	prefix [2]netip.Prefix       // by family; the internet, which is of many, has none
	parts  []netip.Prefix        // all that there are
	holder map[netip.Addr]string // path of the port
	up     *Gateway              // the way out of it
	upPath string
	routes []hidden
}

// hidden is a prefix that is reached through a gateway on the network.
type hidden struct {
	prefix netip.Prefix
	by     *Gateway
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// fit says whether a name can stand wherever names do.
func fit(name string) bool {
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_' && c != '.') {
			return false
		}
	}
	return name != "" && len(name) <= 63
}

const unfit = "a name has letters, digits, '-', '_' and '.', begins with one of the first two, and has at most 63 of them"

func (c *checker) names(t *Topology) error {
	seen := map[string]string{}
	check := func(name, path string) error {
		if !fit(name) {
			return fault(path, "%q is unfit: %s", name, unfit)
		}
		if name == Everything {
			return fault(path, "%q is unfit: it stands for all others where they are named", name)
		}
		if _, err := netip.ParseAddr(name); err == nil {
			return fault(path, "%q is unfit: it is an address", name)
		}
		if other := seen[name]; other != "" {
			return fault(path, "%s has this name too", other)
		}
		seen[name] = path
		return nil
	}
	for _, h := range t.Hosts {
		if err := check(h.Name, "hosts."+h.Name); err != nil {
			return err
		}
	}
	for _, g := range t.Gateways {
		if err := check(g.Name, "gateways."+g.Name); err != nil {
			return err
		}
	}
	return nil
}

// attach puts the ports on their networks, those first that lead out of them:
// they say which prefix a network has.
func (c *checker) attach(t *Topology) error {
	for i := range t.Gateways {
		g := &t.Gateways[i]
		if err := c.lead(g, &g.Inside, "gateways."+g.Name+".inside"); err != nil {
			return err
		}
		if g.DMZ != nil {
			if err := c.lead(g, g.DMZ, "gateways."+g.Name+".dmz"); err != nil {
				return err
			}
		}
	}
	for _, p := range t.ports() {
		if !p.leads {
			if err := c.put(p.Port, p.path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) lead(g *Gateway, p *Port, path string) error {
	switch {
	case p.Network == Internet:
		return fault(path, "the internet is behind no gateway")
	case p.Network == g.Outside.Network && p.Network != "":
		return fault(path, "network %q is outside of it too", p.Network)
	case p.DHCP:
		return fault(path, "the way out of a network has a fixed address")
	}
	if err := c.put(p, path); err != nil {
		return err
	}
	n := c.nets[p.Network]
	if n.up != nil {
		return fault(path, "network %q has a way out already: %s", p.Network, n.upPath)
	}
	n.up, n.upPath = g, path
	return nil
}

func (c *checker) put(p *Port, path string) error {
	if !fit(p.Network) {
		if p.Network == "" {
			return fault(path, "on no network")
		}
		return fault(path, "network %q is unfit: %s", p.Network, unfit)
	}
	if err := CheckLink(p.Link); err != nil {
		return fault(path+".link", "%v", err)
	}
	n := c.nets[p.Network]
	if n == nil {
		n = &checked{name: p.Network, first: path, holder: map[netip.Addr]string{}}
		c.nets[p.Network] = n
		c.order = append(c.order, n)
	}
	if len(p.Addrs) == 0 && !p.DHCP {
		return fault(path, "no address, and no DHCP")
	}
	for _, prefix := range p.Addrs {
		if err := n.take(prefix, p.DHCP, path); err != nil {
			return err
		}
	}
	return nil
}

func (n *checked) take(prefix netip.Prefix, dhcp bool, path string) error {
	a := prefix.Addr()
	at := path + ".address"
	if err := CheckAddress(prefix); err != nil {
		return fault(at, "%v", err)
	}
	switch {
	case n.holder[a] != "":
		return fault(at, "%v is taken by %s", a, n.holder[a])
	case a.Is4() && dhcp:
		return fault(at, "%v beside DHCP, which gives IPv4 addresses too", a)
	}
	n.holder[a] = path
	if !slices.Contains(n.parts, prefix.Masked()) {
		n.parts = append(n.parts, prefix.Masked())
	}
	if n.name == Internet {
		return nil
	}
	known := &n.prefix[family(a)]
	if !known.IsValid() {
		*known = prefix.Masked()
	}
	if *known != prefix.Masked() {
		return fault(at, "%v is not in %v, which network %q is", prefix, *known, n.name)
	}
	return nil
}

// CheckAddress refuses what no port can have as its address.
func CheckAddress(prefix netip.Prefix) error {
	a := prefix.Addr()
	switch {
	case !prefix.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == broadcast:
		return fmt.Errorf("%v is not an address for a port", prefix)
	case isNetwork(prefix):
		return fmt.Errorf("%v stands for the whole network", prefix)
	case isBroadcast(prefix):
		return fmt.Errorf("%v is the broadcast address of its network", prefix)
	case a == RouterIPv4 || a == RouterIPv6:
		return fmt.Errorf("%v belongs to the routers of the internet", a)
	}
	return nil
}

// isNetwork says that an address stands for its whole network, isBroadcast that
// it is everyone's there. In the smallest networks both are hosts' (RFC 3021,
// RFC 6164).
func isNetwork(p netip.Prefix) bool {
	return p.Bits() < p.Addr().BitLen()-1 && p.Addr() == p.Masked().Addr()
}

func isBroadcast(p netip.Prefix) bool {
	return p.Addr().Is4() && p.Bits() < 31 && !p.Contains(p.Addr().Next())
}

// The routers on the internet have these addresses.
var (
	RouterIPv4 = netip.MustParseAddr("198.18.255.254")
	RouterIPv6 = netip.MustParseAddr("2001:db8:ffff:ffff::fe")
)

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// tree: from every network, gateways lead to the internet.
func (c *checker) tree(*Topology) error {
	for _, n := range c.order {
		seen := map[*checked]bool{}
		for at := n; at.name != Internet; at = c.nets[at.up.Outside.Network] {
			if at.up == nil {
				return fault(at.first, "no gateway leads out of network %q", at.name)
			}
			if seen[at] {
				return fault(at.upPath, "network %q is outside of itself: nothing leads to the internet", at.name)
			}
			seen[at] = true
		}
	}
	return nil
}

// prefixes: no prefix is on two sides of a gateway.
func (c *checker) prefixes(t *Topology) error {
	for i := range t.Gateways {
		g := &t.Gateways[i]
		path := "gateways." + g.Name
		sides := []struct{ name, network string }{{"outside", g.Outside.Network}, {"inside", g.Inside.Network}}
		if g.DMZ != nil {
			sides = append(sides, struct{ name, network string }{"dmz", g.DMZ.Network})
		}
		for i, s := range sides {
			for _, other := range sides[:i] {
				if a, b, ok := overlap(c.nets[s.network].parts, c.nets[other.network].parts); ok {
					return fault(path, "%v is %s and %v %s: they overlap", a, s.name, b, other.name)
				}
			}
		}
	}
	return nil
}

func overlap(some, others []netip.Prefix) (a, b netip.Prefix, ok bool) {
	for _, a := range some {
		for _, b := range others {
			if a.Overlaps(b) {
				return a, b, true
			}
		}
	}
	return a, b, false
}

// routes: what is behind a gateway without translation is known to every
// network outside of it, as far as no translation is in between. Nothing there
// may have the same addresses.
func (c *checker) routes(t *Topology) error {
	for i := range t.Gateways {
		g := &t.Gateways[i]
		for _, inner := range g.inner() {
			for _, prefix := range c.nets[inner.Network].prefix {
				if prefix.IsValid() {
					if err := c.route(g, prefix); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func (c *checker) route(g *Gateway, prefix netip.Prefix) error {
	for via := g; !via.Hides(prefix.Addr()); {
		n := c.nets[via.Outside.Network]
		for _, r := range n.routes {
			if r.prefix.Overlaps(prefix) {
				return fault("gateways."+g.Name, "%v is behind it without translation, and %v behind %s", prefix, r.prefix, r.by.Name)
			}
		}
		if a := n.within(prefix); a.IsValid() && n.name == Internet {
			return fault("gateways."+g.Name, "%v is behind it without translation, and outside of it %s has %v", prefix, n.holder[a], a)
		}
		if p := n.prefix[family(prefix.Addr())]; p.IsValid() && p.Overlaps(prefix) {
			return fault("gateways."+g.Name, "%v is behind it without translation, and %v is network %q", prefix, p, n.name)
		}
		n.routes = append(n.routes, hidden{prefix, via})
		if n.up == nil {
			break
		}
		via = n.up
	}
	return nil
}

// within is the lowest address on n that is in prefix.
func (n *checked) within(prefix netip.Prefix) (low netip.Addr) {
	for a := range n.holder {
		if prefix.Contains(a) && (!low.IsValid() || a.Less(low)) {
			low = a
		}
	}
	return low
}

// inner are the ports that lead out of networks.
func (g *Gateway) inner() []*Port {
	if g.DMZ == nil {
		return []*Port{&g.Inside}
	}
	return []*Port{&g.Inside, g.DMZ}
}

// Hides says whether nobody outside has to know the way to an address inside.
// What some remotes are to be reached with untranslated, has to be known there.
func (g *Gateway) Hides(a netip.Addr) bool {
	return a.Is4() && g.NAT.Mode == nat.Translate && len(g.NAT.Untranslated) == 0
}

// holds says whether a port has an address of a family; DHCP gives IPv4.
func (p *Port) holds(v4 bool) bool {
	return v4 && p.DHCP || slices.ContainsFunc(p.Addrs, func(a netip.Prefix) bool { return a.Addr().Is4() == v4 })
}
