// Package apart works out which addresses must not meet so that two hosts or
// gateways of a lab do not. It is pure.
package apart

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
)

// Everything stands for all that a node could be cut from.
const Everything = scenario.Everything

// Pair is two addresses between which nothing may pass. An invalid one is any.
type Pair struct{ A, B netip.Addr }

// World is a lab at one moment.
type World struct{ snapshot.Snapshot }

// Port is a port by its name; it has no name if there is none such.
func (w World) Port(name string) snapshot.Port {
	for _, h := range w.Hosts {
		if h.Port.Name == name {
			return h.Port
		}
	}
	for _, g := range w.Gateways {
		for _, p := range []*snapshot.Port{&g.Inside, &g.Outside, g.DMZ} {
			if p != nil && p.Name == name {
				return *p
			}
		}
	}
	return snapshot.Port{}
}

// port is that of a host, or a gateway's outside one.
func (w World) port(node string) (snapshot.Port, bool) {
	for _, h := range w.Hosts {
		if h.Name == node {
			return h.Port, true
		}
	}
	for _, g := range w.Gateways {
		if g.Name == node {
			return g.Outside, true
		}
	}
	return snapshot.Port{}, false
}

// seen are the addresses under which others may know a port: its own, and the
// outside ones of the gateways between it and the internet.
func (w World) seen(p snapshot.Port) []netip.Addr {
	all, network := addrs(p), p.Network
	for range w.Gateways { // no chain is longer
		i := slices.IndexFunc(w.Gateways, func(g snapshot.Gateway) bool {
			return g.Inside.Network == network || g.DMZ != nil && g.DMZ.Network == network
		})
		if i < 0 {
			break
		}
		all = append(all, addrs(w.Gateways[i].Outside)...)
		network = w.Gateways[i].Outside.Network
	}
	return all
}

func addrs(p snapshot.Port) (all []netip.Addr) {
	for _, a := range p.Addrs {
		all = append(all, a.Addr())
	}
	return all
}

// Pairs keep node apart from other, which is a host, a gateway, an address or
// Everything: the addresses of one end and those under which the other end is
// seen there. The end that is seen under more addresses is the one whose own
// count, so that those are spared who hide behind the same gateways with it.
func (w World) Pairs(node, other string) ([]Pair, error) {
	a, ok := w.port(node)
	if !ok {
		return nil, fmt.Errorf("no host or gateway %q", node)
	}
	if len(a.Addrs) == 0 {
		return nil, fmt.Errorf("%s has no address now", node)
	}
	var theirs []netip.Addr
	ours := addrs(a)
	if b, ok := w.port(other); ok {
		if other == node {
			return nil, fmt.Errorf("%s cannot be cut from itself", node)
		}
		if len(b.Addrs) == 0 {
			return nil, fmt.Errorf("%s has no address now", other)
		}
		theirs = w.seen(b)
		if seen := w.seen(a); len(theirs) > len(seen) {
			ours, theirs = addrs(b), seen
		}
	} else if other == Everything {
		theirs = []netip.Addr{{}}
	} else if addr, err := netip.ParseAddr(other); err == nil {
		theirs = []netip.Addr{addr.Unmap().WithZone("")}
	} else {
		return nil, fmt.Errorf("no host or gateway %q", other)
	}
	var pairs []Pair
	for _, x := range ours {
		for _, y := range theirs {
			if !y.IsValid() || x.Is4() == y.Is4() {
				pairs = append(pairs, Pair{x, y})
			}
		}
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("%s and %s have no addresses of one family", node, other)
	}
	return pairs, nil
}
