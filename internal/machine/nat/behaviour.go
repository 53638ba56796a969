// Package nat is a gateway as a pure state machine: packets in, packets out.
//
// Mapping and filtering are independent policies, in the terms of RFC 4787.
// The machine does no I/O and reads no clock; the simulator and the lab drive it.
package nat

import "time"

// Dependence says on what part of the remote endpoint a policy depends
// (RFC 4787 sections 4.1 and 5).
type Dependence uint8

const (
	EndpointIndependent Dependence = iota
	AddressDependent
	AddressAndPortDependent
)

// Allocation says how the external port of a new mapping is chosen
// (RFC 4787 section 4.2).
type Allocation uint8

const (
	Preserve   Allocation = iota // the internal port; the next free one when it is taken
	Sequential                   // one more than the last one allocated
	Random                       // any free port
)

// Hairpin says what happens to a packet from inside to an external endpoint of
// the same gateway (RFC 4787 section 6).
type Hairpin uint8

const (
	NoHairpin Hairpin = iota
	HairpinInternalSource
	HairpinExternalSource
)

// Behaviour is what a gateway does. The zero value maps and filters
// independently of the endpoint, preserves ports and does not hairpin.
type Behaviour struct {
	// Open forwards without translation or filtering: a plain router.
	Open bool
	// Firewall filters without translation.
	Firewall bool

	Mapping    Dependence
	Filtering  Dependence
	Allocation Allocation
	Hairpin    Hairpin

	// BlockUDP drops every UDP packet in either direction.
	BlockUDP bool

	// UDPTimeout is how long an idle UDP mapping lives; zero is the five
	// minutes that RFC 4787 REQ-5 recommends.
	UDPTimeout time.Duration
}
