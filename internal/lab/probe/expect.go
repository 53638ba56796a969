package probe

import (
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// policy is what a behaviour says about a protocol.
func policy(b nat.Behaviour, proto ip.Proto) nat.Policy {
	if proto == ip.TCP && b.TCPPolicy != nil {
		return *b.TCPPolicy
	}
	return nat.Policy{Mapping: b.Mapping, Filtering: b.Filtering, Hairpin: b.Hairpin}
}

func preserves(a nat.Allocation) bool {
	return a == nat.Preserve || a == nat.PreserveNext || a == nat.PreserveRandom
}

// steady: whoever a host sends to sees the same external endpoint. Where ports
// are kept and may be shared, that holds for mappings of any kind.
func steady(b nat.Behaviour, proto ip.Proto) bool {
	return b.Mode != nat.Translate || policy(b, proto).Mapping == nat.EndpointIndependent ||
		preserves(b.Ports.Allocation) && b.Ports.Overload
}

// allowed: a packet to a port outside gets past the rules.
func allowed(b nat.Behaviour, proto ip.Proto, port uint16) bool {
	if proto == ip.UDP && b.BlockUDP {
		return false
	}
	for _, r := range b.Rules {
		from, to := r.From == 0 || r.From&nat.SidesOf(nat.Inside) != 0, r.To == 0 || r.To&nat.SidesOf(nat.Outside) != 0
		if from && to && (r.Protocol == ip.Other || r.Protocol == proto) && inRanges(r.DstPorts, port) &&
			len(r.Src) == 0 && len(r.Dst) == 0 && len(r.SrcPorts) == 0 {
			return r.Action == nat.Accept
		}
	}
	return true
}

func inRanges(all []nat.PortRange, port uint16) bool {
	for _, r := range all {
		if r == (nat.PortRange{}) || r.First <= port && port <= r.Last {
			return true
		}
	}
	return len(all) == 0
}

// Expect is what a gateway that behaves so must look like.
func Expect(b nat.Behaviour) Seen {
	return Seen{
		UDP:         expectKind(b, ip.UDP, UDPPorts[0]),
		TCP:         expectKind(b, ip.TCP, TCPPorts[0]),
		Clash:       expectClash(b),
		Unsolicited: expectAnswer(b),
	}
}

func expectClash(b nat.Behaviour) Clash {
	switch {
	case b.Mode != nat.Translate || !allowed(b, ip.UDP, UDPPorts[0]):
		return ""
	case b.SymmetricOnConflict:
		return AnyPort
	case preserves(b.Ports.Allocation) && b.Ports.Overload:
		return Shared
	}
	switch b.Ports.Allocation {
	case nat.PreserveNext, nat.Sequential:
		return NextPort
	case nat.Preserve:
		return NoPort
	}
	return AnyPort
}

func expectKind(b nat.Behaviour, proto ip.Proto, port uint16) (k Kind) {
	if !allowed(b, proto, port) {
		return Kind{Mapping: Blocked}
	}
	p := policy(b, proto)
	k.Mapping = map[nat.Dependence]Mapping{
		nat.EndpointIndependent: Independent, nat.AddressDependent: ByAddress,
		nat.AddressAndPortDependent: ByAddressPort, nat.PerConnection: ByConnection,
	}[p.Mapping]
	if steady(b, proto) {
		k.Mapping = Independent
	} else if proto == ip.UDP && p.Mapping == nat.PerConnection {
		k.Mapping = ByAddressPort // UDP has no connections
	}
	k.Ports = Kept
	if b.Mode == nat.Translate && !preserves(b.Ports.Allocation) {
		k.Ports = Other
		if b.Ports.Allocation == nat.Sequential {
			k.Ports = Next
		}
	}
	k.Filtering = map[nat.Dependence]Filtering{
		nat.EndpointIndependent: Anyone, nat.AddressDependent: SameAddress, nat.AddressAndPortDependent: SameEndpoint,
	}[p.Filtering]
	if b.Mode == nat.Open {
		k.Filtering = Anyone
	}
	if b.Mode != nat.Translate {
		return k
	}
	k.Hairpin = NoHairpin
	through := lets(b, b, proto) && allowed(b, proto, 0)
	switch {
	case through && p.Hairpin == nat.HairpinExternalSource:
		k.Hairpin = FromExternal
	case through && p.Hairpin == nat.HairpinInternalSource && proto == ip.UDP:
		k.Hairpin = FromInternal // a TCP that answers such a SYN directly is not understood
	}
	return k
}

func expectAnswer(b nat.Behaviour) Answer {
	switch {
	case b.Mode == nat.Open:
		return Refused // by the host
	case b.Unsolicited.TCP == nat.Silent:
		return Silence
	case b.Unsolicited.TCP == nat.Prohibited:
		return Prohibited
	case b.Unsolicited.After >= 5*time.Second:
		return Late
	}
	return Refused
}

// lets: what a host behind b sends to where a server has seen a host behind a
// is let in, when the latter has sent to where the server has seen the former.
func lets(a, b nat.Behaviour, proto ip.Proto) bool {
	f := policy(a, proto).Filtering
	if a.Mode == nat.Open {
		f = nat.EndpointIndependent
	}
	switch f {
	case nat.EndpointIndependent:
		return true
	case nat.AddressDependent:
		return steady(a, proto)
	}
	return steady(a, proto) && steady(b, proto)
}

// ExpectPair is which holes the two can make: one packet that gets through
// suffices, because it is answered from where it went.
func ExpectPair(a, b nat.Behaviour) Traversal {
	through := func(proto ip.Proto) bool {
		return allowed(a, proto, 0) && allowed(b, proto, 0) && (lets(a, b, proto) || lets(b, a, proto))
	}
	return Traversal{UDP: through(ip.UDP), TCP: through(ip.TCP)}
}
