package server

import (
	"net"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
)

// routes says by which UDP socket an endpoint is reached: its NAT lets in only
// what comes from the server's endpoint that it knows. Nearly all peers use the
// first socket of their family, and only the others are remembered.
type routes struct {
	local    []netip.AddrPort
	home     []int // of each socket, the first one with the same local endpoint
	v4, v6   int   // -1: none
	other    map[netip.AddrPort]int
	endpoint map[uint32]netip.AddrPort // by slot, of those in other
}

func newRoutes(pcs []net.PacketConn) routes {
	r := routes{v4: -1, v6: -1, other: make(map[netip.AddrPort]int), endpoint: make(map[uint32]netip.AddrPort)}
	first := make(map[netip.AddrPort]int)
	for i, pc := range pcs {
		local, ok := addrPort(pc.LocalAddr())
		home, seen := first[local]
		if !ok || !seen {
			home = i
			first[local] = i
		}
		r.local, r.home = append(r.local, local), append(r.home, home)
		switch {
		case local.Addr().Is4() && r.v4 < 0:
			r.v4 = i
		case local.Addr().Is6() && r.v6 < 0:
			r.v6 = i
		}
	}
	if r.v4 < 0 && r.v6 >= 0 {
		r.v4 = slices.IndexFunc(r.local, dualStack)
	}
	return r
}

// dualStack tells a socket that can serve IPv4 with IPv4-mapped addresses.
func dualStack(local netip.AddrPort) bool {
	return local.Addr().Is6() && local.Addr().IsUnspecified()
}

func (r *routes) usual(to netip.AddrPort) int {
	if to.Addr().Is4() {
		return r.v4
	}
	return r.v6
}

func (r *routes) to(to netip.AddrPort) int {
	if len(r.other) > 0 {
		if sock, ok := r.other[to]; ok {
			return sock
		}
	}
	return r.usual(to)
}

// remembered is the socket that reached a peer before the restart, if there is
// still one of its family in that place.
func (r *routes) remembered(m remembered) int {
	if m.socket < len(r.local) {
		local := r.local[m.socket]
		if local.Addr().Is4() == m.slot.Endpoint.Addr().Is4() || dualStack(local) {
			return m.socket
		}
	}
	return r.usual(m.slot.Endpoint)
}

// slot follows a slot that changed while a message of from was handled that
// came in by sock, and says which socket its peer uses.
func (r *routes) slot(slot rendezvous.Slot, from netip.AddrPort, sock int) int {
	if old, ok := r.endpoint[slot.Index]; ok && old != slot.Endpoint {
		delete(r.endpoint, slot.Index)
		delete(r.other, old)
	}
	if !slot.Endpoint.IsValid() {
		return 0
	}
	if sock >= 0 && slot.Endpoint == from {
		if by := r.home[sock]; by != r.usual(from) {
			r.other[from], r.endpoint[slot.Index] = by, from
		} else if len(r.other) > 0 {
			delete(r.other, from)
			delete(r.endpoint, slot.Index)
		}
	}
	return max(r.to(slot.Endpoint), 0)
}
