package frame

import "encoding/binary"

const maxVarint = 1<<62 - 1

// appendVarint writes x as in RFC 9000 section 16. Larger numbers than fit
// are cut to the largest: none that a session makes is.
func appendVarint(b []byte, x uint64) []byte {
	switch {
	case x < 1<<6:
		return append(b, byte(x))
	case x < 1<<14:
		return binary.BigEndian.AppendUint16(b, uint16(x)|1<<14)
	case x < 1<<30:
		return binary.BigEndian.AppendUint32(b, uint32(x)|2<<30)
	default:
		return binary.BigEndian.AppendUint64(b, min(x, maxVarint)|3<<62)
	}
}

// varint reads a number; n is 0 when b ends inside it.
func varint(b []byte) (x uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	n = 1 << (b[0] >> 6)
	if len(b) < n {
		return 0, 0
	}
	x = uint64(b[0] & 0x3f)
	for _, c := range b[1:n] {
		x = x<<8 | uint64(c)
	}
	return x, n
}

// cursor reads a body; the first number that is cut or too large spoils it.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) number(limit uint64) uint64 {
	x, n := varint(c.b)
	if n == 0 || x > limit {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return x
}

func (c *cursor) byte() byte {
	if len(c.b) == 0 {
		c.bad = true
		return 0
	}
	x := c.b[0]
	c.b = c.b[1:]
	return x
}

// bit reads a flags byte of which only the lowest bit is defined.
func (c *cursor) bit() bool {
	x := c.byte()
	c.bad = c.bad || x > 1
	return x == 1
}

func (c *cursor) fill(p []byte) {
	if len(c.b) < len(p) {
		c.bad, c.b = true, nil
		return
	}
	copy(p, c.b)
	c.b = c.b[len(p):]
}
