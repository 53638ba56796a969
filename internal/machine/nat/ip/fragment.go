package ip

import "encoding/binary"

// The flags and the offset of IPv4, in the 16 bits that they share.
const (
	dontCut4   = 0x4000
	moreParts4 = 0x2000
	offset4    = 0x1fff
)

// fragment checks what a part of a packet must be.
func (p *Packet) fragment(tcp bool) error {
	_, offset, more := p.Part()
	n := len(p.Data) - p.l4
	switch {
	case p.cut:
	case more && n%8 != 0, offset+n > 65535, n == 0:
		return ErrHeader
	case tcp && offset == 8:
		return ErrHeader // it would overwrite the flags (RFC 3128)
	}
	p.Fragment, p.Headless = true, offset != 0
	return nil
}

// Part says which part of a packet this is: the packet's number, the offset
// in bytes, and whether more parts follow.
func (p *Packet) Part() (id uint32, offset int, more bool) {
	if p.Is4() {
		w := binary.BigEndian.Uint16(p.Data[6:])
		return uint32(binary.BigEndian.Uint16(p.Data[4:])), int(w&offset4) * 8, w&moreParts4 != 0
	}
	if p.part == 0 {
		return 0, 0, false
	}
	b := p.Data[p.part:]
	w := binary.BigEndian.Uint16(b[2:])
	return binary.BigEndian.Uint32(b[4:]), int(w &^ 7), w&1 != 0
}

// PartLen is how many bytes of its packet a part has.
func (p *Packet) PartLen() int {
	if p.part != 0 {
		return len(p.Data) - p.part - 8
	}
	return len(p.Data) - p.l4
}

// MayCut reports whether routers may cut the packet into parts.
func (p *Packet) MayCut() bool {
	return p.Is4() && binary.BigEndian.Uint16(p.Data[6:])&dontCut4 == 0
}

// Numbered reports whether an IPv4 packet needs a number that tells it from
// others: it may be cut, or has been (RFC 6864 section 4).
func (p *Packet) Numbered() bool {
	return p.Is4() && binary.BigEndian.Uint16(p.Data[6:])&(dontCut4|moreParts4|offset4) != dontCut4
}

// SetNumber gives an IPv4 packet a number.
func (p *Packet) SetNumber(n uint16) {
	b := p.Data[4:6]
	adjust(p.Data[10:12], delta16(binary.BigEndian.Uint16(b), n))
	binary.BigEndian.PutUint16(b, n)
}

// AppendPart appends the part of an IPv4 packet that starts at byte from of
// what it carries and fits into mtu (RFC 791 section 3.2), and says where the
// next one starts; 0 is nowhere. The packet may be a part itself.
func (p *Packet) AppendPart(b []byte, mtu, from int) (part []byte, next int) {
	start := len(b)
	b = append(b, p.Data[:20]...)
	b = appendOptions(b, p.Data[20:p.l4], from != 0)
	room := (mtu - (len(b) - start)) &^ 7
	n := len(p.Data) - p.l4 - from
	if n > room {
		n = max(room, 8)
		next = from + n
	}
	b = append(b, p.Data[p.l4+from:p.l4+from+n]...)

	h := b[start:]
	hl := len(h) - n
	w := binary.BigEndian.Uint16(h[6:])
	w += uint16(from / 8)
	if next != 0 {
		w |= moreParts4
	}
	h[0] = 0x40 | byte(hl/4)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	binary.BigEndian.PutUint16(h[6:], w)
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^fold(add(0, h[:hl])))
	return b, next
}

// appendOptions appends IP options; later parts have only those that say so.
func appendOptions(b, opts []byte, later bool) []byte {
	if !later {
		return append(b, opts...)
	}
	start := len(b)
	for len(opts) > 0 && opts[0] != 0 {
		n := 1
		if opts[0] != 1 {
			if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
				break
			}
			n = int(opts[1])
		}
		if opts[0]&0x80 != 0 {
			b = append(b, opts[:n]...)
		}
		opts = opts[n:]
	}
	for (len(b)-start)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
