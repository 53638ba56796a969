package nat

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// index finds slab elements by the hash of their key: open addressing with
// linear probing. Eight bytes a slot, and no pointer for the collector.
type index struct {
	slots []slot
	used  int
}

type slot struct {
	hash uint32
	ref  uint32 // place in the slab; 0 is an empty slot
}

// seek returns the next element whose key has this hash, from probe position
// at on, and the position after it; 0 ends the search.
func (x *index) seek(hash, at uint32) (ref, next uint32) {
	if len(x.slots) == 0 {
		return 0, 0
	}
	mask := uint32(len(x.slots) - 1)
	for ; ; at++ {
		s := x.slots[(hash+at)&mask]
		if s.ref == 0 || s.hash == hash {
			return s.ref, at + 1
		}
	}
}

func (x *index) add(hash, ref uint32) {
	if 4*(x.used+1) > 3*len(x.slots) {
		old := x.slots
		x.slots = make([]slot, max(64, 2*len(old)))
		for _, s := range old {
			if s.ref != 0 {
				x.put(s)
			}
		}
	}
	x.used++
	x.put(slot{hash, ref})
}

func (x *index) put(s slot) {
	mask := uint32(len(x.slots) - 1)
	i := s.hash & mask
	for x.slots[i].ref != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = s
}

// remove takes the element out and moves later ones of its run up, so that no
// tombstones are needed.
func (x *index) remove(hash, ref uint32) {
	mask := uint32(len(x.slots) - 1)
	i := hash & mask
	for x.slots[i].ref != ref {
		i = (i + 1) & mask
	}
	x.used--
	for j := i; ; {
		j = (j + 1) & mask
		s := x.slots[j]
		if s.ref == 0 {
			break
		}
		if (j-s.hash)&mask >= (j-i)&mask {
			x.slots[i] = s
			i = j
		}
	}
	x.slots[i] = slot{}
}

// hasher is seeded, so that outsiders cannot choose colliding keys.
type hasher [3]uint64

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func (s *hasher) endpoint(h uint64, ep netip.AddrPort) uint64 {
	if !ep.IsValid() {
		return mix(h^s[0], s[1])
	}
	if a := ep.Addr(); a.Is4() {
		b := a.As4()
		return mix(h^s[0]^uint64(binary.BigEndian.Uint32(b[:])), s[1]^uint64(ep.Port()))
	}
	b := ep.Addr().As16()
	h = mix(h^s[0]^binary.BigEndian.Uint64(b[:8]), s[1]^binary.BigEndian.Uint64(b[8:]))
	return mix(h^s[2], s[0]^uint64(ep.Port()))
}

func (s *hasher) sum(h uint64) uint32 {
	h = mix(h^s[2], s[0])
	return uint32(h ^ h>>32)
}
