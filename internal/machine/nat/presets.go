package nat

import (
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Preset is a behaviour with a name.
type Preset struct {
	Name string
	What string // one line
	// Source is where the figures are from.
	Source    string
	Behaviour Behaviour
}

const (
	fromRFC3489  = "RFC 3489 section 5"
	fromNATCheck = "assumed, one of the NATs that make up table 1 of Ford, Srisuresh and Kegel 2005"
)

// Presets lists them all, always in the same order.
func Presets() []Preset {
	all := []Preset{
		{"open", "a plain router: neither translation nor filter", fromRFC3489, Behaviour{Mode: Open}},
		{"udp-blocked", "a NAT that lets no UDP through", fromRFC3489,
			Behaviour{Filtering: AddressAndPortDependent, BlockUDP: true}},
		{"symmetric-firewall", "no translation; in comes what answers", fromRFC3489,
			Behaviour{Mode: Firewall, Filtering: AddressAndPortDependent}},
		{"full-cone", "one mapping a host's port, open to everyone", fromRFC3489, Behaviour{}},
		{"restricted", "one mapping a host's port, open to addresses that were sent to", fromRFC3489,
			Behaviour{Filtering: AddressDependent}},
		{"port-restricted", "one mapping a host's port, open to endpoints that were sent to", fromRFC3489,
			Behaviour{Filtering: AddressAndPortDependent}},
		{"symmetric", "a mapping of its own, at a random port, for every remote endpoint", fromRFC3489,
			Behaviour{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, Ports: Ports{Allocation: Random}}},
	}
	all = append(all, population()...)
	return append(all,
		Preset{"rfc", "keeps every rule of RFC 4787, 5382, 5508, 7857 and 6888 that a gateway can keep",
			"those RFCs", byTheBook()},
		Preset{"linux", "Linux with a masquerade rule and no other: ports are kept, and shared where remotes differ",
			"Linux, net/netfilter: nf_conntrack_proto_udp.c, _tcp.c and _icmp.c for the timers, nf_nat_core.c for the ports",
			linux()},
		Preset{"carrier", "a carrier NAT as RFC 6888 wants it: a block of random ports for each subscriber, and ports rest before they return",
			"RFC 6888; 1,024 ports a subscriber is Junos's default, 8 blocks of 128", carrier()},
		Preset{"carrier-symmetric", "as carrier, but with a mapping for every remote endpoint: often seen in mobile networks",
			"Richter et al. 2016, for the kind; the figures are those of carrier", carrierSymmetric()},
		Preset{"openwrt", "as linux, with other timers",
			"OpenWrt, sysctl-nf-conntrack.conf; its firewall rejects what comes from outside", openWrt()},
		Preset{"pf", "pf of OpenBSD and FreeBSD, so pfSense: another random port for every remote endpoint",
			"pf.conf(5), and sys/net/pfvar.h of FreeBSD", packetFilter()},
		Preset{"turncoat", "port-restricted, until two hosts use the same port: the second one's mappings are symmetric",
			"Ford, Srisuresh and Kegel 2005 section 6.3", Behaviour{Filtering: AddressAndPortDependent, SymmetricOnConflict: true}},
		Preset{"meddler", "port-restricted, and rewrites the addresses that it finds in payloads",
			"RFC 8489 section 14.2", Behaviour{Filtering: AddressAndPortDependent, ALG: true}},
		Preset{"renumbering", "port-restricted, and gives TCP connections other sequence numbers",
			"Guha and Francis 2005, whose test looks for it",
			Behaviour{Filtering: AddressAndPortDependent, TCP: TCP{RewriteSequence: true, CheckWindow: true}}},
		Preset{"web-only", "nothing but TCP to ports 80 and 443 gets out", "assumed, an office", webOnly()},
		Preset{"web-inspecting", "as web-only, and drops what is no HTTP or TLS", "assumed, a careful office", webInspecting()},
		Preset{"proxy-only", "nothing gets out but by the gateway's own proxy", "assumed, a strict office",
			Behaviour{Filtering: AddressAndPortDependent, Rules: []Rule{{Action: Reject, From: SidesOf(Inside), To: SidesOf(Outside)}}}},
	)
}

// PresetByName is the behaviour of a preset; the caller may change it.
func PresetByName(name string) (Behaviour, bool) {
	for _, p := range Presets() {
		if p.Name == name {
			return p.Behaviour, true
		}
	}
	return Behaviour{}, false
}

// population are the kinds of NAT that the simulator's populations are made
// of.
func population() []Preset {
	kind := func(b Behaviour) Behaviour {
		if b.Timers.UDP == 0 {
			b.Timers.UDP = 160 * time.Second // Haetoenen et al. 2010, the mean of 34 home gateways
		}
		return b
	}
	symmetric := func(a Allocation) Behaviour {
		return Behaviour{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, Ports: Ports{Allocation: a}}
	}
	p6 := symmetric(Sequential)
	p6.Mapping = PerConnection
	p7 := symmetric(Random)
	p7.Ports.Block, p7.Ports.HoldDown = 1024, 120*time.Second
	return []Preset{
		{"p1", "endpoint-independent mapping, strict filter: most home routers", fromNATCheck,
			kind(Behaviour{Filtering: AddressAndPortDependent})},
		{"p2", "as p1, but the filter looks at addresses alone", fromNATCheck,
			kind(Behaviour{Filtering: AddressDependent})},
		{"p3", "as p1, without a filter", fromNATCheck, kind(Behaviour{})},
		{"p4", "as p1, but answers strangers' SYNs with RST, and is ended by an RST", fromNATCheck,
			kind(Behaviour{Filtering: AddressAndPortDependent, Unsolicited: Unsolicited{TCP: Reset},
				TCP: TCP{RSTCloses: true}, Timers: Timers{UDP: time.Minute}})},
		{"p5", "a mapping for every remote endpoint, at the next port each: predictable", fromNATCheck, kind(symmetric(Sequential))},
		{"p6", "as p5, and every connection gets a new one", fromNATCheck, kind(p6)},
		{"p7", "a mapping for every remote endpoint, at a random port of the subscriber's block: not predictable", fromNATCheck, kind(p7)},
	}
}

func byTheBook() Behaviour {
	return Behaviour{
		Hairpin: HairpinExternalSource, // RFC 4787 REQ-9a
		Ports: Ports{
			Allocation: PreserveRandom, // RFC 7857 section 9
			Parity:     true,           // RFC 4787 REQ-4
			HoldDown:   120 * time.Second,
			PerHost:    16384, // RFC 6888 REQ-4: some bounds
			Rate:       1000,
		},
		Unsolicited: Unsolicited{TCP: Unreachable, After: 6 * time.Second}, // RFC 5382 REQ-4
	}
}

func linux() Behaviour {
	return Behaviour{
		// Connection tracking knows nothing but 5-tuples. A source port is kept
		// as long as that makes no two of them equal.
		Mapping:   AddressAndPortDependent,
		Filtering: AddressAndPortDependent,
		Ports:     Ports{Allocation: PreserveRandom, Overload: true},
		Timers: Timers{
			UDP:           2 * time.Minute,
			UDPUnanswered: 30 * time.Second,
			UDPRefresh:    RefreshBoth,
			PerSession:    true,
			ICMP:          30 * time.Second,
			Transitory:    2 * time.Minute,
			Established:   5 * 24 * time.Hour,
			AfterFIN:      2 * time.Minute,
			AfterRST:      10 * time.Second,
		},
		TCP: TCP{CheckWindow: true, RSTCloses: true},
		// What is for nobody inside is for the machine itself, which has no
		// such socket.
		Unsolicited: Unsolicited{TCP: Reset, Other: Unreachable},
	}
}

func openWrt() Behaviour {
	b := linux()
	b.Timers.UDP, b.Timers.UDPUnanswered = 3*time.Minute, time.Minute
	b.Timers.Established = 7440 * time.Second
	return b
}

func packetFilter() Behaviour {
	return Behaviour{
		Mapping:   AddressAndPortDependent,
		Filtering: AddressAndPortDependent,
		Ports:     Ports{Allocation: Random, First: 50001, Last: 65535, Overload: true},
		Timers: Timers{
			UDP:         time.Minute,
			UDPRefresh:  RefreshBoth,
			PerSession:  true,
			ICMP:        20 * time.Second,
			Transitory:  2 * time.Minute,
			Established: 24 * time.Hour,
			AfterFIN:    45 * time.Second,
			AfterRST:    90 * time.Second,
		},
		TCP: TCP{CheckWindow: true},
	}
}

func carrier() Behaviour {
	return Behaviour{
		Hairpin: HairpinExternalSource,
		Ports:   Ports{Allocation: Random, Block: 1024, PerHost: 1024, HoldDown: 120 * time.Second},
	}
}

func carrierSymmetric() Behaviour {
	b := carrier()
	b.Mapping, b.Filtering = AddressAndPortDependent, AddressAndPortDependent
	b.Hairpin = NoHairpin
	return b
}

func webOnly() Behaviour {
	web := []PortRange{{80, 80}, {443, 443}}
	return Behaviour{
		Filtering: AddressAndPortDependent,
		Rules: []Rule{
			{Action: Accept, From: SidesOf(Inside), To: SidesOf(Outside), Protocol: ip.TCP, DstPorts: web},
			{Action: Discard, From: SidesOf(Inside), To: SidesOf(Outside)},
		},
	}
}

func webInspecting() Behaviour {
	b := webOnly()
	b.Content.WebOnly = true
	return b
}
