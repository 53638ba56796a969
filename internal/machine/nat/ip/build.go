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
