package probe

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// The hosts of World on the internet.
const serverS, serverT = "s", "t"

// Gateway is the name of a preset's gateway in World.
func Gateway(p nat.Preset) string { return p.Name + "-gw" }

// World is a home for each preset, "NAME-gw" with hosts "NAME-a" and, but for
// twins, "NAME-c", and two servers. It takes 40 ms from home to home.
func World(presets []nat.Preset) scenario.Topology {
	far := scenario.Link{Delay: 20 * time.Millisecond}
	port := func(network string, l scenario.Link, format string, args ...any) scenario.Port {
		return scenario.Port{Network: network, Link: l, Addrs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf(format, args...))}}
	}
	top := scenario.Topology{Hosts: []scenario.Host{
		{Name: serverS, Port: port(scenario.Internet, far, "198.51.100.1/24")},
		{Name: serverT, Port: port(scenario.Internet, far, "198.51.100.2/24")},
	}}
	for i, p := range presets {
		inside := "10.1"
		if p.Behaviour.Mode != nat.Translate {
			inside = "198.18"
		}
		top.Gateways = append(top.Gateways, scenario.Gateway{
			Name: Gateway(p), NAT: p.Behaviour,
			Inside:  port(p.Name, scenario.Link{}, "%s.%d.1/24", inside, i),
			Outside: port(scenario.Internet, far, "203.0.113.%d/24", i+10),
		})
		for j, name := range []string{"a", "c"} {
			if name == "c" && strings.HasSuffix(p.Name, twin) {
				continue
			}
			top.Hosts = append(top.Hosts, scenario.Host{Name: p.Name + "-" + name, Port: port(p.Name, scenario.Link{}, "%s.%d.%d/24", inside, i, j+2)})
		}
	}
	return top
}

// Homes are those of World, with its servers, on the stacks that the function
// finds by name.
func Homes(presets []nat.Preset, stack func(host string) Stack) (homes []Home, servers [2]Host) {
	top := World(presets)
	addr := make(map[string]netip.Addr)
	for _, h := range top.Hosts {
		addr[h.Name] = h.Port.Addrs[0].Addr()
	}
	host := func(name string) Host { return Host{stack(name), addr[name]} }
	servers = [2]Host{host(serverS), host(serverT)}
	for i, p := range presets {
		h := Home{Name: p.Name, NAT: p.Behaviour, A: host(p.Name + "-a"), External: top.Gateways[i].Outside.Addrs[0].Addr()}
		if name := p.Name + "-c"; addr[name].IsValid() {
			h.C = host(name)
		}
		if p.Behaviour.Mode != nat.Translate {
			h.External = h.A.Addr
		}
		homes = append(homes, h)
	}
	return homes, servers
}

// twin is what the second home of a preset is called.
const twin = "-twin"

// Twins has every preset twice, so that there are two homes to each.
func Twins(presets []nat.Preset) []nat.Preset {
	all := slices.Clone(presets)
	for _, p := range presets {
		p.Name += twin
		all = append(all, p)
	}
	return all
}

// Pairs are all pairs of presets among homes that Twins were made for, those
// of a preset with itself too.
func Pairs(homes []Home) iter.Seq2[Home, Home] {
	return func(yield func(a, b Home) bool) {
		n := len(homes) / 2
		for i := range n {
			for j := i; j < n; j++ {
				b := homes[j]
				if i == j {
					b = homes[n+i]
				}
				if !yield(homes[i], b) {
					return
				}
			}
		}
	}
}

// Presets are nat's, and more that stand for what none of those does: other
// hairpins, mappings by address, a filter that is laxer than the mapping, and
// another answer to strangers.
func Presets() []nat.Preset {
	random := nat.Ports{Allocation: nat.Random}
	return append(nat.Presets(),
		nat.Preset{Name: "x-hairpin", Behaviour: nat.Behaviour{Filtering: nat.AddressAndPortDependent, Hairpin: nat.HairpinExternalSource}},
		nat.Preset{Name: "x-hairpin-internal", Behaviour: nat.Behaviour{Filtering: nat.AddressDependent, Hairpin: nat.HairpinInternalSource}},
		nat.Preset{Name: "x-by-address", Behaviour: nat.Behaviour{Mapping: nat.AddressDependent, Filtering: nat.AddressDependent, Ports: random}},
		nat.Preset{Name: "x-lax", Behaviour: nat.Behaviour{Mapping: nat.AddressAndPortDependent, Ports: random}},
		nat.Preset{Name: "x-prohibiting", Behaviour: nat.Behaviour{Filtering: nat.AddressAndPortDependent,
			Unsolicited: nat.Unsolicited{TCP: nat.Prohibited, Other: nat.Prohibited}}},
		nat.Preset{Name: "x-strict-hairpin", Behaviour: nat.Behaviour{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent,
			Hairpin: nat.HairpinExternalSource, Ports: random}},
	)
}
