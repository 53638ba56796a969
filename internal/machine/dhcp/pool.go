// Package dhcp is both ends of DHCP for IPv4 (RFC 2131) as pure state machines:
// a server that leases the addresses of one network, and a client.
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
	// Lease is how long an address is lent; zero is an hour. Automatic
	// allocation lends for ever.
	Lease     time.Duration `yaml:"lease"`
	Automatic bool          `yaml:"automatic"`
	// Manual are the addresses that belong to a hardware address.
	Manual map[string]netip.Addr `yaml:"manual"`
	// DNS servers to tell of.
	DNS []netip.Addr `yaml:"dns"`
}
