package scenario

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

var same = []cmp.Option{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func TestLoadEverything(t *testing.T) {
	data, err := os.ReadFile("testdata/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Load("everything.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	behaviour, _ := nat.PresetByName("linux")
	behaviour.Hairpin = nat.HairpinExternalSource
	behaviour.Timers.UDP = 90 * time.Second
	behaviour.TCPPolicy = &nat.Policy{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent}
	behaviour.Ports.Allocation, behaviour.Ports.Delta = nat.Sequential, 2
	behaviour.Ports.First, behaviour.Ports.Last = 2000, 2999
	behaviour.Rules = []nat.Rule{
		{Action: nat.Accept, From: nat.SidesOf(nat.Inside, nat.DMZ), To: nat.SidesOf(nat.Outside), Protocol: ip.TCP,
			DstPorts: []nat.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8099}}, Dst: []netip.Prefix{prefix("198.51.100.0/24")}},
		{Action: nat.Reject, Src: []netip.Prefix{prefix("10.9.0.0/25"), prefix("10.9.0.128/26")}},
	}
	behaviour.Untranslated = []nat.Remotes{{Prefix: prefix("203.0.113.0/24"), Port: 443}, {Port: 53}}
	behaviour.Content.Block = []string{"BitTorrent protocol"}
	want := Topology{
		Name: "everything",
		Hosts: []Host{
			{Name: "server", Port: port(Internet, Link{Delay: 20 * time.Millisecond}, "198.51.100.1/24", "198.51.100.2/24", "2001:db8::1/64")},
			{Name: "somewhere", Port: port(Internet, Link{}, "198.51.100.3/24")},
			{Name: "a", Port: Port{Network: "home", DHCP: true, Link: Link{Delay: 5 * time.Millisecond, Jitter: 1500 * time.Microsecond,
				Loss: 0.01, Reorder: 0.005, Repeat: 0.001, Rate: 100e6, MTU: 1400}}},
			{Name: "b", Port: port("home", Link{}, "10.9.0.77/24"),
				Firewall: &nat.Behaviour{Mode: nat.Firewall, Filtering: nat.AddressAndPortDependent}},
			{Name: "web", Port: port("servers", Link{}, "192.168.7.2/24"),
				Firewall: &nat.Behaviour{Mode: nat.Firewall, Content: nat.Content{WebOnly: true}}},
			{Name: "c", Port: Port{Network: "office", DHCP: true}},
		},
		Gateways: []Gateway{
			{
				Name: "home", NAT: behaviour,
				Inside:  port("home", Link{}, "10.9.0.1/24"),
				Outside: port(Internet, Link{}, "198.51.100.11/24"),
				Static:  []nat.Static{{Internal: addr("10.9.0.77"), External: addr("198.51.100.77")}},
				DHCP: &dhcp.Pool{First: addr("10.9.0.100"), Last: addr("10.9.0.199"), Lease: 2 * time.Minute,
					Manual: map[string]netip.Addr{"02:00:00:00:00:0a": addr("10.9.0.10")}, DNS: []netip.Addr{addr("198.51.100.1")}},
				PortMap:     portmap.Behaviour{UPnP: true, PCP: true},
				Proxy:       Proxy{HTTP: 3128, SOCKS: 1080, Transparent: true, Only: true},
				MaxMappings: 1000,
			},
			{Name: "office", Kernel: true, DHCP: &dhcp.Pool{},
				Inside: port("office", Link{}, "10.1.0.1/24"), Outside: port(Internet, Link{}, "198.51.100.4/24")},
		},
	}
	dmz := port("servers", Link{}, "192.168.7.1/24")
	want.Gateways[0].DMZ = &dmz
	if d := cmp.Diff(want, got, same...); d != "" {
		t.Error(d)
	}
}

// The smallest files that are worth anything.
func TestLoadAddresses(t *testing.T) {
	for _, c := range []struct {
		yaml string
		want map[string]string
	}{
		{`
hosts: {s: internet, a: home, b: home, c: {network: far, dhcp: false, address: 10.2.0.200/24}, d: taken}
gateways:
  g: {inside: home, outside: internet}
  isp: {inside: isp, outside: internet, dhcp: true}
  h: {inside: far, outside: isp, dhcp: true}
  i: {inside: {network: taken, address: 10.1.0.1/24}, outside: internet}
`, map[string]string{
			"hosts.s": "198.51.100.1/24", "hosts.a": "10.3.0.2/24", "hosts.b": "10.3.0.3/24", "hosts.c": "10.2.0.200/24", "hosts.d": "10.1.0.2/24",
			"gateways.g.inside": "10.3.0.1/24", "gateways.g.outside": "198.51.100.2/24",
			"gateways.isp.inside": "10.4.0.1/24", "gateways.isp.outside": "198.51.100.3/24",
			"gateways.h.inside": "10.2.0.1/24", "gateways.h.outside": "dhcp",
			"gateways.i.inside": "10.1.0.1/24", "gateways.i.outside": "198.51.100.4/24",
		}},
		// The internet makes way for who has its prefix, or a part of it.
		{`
hosts: {s: internet, a: {network: home, address: 198.51.100.9/24}, b: {network: far, address: 203.0.113.130/25}}
gateways: {g: {inside: home, outside: internet}, h: {inside: far, outside: home}}
`, map[string]string{
			"hosts.s": "192.0.2.1/24", "hosts.a": "198.51.100.9/24", "hosts.b": "203.0.113.130/25",
			"gateways.g.inside": "198.51.100.1/24", "gateways.g.outside": "192.0.2.2/24",
			"gateways.h.inside": "203.0.113.129/25", "gateways.h.outside": "198.51.100.2/24",
		}},
		{`
hosts: {s: internet, a: {network: home, address: 192.0.2.1/2}}
gateways: {g: {inside: home, outside: {network: internet, address: 100.64.0.1/24}}}
`, map[string]string{
			"hosts.s": "100.64.0.2/24", "hosts.a": "192.0.2.1/2", "gateways.g.inside": "192.0.0.1/2", "gateways.g.outside": "100.64.0.1/24",
		}},
		// On the internet too, the next address is one of the prefix that is there.
		{`
hosts: {s: {network: internet, address: 203.0.113.1/24}, r: internet, q: {network: internet, address: 192.0.2.1/32}, p: {network: internet, address: "2001:db8::1/64"}}
gateways: {g: {inside: home, outside: internet}}
`, map[string]string{
			"hosts.s": "203.0.113.1/24", "hosts.r": "203.0.113.2/24", "hosts.q": "192.0.2.1/32", "hosts.p": "2001:db8::1/64",
			"gateways.g.inside": "10.1.0.1/24", "gateways.g.outside": "203.0.113.3/24",
		}},
		// The routers' address is theirs.
		{"hosts: {s: {network: internet, address: 198.18.255.253/30}, r: {network: internet, address: 203.0.113.1/24}, q: internet}", map[string]string{
			"hosts.s": "198.18.255.253/30", "hosts.r": "203.0.113.1/24", "hosts.q": "203.0.113.2/24",
		}},
		// Where the first prefix is full there may be another.
		{`
hosts: {s: {network: internet, address: 203.0.113.1/30}, r: internet, q: internet, p: {network: internet, address: 198.51.100.1/24}}
`, map[string]string{
			"hosts.s": "203.0.113.1/30", "hosts.r": "203.0.113.2/30", "hosts.q": "198.51.100.2/24", "hosts.p": "198.51.100.1/24",
		}},
		{"hosts: {s: {network: internet, address: 192.0.2.1/32}, r: internet}", map[string]string{"hosts.s": "192.0.2.1/32", "hosts.r": "198.51.100.1/24"}},
		// Beside a pool, and not what is reserved of it.
		{`
hosts: {a: home, b: {network: home, dhcp: false}}
gateways: {g: {inside: home, outside: internet, dhcp: {manual: {02:00:00:00:00:01: 10.1.0.2}}}}
`, map[string]string{
			"hosts.a": "dhcp", "hosts.b": "10.1.0.3/24", "gateways.g.inside": "10.1.0.1/24", "gateways.g.outside": "198.51.100.1/24",
		}},
		// IPv6 alone.
		{`
hosts: {s: {network: internet, address: "2001:db8::2/64"}, r: internet, a: {network: home, address: "2001:db8:a::2/64"}, b: home}
gateways: {g: {inside: home, outside: internet}}
`, map[string]string{
			"hosts.s": "2001:db8::2/64", "hosts.r": "2001:db8::1/64", "hosts.a": "2001:db8:a::2/64", "hosts.b": "2001:db8:a::3/64",
			"gateways.g.inside": "2001:db8:a::1/64", "gateways.g.outside": "2001:db8::3/64",
		}},
		// In the smallest networks every address is somebody's.
		{`
hosts: {a: {network: home, address: 10.0.0.1/31}, b: {network: far, address: 10.9.0.2/30}, c: {network: six, address: "2001:db8::1/127"}}
gateways: {g: {inside: home, outside: internet}, h: {inside: far, outside: internet}, i: {inside: six, outside: internet}}
`, map[string]string{
			"hosts.a": "10.0.0.1/31", "hosts.b": "10.9.0.2/30", "hosts.c": "2001:db8::1/127",
			"gateways.g.inside": "10.0.0.0/31", "gateways.g.outside": "198.51.100.1/24",
			"gateways.h.inside": "10.9.0.1/30", "gateways.h.outside": "198.51.100.2/24",
			"gateways.i.inside": "2001:db8::/127", "gateways.i.outside": "198.51.100.3/24",
		}},
	} {
		got, err := Load("x", []byte(c.yaml))
		if err != nil {
			t.Errorf("%s\n%v", c.yaml, err)
			continue
		}
		addrs := map[string]string{}
		for _, p := range got.ports() {
			addrs[p.path] = "dhcp"
			if !p.DHCP {
				addrs[p.path] = p.Addrs[0].String()
			}
		}
		if d := cmp.Diff(c.want, addrs); d != "" {
			t.Errorf("%s\n%s", c.yaml, d)
		}
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"", "f.yaml:1: nothing stands in it"},
		{"# nothing\n", "f.yaml:1: nothing stands in it"},
		{"hosts", "f.yaml:1: fields are wanted here: name, presets, hosts, gateways"},
		{"- a\n", "f.yaml:1: fields are wanted here: name, presets, hosts, gateways"},
		{"name: a\n---\nname: b\n", "f.yaml:2: a second document; one file is one topology"},
		{"hosts:\n  a: {network: x\n  b: y\n", "f.yaml:3: did not find expected ',' or '}'"},
		{"hosts:\n\ta: b\n", "f.yaml:2: found character that cannot start any token"},
		{"\nhost:\n  a: internet\n", "f.yaml:3: host: no such field; there are name, presets, hosts, gateways"},
		{"hosts: [a]\n", "f.yaml:1: hosts: fields are wanted here, like {name: value}"},
		{"hosts:\n  a: internet\n  a: internet\n", "f.yaml:3: hosts.a: stands here twice"},
		{"hosts:\n  a:\n  b: internet\n", "f.yaml:2: hosts.a: nothing stands here"},
		{"hosts: &x {a: internet}\n", "f.yaml:1: hosts: no anchors and aliases; a behaviour that is used again is a preset"},
		{"hosts: {a: &x internet, b: *x}\n", "f.yaml:1: hosts.a: no anchors and aliases; a behaviour that is used again is a preset"},
		{"hosts: {<<: {a: internet}}\n", "f.yaml:1: hosts: no merging; a behaviour that is used again is a preset"},
		{"hosts: {a: !!str internet}\n", "f.yaml:1: hosts.a: no tags, like !!str"},
		{"hosts: {\"a\\nb\": internet}\n", "f.yaml:1: hosts: \"a\\nb\" is no name"},
		{"hosts:\n  a:\n    network: internet\n    adress: 10.0.0.1/24\n",
			"f.yaml:4: hosts.a.adress: no such field; there are network, address, dhcp, link, firewall"},
		{"hosts:\n  a:\n    network: internet\n    address:\n    - 10.0.0.1/24\n    - 10.0.0.2\n",
			`f.yaml:6: hosts.a.address[1]: "10.0.0.2" is no address with the length of its network's prefix, like 10.0.0.1/24`},
		{"hosts: {a: {network: [x]}}\n", "f.yaml:1: hosts.a.network: one value is wanted here"},
		{"hosts: {a: {network: internet, dhcp: yes}}\n", `f.yaml:1: hosts.a.dhcp: "yes" is neither true nor false`},
		{"hosts: {a: {network: internet, link: {delay: 20}}}\n", `f.yaml:1: hosts.a.link.delay: "20" is no time with a unit, like 20ms or 1m30s`},
		{"hosts: {a: {network: internet, link: {loss: 101%}}}\n", `f.yaml:1: hosts.a.link.loss: "101%" is no share from 0% to 100%, like 1% or 0.01`},
		{"hosts: {a: {network: internet, link: {rate: fast}}}\n", `f.yaml:1: hosts.a.link.rate: "fast" is no rate, like 500kbit, 100mbit, 1gbit or unlimited`},
		{"hosts: {a: {network: internet, link: {rate: 1/3}}}\n", `f.yaml:1: hosts.a.link.rate: "1/3" is no rate, like 500kbit, 100mbit, 1gbit or unlimited`},
		{"hosts: {a: {network: internet, link: {mtu: 1e3}}}\n", `f.yaml:1: hosts.a.link.mtu: "1e3" is no number that fits here`},
		{"hosts: {a: {network: internet, link: {delay: -1s}}}\n", "f.yaml:1: hosts.a.link: delay, jitter, rate and MTU are not negative"},
		{"gateways:\n  g:\n    inside: a\n    outside: internet\n    nat: cone\n",
			"f.yaml:5: gateways.g.nat: no preset \"cone\"; there are " + presetNames() + ", and those of the file"},
		{"gateways:\n  g:\n    inside: a\n    outside: internet\n    nat:\n      mapping: symmetric\n",
			`f.yaml:6: gateways.g.nat.mapping: "symmetric" is no dependence; there are endpoint-independent, address-dependent, address-and-port-dependent, per-connection`},
		{"gateways: {g: {inside: a, outside: internet, nat: {ports: {first: 70000}}}}\n",
			`f.yaml:1: gateways.g.nat.ports.first: "70000" is no number from 0 to 65535`},
		{"gateways: {g: {inside: a, outside: internet, nat: {rules: [{action: accept}, {to: [inside, out]}]}}}\n",
			`f.yaml:1: gateways.g.nat.rules[1].to: "out" is no side; there are inside, outside, dmz, local, and any`},
		{"gateways: {g: {inside: a, outside: internet, dhcp: {first: x}}}\n", `f.yaml:1: gateways.g.dhcp.first: "x" is no address, like 10.0.0.1`},
		{"gateways: {g: {inside: a, outside: internet, dhcp: maybe}}\n", `f.yaml:1: gateways.g.dhcp: "maybe" is neither true nor false`},
		{"presets: {linux: {base: rfc}}\n", "f.yaml:1: presets.linux: there is a preset of this name already"},
		{"presets: {a: {base: b}}\n", "f.yaml:1: presets.a.base: no preset \"b\"; there are " + presetNames() + ", and those of the file"},
		// What Check finds is told with the line too.
		{"hosts:\n  a: internet\n  b:\n    network: internet\n    link: {}\n    address: 198.51.100.1/24\n  c:\n    network: internet\n\n    address: 198.51.100.1/24\n",
			"f.yaml:10: hosts.c.address: 198.51.100.1 is taken by hosts.b"},
		{"hosts: {a: {network: internet, address: 224.0.0.1/4}, b: internet}", "f.yaml:1: hosts.a.address: 224.0.0.1/4 is not an address for a port"},
		{"hosts:\n  a: internet\n  all: internet\n", `f.yaml:3: hosts.all: "all" is unfit: it stands for all others where they are named`},
		{"hosts:\n  a: internet\n  b: nowhere\n", `f.yaml:3: hosts.b: no gateway leads out of network "nowhere"`},
		{"gateways:\n  g:\n    inside: {network: a, address: 10.0.0.1/24}\n    outside: {network: internet, address: 198.51.100.1/24}\n    nat:\n      rules:\n" +
			"      - {action: accept, from: inside}\n      - action: discard\n        from: [local, dmz]\n        to: inside\n",
			"f.yaml:8: gateways.g.nat.rules[1]: no rule is asked about what goes from local to inside"},
		{"hosts:\n  a: {network: internet, address: 203.0.113.1/30}\n  b: internet\n  c: internet\n",
			`f.yaml:4: hosts.c: no address, and none is free on network "internet", which is 203.0.113.0/30`},
		{"hosts:\n  a: {network: home, address: 10.0.0.1/32}\ngateways:\n  g: {inside: home, outside: internet}\n",
			`f.yaml:4: gateways.g.inside: no address, and those of network "home" do not say which others it has`},
		{"hosts:\n  s: internet\n  a: {network: home, address: 192.0.2.1/1}\ngateways:\n  g: {inside: home, outside: internet}\n",
			`f.yaml:2: hosts.s: no address, and no prefix is left for network "internet"`},
		{"gateways:\n  g:\n    inside: {network: home, address: 198.51.100.129/25}\n    outside: {network: internet, address: 198.51.100.1/24}\n",
			"f.yaml:2: gateways.g: 198.51.100.128/25 is inside and 198.51.100.0/24 outside: they overlap"},
		{"gateways:\n  g:\n    outside: internet\n", "f.yaml:2: gateways.g.inside: on no network"},
	} {
		_, err := Load("f.yaml", []byte(c.yaml))
		if err == nil || err.Error() != c.want {
			t.Errorf("%q\n  is %v\nwant %s", c.yaml, err, c.want)
		}
	}
	if _, err := Load("f.yaml", make([]byte, maxFile+1)); err == nil || !strings.HasPrefix(err.Error(), "f.yaml:1: a file of") {
		t.Errorf("a large file: %v", err)
	}
}

func presetNames() string {
	var names []string
	for _, p := range nat.Presets() {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

func TestRates(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "1500": 1500, "1bit": 1, "64kbit": 64000, "1.5Mbit": 1500000, "10GBIT": 1e10, "unlimited": 0} {
		if got, ok := bits(s); !ok || got != want {
			t.Errorf("%s is %d, %t", s, got, ok)
		}
	}
	for _, s := range []string{"", "bit", "-1", "1e9", "1_000", "0.5bit", "1 mbit", "100000000000gbit", "1tbit", "nan"} {
		if got, ok := bits(s); ok {
			t.Errorf("%s is %d", s, got)
		}
	}
}
