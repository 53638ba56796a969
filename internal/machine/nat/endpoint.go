package nat

import (
	"encoding/binary"
	"net/netip"
)

// endpoint is an address and a port in 49 bits: the port, then 32 bits of
// address, then whether they are a number that stands for an IPv6 address.
// Port 0 is any port of the address, and zero is any endpoint.
type endpoint uint64

const (
	portBits          = 16
	isIPv6   endpoint = 1 << 48
)

func (e endpoint) port() uint16       { return uint16(e) }
func (e endpoint) address() endpoint  { return e &^ (1<<portBits - 1) }
func (e endpoint) number() uint32     { return uint32(e >> portBits) }
func at4(a uint32, p uint16) endpoint { return endpoint(a)<<portBits | endpoint(p) }

// depends is what a policy keeps of a remote endpoint.
func (d Dependence) depends(remote endpoint) endpoint {
	switch d {
	case EndpointIndependent:
		return 0
	case AddressDependent:
		return remote.address()
	}
	return remote
}

// address6 is an IPv6 address that mappings or sessions mention.
type address6 struct {
	addr [16]byte
	uses uint32
	next uint32
}

func (a *address6) link() *uint32 { return &a.next }

// addresses6 gives IPv6 addresses numbers for as long as they are in use.
type addresses6 struct {
	slab  slab[address6, *address6]
	index index
}

func (g *Gateway) hash6(a *[16]byte) uint32 {
	return g.seeds.sum(binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(a[8:]))
}

// lookup packs an endpoint. An IPv6 address that nothing here mentions gets
// number 0, which no address has.
func (g *Gateway) lookup(ap netip.AddrPort) endpoint {
	a := ap.Addr()
	if a.Is4() {
		b := a.As4()
		return at4(binary.BigEndian.Uint32(b[:]), ap.Port())
	}
	b := a.As16()
	return isIPv6 | at4(g.find6(&b), ap.Port())
}

func (g *Gateway) find6(b *[16]byte) uint32 {
	hash := g.hash6(b)
	p := g.six.index.page(hash)
	ref, at := p.seek(hash, 0)
	for ref != 0 && g.six.slab.at(ref).addr != *b {
		ref, at = p.seek(hash, at)
	}
	return ref
}

// hold is lookup for what is to be remembered until letGo.
func (g *Gateway) hold(ap netip.AddrPort) (endpoint, bool) {
	e := g.lookup(ap)
	if e&isIPv6 == 0 {
		return e, true
	}
	if e.number() != 0 {
		g.six.slab.at(e.number()).uses++
		return e, true
	}
	ref, a := g.six.slab.take()
	a.addr, a.uses = ap.Addr().As16(), 1
	if !g.six.index.add(g.hash6(&a.addr), ref) {
		g.six.slab.give(ref)
		return 0, false
	}
	return isIPv6 | at4(ref, ap.Port()), true
}

func (g *Gateway) letGo(e endpoint) {
	if e&isIPv6 == 0 {
		return
	}
	a := g.six.slab.at(e.number())
	if a.uses--; a.uses == 0 {
		g.six.index.remove(g.hash6(&a.addr), e.number())
		g.six.slab.give(e.number())
	}
}

// unpack is the endpoint that was packed; invalid for any.
func (g *Gateway) unpack(e endpoint) netip.AddrPort {
	switch {
	case e == 0:
		return netip.AddrPort{}
	case e&isIPv6 != 0:
		return netip.AddrPortFrom(netip.AddrFrom16(g.six.slab.at(e.number()).addr), e.port())
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], e.number())
	return netip.AddrPortFrom(netip.AddrFrom4(b), e.port())
}
