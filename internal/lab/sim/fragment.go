package sim

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// What a host remembers of packets that have not come whole, as Linux does:
// everything of one for half a minute (RFC 791 leaves the time open), and no
// packet whose parts overlap (RFC 5722).
const (
	reassemblyTime  = 30 * time.Second
	reassemblyBytes = 1 << 20
	reassemblyCount = 64 // packets
	fragmentHeader  = 8  // of IPv6
	protoFragment   = 44 // of IPv6
)

type partialKey struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8
}

// partial is a packet of which parts have come.
type partial struct {
	header []byte // IP header of the first part
	parts  []fragment
	total  int // length of all data; 0 while the last part is missing
	have   int
	until  int64
}

type fragment struct {
	offset int
	data   []byte
}

type partials struct {
	m     map[partialKey]*partial
	bytes int
}

// sendFragments cuts a packet (RFC 791 section 2.3, RFC 8200 section 4.5). The
// parts may be cut again.
func (h *Host) sendFragments(pkt *buffer, mtu int) {
	b := pkt.b
	h.nextID++
	head := ip.HeaderLen(netip.IPv6Unspecified())
	room := mtu - head - fragmentHeader
	if b[0]>>4 == 4 {
		head = int(b[0]&15) * 4
		room = mtu - head
	}
	room &^= 7
	data := b[head:]
	for offset := 0; offset < len(data); offset += room {
		end := min(offset+room, len(data))
		more := end < len(data)
		part := h.n.take()
		part.b = append(part.b, b[:head]...)
		if b[0]>>4 == 4 {
			flags := uint16(offset / 8)
			if more {
				flags |= 0x2000
			}
			part.b = append(part.b, data[offset:end]...)
			binary.BigEndian.PutUint16(part.b[2:], uint16(len(part.b)))
			binary.BigEndian.PutUint16(part.b[4:], uint16(h.nextID))
			binary.BigEndian.PutUint16(part.b[6:], flags)
			sumHeader(part.b)
		} else {
			flags := uint16(offset)
			if more {
				flags |= 1
			}
			part.b = append(part.b, b[6], 0, byte(flags>>8), byte(flags))
			part.b = binary.BigEndian.AppendUint32(part.b, h.nextID)
			part.b = append(part.b, data[offset:end]...)
			part.b[6] = protoFragment
			binary.BigEndian.PutUint16(part.b[4:], uint16(len(part.b)-head))
		}
		h.at.transmit(part)
	}
	h.n.give(pkt)
}

// reassemble takes over a part, and returns the packet that it completes.
func (h *Host) reassemble(pkt *buffer) *buffer {
	defer h.n.give(pkt)
	key, part, more, head := readFragment(pkt.b)
	ps := &h.partial
	if ps.m == nil {
		ps.m = make(map[partialKey]*partial)
	}
	for k, p := range ps.m { // few
		if p.until <= h.n.now {
			ps.drop(k)
		}
	}
	if head == nil || more && len(part.data)%8 != 0 || part.offset+len(part.data) > 65535 ||
		ps.bytes+len(part.data) > reassemblyBytes {
		return nil
	}
	p := ps.m[key]
	if p == nil {
		if len(ps.m) >= reassemblyCount {
			return nil
		}
		p = &partial{until: h.n.now + int64(reassemblyTime)}
		ps.m[key] = p
	}
	before := p.have
	if !p.add(part, more) {
		ps.drop(key)
		return nil
	}
	ps.bytes += p.have - before
	if part.offset == 0 {
		p.header = slices.Clone(head)
	}
	if p.total == 0 || p.have < p.total {
		return nil
	}
	whole := h.n.take()
	whole.from, whole.on = pkt.from, pkt.on
	whole.b = append(whole.b, p.header...)
	for _, part := range p.parts {
		whole.b = append(whole.b, part.data...)
	}
	ps.drop(key)
	if whole.b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(whole.b[2:], uint16(len(whole.b)))
		binary.BigEndian.PutUint16(whole.b[6:], 0)
		sumHeader(whole.b)
	} else {
		whole.b[6] = key.proto
		binary.BigEndian.PutUint16(whole.b[4:], uint16(len(whole.b)-40))
	}
	return whole
}

// readFragment takes a part of a packet apart; head is nil if it is none.
func readFragment(b []byte) (key partialKey, part fragment, more bool, head []byte) {
	key.src, key.dst = addresses(b)
	if b[0]>>4 == 4 {
		n := int(b[0]&15) * 4
		at := binary.BigEndian.Uint16(b[6:])
		key.id, key.proto = uint32(binary.BigEndian.Uint16(b[4:])), b[9]
		total := min(len(b), int(binary.BigEndian.Uint16(b[2:])))
		return key, fragment{int(at&0x1fff) * 8, slices.Clone(b[n:total])}, at&0x2000 != 0, b[:n]
	}
	if b[6] != protoFragment || len(b) < 40+fragmentHeader {
		return key, part, false, nil // behind other extension headers
	}
	at := binary.BigEndian.Uint16(b[42:])
	key.id, key.proto = binary.BigEndian.Uint32(b[44:]), b[40]
	total := min(len(b), 40+int(binary.BigEndian.Uint16(b[4:])))
	return key, fragment{int(at &^ 7), slices.Clone(b[48:total])}, at&1 != 0, b[:40]
}

// add says false when the parts do not fit together.
func (p *partial) add(part fragment, more bool) bool {
	end := part.offset + len(part.data)
	if !more {
		if p.total != 0 && p.total != end {
			return false
		}
		p.total = end
	}
	if p.total != 0 && end > p.total {
		return false
	}
	i, found := slices.BinarySearchFunc(p.parts, part.offset, func(f fragment, at int) int { return f.offset - at })
	if found && len(p.parts[i].data) == len(part.data) {
		return true // again
	}
	if found || i > 0 && p.parts[i-1].offset+len(p.parts[i-1].data) > part.offset ||
		i < len(p.parts) && p.parts[i].offset < end {
		return false
	}
	p.parts = slices.Insert(p.parts, i, part)
	p.have += len(part.data)
	return true
}

func (ps *partials) drop(k partialKey) {
	for _, part := range ps.m[k].parts {
		ps.bytes -= len(part.data)
	}
	delete(ps.m, k)
}

// sumHeader computes the checksum of an IPv4 header.
func sumHeader(b []byte) {
	b[10], b[11] = 0, 0
	var sum uint32
	for i := 0; i < int(b[0]&15)*4; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
}
