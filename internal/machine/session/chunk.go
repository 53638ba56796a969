package session

const (
	chunkBits = 16
	chunkSize = 1 << chunkBits
	keepFree  = 64 // chunks kept for later, until the session is idle
)

// chunk holds the bytes of one stream from a multiple of its size on.
type chunk struct {
	refs    int  // times Next has handed part of it out without Sent
	dropped bool // by its buffer, while in flight
	data    [chunkSize]byte
}

// pool is where chunks come from and go back to.
type pool struct {
	free []*chunk
	used int
}

func (p *pool) get() *chunk {
	p.used++
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free[n-1] = nil
		p.free = p.free[:n-1]
		return c
	}
	return new(chunk)
}

// rest gives memory back that a session without traffic does not need.
func (p *pool) rest() {
	if p.used == 0 {
		p.free = nil
	}
}

// drop is the buffer's word that it needs c no more.
func (p *pool) drop(c *chunk) {
	if c.refs > 0 {
		c.dropped = true
		return
	}
	c.dropped = false
	p.used--
	if len(p.free) < keepFree {
		p.free = append(p.free, c)
	}
}

// landed is the link's word that it needs c no more.
func (p *pool) landed(c *chunk) {
	c.refs--
	if c.refs == 0 && c.dropped {
		p.drop(c)
	}
}

// buffer is a run of a stream's bytes. Its chunks lie on multiples of their
// size in the stream, so an offset leads to its chunk without a search.
type buffer struct {
	chunks []*chunk
	head   int    // chunks before it are gone
	first  uint64 // offset / chunkSize of chunks[head]
}

// append puts b behind the last byte, which is at offset-1.
func (q *buffer) append(p *pool, offset uint64, b []byte) {
	if q.head == len(q.chunks) {
		q.chunks, q.head, q.first = q.chunks[:0], 0, offset>>chunkBits
	}
	for len(b) > 0 {
		i := q.head + int(offset>>chunkBits-q.first)
		if i == len(q.chunks) {
			q.compact()
			i = len(q.chunks)
			q.chunks = append(q.chunks, p.get())
		}
		n := copy(q.chunks[i].data[offset&(chunkSize-1):], b)
		offset += uint64(n)
		b = b[n:]
	}
}

// compact keeps a long-lived buffer from growing at its end for ever.
func (q *buffer) compact() {
	if q.head > 16 && q.head > len(q.chunks)/2 {
		n := copy(q.chunks, q.chunks[q.head:])
		clear(q.chunks[n:])
		q.chunks, q.head = q.chunks[:n], 0
	}
}

// at is what lies together from offset on, before end.
func (q *buffer) at(offset, end uint64) (*chunk, []byte) {
	c := q.chunks[q.head+int(offset>>chunkBits-q.first)]
	from := offset & (chunkSize - 1)
	return c, c.data[from:min(chunkSize, from+end-offset)]
}

// trim gives back what lies before offset; all of it when nothing follows.
func (q *buffer) trim(p *pool, offset, end uint64) {
	for q.head < len(q.chunks) && (offset == end || q.first < offset>>chunkBits) {
		p.drop(q.chunks[q.head])
		q.chunks[q.head] = nil
		q.head++
		q.first++
	}
	if q.head == len(q.chunks) {
		q.head = 0
		if q.chunks = q.chunks[:0]; cap(q.chunks) > 16 {
			q.chunks = nil
		}
	}
}
