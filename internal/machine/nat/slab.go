package nat

const chunk = 64

// slab holds elements that are known by number. They never move, growing
// copies nothing, and there is no pointer in them for the garbage collector.
// Element 0 is never used. Elements that are given back stay allocated for the
// next ones.
type slab[T any, P element[T]] struct {
	chunks []*[chunk]T
	free   uint32 // the first free one, which links to the next
	top    uint32 // from here on none was ever used
	used   int
}

type element[T any] interface {
	*T
	link() *uint32 // a field that is of no use in a free element
}

func (s *slab[T, P]) at(ref uint32) *T { return &s.chunks[ref/chunk][ref%chunk] }

// take gives an element that is zero.
func (s *slab[T, P]) take() (uint32, *T) {
	s.used++
	if ref := s.free; ref != 0 {
		e := s.at(ref)
		link := P(e).link()
		s.free, *link = *link, 0
		return ref, e
	}
	s.top = max(s.top, 1)
	if int(s.top/chunk) == len(s.chunks) {
		s.chunks = append(s.chunks, new([chunk]T))
	}
	s.top++
	return s.top - 1, s.at(s.top - 1)
}

func (s *slab[T, P]) give(ref uint32) {
	s.used--
	e := s.at(ref)
	*e = *new(T)
	*P(e).link() = s.free
	s.free = ref
}
