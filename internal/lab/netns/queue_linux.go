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
