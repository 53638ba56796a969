package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Side is where a packet comes from or goes to: a zone of the firewall.
type Side uint8

const (
	Inside  Side = iota // the internal zone
	Outside             // the external zone
	DMZ                 // the demilitarised zone
	Local               // the gateway itself
	sides
)

// Sides is a set of sides; the empty set stands for all.
type Sides uint8

// RuleAction is what a rule does.
type RuleAction uint8

const (
	Accept RuleAction = iota
	Discard
	Reject // with a reset or ICMP administratively prohibited
)

// PortRange is from First to Last, both included; the zero value is all ports.
type PortRange struct{ First, Last uint16 }

// Rule matches the packets that all of its fields match; an empty field
// matches everything. Addresses and ports are those that the packet has on the
// inside. In modes with state a rule decides about the first packet of a
// session, and what belongs to it follows; in mode Open it decides about each.
type Rule struct {
	Action   RuleAction     `yaml:"action"`
	From     Sides          `yaml:"from"`
	To       Sides          `yaml:"to"`
	Protocol ip.Proto       `yaml:"protocol"` // ip.Other is any
	Src      []netip.Prefix `yaml:"src"`
	Dst      []netip.Prefix `yaml:"dst"`
	SrcPorts []PortRange    `yaml:"src-ports"`
	DstPorts []PortRange    `yaml:"dst-ports"`
}

// Content is a filter on what packets carry.
type Content struct {
	// WebOnly lets TCP connections to port 80 carry HTTP only, and those to
	// port 443 TLS only.
	WebOnly bool `yaml:"web-only"`
	// BlockSTUN drops what looks like a STUN message (RFC 8489 section 5).
	BlockSTUN bool `yaml:"block-stun"`
	// Block drops packets whose payload has one of these patterns.
	Block []string `yaml:"block"`
}
