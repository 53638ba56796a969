// Package lab builds networks with NATs, firewalls and hosts in Linux network
// namespaces, for tests of any program that must get through them. Every host
// and gateway is a namespace of the kernel; nothing reaches the real network,
// and nothing is left when the process ends.
//
//	func TestAcrossNATs(t *testing.T) {
//		l := lab.StartFile(t, "testdata/two-homes.yaml")
//		l.SetLink("ga/outside", lab.Link{Delay: 40 * time.Millisecond, Loss: 0.01})
//
//		server := l.Host("s").Command(t.Context(), "my-server", "--port", "7000")
//		if err := server.Start(); err != nil { ... }
//		conn, err := l.Host("a").Dial(t.Context(), "tcp", "s:7000")
//		...
//		l.Reboot("ga") // every mapping is forgotten: does conn get over it?
//	}
//
// A topology is data, from YAML (the format is described in docs/LAB.md) or
// from Go: networks are whatever ports name, Internet is the one in the middle,
// and gateways lead from one to another with a Behaviour, for which there are
// presets. In Go every port says its addresses, or that it gets them by DHCP;
// files may leave that out. The same data drives `bodkin lab`.
//
// It needs root, or a user namespace with all capabilities: unshare --user
// --map-root-user go test. Where labs cannot be built, Start skips the test and
// says why; with BODKIN_LAB=required in the environment it fails instead. The
// package compiles everywhere and works on Linux.
package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/bodkin-net/bodkin/internal/lab/apart"
	"github.com/bodkin-net/bodkin/internal/lab/draw"
	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// Options say how a topology is built. The zero value works.
type Options struct {
	// Seed makes loss, jitter and reordering draw other numbers.
	Seed uint64
	// Plain keeps hosts from leaving segmentation and checksums to the wire:
	// what a kernel sees is what a cable carries. It is several times slower.
	Plain bool
	// Unconfigured are the hosts with DHCP whose addresses are left to a client
	// that runs in them.
	Unconfigured []string
}

// Lab is a topology that exists. Its methods may be called from any goroutine.
type Lab struct {
	net   *netns.Lab
	name  string
	names []string

	mu   sync.Mutex
	cuts map[[2]string][]apart.Pair
}

// Status is a lab at one moment: ports with their links and counters, gateways
// with their mappings.
type Status = netns.Snapshot

// New builds a topology. An error that is errors.ErrUnsupported names what this
// system cannot do.
func New(t Topology, opt Options) (*Lab, error) {
	// On the user wire links can be changed, packets counted and captured.
	net, err := netns.New(t, netns.Options{UserWire: true, Seed: opt.Seed, Plain: opt.Plain, Unconfigured: opt.Unconfigured})
	if err != nil {
		return nil, err
	}
	l := &Lab{net: net, name: t.Name, cuts: map[[2]string][]apart.Pair{}}
	for _, h := range t.Hosts {
		l.names = append(l.names, h.Name)
	}
	for _, g := range t.Gateways {
		l.names = append(l.names, g.Name)
	}
	return l, nil
}

// Warnings say which hosts and gateways had no address by DHCP when New had
// waited for them, and why: a pool may be too small on purpose.
func (l *Lab) Warnings() []string { return l.net.Warnings() }

// Close kills what runs in the lab and removes everything.
func (l *Lab) Close() error { return l.net.Close() }

// Host is a host or a gateway of the topology. It panics if there is none of
// that name.
func (l *Lab) Host(name string) *Node {
	h := l.net.Host(name)
	if h == nil {
		panic(fmt.Sprintf("lab: no host or gateway %q; there are %s", name, strings.Join(l.names, ", ")))
	}
	return &Node{h, l}
}

// SetLink changes the link of a port from now on. The port is named like its
// host; those of a gateway are NAME/inside, NAME/outside and NAME/dmz.
func (l *Lab) SetLink(port string, link Link) error { return l.net.SetLink(port, link) }

// Cut lets nothing through between a host or gateway and another one, an
// address, or "all" others. It goes by the addresses that both have now: where
// the other one is behind a NAT, it holds for everyone behind that.
func (l *Lab) Cut(node, other string) error {
	pairs, err := apart.World{Snapshot: l.net.Status()}.Pairs(node, other)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := ends(node, other)
	if l.cuts[key] != nil {
		return fmt.Errorf("lab: %s and %s are cut already", node, other)
	}
	for _, p := range pairs {
		if err := l.net.Cut(p.A, p.B, netns.AnyProtocol); err != nil {
			return err
		}
	}
	l.cuts[key] = pairs
	return nil
}

// Restore takes back a Cut.
func (l *Lab) Restore(node, other string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := ends(node, other)
	if l.cuts[key] == nil {
		return fmt.Errorf("lab: %s and %s are not cut", node, other)
	}
	for _, p := range l.cuts[key] {
		if err := l.net.Restore(p.A, p.B, netns.AnyProtocol); err != nil {
			return err
		}
	}
	delete(l.cuts, key)
	return nil
}

func ends(a, b string) [2]string {
	if b < a {
		a, b = b, a
	}
	return [2]string{a, b}
}

// Reboot makes a gateway forget every mapping.
func (l *Lab) Reboot(gateway string) error { return l.net.RebootGateway(gateway) }

// BlockUDP makes a gateway drop all UDP from now on, or no longer.
func (l *Lab) BlockUDP(gateway string, on bool) error { return l.net.BlockUDP(gateway, on) }

// NewLease gives a host, or the outside of a gateway, another address by DHCP.
func (l *Lab) NewLease(node string) error { return l.net.NewLease(node) }

// Move takes a host to another network, with addresses there, or with one by
// DHCP, for which it does not wait, if none is given. An address that somebody
// has is refused.
func (l *Lab) Move(host, network string, addrs ...netip.Prefix) error {
	return l.net.Move(host, network, slices.Clone(addrs))
}

// Capture writes every packet that enters a network from now on, also those
// that it then loses, to a pcapng file, until StopCapture or Close.
func (l *Lab) Capture(network, file string) error { return l.net.Capture(network, file) }

// StopCapture ends a capture. The file is whole when it returns.
func (l *Lab) StopCapture(network string) error { return l.net.StopCapture(network) }

// Status is the lab now.
func (l *Lab) Status() Status { return l.net.Status() }

func (l *Lab) drawn() draw.Lab { return draw.Lab{Name: l.name, Snapshot: l.net.Status()} }

// String shows the lab as `bodkin lab status` does: the tree of its networks,
// the gateways' mappings, counters.
func (l *Lab) String() string { return draw.Text(l.drawn(), 100) }

// SVG draws the lab.
func (l *Lab) SVG() string { return draw.SVG(l.drawn()) }
