package sim

import (
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// segment is a network: ports that reach each other, and the ways out.
type segment struct {
	n        *Network
	name     string
	ports    []*port
	onLink   []netip.Prefix // empty on the internet
	everyone []netip.Addr   // broadcast addresses of onLink
	claims   map[netip.Addr][]*port
	routes   []route
	gateway  *port // the default route; nil on the internet
	hops     int   // routers that a packet crosses
	counts   map[pair]*Count
	lengths  map[netip.Addr]int // of the prefixes that addresses were given with
}

type route struct {
	prefix netip.Prefix
	via    *port
}

// Routers of the internet, as the source of their ICMP errors. The kernel's lab
// uses the same.
var routerIPv4, routerIPv6 = scenario.RouterIPv4, scenario.RouterIPv6

// claim makes p the one that has an address, as a gratuitous ARP does: of
// several that claim one address the last has it, until it gives it up.
func (s *segment) claim(a netip.Addr, p *port) {
	s.claims[a] = append(slices.DeleteFunc(s.claims[a], func(q *port) bool { return q == p }), p)
}

func (s *segment) disclaim(a netip.Addr, p *port) {
	if s.claims[a] = slices.DeleteFunc(s.claims[a], func(q *port) bool { return q == p }); len(s.claims[a]) == 0 {
		delete(s.claims, a)
	}
}

// owner is nil when nobody has the address.
func (s *segment) owner(a netip.Addr) *port {
	if all := s.claims[a]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// next is the port that what is sent to dst goes to.
func (s *segment) next(dst netip.Addr) *port {
	if p := s.owner(dst); p != nil {
		return p
	}
	for _, p := range s.onLink {
		if p.Contains(dst) {
			return nil
		}
	}
	for _, r := range s.routes {
		if r.prefix.Contains(dst) {
			return r.via
		}
	}
	return s.gateway
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// forAll tells whether what is sent to dst is for every port of the segment.
func (s *segment) forAll(dst netip.Addr) bool {
	return dst.IsMulticast() || dst == broadcast || slices.Contains(s.everyone, dst)
}

// lastOf is the broadcast address of a prefix; invalid where there is none.
func lastOf(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// flood gives a packet to everyone else. The internet carries none of that.
func (s *segment) flood(from *port, pkt *buffer) {
	if len(s.onLink) == 0 {
		s.n.lose(from, pkt, "broadcast on the internet")
		return
	}
	for _, to := range s.ports {
		if to != from {
			from.carry(to, s.n.duplicate(pkt))
		}
	}
	s.n.give(pkt)
}

// expired answers for a router on the way, whose ICMP error comes back through
// the link that the packet took.
func (s *segment) expired(from *port, pkt *buffer) {
	if delay, why := from.out.pass(len(pkt.b)); why == "" {
		router := routerIPv4
		if pkt.b[0]>>4 == 6 {
			router = routerIPv6
		}
		answer := s.n.take()
		setTTL(pkt.b, 1) // as the last router has got it
		answer.b = ip.AppendError(answer.b, router, ip.TimeExceeded, pkt.b)
		if len(answer.b) == 0 {
			s.n.give(answer)
		} else {
			answer.on = s
			src, dst := addresses(answer.b)
			s.count(src, dst, len(answer.b))
			s.n.schedule(s.n.now+delay, &from.in, answer)
		}
	}
	s.n.lose(from, pkt, "TTL expired")
}

func ttl(b []byte) uint8 {
	if b[0]>>4 == 4 {
		return b[8]
	}
	return b[7]
}

func setTTL(b []byte, ttl uint8) {
	if b[0]>>4 == 4 {
		b[8] = ttl
		sumHeader(b)
		return
	}
	b[7] = ttl
}
