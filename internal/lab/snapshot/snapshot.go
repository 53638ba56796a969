// Package snapshot is a lab at one moment, as data: that of namespaces and that
// of virtual time alike.
package snapshot

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Snapshot is a lab at one moment, as data that nothing changes any more.
type Snapshot struct {
	Time     time.Time
	Networks []Network // in the order of the topology, as the rest
	Hosts    []Host
	Gateways []Gateway
	Cuts     []Cut
	Events   []Event // the last ones, oldest first
}

// Network is a network with the names of the ports on it.
type Network struct {
	Name    string
	Ports   []string
	Capture string // the file that it is captured to; empty: it is not
}

// Port is a port. On the kernel's wire, which counts nothing, Sent and
// Received are zero.
type Port struct {
	Name      string // as SetLink takes it
	Network   string
	Interface string
	Hardware  [6]byte
	Addrs     []netip.Prefix // those that it was given, by the topology or DHCP
	DHCP      bool
	Link      scenario.Link
	Sent      Count // by its owner, before the network lost any
	Received  Count // what was on its way to its owner, and what of it got lost
}

// Host is a host.
type Host struct {
	Name     string
	Port     Port
	Lease    *Lease     // that the lab got for it; nil: none
	Firewall *nat.Stats // nil: it has none
}

// Gateway is a gateway. Of one that is the kernel's, only names, ports
// and behaviour are known, and whether it blocks UDP.
type Gateway struct {
	Name            string
	Kernel          bool
	Inside, Outside Port
	DMZ             *Port // nil: it has none
	NAT             nat.Behaviour
	Stats           nat.Stats
	Mappings        []nat.Mapping
	Leases          []Lease // that it has given
	UDPBlocked      bool
}

// Lease is an address that was lent by DHCP.
type Lease struct {
	Addr     netip.Addr
	Hardware [6]byte
	Host     string    // the port that has this hardware address; empty: none has
	Expires  time.Time // zero: never
}

// Cut is a cut that was not restored. An invalid address is any.
type Cut struct {
	A, B     netip.Addr
	Protocol Protocol
}

// Event is something that happened to a port or a gateway, in words.
type Event struct {
	Time time.Time
	Name string // of the host, gateway or port
	Text string
}

// Protocol is an IP protocol number; zero is all of them.
type Protocol uint8

const (
	AnyProtocol Protocol = 0
	ICMP        Protocol = 1
	TCP         Protocol = 6
	UDP         Protocol = 17
	ICMPv6      Protocol = 58
)

// Count is what a network was given to carry, and what of it did not arrive:
// lost, cut, too large, without a route, or too much for the rate.
type Count struct {
	Packets, Bytes               uint64
	DroppedPackets, DroppedBytes uint64
}

// Add counts what was to be carried, Drop what of it was not.
func (c *Count) Add(packets, bytes int) {
	c.Packets += uint64(packets)
	c.Bytes += uint64(bytes)
}

func (c *Count) Drop(packets, bytes int) {
	c.DroppedPackets += uint64(packets)
	c.DroppedBytes += uint64(bytes)
}
