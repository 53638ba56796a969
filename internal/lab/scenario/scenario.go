// Package scenario describes, as data, who is connected to whom through what,
// and what a connection attempt there must come to. The simulator and the
// namespace lab build the same scenario and must agree on the outcome.
package scenario

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// Internet is the name of the network that every topology has: the one
// between the outermost gateways and the public hosts.
const Internet = "internet"

// Everything stands, where a host or gateway is named, for all others.
const Everything = "all"

// Topology is networks joined by gateways, with hosts on them. The networks
// form a tree whose root is Internet.
type Topology struct {
	Name     string
	Hosts    []Host
	Gateways []Gateway
}

// Host is a machine with one interface.
type Host struct {
	Name string
	Port Port
	// Firewall, if set, stands between the host and its network.
	Firewall *nat.Behaviour `yaml:"firewall"`
}

// Gateway joins an inside network to an outside one. Hosts of the inside
// network use the gateway's inside address as their default route. So do those
// of the DMZ, if it has one.
type Gateway struct {
	Name    string
	Inside  Port          `yaml:"inside"`
	Outside Port          `yaml:"outside"`
	DMZ     *Port         `yaml:"dmz"`
	NAT     nat.Behaviour `yaml:"nat"`
	Static  []nat.Static  `yaml:"static"`
	// DHCP serves the inside; DMZ hosts have fixed addresses.
	DHCP    *dhcp.Pool        `yaml:"dhcp"`
	PortMap portmap.Behaviour `yaml:"port-mapping"`
	Proxy   Proxy             `yaml:"proxy"`
	// Kernel lets the kernel's nftables translate, where a lab in namespaces
	// would use our own gateway.
	Kernel bool `yaml:"kernel"`
	// MaxMappings bounds the table; zero is nat's default.
	MaxMappings int `yaml:"max-mappings"`
}

// TransparentPort is where a gateway's transparent proxy listens.
const TransparentPort = 3129

// Proxy is what the gateway relays itself instead of forwarding.
type Proxy struct {
	HTTP  uint16 `yaml:"http"`  // port of an HTTP proxy (CONNECT and plain requests) on the inside address; zero: none
	SOCKS uint16 `yaml:"socks"` // port of a SOCKS5 proxy
	// Transparent sends TCP connections to ports 80 and 443 through a proxy
	// that their makers do not see.
	Transparent bool `yaml:"transparent"`
	// Only lets nothing else out of the inside network.
	Only bool `yaml:"only"`
}

// Port is an attachment to a network. Two ports on a network reach each other
// through the access links of both: a packet is delayed by the sum.
type Port struct {
	Network string `yaml:"network"`
	// Addrs are this port's addresses, each with the length of the network's
	// prefix. The first of a family is the one that it sends from.
	Addrs []netip.Prefix `yaml:"address"`
	// DHCP gets the IPv4 address from the network's gateway.
	DHCP bool `yaml:"dhcp"`
	Link Link `yaml:"link"`
}

// Link is what happens to packets on a port, in each direction.
type Link struct {
	Delay   time.Duration `yaml:"delay"`           // one way
	Jitter  time.Duration `yaml:"jitter"`          // uniform, added to Delay; reorders
	Loss    float64       `yaml:"loss,share"`      // share of packets dropped, 0 to 1
	Reorder float64       `yaml:"reorder,share"`   // share of packets that overtake the ones before by waiting no Delay
	Repeat  float64       `yaml:"duplicate,share"` // share of packets that arrive twice
	Rate    int64         `yaml:"rate,bits"`       // bits per second; 0 is unlimited
	MTU     int           `yaml:"mtu"`             // larger IP packets are dropped; 0 is 1500. Whose link it is knows; gateways say so (RFC 1191)
}

// Outcome is what a connection must come to.
type Outcome struct {
	Kind      string // "direct" or "relay"
	Transport string // "udp" or "tcp"
	Technique string // "" is any
	// To is where the connecting peer's path in use must lead; invalid is
	// anywhere.
	To netip.Addr
}

// Case is one row of the table that drives the simulator and the lab:
// host "a" connects to host "b" with the help of host "s".
type Case struct {
	Name     string
	Why      string
	Topology Topology
	Want     Outcome
}
