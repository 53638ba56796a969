package netns

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Snapshot is a lab at one moment, as data that nothing changes any more.
type Snapshot struct {
	Time     time.Time
	Networks []NetworkStatus // in the order of the topology, as the rest
	Hosts    []HostStatus
	Gateways []GatewayStatus
	Cuts     []CutStatus
	Events   []Event // the last ones, oldest first
}

// NetworkStatus is a network with the names of the ports on it.
type NetworkStatus struct {
	Name    string
	Ports   []string
	Capture string // the file that it is captured to; empty: it is not
}

// PortStatus is a port. On the kernel's wire, which counts nothing, Sent and
// Received are zero.
type PortStatus struct {
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

// HostStatus is a host.
type HostStatus struct {
	Name     string
	Port     PortStatus
	Lease    *Lease     // that the lab got for it; nil: none
	Firewall *nat.Stats // nil: it has none
}

// GatewayStatus is a gateway. Of one that is the kernel's, only names, ports
// and behaviour are known.
type GatewayStatus struct {
	Name            string
	Kernel          bool
	Inside, Outside PortStatus
	DMZ             *PortStatus // nil: it has none
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

// CutStatus is a cut that was not restored. An invalid address is any.
type CutStatus struct {
	A, B     netip.Addr
	Protocol Protocol
}

// Event is something that happened to a port or a gateway, in words.
type Event struct {
	Time time.Time
	Name string // of the host, gateway or port
	Text string
}
