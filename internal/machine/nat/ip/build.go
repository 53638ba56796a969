package ip

import (
	"encoding/binary"
	"net/netip"
)

// DefaultTTL is the TTL or hop limit of packets that hosts send.
const DefaultTTL = 64

// HeaderLen is the length of the IP header that Append functions put in front.
func HeaderLen(a netip.Addr) int {
	if a.Is4() {
		return 20
	}
	return 40
}

func header(b []byte, proto uint8, ttl uint8, src, dst netip.Addr, n int) []byte {
	if src.Is4() {
		start := len(b)
		total := 20 + n
		b = append(b, 0x45, 0, byte(total>>8), byte(total), 0, 0, 0x40, 0, ttl, proto, 0, 0)
		s, d := src.As4(), dst.As4()
		b = append(append(b, s[:]...), d[:]...)
		binary.BigEndian.PutUint16(b[start+10:], ^fold(add(0, b[start:])))
		return b
	}
	b = append(b, 0x60, 0, 0, 0, byte(n>>8), byte(n), proto, ttl)
	s, d := src.As16(), dst.As16()
	return append(append(b, s[:]...), d[:]...)
}

// finish puts the transport checksum of the packet that starts at b[start]
// where it belongs, at offset sums of its transport header.
func finish(b []byte, start int, proto uint8, sums int) []byte {
	p := b[start:]
	var sum uint64
	l4 := 40
	switch {
	case p[0]>>4 == 6:
		sum = pseudo(p[8:40], proto, len(p)-40)
	default:
		l4 = 20
		if proto != protoICMP {
			sum = pseudo(p[12:20], proto, len(p)-20)
		}
	}
	c := ^fold(add(uint64(fold(sum)), p[l4:]))
	if c == 0 && proto == protoUDP {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(p[l4+sums:], c)
	return b
}

// AppendUDP appends a UDP packet to b.
func AppendUDP(b []byte, src, dst netip.AddrPort, ttl uint8, payload []byte) []byte {
	start := len(b)
	n := 8 + len(payload)
	b = header(b, protoUDP, ttl, src.Addr(), dst.Addr(), n)
	sp, dp := src.Port(), dst.Port()
	b = append(b, byte(sp>>8), byte(sp), byte(dp>>8), byte(dp), byte(n>>8), byte(n), 0, 0)
	b = append(b, payload...)
	return finish(b, start, protoUDP, 6)
}

// Segment is a TCP segment. Options are padded by the caller.
type Segment struct {
	Seq, Ack uint32
	Flags    uint8
	Window   uint16
	Options  []byte
	Payload  []byte
}

// AppendTCP appends a TCP packet to b.
func AppendTCP(b []byte, src, dst netip.AddrPort, ttl uint8, s *Segment) []byte {
	start := len(b)
	hl := 20 + len(s.Options)
	b = header(b, protoTCP, ttl, src.Addr(), dst.Addr(), hl+len(s.Payload))
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint32(b, s.Seq)
	b = binary.BigEndian.AppendUint32(b, s.Ack)
	b = append(b, byte(hl/4)<<4, s.Flags)
	b = binary.BigEndian.AppendUint16(b, s.Window)
	b = append(b, 0, 0, 0, 0)
	b = append(b, s.Options...)
	b = append(b, s.Payload...)
	return finish(b, start, protoTCP, 16)
}

// Segment reads the TCP header; the result refers to p's Data.
func (p *Packet) Segment(s *Segment) {
	b := p.Transport()
	n := p.headerLen(b)
	*s = Segment{
		Seq:     binary.BigEndian.Uint32(b[4:]),
		Ack:     binary.BigEndian.Uint32(b[8:]),
		Flags:   b[13],
		Window:  binary.BigEndian.Uint16(b[14:]),
		Options: b[20:n],
		Payload: b[n:],
	}
}

// AppendEcho appends an ICMP echo message to b.
func AppendEcho(b []byte, src, dst netip.Addr, ttl uint8, k Kind, id, seq uint16, payload []byte) []byte {
	start := len(b)
	proto, typ := uint8(protoICMP), byte(8)
	if k == EchoReply {
		typ = 0
	}
	if !src.Is4() {
		proto = protoICMPv6
		typ = 128
		if k == EchoReply {
			typ = 129
		}
	}
	b = header(b, proto, ttl, src, dst, 8+len(payload))
	b = append(b, typ, 0, 0, 0, byte(id>>8), byte(id), byte(seq>>8), byte(seq))
	b = append(b, payload...)
	return finish(b, start, proto, 2)
}

// Cause is why a packet is refused by an ICMP error.
type Cause uint8

const (
	PortUnreachable Cause = iota
	HostUnreachable
	TimeExceeded
	AdminProhibited
)

var codes4 = [...][2]byte{{3, 3}, {3, 1}, {11, 0}, {3, 13}}
var codes6 = [...][2]byte{{1, 4}, {1, 3}, {3, 0}, {1, 1}}

// Cause is what an ICMP error says; ok is false for another packet or cause.
func (p *Packet) Cause() (c Cause, ok bool) {
	if p.Kind != Error {
		return 0, false
	}
	codes := &codes4
	if !p.Is4() {
		codes = &codes6
	}
	for c, code := range codes {
		if [2]byte(p.Data[p.l4:]) == code {
			return Cause(c), true
		}
	}
	return 0, false
}

// AppendError appends the ICMP error that from sends about pkt, unless pkt is
// one that must not be answered by an error (RFC 1122 section 3.2.2).
func AppendError(b []byte, from netip.Addr, c Cause, pkt []byte) []byte {
	var p Packet
	if p.Decode(pkt) != nil || p.Kind == Error || p.Dst.Addr().IsMulticast() || !p.Src.IsValid() || p.Src.Addr().IsUnspecified() {
		return b
	}
	start := len(b)
	proto, code, most := uint8(protoICMP), codes4[c], 576-28
	if !p.Is4() {
		proto, code, most = protoICMPv6, codes6[c], 1280-48
	}
	quoted := p.Data[:min(len(p.Data), most)]
	b = header(b, proto, DefaultTTL, from, p.Src.Addr(), 8+len(quoted))
	b = append(b, code[0], code[1], 0, 0, 0, 0, 0, 0)
	b = append(b, quoted...)
	return finish(b, start, proto, 2)
}
