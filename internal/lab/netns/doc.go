// Package netns builds a scenario on the Linux kernel: every host and gateway
// is a network namespace, with real programs on a real IP stack.
//
// A gateway is either ours, the router machine that the simulator drives too,
// or the kernel's: nftables that translate and filter (scenario.Gateway.Kernel
// and Options.Kernel). One of ours stands between its networks in this process;
// in its namespace is what it is besides: a stack with its addresses, for UPnP,
// proxies and whatever else is run there, which reaches the world through the
// machine alone.
//
// There are two kinds of wire. When a gateway is ours, when some link of the
// topology delays, loses or limits, or when Options.UserWire says so, the
// networks run in this process: they apply the links, count, capture and cut.
// When every link is ideal and every gateway the kernel's, ports are veth pairs
// on bridges and no packet leaves the kernel: fast, but nothing counts,
// captures or cuts.
//
// On the user wire every port is a TAP device, so that hosts have Ethernet:
// DHCP clients, tcpdump and multicast work in them. The networks switch by IP
// address, though. They answer ARP and neighbour solicitations themselves,
// learn from them who has which address, and bring broadcast and multicast to
// every port. Large packets stay whole as far as the links allow: a kernel
// leaves segmentation and checksums to the wire, and the wire to the next
// kernel.
//
// Namespaces have no names and no mounts. Threads and file descriptors of this
// process hold them, so they go when the process goes, however it ends; only a
// program that has made itself a daemon outlives it, without a network. None
// has a route to a network of the machine.
//
//	host's namespace              this process               gateway's namespace
//	 [eth0 TAP] --> up lane --> network --> down lane --> router <--> [TUN devices]
//	            <-- down lane <--       <-- up lane   <--   |
//	                            network <-- ... ------------+
package netns

import (
	"errors"
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
)

// Interfaces inside the namespaces: a host's only one, and a gateway's.
const (
	HostInterface    = "eth0"
	InsideInterface  = "inside"
	OutsideInterface = "outside"
	DMZInterface     = "dmz"
)

// Addresses of the routers on the internet, as the source of their ICMP errors.
var routerIPv4, routerIPv6 = scenario.RouterIPv4, scenario.RouterIPv6

// Options say how a topology is built. The zero value works.
type Options struct {
	// Kernel makes every gateway one of the kernel's nftables, as Gateway.Kernel
	// does for one.
	Kernel bool

	// UserWire runs the networks in this process even when nothing else asks for
	// it: every link is ideal and every gateway the kernel's.
	UserWire bool

	// Plain keeps hosts from leaving segmentation and checksums to the wire, and
	// the wire from joining packets: what a kernel sees is what a cable carries.
	// It is several times slower.
	Plain bool

	// Unconfigured are the hosts whose ports with DHCP are left to programs that
	// run in them. The lab gets addresses for all others.
	Unconfigured []string

	// Hops is how many routers a packet crosses on the internet, each of which
	// takes one from its TTL and answers when that was the last. Zero is one;
	// a negative number is none. It needs the user wire.
	Hops int

	// Seed makes loss, jitter and reordering draw the same numbers again.
	Seed uint64
}

// Protocol is an IP protocol number; zero is all of them.
type Protocol = snapshot.Protocol

const (
	AnyProtocol = snapshot.AnyProtocol
	ICMP        = snapshot.ICMP
	TCP         = snapshot.TCP
	UDP         = snapshot.UDP
	ICMPv6      = snapshot.ICMPv6
)

// Flow is one direction of traffic on one network. In a query, a zero field
// matches anything.
type Flow struct {
	Network  string
	Src, Dst netip.Addr
	Protocol Protocol
}

// Counters has one entry per flow that the networks have seen. What a network
// has seen after its first 131,072 is in one entry a protocol, without addresses.
type Counters map[Flow]Count

// Sum adds up the flows that match.
func (c Counters) Sum(match Flow) Count {
	var sum Count
	for f, n := range c {
		if match.matches(f) {
			sum.Packets += n.Packets
			sum.Bytes += n.Bytes
			sum.DroppedPackets += n.DroppedPackets
			sum.DroppedBytes += n.DroppedBytes
		}
	}
	return sum
}

func (f Flow) matches(g Flow) bool {
	return (f.Network == "" || f.Network == g.Network) &&
		(!f.Src.IsValid() || f.Src == g.Src) &&
		(!f.Dst.IsValid() || f.Dst == g.Dst) &&
		(f.Protocol == AnyProtocol || f.Protocol == g.Protocol)
}

// quietUnsupported is errors.ErrUnsupported without its words.
type quietUnsupported struct{}

func (quietUnsupported) Error() string        { return "" }
func (quietUnsupported) Is(target error) bool { return target == errors.ErrUnsupported }

var errKernelWire = errors.New("netns: not on the kernel's wire; set Options.UserWire or a link")
