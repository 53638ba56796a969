package punch

import (
	"net/netip"
	"time"
)

// Technique names the way in which a path came about.
type Technique string

const (
	LAN     Technique = "udp-lan"     // an address of the peer on a network both are on
	IPv6    Technique = "udp-ipv6"    // an IPv6 address of the peer
	Punch   Technique = "udp-punch"   // the endpoint that the peer's NAT gave it
	Hairpin Technique = "udp-hairpin" // the same, behind the NAT that we are behind too
)

// Reason says why something ended.
type Reason string

const (
	NoCandidates Reason = "the peer named no endpoint that may be tried"
	NoAnswer     Reason = "nothing came from there"
	OneWay       Reason = "checks came from there, but none of ours was answered"
	Stranger     Reason = "something that is not the peer answers there"
	MTULimited   Reason = "small checks were answered, full-size ones were not"
	NotNominated Reason = "checks were answered, but the peer chose no path"
	Unfinished   Reason = "checks were answered too late"
	Unanswered   Reason = "the path stopped answering"
	Budget       Reason = "as many checks were sent there as may be"
	Worse        Reason = "a better path was found"
)

// Event is one of Answered, PathUp, PathDown, PathLimited, PeerReflexive and Failed.
type Event interface{ event() }

// PathUp says that a path was proved and nominated; it replaces an earlier one.
type PathUp struct {
	Remote    netip.AddrPort
	Technique Technique
	RTT       time.Duration
	Mapped    netip.AddrPort // our own endpoint as the peer sees it on this path
}

// Answered says that an endpoint has answered a small check, for the first time
// and only to the offerer. What may be nominated soon can be made ready: no more.
type Answered struct {
	Remote    netip.AddrPort
	Technique Technique
}

// PathDown says that the nominated path is dead. The machine is done.
type PathDown struct {
	Remote netip.AddrPort
	Reason Reason
}

// PathLimited says that an endpoint answers, but not to full-size packets. It
// will not be used.
type PathLimited struct {
	Remote    netip.AddrPort
	Technique Technique
}

// PeerReflexive says that the peer was heard from an endpoint that no signal
// named.
type PeerReflexive struct{ Remote netip.AddrPort }

// Failed says that no path was found. The machine is done.
type Failed struct {
	Reason Reason
	Tried  []Tried
}

// Tried is what came of one endpoint.
type Tried struct {
	Remote    netip.AddrPort
	Technique Technique
	Sent      int // checks of ours
	Result    Reason
}

func (Answered) event()      {}
func (PathUp) event()        {}
func (PathDown) event()      {}
func (PathLimited) event()   {}
func (PeerReflexive) event() {}
func (Failed) event()        {}

// Send is a datagram to be sent. Data is valid until the next call into the
// machine.
type Send struct {
	To   netip.AddrPort
	Data []byte
}
