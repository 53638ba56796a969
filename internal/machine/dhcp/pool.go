package dhcp

import (
	"net/netip"
	"time"
)

// Pool is what a server leases, as data.
type Pool struct {
	// First and Last bound the dynamic addresses, both included. Invalid ones
	// mean the whole prefix but for the server's own address.
	First netip.Addr `yaml:"first"`
	Last  netip.Addr `yaml:"last"`
	// Lease is how long an address is lent, in whole seconds; zero is an hour.
	// Automatic allocation lends for ever.
	Lease     time.Duration `yaml:"lease"`
	Automatic bool          `yaml:"automatic"`
	// Manual are the addresses that belong to a hardware address. They may lie
	// outside of First and Last.
	Manual map[string]netip.Addr `yaml:"manual"`
	// DNS servers to tell of.
	DNS []netip.Addr `yaml:"dns"`
	// MTU to tell of; zero tells none.
	MTU int `yaml:"mtu"`
	// Probe pings an address before it is offered (RFC 2131 section 3.1 point
	// 2). An offer waits for that.
	Probe bool `yaml:"probe"`
}
