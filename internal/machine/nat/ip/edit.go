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
	old := [2]byte{p.Data[8], p.Data[9]}
	p.Data[8]--
	adjust(p.Data[10:], delta(old[:], p.Data[8:10]))
}

// SetSrc rewrites the source endpoint of an IPv4 packet and the checksums over
// it, as RFC 1624 does.
func (p *Packet) SetSrc(to netip.AddrPort) {
	port := p.l4
	if p.Proto == ICMP {
		port += 4
	}
	p.set(12, port, to, p.Kind == Plain && p.Proto != ICMP || p.Kind == EchoRequest)
	p.Src = to
}

// SetDst is SetSrc for the destination.
func (p *Packet) SetDst(to netip.AddrPort) {
	port := p.l4 + 2
	if p.Proto == ICMP {
		port = p.l4 + 4
	}
	p.set(16, port, to, p.Kind == Plain && p.Proto != ICMP || p.Kind == EchoReply)
	p.Dst = to
}

func (p *Packet) set(at, portAt int, to netip.AddrPort, hasPort bool) {
	addr := to.Addr().As4()
	dAddr := delta(p.Data[at:at+4], addr[:])
	copy(p.Data[at:], addr[:])
	adjust(p.Data[10:], dAddr)

	if p.Fragment || p.Proto == Other {
		return
	}
	var d uint64
	if p.Proto != ICMP { // the ICMP checksum has no pseudo-header
		d = dAddr
	}
	if hasPort {
		var port [2]byte
		binary.BigEndian.PutUint16(port[:], to.Port())
		d += delta(p.Data[portAt:portAt+2], port[:])
		copy(p.Data[portAt:], port[:])
	}
	if p.sums == 0 || d == 0 {
		return
	}
	sum := p.Data[p.sums : p.sums+2]
	if p.Proto == UDP {
		if sum[0] == 0 && sum[1] == 0 { // the sender computed none
			return
		}
		adjust(sum, d)
		if sum[0] == 0 && sum[1] == 0 {
			sum[0], sum[1] = 0xff, 0xff
		}
		return
	}
	adjust(sum, d)
}

// ChecksumOK verifies the IPv4 header checksum and the transport checksum.
// A fragment and a quoted packet have only the former.
func (p *Packet) ChecksumOK() bool {
	if p.Is4() && fold(add(0, p.Data[:int(p.Data[0]&15)*4])) != 0xffff {
		return false
	}
	if p.Fragment || p.cut || p.sums == 0 {
		return true
	}
	b := p.Transport()
	switch {
	case p.Proto == ICMP && p.Is4():
		return fold(add(0, b)) == 0xffff
	case p.Proto == UDP:
		if b[6] == 0 && b[7] == 0 {
			return p.Is4()
		}
		b = b[:binary.BigEndian.Uint16(b[4:])]
		return fold(add(0, b)+p.pseudoSum(protoUDP, len(b))) == 0xffff
	case p.Proto == TCP:
		return fold(add(0, b)+p.pseudoSum(protoTCP, len(b))) == 0xffff
	}
	return fold(add(0, b)+p.pseudoSum(protoICMPv6, len(b))) == 0xffff
}

// pseudoSum is folded, so that it can be added to without overflow.
func (p *Packet) pseudoSum(proto uint8, n int) uint64 {
	if p.Is4() {
		return uint64(fold(pseudo(p.Data[12:20], proto, n)))
	}
	return uint64(fold(pseudo(p.Data[8:40], proto, n)))
}

// ResetICMPChecksum computes the checksum of an IPv4 ICMP message anew, after
// an edit of what it quotes.
func (p *Packet) ResetICMPChecksum() {
	b := p.Transport()
	b[2], b[3] = 0, 0
	binary.BigEndian.PutUint16(b[2:], ^fold(add(0, b)))
}
