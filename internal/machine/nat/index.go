package nat

import "math/bits"

// index finds slab elements by the hash of their key: extendible hashing over
// small pages, each open-addressed with linear probing. A page that is full is
// split in two, so growing never touches more than one page and the directory
// of them, and the collector sees no pointer but the directory's.
type index struct {
	dir   []*page // by the top bits of the hash
	shift uint8   // 32 less the number of these bits
	used  int
}

const (
	pageSlots = 256
	pageFull  = pageSlots * 3 / 4
	maxBits   = 24 // of the directory
)

type page struct {
	slots [pageSlots]slot
	used  uint16
	bits  uint8 // how many top bits are the same in all its hashes
}

type slot struct {
	hash uint32
	ref  uint32 // 0 is an empty slot
}

// nothing stands for a directory that was never used; it is only read.
var nothing page

func (x *index) reset() { *x = index{dir: []*page{&nothing}, shift: 32} }

func (x *index) page(hash uint32) *page { return x.dir[uint64(hash)>>(x.shift&63)] }

// seek returns the next element whose key has this hash, from probe position
// at on, and the position after it; 0 ends the search.
func (p *page) seek(hash, at uint32) (ref, next uint32) {
	for ; ; at++ {
		s := p.slots[(hash+at)%pageSlots]
		if s.ref == 0 || s.hash == hash {
			return s.ref, at + 1
		}
	}
}

// add reports false when so many hashes are the same that there is no room.
func (x *index) add(hash, ref uint32) bool {
	p := x.page(hash)
	if p == &nothing {
		p = new(page)
		x.dir[0] = p
	}
	for p.used >= pageFull && p.bits < maxBits {
		x.split(p, hash)
		p = x.page(hash)
	}
	if p.used == pageSlots-1 {
		return false
	}
	p.put(slot{hash, ref})
	x.used++
	return true
}

func (p *page) put(s slot) {
	i := s.hash % pageSlots
	for p.slots[i].ref != 0 {
		i = (i + 1) % pageSlots
	}
	p.slots[i] = s
	p.used++
}

// split makes two pages of the one where hash belongs, by their next bit.
func (x *index) split(p *page, hash uint32) {
	if p.bits == 32-x.shift {
		dir := make([]*page, 2*len(x.dir))
		for i, p := range x.dir {
			dir[2*i], dir[2*i+1] = p, p
		}
		x.dir = dir
		x.shift--
	}
	p.bits++
	halves := [2]*page{{bits: p.bits}, {bits: p.bits}}
	for _, s := range p.slots {
		if s.ref != 0 {
			halves[s.hash>>(32-p.bits)&1].put(s)
		}
	}
	n := len(x.dir) >> p.bits // entries of each half
	first := int(uint64(hash)>>x.shift) &^ (2*n - 1)
	for i := range n {
		x.dir[first+i], x.dir[first+n+i] = halves[0], halves[1]
	}
}

// remove takes an element out, which must be there, and moves later ones of
// its run up, so that no tombstones are needed.
func (x *index) remove(hash, ref uint32) {
	p := x.page(hash)
	i := hash % pageSlots
	for p.slots[i].ref != ref {
		i = (i + 1) % pageSlots
	}
	for j := i; ; {
		j = (j + 1) % pageSlots
		s := p.slots[j]
		if s.ref == 0 {
			break
		}
		if (j-s.hash)%pageSlots >= (j-i)%pageSlots {
			p.slots[i] = s
			i = j
		}
	}
	p.slots[i] = slot{}
	p.used--
	x.used--
}

// hasher is seeded, so that outsiders cannot choose colliding keys.
type hasher [4]uint64

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func (s *hasher) sum(a, b uint64) uint32 {
	h := mix(a^s[0], b^s[1])
	h = mix(h^s[2], s[3])
	return uint32(h ^ h>>32)
}
