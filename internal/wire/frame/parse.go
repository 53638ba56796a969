package frame

import "unicode/utf8"

// Decoder takes the frames of one pipe out of the buffers that its bytes
// arrive in. The zero Decoder is ready.
type Decoder struct {
	rest   int // payload of the current DATA frame still to come
	stream uint64
	offset uint64
}

// Next reads the start of b into f and says how many bytes that took.
//
// DATA comes in as many pieces as its payload comes in: each is a DATA frame
// of its own, whose Data aliases b. So a buffer never has to hold a whole
// payload, and nothing is copied. Any other frame is read when b holds all of
// it: HeaderLen + MaxControl bytes are always enough.
//
// Without an error, n is 0 when b must get longer first, and f.Type is 0 when
// a frame was skipped. f's fields that its type does not use are left as they
// were, and the capacity of f.Entries is used again.
func (d *Decoder) Next(b []byte, f *Frame) (n int, err error) {
	f.Type = 0
	if d.rest > 0 {
		return d.piece(b, 0, f), nil
	}
	if len(b) < HeaderLen {
		return 0, nil
	}
	t, size := Type(b[0]), int(b[1])<<16|int(b[2])<<8|int(b[3])
	if t == DATA {
		return d.data(b, size, f)
	}
	if size > MaxControl {
		return 0, malformed("%v of %d bytes", t, size)
	}
	if t < 0x80 && (t == 0 || t > STREAMS) {
		return 0, malformed("unknown type %d", t)
	}
	if len(b)-HeaderLen < size {
		return 0, nil
	}
	n = HeaderLen + size
	if t >= 0x80 {
		return n, nil
	}
	c := cursor{b: b[HeaderLen:n]}
	c.body(t, f)
	if c.bad || len(c.b) > 0 {
		return 0, malformed("body of %v", t)
	}
	f.Type = t
	return n, nil
}

// data reads the head of a DATA frame and the payload that is there.
func (d *Decoder) data(b []byte, size int, f *Frame) (int, error) {
	if size > MaxLane+MaxData {
		return 0, malformed("DATA of %d bytes", size)
	}
	head := b[HeaderLen:min(len(b), HeaderLen+size)]
	stream, offset, n, err := ParseLane(head)
	if err != nil {
		return 0, err
	}
	if n == 0 && len(head) < size {
		return 0, nil
	}
	payload := size - n
	if n == 0 || payload == 0 || payload > MaxData || offset+uint64(payload) > MaxOffset {
		return 0, malformed("body of DATA")
	}
	if len(head) == n {
		return 0, nil // not one byte of the payload yet
	}
	d.stream, d.offset, d.rest = stream, offset, payload
	return d.piece(b, HeaderLen+n, f), nil
}

func (d *Decoder) piece(b []byte, from int, f *Frame) int {
	n := min(len(b)-from, d.rest)
	if n == 0 {
		return 0
	}
	f.Type, f.Stream, f.Offset, f.Data = DATA, d.stream, d.offset, b[from:from+n:from+n]
	d.offset += uint64(n)
	d.rest -= n
	return from + n
}

func (c *cursor) body(t Type, f *Frame) {
	switch t {
	case HELLO:
		c.fill(f.Session[:])
		c.fill(f.Attempt[:])
		f.Flags = c.byte()
	case RESUME:
		c.resume(f)
	case OPEN:
		f.Stream = c.number(MaxStream)
	case ACK:
		f.Stream, f.Done = c.number(MaxStream), c.bit()
		f.Offset, f.Limit = c.number(MaxOffset), c.number(MaxOffset)
	case FIN:
		f.Stream, f.Offset = c.number(MaxStream), c.number(MaxOffset)
	case RESET:
		f.Stream, f.Code = c.number(MaxStream), c.number(MaxNumber)
	case PING, PONG:
		f.N = c.number(MaxNumber)
	case CLOSE:
		f.Code = c.number(MaxNumber)
		c.text(f)
	case LOST:
		f.Epoch = uint32(c.number(1<<32 - 1))
	case STREAMS:
		f.Limit = c.number(MaxStream)
	}
}

func (c *cursor) resume(f *Frame) {
	f.Epoch = uint32(c.number(1<<32 - 1))
	f.Opened, f.Accepted, f.Limit = c.number(MaxStream), c.number(MaxStream), c.number(MaxStream)
	count := c.number(MaxEntries)
	f.Entries = f.Entries[:0]
	for i := uint64(0); i < count && !c.bad; i++ {
		e := Entry{Stream: c.number(MaxStream), Done: c.bit()}
		e.Received, e.Limit = c.number(MaxOffset), c.number(MaxOffset)
		if i > 0 && e.Stream <= f.Entries[i-1].Stream {
			c.bad = true
		}
		f.Entries = append(f.Entries, e)
	}
}

func (c *cursor) text(f *Frame) {
	if len(c.b) > MaxText || !utf8.Valid(c.b) || printable(string(c.b)) != string(c.b) {
		c.bad = true
		return
	}
	f.Text = string(c.b)
	c.b = nil
}

// ParseLane reads the header of a lane; n is 0 when b ends inside it.
func ParseLane(b []byte) (stream, offset uint64, n int, err error) {
	stream, m := varint(b)
	if m == 0 {
		return 0, 0, 0, nil
	}
	offset, n = varint(b[m:])
	if n == 0 {
		return 0, 0, 0, nil
	}
	if stream > MaxStream || offset > MaxOffset {
		return 0, 0, 0, malformed("stream %d, offset %d", stream, offset)
	}
	return stream, offset, m + n, nil
}
