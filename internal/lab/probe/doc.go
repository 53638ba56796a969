// Package probe looks at gateways from outside of them, as any program on
// their hosts can: which mappings two servers see, who is let in, what becomes
// of hairpins and of strangers' SYNs, and which two gateways let their hosts
// punch a hole to each other. It knows no technique but the plain one.
//
// The same probes run on the stacks of the simulator and on those of kernels,
// so that gateways that are said to behave alike can be compared. What a
// behaviour has to look like is in Expect and ExpectPair; where an
// implementation differs, docs/QUIRKS.md says why.
package probe

import (
	"context"
	"net"
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Stack is the IP stack of a host. All its sockets may share ports.
type Stack interface {
	ListenUDP(port uint16) (net.PacketConn, error)
	ListenTCP(port uint16) (net.Listener, error)
	DialTCP(ctx context.Context, port uint16, to netip.AddrPort) (net.Conn, error)
}

// Host is a stack with its address.
type Host struct {
	Stack
	Addr netip.Addr
}

// Home is two hosts behind a gateway.
type Home struct {
	Name     string
	A, C     Host
	External netip.Addr // of the gateway, or of A where nothing is translated
	NAT      nat.Behaviour
}

// Mapping is which remotes share a mapping (RFC 4787 section 4.1), as two
// servers with two ports each see it.
type Mapping string

const (
	Blocked        Mapping = "blocked" // nothing gets out
	Independent    Mapping = "independent"
	ByAddress      Mapping = "by address"
	ByAddressPort  Mapping = "by address and port"
	ByConnection   Mapping = "by connection"
	UnknownMapping Mapping = "inconsistent"
)

// Ports is how external ports follow from internal ones.
type Ports string

const (
	Kept  Ports = "kept"
	Next  Ports = "next" // always the same step from the one before
	Other Ports = "other"
)

// Filtering is who is let in to a mapping (RFC 4787 section 5).
type Filtering string

const (
	Anyone       Filtering = "anyone"
	SameAddress  Filtering = "same address"
	SameEndpoint Filtering = "same endpoint"
)

// Hairpin is where a packet seems to come from that another host of the same
// gateway has sent to an external endpoint of it.
type Hairpin string

const (
	NoHairpin    Hairpin = "none"
	FromInternal Hairpin = "from internal"
	FromExternal Hairpin = "from external"
)

// Answer is what who dials a port that nobody asked for gets.
type Answer string

const (
	Silence    Answer = "silence"
	Refused    Answer = "refused" // RST or port unreachable: programs cannot tell them apart
	Prohibited Answer = "prohibited"
	Late       Answer = "refused late" // after some seconds
	Connected  Answer = "connected"
)

// Clash is which external port a host gets when another host of the same
// gateway uses the same internal port towards somebody else.
type Clash string

const (
	Shared   Clash = "the same" // overloading (RFC 4787 section 4.2.1)
	NextPort Clash = "the next"
	AnyPort  Clash = "another"
	NoPort   Clash = "none"
)

// Kind is how a gateway treats a protocol. All but Mapping is empty where
// nothing gets out; Hairpin also where nothing is translated.
type Kind struct {
	Mapping   Mapping
	Ports     Ports
	Filtering Filtering
	Hairpin   Hairpin
}

// Seen is what a gateway looks like. Clash is of UDP, and empty as Hairpin is.
type Seen struct {
	UDP, TCP    Kind
	Clash       Clash
	Unsolicited Answer
}

// Traversal is whether two hosts behind a gateway each got through to each
// other, in both directions.
type Traversal struct{ UDP, TCP bool }
