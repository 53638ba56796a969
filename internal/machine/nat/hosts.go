package nat

import (
	"math/bits"
	"time"
)

// host is an internal address that has mappings, or ports that rest.
type host struct {
	addr     endpoint // port 0
	mappings uint32
	resting  uint32
	next     uint32 // in a free element
	block    uint16 // which block of external's ports is its own
	last     uint16 // allocated last by Sequential in the block
	external uint8  // the external address that it is paired with; identity: none yet
	blocked  bool   // it has a block
	pace     pace   // of its new mappings
}

// pace is a token bucket for what comes at most so many times a second.
type pace struct{ full int64 } // when it is full again

func (p *pace) take(now int64, rate int) bool {
	price := int64(time.Second) / int64(rate)
	full := max(p.full, now) + price
	if full-now > int64(time.Second) {
		return false
	}
	p.full = full
	return true
}

// mayMake reports whether a host may have the mapping that is counted already,
// and so soon. What strangers make of it is not the host's doing: it takes half
// of the host's bound at most, and nothing of its rate.
func (g *Gateway) mayMake(h *host, stranger bool) bool {
	most := g.cfg.Ports.PerHost
	if stranger {
		most -= most / 2
	}
	if most > 0 && int(h.mappings) > most {
		return false
	}
	return stranger || g.cfg.Ports.Rate == 0 || h.pace.take(g.now, g.cfg.Ports.Rate)
}

func (h *host) link() *uint32 { return &h.next }

// hosts finds hosts by address.
type hosts struct {
	slab  slab[host, *host]
	index index
}

func (g *Gateway) hostHash(addr endpoint) uint32 { return g.seeds.sum(uint64(addr), 0) }

// hostOf is 0 where the address has nothing.
func (g *Gateway) hostOf(addr endpoint) uint32 {
	hash := g.hostHash(addr)
	p := g.hosts.index.page(hash)
	ref, at := p.seek(hash, 0)
	for ref != 0 && g.hosts.slab.at(ref).addr != addr {
		ref, at = p.seek(hash, at)
	}
	return ref
}

// enterHost is hostOf for one that will have a mapping; 0: no memory.
func (g *Gateway) enterHost(addr endpoint) uint32 {
	if ref := g.hostOf(addr); ref != 0 {
		return ref
	}
	ref, h := g.hosts.slab.take()
	h.addr, h.external = addr, identity
	if !g.hosts.index.add(g.hostHash(addr), ref) {
		g.hosts.slab.give(ref)
		return 0
	}
	if addr&isIPv6 != 0 {
		g.six.slab.at(addr.number()).uses++
	}
	return ref
}

// leaveHost forgets a host that has nothing left.
func (g *Gateway) leaveHost(ref uint32) {
	h := g.hosts.slab.at(ref)
	if h.mappings != 0 || h.resting != 0 || g.pacesOut(ref, h) {
		return
	}
	g.dropBlock(h)
	g.hosts.index.remove(g.hostHash(h.addr), ref)
	g.letGo(h.addr)
	g.hosts.slab.give(ref)
}

// pacesOut keeps a host whose mappings are gone until its rate is what a new
// one's would be, or mappings that end at once would have no rate. It reports
// whether it does, which it does only for as many as there may be mappings.
func (g *Gateway) pacesOut(ref uint32, h *host) bool {
	if h.pace.full <= g.now || g.hosts.slab.used > g.cfg.MaxMappings {
		return false
	}
	h.resting++
	g.pacing++
	g.held.push(restingPort{until: h.pace.full, host: ref, addr: identity})
	return true
}

// pairs reports whether each host has an external address of its own.
func (g *Gateway) pairs() bool { return g.cfg.Pooling == Paired || g.cfg.Ports.Block > 0 }

// pair pairs a host with an external address, and gives it its block of ports
// where hosts have one. False: there is none left.
func (g *Gateway) pair(h *host) bool {
	if h.external != identity {
		return true
	}
	if h.external = g.counterpart(h.addr); h.external == identity {
		return false
	}
	if g.cfg.Ports.Block > 0 {
		g.takeBlock(h)
	}
	return true
}

func (g *Gateway) unpair(h *host) {
	g.dropBlock(h)
	h.external = identity
}

// counterpart is the external address that an internal one is paired with, or
// would be; identity: there is none.
func (g *Gateway) counterpart(internal endpoint) uint8 {
	if ref := g.hostOf(internal); ref != 0 {
		if e := g.hosts.slab.at(ref).external; e != identity {
			return e
		}
	}
	n := len(g.dynamic)
	if n == 0 {
		return identity
	}
	first := int(g.hostHash(internal)) % n
	for i := range n {
		at := g.dynamic[(first+i)%n]
		if g.cfg.Ports.Block == 0 || g.externals[at].freeBlocks(g.blocks()) > 0 {
			return at
		}
	}
	return identity
}

// blocks is how many blocks of ports an external address has.
func (g *Gateway) blocks() int { return g.within.size() / g.cfg.Ports.Block }

func (e *external) freeBlocks(of int) int {
	for _, taken := range e.blocks {
		of -= bits.OnesCount64(taken)
	}
	return of
}

// takeBlock gives a host a block of its external address's ports, at random.
// There must be one.
func (g *Gateway) takeBlock(h *host) {
	e := &g.externals[h.external]
	n := uint32(g.blocks())
	if e.blocks == nil {
		e.blocks = make([]uint64, (n+63)/64)
	}
	from := g.rnd.Uint32N(n)
	for i := range n {
		b := (from + i) % n
		if e.blocks[b/64]>>(b%64)&1 == 0 {
			e.blocks[b/64] |= 1 << (b % 64)
			h.block, h.blocked = uint16(b), true
			r := g.blockRange(h)
			h.last = r.first + uint16(g.rnd.Uint32N(uint32(r.size())))
			return
		}
	}
}

func (g *Gateway) dropBlock(h *host) {
	if h.blocked {
		g.externals[h.external].blocks[h.block/64] &^= 1 << (h.block % 64)
		h.blocked = false
	}
}

func (g *Gateway) blockRange(h *host) portRange {
	n := g.cfg.Ports.Block
	first := int(g.within.first) + int(h.block)*n
	return portRange{uint16(first), uint16(first + n - 1)}
}
