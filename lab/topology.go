package lab

import (
	"io"
	"os"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// The data that a topology is made of.
type (
	Topology = scenario.Topology
	Host     = scenario.Host
	Gateway  = scenario.Gateway
	Port     = scenario.Port
	Link     = scenario.Link
	Proxy    = scenario.Proxy
	Pool     = dhcp.Pool
	PortMap  = portmap.Behaviour

	// Behaviour is what a NAT or firewall does, and the rest is what it is made
	// of.
	Behaviour   = nat.Behaviour
	Policy      = nat.Policy
	Ports       = nat.Ports
	Timers      = nat.Timers
	TCP         = nat.TCP
	ICMP        = nat.ICMP
	Unsolicited = nat.Unsolicited
	Rule        = nat.Rule
	PortRange   = nat.PortRange
	Content     = nat.Content
	Static      = nat.Static
	Preset      = nat.Preset
	Side        = nat.Side
	Sides       = nat.Sides
)

// Internet is the name of the network that every topology has.
const Internet = scenario.Internet

// What a gateway is at all.
const (
	Translate = nat.Translate
	Firewall  = nat.Firewall
	Open      = nat.Open
)

// What mapping and filtering depend on (RFC 4787 sections 4.1 and 5).
const (
	EndpointIndependent     = nat.EndpointIndependent
	AddressDependent        = nat.AddressDependent
	AddressAndPortDependent = nat.AddressAndPortDependent
	PerConnection           = nat.PerConnection
)

// What happens to a packet from inside to an external endpoint (RFC 4787
// section 6).
const (
	NoHairpin             = nat.NoHairpin
	HairpinInternalSource = nat.HairpinInternalSource
	HairpinExternalSource = nat.HairpinExternalSource
)

// How external ports are chosen (RFC 4787 section 4.2).
const (
	PreserveNext   = nat.PreserveNext
	Preserve       = nat.Preserve
	PreserveRandom = nat.PreserveRandom
	Sequential     = nat.Sequential
	Random         = nat.Random
)

// Which packets keep a UDP mapping alive (RFC 4787 REQ-6).
const (
	RefreshOutbound = nat.RefreshOutbound
	RefreshInbound  = nat.RefreshInbound
	RefreshBoth     = nat.RefreshBoth
)

// What becomes of the parts of a packet (RFC 4787 REQ-14).
const (
	AnyOrder  = nat.AnyOrder
	InOrder   = nat.InOrder
	DropParts = nat.DropParts
)

// Which of several external addresses a host gets (RFC 4787 REQ-2).
const (
	Paired    = nat.Paired
	Arbitrary = nat.Arbitrary
)

// What a gateway answers to what nobody waits for.
const (
	Silent      = nat.Silent
	Reset       = nat.Reset
	Unreachable = nat.Unreachable
	Prohibited  = nat.Prohibited
)

// What a rule does, and the sides that it is about.
const (
	Accept  = nat.Accept
	Discard = nat.Discard
	Reject  = nat.Reject

	Inside  = nat.Inside
	Outside = nat.Outside
	DMZ     = nat.DMZ
)

// SidesOf is a set of sides for a Rule.
func SidesOf(sides ...Side) Sides { return nat.SidesOf(sides...) }

// What protocol a rule is about.
const (
	AnyProtocol  = ip.Other
	ProtocolUDP  = ip.UDP
	ProtocolTCP  = ip.TCP
	ProtocolICMP = ip.ICMP
)

// Presets are the behaviours that have a name, always in the same order.
func Presets() []Preset { return nat.Presets() }

// PresetByName is a behaviour that has a name; it may be changed. It panics if
// there is none.
func PresetByName(name string) Behaviour {
	b, ok := nat.PresetByName(name)
	if !ok {
		panic("lab: no preset " + name)
	}
	return b
}

// Load reads a topology from a YAML file and checks it. An error names file,
// line and field.
func Load(file string) (Topology, error) {
	f, err := os.Open(file)
	if err != nil {
		return Topology{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<20+1))
	if err != nil {
		return Topology{}, err
	}
	return Parse(file, text)
}

// Parse is Load with the text of a file; name stands for it in errors.
func Parse(name string, text []byte) (Topology, error) {
	return scenario.Load(name, text, netns.CheckKernel)
}

// Marshal writes a topology as YAML that Load reads.
func Marshal(t Topology) ([]byte, error) { return scenario.Marshal(t) }

// Check refuses topologies that cannot be built, and says why.
func Check(t Topology) error {
	if err := scenario.Check(t); err != nil {
		return err
	}
	return netns.CheckKernel(t)
}
