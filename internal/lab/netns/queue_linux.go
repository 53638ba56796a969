package netns

// queue holds packets by the time they are due, first in first out among equals.
type queue struct {
	heap []queued
	seq  uint64
}

type queued struct {
	due    int64
	seq    uint64
	packet *packet
}

// packet is a buffer on its way.
type packet struct {
	transit
	buf []byte // headers and packet
}

// transit is a packet's way through one network.
type transit struct {
	from  *wirePort // nil: a router on the way
	to    *wirePort
	on    *network
	count *Count // of its flow
	down  bool   // the down lane has been passed
	n     int    // packets on the wire
	size  int    // bytes on the wire
	large int    // size of the largest packet
}

// drop counts what does not arrive.
func (t *transit) drop() {
	t.count.Drop(t.n, t.size)
	if t.from != nil {
		t.from.sent.Drop(t.n, t.size)
	}
}

// miss counts what has come as far as the link of who was to get it.
func (t *transit) miss() {
	t.to.received.Add(t.n, t.size)
	t.to.received.Drop(t.n, t.size)
	t.drop()
}

func (a queued) before(b queued) bool {
	return a.due < b.due || a.due == b.due && a.seq < b.seq
}

func (q *queue) push(due int64, p *packet) {
	q.seq++
	q.heap = append(q.heap, queued{due, q.seq, p})
	for i := len(q.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !q.heap[i].before(q.heap[parent]) {
			break
		}
		q.heap[i], q.heap[parent] = q.heap[parent], q.heap[i]
		i = parent
	}
}

// next is when the first packet is due.
func (q *queue) next() (int64, bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].due, true
}

func (q *queue) pop() (int64, *packet) {
	h := q.heap
	top := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], queued{}
	q.heap = h[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h[child+1].before(h[child]) {
			child++
		}
		if !h[child].before(h[i]) {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	return top.due, top.packet
}

// take is a packet with a copy of buf.
func (w *wire) take(buf []byte) *packet {
	p := w.blank(len(buf))
	p.buf = append(p.buf, buf...)
	return p
}

// wrap is a packet around an IP packet that a machine has made.
func (w *wire) wrap(ip []byte) *packet {
	p := w.blank(room + len(ip))
	p.buf = append(append(p.buf, make([]byte, room)...), ip...)
	return p
}

// blank is an empty packet that has room for n bytes.
func (w *wire) blank(n int) *packet {
	class, size := 0, smallBuffer
	if n > smallBuffer {
		class, size = 1, largeBuffer
	}
	spare := w.spare[class]
	if len(spare) == 0 {
		return &packet{buf: make([]byte, 0, size)}
	}
	p := spare[len(spare)-1]
	w.spare[class] = spare[:len(spare)-1]
	*p = packet{buf: p.buf[:0]}
	return p
}

func (w *wire) recycle(p *packet) {
	class, limit := 0, 8192
	if cap(p.buf) > smallBuffer {
		class, limit = 1, 256
	}
	if len(w.spare[class]) < limit {
		w.spare[class] = append(w.spare[class], p)
	}
}
