package ip

import (
	"encoding/binary"
	"net/netip"
)

// DecrementTTL takes one hop off.
func (p *Packet) DecrementTTL() {
	p.TTL--
	if !p.Is4() {
		p.Data[7]--
		return
	}
	p.Data[8]--
	adjust(p.Data[10:12], 0xfeff) // minus 0x0100
}

// ReturnHop takes back DecrementTTL.
func (p *Packet) ReturnHop() {
	p.TTL++
	if !p.Is4() {
		p.Data[7]++
		return
	}
	p.Data[8]++
	adjust(p.Data[10:12], 0x0100)
}

// SetSrc rewrites the source endpoint of an IPv4 packet and the checksums over
// it, as RFC 1624 does.
func (p *Packet) SetSrc(to netip.AddrPort) {
	p.set(12, p.srcPort, to)
	p.Src = to
}

// SetDst is SetSrc for the destination.
func (p *Packet) SetDst(to netip.AddrPort) {
	p.set(16, p.dstPort, to)
	p.Dst = to
}

func (p *Packet) set(at, portAt int, to netip.AddrPort) {
	addr := to.Addr().As4()
	d := p.put32(at, binary.BigEndian.Uint32(addr[:]))
	adjust(p.Data[10:12], d)
	if p.Proto == ICMP { // no pseudo-header there
		d = 0
	}
	if p.Partial {
		p.adjustPartial(d)
		d = 0
	}
	if portAt != 0 {
		b := p.Data[portAt : portAt+2]
		d = d.and(delta16(binary.BigEndian.Uint16(b), to.Port()))
		binary.BigEndian.PutUint16(b, to.Port())
	}
	p.adjustSum(d)
}

func (p *Packet) put32(at int, v uint32) delta {
	b := p.Data[at : at+4]
	d := delta32(binary.BigEndian.Uint32(b), v)
	binary.BigEndian.PutUint32(b, v)
	return d
}

// adjustSum applies a delta to the transport checksum, unless it is yet to be
// computed.
func (p *Packet) adjustSum(d delta) {
	if p.sum == 0 || d == 0 || p.Partial {
		return
	}
	b := p.Data[p.sum : p.sum+2]
	if p.Proto != UDP {
		adjust(b, d)
		return
	}
	if b[0]|b[1] == 0 { // the sender computed none
		return
	}
	adjust(b, d)
	if b[0]|b[1] == 0 {
		b[0], b[1] = 0xff, 0xff
	}
}

// adjustPartial applies a delta of the pseudo-header to the sum of it.
func (p *Packet) adjustPartial(d delta) {
	if p.sum == 0 {
		return
	}
	b := p.Data[p.sum : p.sum+2]
	binary.BigEndian.PutUint16(b, d.and(delta(binary.BigEndian.Uint16(b))).fold())
}

// Overwrite puts other bytes at offset at of the transport header, and keeps
// the checksum.
func (p *Packet) Overwrite(at int, b []byte) {
	old := p.Data[p.l4+at : p.l4+at+len(b)]
	d := delta16(fold(spread(old, at)), fold(spread(b, at)))
	copy(old, b)
	p.adjustSum(d)
}

// spread is the sum of bytes that start at an offset, maybe an odd one.
func spread(b []byte, at int) uint64 {
	if at&1 == 0 {
		return add(0, b)
	}
	s := fold(add(0, b))
	return uint64(s>>8 | s<<8)
}

// FinishChecksum computes the transport checksum that was left to a device.
func (p *Packet) FinishChecksum() {
	if !p.Partial {
		return
	}
	p.Partial = false
	if p.sum == 0 || p.Fragment {
		return
	}
	// The field holds the sum of the pseudo-header, so it counts as data.
	sum := ^fold(add(0, p.segment()))
	if sum == 0 && p.Proto == UDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(p.Data[p.sum:], sum)
}

// segment is what the transport checksum is over.
func (p *Packet) segment() []byte {
	b := p.Transport()
	if p.Proto == UDP {
		return b[:binary.BigEndian.Uint16(b[4:])]
	}
	return b
}

// HeaderOK verifies the header checksum of IPv4.
func (p *Packet) HeaderOK() bool {
	return !p.Is4() || fold(add(0, p.Data[:int(p.Data[0]&15)*4])) == 0xffff
}

// ChecksumOK verifies the IPv4 header checksum and the transport checksum. A
// fragment, a quoted packet and an unfinished one have only the former.
func (p *Packet) ChecksumOK() bool {
	if !p.HeaderOK() {
		return false
	}
	if p.Fragment || p.cut || p.sum == 0 || p.Partial {
		return true
	}
	b := p.segment()
	var proto uint8
	switch {
	case p.Proto == UDP:
		if b[6]|b[7] == 0 {
			return p.Is4()
		}
		proto = protoUDP
	case p.Proto == TCP:
		proto = protoTCP
	case p.Is4():
		return fold(add(0, b)) == 0xffff
	default:
		proto = protoICMPv6
	}
	return fold(add(0, b)+p.pseudoSum(proto, len(b))) == 0xffff
}

// pseudoSum is folded, so that it can be added to without overflow.
func (p *Packet) pseudoSum(proto uint8, n int) uint64 {
	if p.Is4() {
		return uint64(fold(pseudo(p.Data[12:20], proto, n)))
	}
	return uint64(fold(pseudo(p.Data[8:40], proto, n)))
}

// ResetICMPChecksum computes the checksum of an ICMP message anew, after an
// edit of what it quotes, unless a device is to.
func (p *Packet) ResetICMPChecksum() {
	if p.Partial {
		return
	}
	b := p.Transport()
	b[2], b[3] = 0, 0
	var sum uint64
	if !p.Is4() {
		sum = p.pseudoSum(protoICMPv6, len(b))
	}
	binary.BigEndian.PutUint16(b[2:], ^fold(sum+uint64(fold(add(0, b)))))
}
