package scenario

import (
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// Cases are possible, and so is what follows from them.
func TestCheckAccepts(t *testing.T) {
	for _, c := range Cases() {
		if err := Check(c.Topology); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	open := nat.Behaviour{Mode: nat.Open}
	for name, change := range map[string]func(*Topology){
		"nothing":                  func(t *Topology) { *t = Topology{} },
		"plain routers":            func(t *Topology) { t.Gateways[0].NAT, t.Gateways[1].NAT, t.Gateways[2].NAT = open, open, open },
		"one address, one network": func(t *Topology) { t.Hosts[0].Port.Addrs[0] = netip.MustParsePrefix("198.51.100.1/32") },
		"leases": func(t *Topology) {
			t.Gateways[0].DHCP = &dhcp.Pool{}
			t.Hosts[1].Port = Port{Network: "home-a", DHCP: true}
			t.Gateways[2].DHCP = &dhcp.Pool{}
			t.Gateways[0].Outside = Port{Network: "provider", DHCP: true}
		},
		"a reservation outside of first and last": func(t *Topology) {
			t.Gateways[0].DHCP = &dhcp.Pool{First: a("10.1.0.100"), Last: a("10.1.0.100"), Manual: map[string]netip.Addr{"02:00:00:00:00:0F": a("10.1.0.9")}}
		},
		"as many external addresses as can be": func(t *Topology) {
			t.Gateways[2].Outside.Addrs = nil
			for n := range byte(254) {
				t.Gateways[2].Outside.Addrs = append(t.Gateways[2].Outside.Addrs, netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, n + 1}), 24))
			}
		},
		"Basic NAT": func(t *Topology) {
			t.Gateways[2].Static = []nat.Static{{Internal: a("100.64.0.11"), External: a("198.51.100.77")}}
		},
	} {
		top := TwoLevels(PortRestricted, PortRestricted)
		change(&top)
		if err := Check(top); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func a(s string) netip.Addr { return netip.MustParseAddr(s) }

// Every rule, broken once: by hosts a and b behind gateways ga and gb, both
// behind cgn.
func TestCheckRefuses(t *testing.T) {
	addrs := func(p *Port, all ...string) { *p = port(p.Network, p.Link, all...) }
	for _, c := range []struct {
		spoil      func(*Topology)
		path, what string
	}{
		{func(t *Topology) { t.Hosts[1].Name = "" }, "hosts.", "unfit"},
		{func(t *Topology) { t.Hosts[1].Name = "a/b" }, "hosts.a/b", "unfit"},
		{func(t *Topology) { t.Gateways[0].Name = "-g" }, "gateways.-g", "unfit"},
		{func(t *Topology) { t.Hosts[1].Name = strings.Repeat("a", 64) }, "hosts.aaaa", "63"},
		{func(t *Topology) { t.Hosts[1].Name = "all" }, "hosts.all", "stands for all others"},
		{func(t *Topology) { t.Gateways[1].Name = "all" }, "gateways.all", "stands for all others"},
		{func(t *Topology) { t.Hosts[1].Name = "10.1.0.2" }, "hosts.10.1.0.2", "is an address"},
		{func(t *Topology) { t.Hosts[1].Name = "b" }, "hosts.b", "hosts.b has this name too"},
		{func(t *Topology) { t.Gateways[1].Name = "a" }, "gateways.a", "hosts.a has this name too"},

		{func(t *Topology) { t.Hosts[1].Port.Network = "" }, "hosts.a", "on no network"},
		{func(t *Topology) { t.Hosts[1].Port.Network = "home a" }, "hosts.a", "unfit"},
		{func(t *Topology) { t.Hosts[1].Port.Network = "elsewhere" }, "hosts.a", `no gateway leads out of network "elsewhere"`},
		{func(t *Topology) { t.Gateways[0].Outside.Network = "elsewhere" }, "gateways.ga.outside", "no gateway leads out"},
		{func(t *Topology) { t.Gateways[2].Inside.Network = Internet }, "gateways.cgn.inside", "behind no gateway"},
		{func(t *Topology) { t.Gateways[0].Inside.Network = "provider" }, "gateways.ga.inside", "outside of it too"},
		{func(t *Topology) { t.Gateways[1].Inside = port("home-a", Link{}, "10.1.0.9/24") }, "gateways.gb.inside", "way out already: gateways.ga.inside"},
		{func(t *Topology) { t.Gateways[2].Outside = port("home-a", Link{}, "10.1.0.9/24") }, "gateways.", "outside of itself"},
		{func(t *Topology) { d := port(Internet, Link{}, "198.51.100.9/24"); t.Gateways[0].DMZ = &d }, "gateways.ga.dmz", "behind no gateway"},
		{func(t *Topology) { d := port("home-a", Link{}, "10.1.0.9/24"); t.Gateways[0].DMZ = &d }, "gateways.ga.dmz", "way out already"},

		{func(t *Topology) { t.Hosts[1].Port.Addrs = nil }, "hosts.a", "no address, and no DHCP"},
		{func(t *Topology) { t.Hosts[1].Port.Addrs[0] = netip.Prefix{} }, "hosts.a.address", "not an address"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "0.0.0.0/24") }, "hosts.a.address", "not an address"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "127.0.0.1/24") }, "hosts.a.address", "not an address"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "224.0.0.1/24") }, "hosts.a.address", "not an address"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "255.255.255.255/32") }, "hosts.a.address", "not an address"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "::ffff:10.1.0.2/120") }, "hosts.a.address", "not an address"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "10.1.0.0/24") }, "hosts.a.address", "whole network"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "10.1.0.255/24") }, "hosts.a.address", "broadcast"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "10.1.0.1/24") }, "hosts.a.address", "taken by gateways.ga.inside"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "10.1.0.2/24", "10.1.0.2/24") }, "hosts.a.address", "taken by hosts.a"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "10.2.0.2/24") }, "hosts.a.address", "not in 10.1.0.0/24"},
		{func(t *Topology) { addrs(&t.Hosts[1].Port, "10.1.0.2/16") }, "hosts.a.address", "not in 10.1.0.0/24"},
		{func(t *Topology) {
			addrs(&t.Hosts[1].Port, "10.1.0.2/24", "2001:db8:1::1/64")
			addrs(&t.Gateways[0].Inside, "10.1.0.1/24", "2001:db8:2::1/64")
		},
			"hosts.a.address", "not in 2001:db8:2::/64"},
		{func(t *Topology) { addrs(&t.Gateways[0].Inside, "100.64.0.1/16"); t.Hosts = t.Hosts[:1] }, "gateways.ga", "they overlap"},
		{func(t *Topology) { d := port("d", Link{}, "10.1.0.129/25"); t.Gateways[0].DMZ = &d }, "gateways.ga", "they overlap"},
		// The internet is all its prefixes.
		{func(t *Topology) { addrs(&t.Hosts[0].Port, "100.64.0.99/24") }, "gateways.cgn", "100.64.0.0/24 is inside and 100.64.0.0/24 outside"},
		{func(t *Topology) { addrs(&t.Hosts[0].Port, "100.64.9.9/12") }, "gateways.cgn", "they overlap"},
		{func(t *Topology) { addrs(&t.Hosts[0].Port, "198.51.100.1/24", "100.64.0.130/25") }, "gateways.cgn", "they overlap"},
		{func(t *Topology) { addrs(&t.Hosts[0].Port, "100.64.0.99/32") }, "gateways.cgn", "they overlap"},
		{func(t *Topology) {
			t.Gateways[2].Static = []nat.Static{{Internal: a("100.64.0.11"), External: a("100.64.0.77")}}
		}, "gateways.cgn.static[0]", "100.64.0.77 is inside"},

		{func(t *Topology) { t.Hosts[1].Port.Link.Delay = -1 }, "hosts.a.link", "not negative"},
		{func(t *Topology) { t.Hosts[1].Port.Link.Jitter = 2 * time.Hour }, "hosts.a.link", "at most 1h"},
		{func(t *Topology) { t.Hosts[1].Port.Link.Loss = 1.1 }, "hosts.a.link", "from 0 to 1"},
		{func(t *Topology) { t.Hosts[1].Port.Link.Reorder = math.NaN() }, "hosts.a.link", "from 0 to 1"},
		{func(t *Topology) { t.Hosts[1].Port.Link.Repeat = -0.5 }, "hosts.a.link", "from 0 to 1"},
		{func(t *Topology) { t.Gateways[0].Inside.Link.MTU = 100 }, "gateways.ga.inside.link", "from 576"},
		{func(t *Topology) { t.Gateways[0].Outside.Link.Rate = 2e12 }, "gateways.ga.outside.link", "1 Tbit/s"},

		// What is not translated needs addresses that nobody outside has.
		{func(t *Topology) { t.Gateways[0].NAT.Mode, t.Gateways[1].NAT.Mode = nat.Open, nat.Firewall; twins(t) }, "gateways.gb", "and 10.1.0.0/24 behind ga"},
		{func(t *Topology) {
			t.Gateways[0].NAT.Mode, t.Gateways[2].NAT.Mode = nat.Open, nat.Open
			addrs(&t.Hosts[0].Port, "10.1.0.99/24")
		}, "gateways.ga", "hosts.s has 10.1.0.99"},
		{func(t *Topology) {
			t.Gateways[0].NAT.Mode = nat.Open
			t.Gateways = append(t.Gateways, Gateway{Name: "far", NAT: PortRestricted, Inside: port("inner", Link{}, "10.3.0.1/24"), Outside: port("home-b", Link{}, "10.2.0.9/24")})
			t.Gateways[0].Outside = port("inner", Link{}, "10.3.0.7/24")
			t.Gateways[3].NAT.Mode = nat.Open
			addrs(&t.Hosts[1].Port, "10.2.0.200/28")
			addrs(&t.Gateways[0].Inside, "10.2.0.201/28")
		}, "gateways.ga", `10.2.0.0/24 is network "home-b"`},

		{func(t *Topology) { t.Hosts[1].Port = Port{Network: "home-a", DHCP: true} }, "hosts.a", "serves none"},
		{func(t *Topology) { t.Gateways[0].DHCP = &dhcp.Pool{Lease: 1500 * time.Millisecond} }, "gateways.ga.dhcp", "whole seconds"},
		{func(t *Topology) { t.Hosts[0].Port = Port{Network: Internet, DHCP: true} }, "hosts.s", "nobody on the internet"},
		{func(t *Topology) { t.Hosts[1].Port.DHCP = true; t.Gateways[0].DHCP = &dhcp.Pool{} }, "hosts.a.address", "beside DHCP"},
		{func(t *Topology) { t.Gateways[0].Outside = Port{Network: "provider", DHCP: true} }, "gateways.ga.outside", "serves none"},
		{func(t *Topology) { t.Gateways[0].Inside = Port{Network: "home-a", DHCP: true} }, "gateways.ga.inside", "fixed address"},
		{func(t *Topology) {
			d := port("servers", Link{}, "192.168.0.1/24")
			t.Gateways[0].DMZ, t.Gateways[0].DHCP = &d, &dhcp.Pool{}
			t.Hosts[1].Port = Port{Network: "servers", DHCP: true}
		}, "hosts.a", "and not its DMZ"},
		{func(t *Topology) {
			t.Gateways[0].DHCP = &dhcp.Pool{}
			t.Hosts = t.Hosts[:1]
			addrs(&t.Gateways[0].Inside, "2001:db8::1/64")
		}, "gateways.ga.dhcp", "none to lease"},
		{func(t *Topology) { t.Gateways[0].DHCP = &dhcp.Pool{First: a("10.1.0.9")} }, "gateways.ga.dhcp", "come together"},
		{func(t *Topology) { t.Gateways[0].DHCP = &dhcp.Pool{First: a("10.1.0.9"), Last: a("10.1.1.9")} }, "gateways.ga.dhcp", "10.1.1.9 is not in"},
		{func(t *Topology) { t.Gateways[0].DHCP = &dhcp.Pool{First: a("10.1.0.9"), Last: a("10.1.0.8")} }, "gateways.ga.dhcp", "backwards"},
		{func(t *Topology) { t.Gateways[0].DHCP = &dhcp.Pool{Lease: -1} }, "gateways.ga.dhcp", "a lease of"},
		{func(t *Topology) { t.Gateways[0].DHCP = reserve("02:00:00:00:00:0g", "10.1.0.9") }, "gateways.ga.dhcp.manual", "no hardware address"},
		{func(t *Topology) { t.Gateways[0].DHCP = reserve("02:00:00:00:00:01:02", "10.1.0.9") }, "gateways.ga.dhcp.manual", "no hardware address"},
		{func(t *Topology) { t.Gateways[0].DHCP = reserve("02:00:00:00:00:01", "10.2.0.9") }, "gateways.ga.dhcp.manual", "not in"},
		{func(t *Topology) {
			t.Gateways[0].DHCP = reserve("02:00:00:00:00:01", "10.1.0.9", "02:00:00:00:00:02", "10.1.0.9")
		}, "gateways.ga.dhcp.manual", "belongs to 02:00:00:00:00:01"},

		{func(t *Topology) { t.Gateways[0].DHCP = &dhcp.Pool{MTU: 20} }, "gateways.ga.dhcp", "MTU 20"},
		{func(t *Topology) { t.Gateways[0].DHCP = &dhcp.Pool{DNS: []netip.Addr{a("::1")}} }, "gateways.ga.dhcp", "no IPv4 address"},
		{func(t *Topology) { t.Gateways[0].DHCP = reserve("02:00:00:00:00:01", "10.1.0.1") }, "gateways.ga.dhcp", "the server's own"},
		{func(t *Topology) {
			t.Gateways[0].DHCP = &dhcp.Pool{}
			addrs(&t.Gateways[0].Inside, "10.1.0.0/31")
			addrs(&t.Hosts[1].Port, "10.1.0.1/31")
		}, "gateways.ga.dhcp", "/8 to /30"},

		{func(t *Topology) { t.Gateways[0].Outside = port("provider", Link{}, "2001:db8::9/64") }, "gateways.ga.outside", "no IPv4 address to translate"},
		{func(t *Topology) {
			twins(t)
			for i := range 2 {
				t.Gateways[i].NAT.Untranslated = []nat.Remotes{{Port: 53}}
			}
		}, "gateways.gb", "behind it without translation, and 10.1.0.0/24 behind ga"},
		{func(t *Topology) {
			t.Gateways[0].NAT.Rules = []nat.Rule{{}, {From: nat.SidesOf(nat.Local), To: nat.SidesOf(nat.Inside, nat.DMZ)}}
		}, "gateways.ga.nat.rules[1]", "no rule is asked about what goes from local to inside,dmz"},
		{func(t *Topology) { t.Gateways[0].NAT.Mapping = 99 }, "gateways.ga.nat", "unknown policy"},
		{func(t *Topology) { t.Gateways[0].NAT.Filtering = nat.PerConnection }, "gateways.ga.nat", "filtering cannot"},
		{func(t *Topology) { t.Gateways[0].NAT.Ports.HoldDown = -1 }, "gateways.ga.nat", "no port rests"},
		{func(t *Topology) { t.Gateways[0].NAT.Unsolicited.After = -1 }, "gateways.ga.nat", "no answer waits"},
		{func(t *Topology) {
			for i := range 250 {
				t.Gateways[0].Static = append(t.Gateways[0].Static, nat.Static{Internal: netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 2)}), External: netip.AddrFrom4([4]byte{203, 0, byte(i), 9})})
			}
			addrs(&t.Gateways[0].Outside, "203.0.113.11/16", "203.0.113.12/16", "203.0.113.13/16", "203.0.113.14/16", "203.0.113.15/16")
			addrs(&t.Gateways[1].Outside, "203.0.113.16/16")
			addrs(&t.Gateways[2].Inside, "203.0.113.17/16")
		}, "gateways.ga.nat", "more than 254 external"},
		{func(t *Topology) { t.Gateways[0].PortMap = portmap.Behaviour{UPnP: true}; six(t) }, "gateways.ga.port-mapping", "no IPv4 address inside"},
		{func(t *Topology) { t.Gateways[0].Proxy = Proxy{Transparent: true}; six(t) }, "gateways.ga.proxy", "no IPv4 address inside"},
		{func(t *Topology) { t.Gateways[0].Proxy = Proxy{HTTP: 3128}; six(t) }, "gateways.ga.proxy", "no IPv4 address inside"},
		{func(t *Topology) { t.Gateways[0].MaxMappings = -1 }, "gateways.ga.max-mappings", "from 0"},
		{func(t *Topology) { t.Gateways[0].MaxMappings = 1 << 30 }, "gateways.ga.max-mappings", "from 0"},
		{func(t *Topology) { t.Hosts[1].Firewall = &nat.Behaviour{} }, "hosts.a.firewall", "does not translate"},
		{func(t *Topology) { t.Hosts[1].Firewall = &nat.Behaviour{Mode: nat.Firewall, Filtering: 99} }, "hosts.a.firewall", "unknown policy"},
		{func(t *Topology) { static(t, "10.2.0.2", "100.64.0.77") }, "gateways.ga.static[0]", "10.2.0.2 is not inside"},
		{func(t *Topology) { static(t, "10.1.0.2", "100.64.0.12") }, "gateways.ga.static[0]", "taken by gateways.gb.outside"},
		{func(t *Topology) { static(t, "10.1.0.2", "100.65.0.12") }, "gateways.ga.static[0]", "not in 100.64.0.0/24"},
		{func(t *Topology) { static(t, "10.1.0.2", "100.64.0.77", "10.1.0.2", "100.64.0.78") }, "gateways.ga.static[1]", "already"},
		{func(t *Topology) { static(t, "10.1.0.2", "100.64.0.77", "10.1.0.3", "100.64.0.77") }, "gateways.ga.static[1]", "taken by gateways.ga.static[0]"},
		{func(t *Topology) { t.Gateways[0].NAT.Mode = nat.Open; static(t, "10.1.0.2", "100.64.0.77") }, "gateways.ga.static[0]", "translates nothing"},
		{func(t *Topology) { static(t, "10.1.0.1", "100.64.0.77") }, "gateways.ga.static[0]", "10.1.0.1 is the gateway's own"},
		{func(t *Topology) { static(t, "10.1.0.255", "100.64.0.77") }, "gateways.ga.static[0]", "broadcast"},
		{func(t *Topology) { static(t, "10.1.0.2", "100.64.0.0") }, "gateways.ga.static[0]", "whole network"},
		{func(t *Topology) {
			t.Gateways[2].Static = []nat.Static{{Internal: a("100.64.0.11"), External: a("127.0.0.1")}}
		}, "gateways.cgn.static[0]", "not an address"},
		{func(t *Topology) {
			t.Gateways[2].Static = []nat.Static{{Internal: a("100.64.0.11"), External: a("198.51.100.255")}}
		}, "gateways.cgn.static[0]", "broadcast"},
		{func(t *Topology) { t.Gateways[0].Static = make([]nat.Static, 1) }, "gateways.ga.static[0]", "two IPv4 addresses"},
		{func(t *Topology) { t.Gateways[0].Proxy = Proxy{HTTP: 80, SOCKS: 80} }, "gateways.ga.proxy", "share port 80"},
		{func(t *Topology) { t.Gateways[0].Proxy = Proxy{HTTP: 3129, Transparent: true} }, "gateways.ga.proxy", "share port 3129"},
		{func(t *Topology) {
			t.Gateways[0].PortMap.UPnP, t.Gateways[0].Proxy = true, Proxy{SOCKS: 5000}
		}, "gateways.ga.proxy", "UPnP and SOCKS share port 5000"},
		{func(t *Topology) { t.Gateways[0].PortMap = portmap.Behaviour{UPnP: true, IGD: 3} }, "gateways.ga.port-mapping", "no version 3"},
		{func(t *Topology) { t.Gateways[0].Proxy = Proxy{Only: true} }, "gateways.ga.proxy", "there is none"},
		{func(t *Topology) {
			t.Gateways[0].NAT.Mode = nat.Open
			t.Gateways[0].PortMap = portmap.Behaviour{PCP: true}
		}, "gateways.ga.port-mapping", "translates nothing"},
	} {
		top := TwoLevels(PortRestricted, PortRestricted)
		c.spoil(&top)
		err := Check(top)
		var f *Fault
		if !errors.As(err, &f) || !strings.HasPrefix(f.Path, c.path) || !strings.Contains(f.What, c.what) {
			t.Errorf("%v, want %s: ... %s ...", err, c.path, c.what)
		}
	}
}

// six makes home-a one of IPv6.
func six(t *Topology) {
	t.Gateways[0].Inside = port("home-a", Link{}, "2001:db8:a::1/64")
	t.Hosts[1].Port = port("home-a", Link{}, "2001:db8:a::2/64")
}

func twins(t *Topology) {
	t.Gateways[1].Inside = port("home-b", Link{}, "10.1.0.1/24")
	t.Hosts[2].Port = port("home-b", Link{}, "10.1.0.2/24")
}

func reserve(pairs ...string) *dhcp.Pool {
	p := &dhcp.Pool{Manual: map[string]netip.Addr{}}
	for i := 0; i < len(pairs); i += 2 {
		p.Manual[pairs[i]] = a(pairs[i+1])
	}
	return p
}

func static(t *Topology, pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		t.Gateways[0].Static = append(t.Gateways[0].Static, nat.Static{Internal: a(pairs[i]), External: a(pairs[i+1])})
	}
}
