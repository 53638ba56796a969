package rendezvous

const (
	chunkBits = 10
	chunkLen  = 1 << chunkBits
)

// slab holds values of a type without pointers, by number. It grows by chunks:
// nothing moves, and the garbage collector has nothing to look at.
type slab[T any] struct {
	chunks []*[chunkLen]T
	free   []uint32
	used   int // numbers ever given
	max    int
}

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i>>chunkBits][i%chunkLen] }

// lookup is at for a number that a stranger sent.
func (s *slab[T]) lookup(i uint32) (*T, bool) {
	if int64(i) >= int64(s.used) {
		return nil, false
	}
	return s.at(i), true
}

func (s *slab[T]) len() int { return s.used - len(s.free) }

func (s *slab[T]) full() bool { return s.len() >= s.max }

// alloc returns a zero value. The slab is not full.
func (s *slab[T]) alloc() (uint32, *T) {
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		return i, s.at(i)
	}
	i := uint32(s.used)
	if s.used%chunkLen == 0 {
		s.chunks = append(s.chunks, new([chunkLen]T))
	}
	s.used++
	return i, s.at(i)
}

func (s *slab[T]) release(i uint32) {
	var zero T
	*s.at(i) = zero
	s.free = append(s.free, i)
}

// index finds numbers of a slab by hash: open addressing, linear probing,
// never more than half full. Its size is fixed from the start, so that no
// packet ever pays for its growth; pages that are not touched cost nothing.
type index struct{ cells []uint64 } // hash's upper half | number + 1; 0 is empty

func newIndex(limit int) index {
	n := 16
	for n < 2*limit {
		n *= 2
	}
	return index{make([]uint64, n)}
}

func (x *index) home(cell uint64) int { return int(cell>>32) & (len(x.cells) - 1) }

// find returns the number with this hash for which is holds.
func (x *index) find(hash uint64, is func(uint32) bool) (uint32, bool) {
	for at := x.home(hash); ; at = (at + 1) & (len(x.cells) - 1) {
		c := x.cells[at]
		if c == 0 {
			return 0, false
		}
		if c>>32 == hash>>32 && is(uint32(c)-1) {
			return uint32(c) - 1, true
		}
	}
}

func (x *index) insert(hash uint64, i uint32) {
	at := x.home(hash)
	for x.cells[at] != 0 {
		at = (at + 1) & (len(x.cells) - 1)
	}
	x.cells[at] = hash>>32<<32 | uint64(i+1)
}

// remove takes out i, which is in the index under hash, and moves up what
// probed past it.
func (x *index) remove(hash uint64, i uint32) {
	mask := len(x.cells) - 1
	cell := hash>>32<<32 | uint64(i+1)
	hole := x.home(hash)
	for x.cells[hole] != cell {
		hole = (hole + 1) & mask
	}
	for at := (hole + 1) & mask; x.cells[at] != 0; at = (at + 1) & mask {
		// The cell may move to the hole unless its home lies between them.
		if (at-x.home(x.cells[at]))&mask >= (at-hole)&mask {
			x.cells[hole] = x.cells[at]
			hole = at
		}
	}
	x.cells[hole] = 0
}
