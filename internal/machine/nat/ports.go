package nat

import (
	"math/bits"
	"math/rand/v2"
)

// pool is the ports of one external address in one protocol.
type pool struct {
	taken [1 << 16 / 64]uint64
	free  [2]int // below and from 1024 on
	last  uint16 // allocated last by Sequential
}

// Well-known ports map to well-known ports and others to others
// (RFC 4787 REQ-3). Port 0 is never given out.
var ranges = [2][2]int{{1, 1023}, {1024, 65535}}

func newPool(first uint16) *pool {
	p := &pool{last: first}
	for i, r := range ranges {
		p.free[i] = r[1] - r[0] + 1
	}
	return p
}

func rangeOf(port uint16) int {
	if port < 1024 {
		return 0
	}
	return 1
}

func (p *pool) isFree(port uint16) bool {
	return port != 0 && p.taken[port/64]&(1<<(port%64)) == 0
}

func (p *pool) take(port uint16) {
	p.taken[port/64] |= 1 << (port % 64)
	p.free[rangeOf(port)]--
}

func (p *pool) release(port uint16) {
	p.taken[port/64] &^= 1 << (port % 64)
	p.free[rangeOf(port)]++
}

// from is the first free port at or after port, around the end of its range.
// There must be one.
func (p *pool) from(port uint16) uint16 {
	r := ranges[rangeOf(port)]
	for at := max(int(port), r[0]); ; {
		word := ^p.taken[at/64] & (^uint64(0) << (at % 64))
		if word != 0 {
			if found := at&^63 + bits.TrailingZeros64(word); found <= r[1] {
				return uint16(found)
			}
		}
		if at = at&^63 + 64; at > r[1] {
			at = r[0]
		}
	}
}

// allocate takes a port for a new mapping of the internal port.
func (p *pool) allocate(how Allocation, internal uint16, rnd *rand.Rand) (uint16, bool) {
	in := rangeOf(internal)
	if how != PreserveNext {
		in = 1
	}
	if p.free[in] == 0 {
		return 0, false
	}
	var port uint16
	switch how {
	case PreserveNext:
		port = p.from(internal)
	case Sequential:
		port = p.last + 1
		if port < 1024 {
			port = 1024
		}
		port = p.from(port)
		p.last = port
	default:
		port = p.random(rnd)
	}
	p.take(port)
	return port, true
}

// random draws until it hits a free port; a nearly full pool is searched from
// the last draw on, so that the work is bounded.
func (p *pool) random(rnd *rand.Rand) uint16 {
	var port uint16
	for range 16 {
		port = 1024 + uint16(rnd.Uint32N(65536-1024))
		if p.isFree(port) {
			return port
		}
	}
	return p.from(port)
}
