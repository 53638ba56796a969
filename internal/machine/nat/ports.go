package nat

import (
	"math/bits"
	"math/rand/v2"
)

// pool is the ports of one external address in one protocol, in pages that
// are made when they are needed.
type pool struct {
	pages [1 << 16 / portPage]*portsPage
	last  uint16 // allocated last by Sequential
	// shared are how many mappings share each port. One of these is not taken.
	shared [1 << 16 / portPage]*[portPage]uint32
}

const portPage = 256

type portsPage struct {
	taken [portPage / 64]uint64
	// refs are the mappings that hold the ports. A port without one rests, or
	// is free.
	refs [portPage]uint32
}

func (p *pool) ref(port uint16) uint32 {
	if page := p.pages[port/portPage]; page != nil {
		return page.refs[port%portPage]
	}
	return 0
}

// isFree is false for port 0, which is never given out.
func (p *pool) isFree(port uint16) bool {
	page := p.pages[port/portPage]
	return port != 0 && (page == nil || page.taken[port%portPage/64]>>(port%64)&1 == 0)
}

func (p *pool) take(port uint16, ref uint32) {
	page := p.pages[port/portPage]
	if page == nil {
		page = new(portsPage)
		p.pages[port/portPage] = page
	}
	page.taken[port%portPage/64] |= 1 << (port % 64)
	page.refs[port%portPage] = ref
}

// rest takes the port from its mapping, and release makes it free.
func (p *pool) rest(port uint16) { p.pages[port/portPage].refs[port%portPage] = 0 }

func (p *pool) release(port uint16) {
	p.rest(port)
	p.pages[port/portPage].taken[port%portPage/64] &^= 1 << (port % 64)
}

// share and unshare count a mapping in that shares the port, or out.
func (p *pool) share(port uint16) {
	page := &p.shared[port/portPage]
	if *page == nil {
		*page = new([portPage]uint32)
	}
	(*page)[port%portPage]++
}

func (p *pool) unshare(port uint16) { p.shared[port/portPage][port%portPage]-- }

func (p *pool) isShared(port uint16) bool {
	page := p.shared[port/portPage]
	return page != nil && page[port%portPage] != 0
}

// eachTaken goes through the ports that are taken or rest.
func (p *pool) eachTaken(do func(port uint16)) {
	for at, page := range p.pages {
		if page == nil {
			continue
		}
		for i, word := range page.taken {
			for ; word != 0; word &= word - 1 {
				do(uint16(at*portPage + i*64 + bits.TrailingZeros64(word)))
			}
		}
	}
}

// portRange is first to last, both included.
type portRange struct{ first, last uint16 }

func (r portRange) has(port uint16) bool { return r.first <= port && port <= r.last }
func (r portRange) size() int            { return int(r.last) - int(r.first) + 1 }

// step is the port delta further, around the ends of the range.
func (r portRange) step(port uint16, delta int) uint16 {
	n := r.size()
	return r.first + uint16(((int(port)-int(r.first)+delta)%n+n)%n)
}

// upward finds the first free port from at on up to last, among those that
// the mask of 64 ports allows.
func (p *pool) upward(at, last int, mask uint64) (uint16, bool) {
	for at <= last {
		word := ^uint64(0)
		if page := p.pages[at/portPage]; page != nil {
			word = ^page.taken[at%portPage/64]
		}
		if word = word & mask & (^uint64(0) << (at % 64)); word != 0 {
			found := at&^63 + bits.TrailingZeros64(word)
			return uint16(found), found <= last
		}
		at = at&^63 + 64
	}
	return 0, false
}

// draw is what a port is chosen by.
type draw struct {
	how      Allocation
	internal uint16
	delta    int
	preserve portRange // in which the internal port may be kept
	within   portRange // for what is not kept
	mask     uint64    // of 64 ports, those of the right parity
	last     *uint16   // where Sequential goes on
	// free says whether a port that the pool has is good for the mapping at
	// hand; nil: all are.
	free func(port uint16) bool
}

const (
	draws = 16  // how often Random tries before it looks for the next one
	steps = 256 // how often Sequential steps before it does
	tries = 128 // how many ports are looked at that only free can judge
)

func (p *pool) suits(d *draw, port uint16) bool {
	return p.isFree(port) && d.mask>>(port%64)&1 != 0 && (d.free == nil || d.free(port))
}

// choose finds a port for a new mapping, without taking it.
func (p *pool) choose(d *draw, rnd *rand.Rand) (uint16, bool) {
	if d.how <= PreserveRandom && d.preserve.has(d.internal) && p.suits(d, d.internal) {
		return d.internal, true
	}
	switch d.how {
	case Preserve:
		return 0, false
	case PreserveNext:
		return p.next(d, d.internal)
	case Sequential:
		port := *d.last
		for range steps {
			if port = d.within.step(port, d.delta); p.suits(d, port) {
				*d.last = port
				return port, true
			}
		}
		port, ok := p.next(d, port)
		if ok {
			*d.last = port
		}
		return port, ok
	}
	var port uint16
	for range draws {
		port = d.within.first + uint16(rnd.Uint32N(uint32(d.within.size())))
		if p.suits(d, port) {
			return port, true
		}
	}
	return p.next(d, port)
}

// next is the first port from one on, around the end of the range.
func (p *pool) next(d *draw, from uint16) (uint16, bool) {
	if !d.within.has(from) {
		from = d.within.first
	}
	for at, left := from, tries; left > 0; left-- {
		port, ok := p.upward(int(at), int(d.within.last), d.mask)
		if !ok {
			port, ok = p.upward(int(d.within.first), int(d.within.last), d.mask)
		}
		if !ok || d.free == nil || d.free(port) {
			return port, ok
		}
		at = d.within.step(port, 1)
	}
	return 0, false
}

const (
	evenPorts uint64 = 0x5555555555555555
	allPorts  uint64 = 1<<64 - 1
)
