package scenario

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

const (
	minMTU      = 576
	maxRate     = 1e12
	maxDelay    = time.Hour
	maxMappings = 1 << 24
)

// CheckLink refuses what no link does.
func CheckLink(l Link) error {
	share := func(f float64) bool { return f >= 0 && f <= 1 } // and no NaN
	switch {
	case l.Delay < 0 || l.Jitter < 0 || l.Rate < 0 || l.MTU < 0:
		return errors.New("delay, jitter, rate and MTU are not negative")
	case l.Delay > maxDelay || l.Jitter > maxDelay:
		return fmt.Errorf("delay and jitter are at most %v", maxDelay)
	case !share(l.Loss) || !share(l.Reorder) || !share(l.Repeat):
		return errors.New("loss, reorder and duplicate are from 0 to 1")
	case l.MTU != 0 && (l.MTU < minMTU || l.MTU > 65535):
		return fmt.Errorf("the MTU is from %d to 65535", minMTU)
	case l.Rate > maxRate:
		return errors.New("the rate is at most 1 Tbit/s")
	}
	return nil
}

func (c *checker) hosts(t *Topology) error {
	for i := range t.Hosts {
		h := &t.Hosts[i]
		path := "hosts." + h.Name
		if err := c.leased(&h.Port, path); err != nil {
			return err
		}
		if h.Firewall == nil {
			continue
		}
		if h.Firewall.Mode == nat.Translate {
			return fault(path+".firewall", "a host's firewall does not translate: its mode is firewall or open")
		}
		if err := behaves(*h.Firewall, nil); err != nil {
			return cannotBe(path+".firewall", err)
		}
	}
	return nil
}

func (c *checker) gateways(t *Topology) error {
	for i := range t.Gateways {
		g := &t.Gateways[i]
		path := "gateways." + g.Name
		if err := c.leased(&g.Outside, path+".outside"); err != nil {
			return err
		}
		for _, p := range g.inner() {
			if g.NAT.Mode == nat.Translate && p.holds(true) && !g.Outside.holds(true) {
				return fault(path+".outside", "no IPv4 address to translate %v to", p.Addrs[0])
			}
		}
		if g.MaxMappings < 0 || g.MaxMappings > maxMappings {
			return fault(path+".max-mappings", "from 0, which is the default, to %d", maxMappings)
		}
		for _, err := range []error{c.static(g, path), c.pool(t, g, path), serves(g, path)} {
			if err != nil {
				return err
			}
		}
		if err := behaves(g.NAT, g); err != nil {
			return cannotBe(path+".nat", err)
		}
	}
	return nil
}

// words are those of a machine's error without the name of its package.
func words(err error) string {
	_, what, _ := strings.Cut(err.Error(), ": ")
	return what
}

// behaves asks the machine itself whether it can be.
func behaves(b nat.Behaviour, g *Gateway) error {
	cfg := nat.Config{Behaviour: b, Rand: rand.NewPCG(0, 0), MaxMappings: 1}
	cfg.Inside = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, 0}), 8)}
	if g != nil {
		cfg.Inside, cfg.Static = nil, g.Static
		for _, a := range g.Outside.Addrs {
			cfg.Own[nat.Outside] = append(cfg.Own[nat.Outside], a.Addr())
		}
		for _, p := range g.inner() {
			for _, a := range p.Addrs {
				cfg.Inside = append(cfg.Inside, a.Masked())
			}
		}
	}
	if own := &cfg.Own[nat.Outside]; !slices.ContainsFunc(*own, netip.Addr.Is4) {
		*own = append(*own, netip.AddrFrom4([4]byte{192, 0, 0, 8})) // nobody's: for who waits for a lease
	}
	_, err := nat.New(cfg)
	return err
}

// cannotBe says what the machine has against a behaviour, and of which rule.
func cannotBe(path string, err error) error {
	if r, ok := errors.AsType[*nat.RuleError](err); ok {
		return fault(fmt.Sprintf("%s.rules[%d]", path, r.Rule), "%s", r.What)
	}
	return fault(path, "%s", words(err))
}

func (c *checker) static(g *Gateway, path string) error {
	outside := c.nets[g.Outside.Network]
	seen := map[netip.Addr]bool{}
	for i, s := range g.Static {
		path := fmt.Sprintf("%s.static[%d]", path, i)
		if g.NAT.Mode != nat.Translate {
			return fault(path, "the gateway translates nothing")
		}
		if !s.Internal.Is4() || !s.External.Is4() {
			return fault(path, "two IPv4 addresses are wanted, internal and external")
		}
		inside, out := c.inside(g, s.Internal), c.inside(g, s.External)
		switch {
		case seen[s.Internal]:
			return fault(path, "%v has an external address already", s.Internal)
		case inside == nil:
			return fault(path, "%v is not inside", s.Internal)
		case slices.ContainsFunc(inside.Addrs, func(a netip.Prefix) bool { return a.Addr() == s.Internal }):
			return fault(path, "%v is the gateway's own", s.Internal)
		case out != nil:
			return fault(path, "%v is inside", s.External)
		case outside.holder[s.External] != "":
			return fault(path, "%v is taken by %s", s.External, outside.holder[s.External])
		case outside.prefix[0].IsValid() && !outside.prefix[0].Contains(s.External):
			return fault(path, "%v is not in %v, which network %q is", s.External, outside.prefix[0], outside.name)
		}
		for _, err := range []error{CheckAddress(in(s.Internal, c.nets[inside.Network].parts)), CheckAddress(in(s.External, outside.parts))} {
			if err != nil {
				return fault(path, "%v", err)
			}
		}
		seen[s.Internal] = true
		outside.holder[s.External] = path
	}
	return nil
}

// inside is the port of a gateway that an IPv4 address is behind; nil: none.
func (c *checker) inside(g *Gateway, a netip.Addr) *Port {
	for _, p := range g.inner() {
		if c.nets[p.Network].prefix[0].Contains(a) {
			return p
		}
	}
	return nil
}

// in is an address with the length of the prefix that it is of.
func in(a netip.Addr, prefixes []netip.Prefix) netip.Prefix {
	for _, p := range prefixes {
		if p.Contains(a) {
			return netip.PrefixFrom(a, p.Bits())
		}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// serves checks what a gateway's own sockets are for.
func serves(g *Gateway, path string) error {
	p := g.Proxy
	users := map[uint16]string{}
	for _, u := range []struct {
		is   bool
		port uint16
		what string
	}{{g.PortMap.UPnP, portmap.HTTPPort, "UPnP"}, {p.Transparent, TransparentPort, "the transparent proxy"}, {p.HTTP != 0, p.HTTP, "HTTP"}, {p.SOCKS != 0, p.SOCKS, "SOCKS"}} {
		if was := users[u.port]; u.is && was != "" {
			return fault(path+".proxy", "%s and %s share port %d", was, u.what, u.port)
		}
		if u.is {
			users[u.port] = u.what
		}
	}
	if err := g.PortMap.Check(); err != nil {
		return fault(path+".port-mapping", "%s", words(err))
	}
	maps := g.PortMap.NATPMP || g.PortMap.PCP || g.PortMap.UPnP
	switch {
	case maps && !g.Inside.holds(true):
		return fault(path+".port-mapping", "no IPv4 address inside to serve it")
	case p != (Proxy{}) && !g.Inside.holds(true):
		return fault(path+".proxy", "no IPv4 address inside to serve it")
	case p.Only && p.HTTP == 0 && p.SOCKS == 0 && !p.Transparent:
		return fault(path+".proxy", "only a proxy gets out, and there is none")
	case maps && g.NAT.Mode != nat.Translate:
		return fault(path+".port-mapping", "the gateway translates nothing")
	}
	return nil
}
