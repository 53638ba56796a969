// Package nat is a gateway as a pure state machine: packets in, packets out.
//
// Mapping and filtering are independent policies, in the terms of RFC 4787.
// The machine does no I/O and reads no clock; the simulator and the lab drive it.
//
// A Gateway belongs to one goroutine: nothing in it is safe for concurrent
// use, and it starts none. What is to be translated on several processors goes
// through several gateways, each with external addresses of its own.
//
// Times are those that the caller gives, which never run backwards: an earlier
// one counts as the last. They are exact to the nanosecond: what has expired is
// gone for the packet that comes at that very time, whether or not
// HandleTimeout was called. Packets are whole IP packets, sizes are in bytes,
// an MTU counts the IP header in, and packets per second are not bounded but
// where a field says so.
//
// Memory is bounded by Config.MaxMappings: some 100 bytes for a mapping with a
// session, some 60 for each further session, of which there are at most four
// times as many as mappings. Packets from strangers make at most half of
// either. It is taken as it is needed and kept until Reset.
//
// How it is fast: a mapping and its first session lie together in one cache
// line (mapping.go), found by one look into an index (index.go) or into the
// table of ports (ports.go); a packet writes its timer there and moves nothing
// (wheel.go); most packets go a short way (express.go). With Expect the
// processor fetches what several packets need at once.
package nat

import "time"

// Mode is what a gateway is at all.
type Mode uint8

const (
	Translate Mode = iota // a NAT: IPv4 is translated and filtered, IPv6 only filtered
	Firewall              // filters without translation
	Open                  // forwards without translation or filtering: a plain router
)

// Dependence says on what part of the remote endpoint a policy depends
// (RFC 4787 sections 4.1 and 5).
type Dependence uint8

const (
	EndpointIndependent Dependence = iota
	AddressDependent
	AddressAndPortDependent
	// PerConnection is a mapping that each TCP connection gets anew, also the
	// next one between the same endpoints. It is no way to filter.
	PerConnection
)

// Hairpin says what happens to a packet from inside to an external endpoint of
// the same gateway (RFC 4787 section 6).
type Hairpin uint8

const (
	NoHairpin Hairpin = iota
	HairpinInternalSource
	HairpinExternalSource
)

// Allocation says how the external port of a new mapping is chosen
// (RFC 4787 section 4.2).
type Allocation uint8

const (
	PreserveNext   Allocation = iota // the internal port; the next free one when it is taken
	Preserve                         // the internal port, or none
	PreserveRandom                   // the internal port; a random one when it is taken
	Sequential                       // Delta more than the last one allocated
	Random                           // any free port
)

// Answer is what a gateway says to a packet that it lets nobody have.
type Answer uint8

const (
	Silent      Answer = iota
	Reset              // RST; to what is not TCP, nothing
	Unreachable        // ICMP port unreachable
	Prohibited         // ICMP administratively prohibited
)

// Refresh says which packets keep a UDP mapping alive (RFC 4787 REQ-6).
type Refresh uint8

const (
	RefreshOutbound Refresh = iota
	RefreshInbound
	RefreshBoth
)

// Fragments says what becomes of the parts of a packet (RFC 4787 REQ-14).
type Fragments uint8

const (
	AnyOrder  Fragments = iota // translated in whatever order they come
	InOrder                    // dropped unless the first came first
	DropParts                  // dropped
)

// Pooling says which of several external addresses an internal one gets
// (RFC 4787 REQ-2).
type Pooling uint8

const (
	Paired Pooling = iota // always the same
	Arbitrary
)

// Behaviour is what a gateway does, as data. The zero value translates with
// endpoint-independent mapping and filtering, preserves ports, does not hairpin
// and has the timers of the RFCs.
type Behaviour struct {
	Mode Mode `yaml:"mode"`

	Mapping   Dependence `yaml:"mapping"`
	Filtering Dependence `yaml:"filtering"`
	Hairpin   Hairpin    `yaml:"hairpin"`
	// TCPPolicy replaces the three above for TCP.
	TCPPolicy *Policy `yaml:"tcp-policy"`

	Ports   Ports   `yaml:"ports"`
	Pooling Pooling `yaml:"pooling"`
	// Untranslated are remote endpoints that IPv4 hosts reach with their own
	// addresses (RFC 6888 REQ-6). Only they themselves may answer, and have to
	// know the way.
	Untranslated []Remotes `yaml:"untranslated"`
	// SymmetricOnConflict makes a host's mappings address-and-port-dependent,
	// with random ports, where another host already holds the same internal
	// port with mappings that are not of this kind. Without Overload, since
	// ports that are shared are in no conflict.
	SymmetricOnConflict bool `yaml:"symmetric-on-conflict"`

	Timers      Timers      `yaml:"timers"`
	TCP         TCP         `yaml:"tcp"`
	Unsolicited Unsolicited `yaml:"unsolicited"`
	ICMP        ICMP        `yaml:"icmp"`

	Fragments Fragments `yaml:"fragments"`
	// KeepTTL forwards without taking a hop off.
	KeepTTL bool `yaml:"keep-ttl"`
	// ALG rewrites the internal endpoint where it stands in a payload, as
	// binary or as text, like a careless application level gateway.
	ALG bool `yaml:"alg"`

	// BlockUDP drops every UDP packet in either direction.
	BlockUDP bool `yaml:"block-udp"`
	// Rules are the packet filter. The first that matches decides; without one,
	// what the mode and the filtering policy let pass, passes.
	Rules []Rule `yaml:"rules"`
	// Content is the filter on payloads.
	Content Content `yaml:"content"`
}

// Policy is what may differ between UDP and TCP.
type Policy struct {
	Mapping   Dependence `yaml:"mapping"`
	Filtering Dependence `yaml:"filtering"`
	Hairpin   Hairpin    `yaml:"hairpin"`
}

// Ports says how external ports are given out.
type Ports struct {
	Allocation Allocation `yaml:"allocation"`
	// Delta is the step of Sequential; zero is 1.
	Delta int `yaml:"delta"`
	// First and Last bound the ports that are not preserved; zero is 1024 and
	// 65535. Where ports are preserved, internal ones below 1024 that are taken
	// become others below 1024 (RFC 4787 REQ-3a); no other gets one of these.
	First uint16 `yaml:"first"`
	Last  uint16 `yaml:"last"`
	// Block gives each internal address a block of so many ports of its own,
	// at random, and so one external address (RFC 6888 section 5); zero gives
	// none.
	Block int `yaml:"block"`
	// Overload lets two mappings share an external port as long as their
	// remote endpoints differ (RFC 4787 section 4.2.1). It is for mappings that
	// depend on remotes, with filtering that depends on as much; the mappings
	// of a protocol that do not keep their ports to themselves.
	Overload bool `yaml:"overload"`
	// Parity maps even ports to even ports (RFC 4787 REQ-4).
	Parity bool `yaml:"parity"`
	// HoldDown is how long a freed port is not given out (RFC 6888 REQ-8).
	HoldDown time.Duration `yaml:"hold-down"`
	// Held bounds how many ports are held down at a time; zero is no bound.
	Held int `yaml:"held"`
	// PerHost bounds the mappings of one internal address (RFC 6888 REQ-4), of
	// which strangers may make half; zero is no bound.
	PerHost int `yaml:"per-host"`
	// Rate bounds the mappings that an internal address makes in a second, and
	// at once (RFC 6888 REQ-4c); zero is no bound.
	Rate int `yaml:"rate"`
}

// Timers are how long idle state lives; zero is what the RFC named asks for.
type Timers struct {
	UDP        time.Duration `yaml:"udp"` // 5 min, RFC 4787 REQ-5
	UDPRefresh Refresh       `yaml:"udp-refresh"`
	// UDPUnanswered is for mappings, or with PerSession for remotes, that no
	// packet came in for; zero is as UDP.
	UDPUnanswered time.Duration `yaml:"udp-unanswered"`
	// PerSession times each remote of a UDP mapping alone. Without it any
	// packet of the mapping keeps all of them. Where there are Rules, or where
	// the filter depends on less than the mapping, remotes are always timed
	// alone, and so are those of explicit mappings.
	PerSession  bool          `yaml:"per-session"`
	ICMP        time.Duration `yaml:"icmp"`        // 60 s, RFC 5508 REQ-2
	Transitory  time.Duration `yaml:"transitory"`  // 4 min, RFC 5382 REQ-5
	Established time.Duration `yaml:"established"` // 2 h 4 min, RFC 5382 REQ-5
	AfterFIN    time.Duration `yaml:"after-fin"`   // both sides; 4 min
	AfterRST    time.Duration `yaml:"after-rst"`   // 4 min, RFC 7857 section 2.2
}

// TCP is how connections are followed. The zero value lets every sequence of
// packets pass that makes a connection, simultaneous open among them (RFC 5382
// REQ-2), and ends nothing early.
type TCP struct {
	// RefuseSYN drops a SYN from the remote that a SYN went out to;
	// RefuseSYNACK drops its SYN-ACK after a SYN-out with an ICMP error in
	// between; RefuseSYNACKOut drops a SYN-ACK from inside after a SYN from
	// inside.
	RefuseSYN       bool `yaml:"refuse-syn"`
	RefuseSYNACK    bool `yaml:"refuse-synack"`
	RefuseSYNACKOut bool `yaml:"refuse-synack-out"`
	// RSTCloses and ICMPCloses end a connection's state at once when an RST or
	// an ICMP error comes in for it; but not one that names an MTU, or no
	// connection would outlive a narrow link.
	RSTCloses  bool `yaml:"rst-closes"`
	ICMPCloses bool `yaml:"icmp-closes"`
	// CheckWindow drops segments outside of the peers' windows, as Linux
	// conntrack does.
	CheckWindow bool `yaml:"check-window"`
	// RewriteSequence gives outbound connections another initial sequence
	// number, as some firewalls do.
	RewriteSequence bool `yaml:"rewrite-sequence"`
}

// Unsolicited is the answer to packets from outside that nobody is waiting for.
type Unsolicited struct {
	TCP   Answer        `yaml:"tcp"`
	Other Answer        `yaml:"other"`
	After time.Duration `yaml:"after"` // TCP only; RFC 5382 REQ-4 wants 6 s, and only ICMP
}

// ICMP is how ICMP is handled beyond what RFC 5508 asks for.
type ICMP struct {
	DropErrors  bool `yaml:"drop-errors"`
	DropQueries bool `yaml:"drop-queries"`
	// NoPing leaves echo requests to the outside addresses unanswered.
	NoPing bool `yaml:"no-ping"`
	// KeepQuote translates the outer header of an error but not the packet
	// that it quotes.
	KeepQuote bool `yaml:"keep-quote"`
}
