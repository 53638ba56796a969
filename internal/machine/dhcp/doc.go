// Package dhcp is both ends of DHCP for IPv4 (RFC 2131) as pure state machines:
// a server that leases the addresses of one network, and a client.
//
// What goes in and comes out are whole IP packets, so that a machine sees who
// sent what to whom. The codec of what they carry is a library's; message.go is
// the seam. Relay agents, BOOTP and options in the fields for file names are
// not spoken.
package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Ports of servers and clients (RFC 2131 section 4.1).
const (
	ServerPort = 67
	ClientPort = 68
)

// Forever is the duration of a lease without an end (RFC 2131 section 3.3).
const Forever = time.Duration(1<<32-1) * time.Second

// MAC is the hardware address of a network interface. The zero value is an
// unknown one.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// ParseMAC reads a hardware address of one interface.
func ParseMAC(s string) (MAC, error) {
	b, err := net.ParseMAC(s)
	if err != nil || len(b) != len(MAC{}) {
		return MAC{}, fmt.Errorf("dhcp: %q is not a hardware address", s)
	}
	if m := MAC(b); m.single() {
		return m, nil
	}
	return MAC{}, fmt.Errorf("dhcp: %q is not the address of one interface", s)
}

// single is false for groups and for nobody.
func (m MAC) single() bool { return m != MAC{} && m[0]&1 == 0 }

// Route is a way that hosts are told of (RFC 3442). Without Via the prefix is on
// the network itself.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

var errMessage = errors.New("dhcp: malformed message")
