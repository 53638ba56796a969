package scenario

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// AccessDelay is the one-way delay of every access link to the Internet in
// Cases: 40 ms between any two public endpoints.
const AccessDelay = 20 * time.Millisecond

var access = Link{Delay: AccessDelay}

// NATs that the cases are made of.
var (
	// PortRestricted is what most home routers do, in RFC 3489's words.
	PortRestricted = nat.Behaviour{Filtering: nat.AddressAndPortDependent}
	Restricted     = nat.Behaviour{Filtering: nat.AddressDependent}
	FullCone       = nat.Behaviour{}
	// Symmetric chooses another port for every remote endpoint, at random.
	Symmetric = nat.Behaviour{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent, Ports: nat.Ports{Allocation: nat.Random}}
)

func withHairpin(b nat.Behaviour) nat.Behaviour {
	b.Hairpin = nat.HairpinExternalSource
	return b
}

func blockingUDP(b nat.Behaviour) nat.Behaviour {
	b.BlockUDP = true
	return b
}

func port(network string, link Link, addrs ...string) Port {
	p := Port{Network: network, Link: link}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, netip.MustParsePrefix(a))
	}
	return p
}

// Addresses of the public side in Cases.
var (
	ServerAddr   = netip.MustParseAddr("198.51.100.1")
	GatewayAAddr = netip.MustParseAddr("198.51.100.11")
	GatewayBAddr = netip.MustParseAddr("198.51.100.12")
)

func server() Host { return Host{Name: "s", Port: port(Internet, access, "198.51.100.1/24")} }

// TwoHomes is hosts a and b, each behind a NAT of its own, and the server s,
// 20 ms from the middle of the Internet.
func TwoHomes(a, b nat.Behaviour) Topology {
	return Topology{
		Hosts: []Host{server(),
			{Name: "a", Port: port("home-a", Link{}, "10.1.0.2/24")},
			{Name: "b", Port: port("home-b", Link{}, "10.2.0.2/24")},
		},
		Gateways: []Gateway{
			{Name: "ga", NAT: a, Inside: port("home-a", Link{}, "10.1.0.1/24"), Outside: port(Internet, access, "198.51.100.11/24")},
			{Name: "gb", NAT: b, Inside: port("home-b", Link{}, "10.2.0.1/24"), Outside: port(Internet, access, "198.51.100.12/24")},
		},
	}
}

// OneHome is a and b behind the same NAT.
func OneHome(b nat.Behaviour) Topology {
	return Topology{
		Hosts: []Host{server(),
			{Name: "a", Port: port("home", Link{}, "10.1.0.2/24")},
			{Name: "b", Port: port("home", Link{}, "10.1.0.3/24")},
		},
		Gateways: []Gateway{
			{Name: "g", NAT: b, Inside: port("home", Link{}, "10.1.0.1/24"), Outside: port(Internet, access, "198.51.100.11/24")},
		},
	}
}

// TwoLevels is a and b behind NATs of their own, both behind the NAT of one
// provider.
func TwoLevels(home, provider nat.Behaviour) Topology {
	near := Link{Delay: time.Millisecond}
	return Topology{
		Hosts: []Host{server(),
			{Name: "a", Port: port("home-a", Link{}, "10.1.0.2/24")},
			{Name: "b", Port: port("home-b", Link{}, "10.2.0.2/24")},
		},
		Gateways: []Gateway{
			{Name: "ga", NAT: home, Inside: port("home-a", Link{}, "10.1.0.1/24"), Outside: port("provider", near, "100.64.0.11/24")},
			{Name: "gb", NAT: home, Inside: port("home-b", Link{}, "10.2.0.1/24"), Outside: port("provider", near, "100.64.0.12/24")},
			{Name: "cgn", NAT: provider, Inside: port("provider", near, "100.64.0.1/24"), Outside: port(Internet, access, "198.51.100.11/24")},
		},
	}
}

// SameAddresses is two homes that use one private prefix; a's home has a
// stranger on the address that b has in his.
func SameAddresses(a, b nat.Behaviour) Topology {
	return Topology{
		Hosts: []Host{server(),
			{Name: "a", Port: port("home-a", Link{}, "192.168.1.2/24")},
			{Name: "stranger", Port: port("home-a", Link{}, "192.168.1.3/24")},
			{Name: "b", Port: port("home-b", Link{}, "192.168.1.3/24")},
		},
		Gateways: []Gateway{
			{Name: "ga", NAT: a, Inside: port("home-a", Link{}, "192.168.1.1/24"), Outside: port(Internet, access, "198.51.100.11/24")},
			{Name: "gb", NAT: b, Inside: port("home-b", Link{}, "192.168.1.1/24"), Outside: port(Internet, access, "198.51.100.12/24")},
		},
	}
}

// DualStack is two homes with NATs for IPv4 and stateful firewalls for IPv6.
func DualStack(a, b nat.Behaviour) Topology {
	t := TwoHomes(a, b)
	add := func(p *Port, addr string) { p.Addrs = append(p.Addrs, netip.MustParsePrefix(addr)) }
	add(&t.Hosts[0].Port, "2001:db8::1/64")
	add(&t.Hosts[1].Port, "2001:db8:a::2/64")
	add(&t.Hosts[2].Port, "2001:db8:b::2/64")
	add(&t.Gateways[0].Inside, "2001:db8:a::1/64")
	add(&t.Gateways[0].Outside, "2001:db8::11/64")
	add(&t.Gateways[1].Inside, "2001:db8:b::1/64")
	add(&t.Gateways[1].Outside, "2001:db8::12/64")
	return t
}

// OnePublic is b behind a NAT and a on the Internet.
func OnePublic(b nat.Behaviour) Topology {
	t := TwoHomes(b, b)
	t.Hosts[1] = Host{Name: "a", Port: port(Internet, access, "198.51.100.11/24")}
	t.Gateways = t.Gateways[1:]
	return t
}

var (
	relayUDP = Outcome{Kind: "relay", Transport: "udp", Technique: "relay", To: ServerAddr}
	relayTCP = Outcome{Kind: "relay", Transport: "tcp", Technique: "relay", To: ServerAddr}
)

func direct(technique, to string) Outcome {
	return Outcome{Kind: "direct", Transport: "udp", Technique: technique, To: netip.MustParseAddr(to)}
}

// Cases is the table.
func Cases() []Case {
	return []Case{
		{Name: "different NATs, port restricted", Why: "Ford, Srisuresh, Kegel 2005, section 3.4",
			Topology: TwoHomes(PortRestricted, PortRestricted), Want: direct("udp-punch", "198.51.100.12")},
		{Name: "different NATs, restricted", Why: "RFC 4787 REQ-8b",
			Topology: TwoHomes(Restricted, PortRestricted), Want: direct("udp-punch", "198.51.100.12")},
		{Name: "different NATs, full cone", Why: "RFC 4787 REQ-8a",
			Topology: TwoHomes(FullCone, PortRestricted), Want: direct("udp-punch", "198.51.100.12")},
		{Name: "common NAT without hairpin", Why: "section 3.3: the private endpoints win",
			Topology: OneHome(PortRestricted), Want: direct("udp-lan", "10.1.0.3")},
		{Name: "common NAT with hairpin", Why: "section 3.3: the private endpoints win all the same",
			Topology: OneHome(withHairpin(PortRestricted)), Want: direct("udp-lan", "10.1.0.3")},
		{Name: "two levels, hairpin at the outer", Why: "section 3.5",
			Topology: TwoLevels(PortRestricted, withHairpin(PortRestricted)), Want: direct("udp-hairpin", "198.51.100.11")},
		{Name: "two levels, no hairpin at the outer", Why: "section 3.5: nothing but the relay is left",
			Topology: TwoLevels(PortRestricted, PortRestricted), Want: relayUDP},
		{Name: "same private addresses, a stranger on the peer's", Why: "authenticated checks",
			Topology: SameAddresses(PortRestricted, PortRestricted), Want: direct("udp-punch", "198.51.100.12")},
		{Name: "symmetric on both sides", Why: "no port to aim at",
			Topology: TwoHomes(Symmetric, Symmetric), Want: relayUDP},
		{Name: "symmetric against port restricted", Why: "the unpredictable port never passes the filter",
			Topology: TwoHomes(Symmetric, PortRestricted), Want: relayUDP},
		{Name: "symmetric against restricted", Why: "the filter looks at the address alone",
			Topology: TwoHomes(Symmetric, Restricted), Want: direct("udp-punch", "198.51.100.12")},
		{Name: "symmetric against full cone", Why: "nothing is filtered",
			Topology: TwoHomes(Symmetric, FullCone), Want: direct("udp-punch", "198.51.100.12")},
		{Name: "one side public", Why: "only one hole is needed",
			Topology: OnePublic(PortRestricted), Want: direct("udp-punch", "198.51.100.12")},
		{Name: "IPv6 behind firewalls", Why: "RFC 6092: outbound packets open the firewall",
			Topology: DualStack(Symmetric, Symmetric), Want: direct("udp-ipv6", "2001:db8:b::2")},
		{Name: "UDP blocked on one side", Why: "the stream relay needs only TCP",
			Topology: TwoHomes(blockingUDP(PortRestricted), PortRestricted), Want: relayTCP},
		{Name: "UDP blocked on the other side", Why: "the stream relay needs only TCP",
			Topology: TwoHomes(PortRestricted, blockingUDP(PortRestricted)), Want: relayTCP},
		{Name: "UDP blocked on both sides", Why: "the stream relay needs only TCP",
			Topology: TwoHomes(blockingUDP(PortRestricted), blockingUDP(PortRestricted)), Want: relayTCP},
	}
}
