package netns

import (
	"encoding/binary"
	"net/netip"
)

// A buffer has room for two headers in front of the IP packet: a virtio header
//
//	flags u8 | GSO type u8 | header length u16 | GSO size u16 | checksum start u16 | checksum offset u16
//
// in the byte order of the machine, whose lengths count from the IP header, and
// an Ethernet header
//
//	destination [6] | source [6] | type u16
const (
	vnetLen  = 10
	etherLen = 14
	room     = vnetLen + etherLen
)

const (
	vnetNeedsChecksum = 1

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoUDP   = 5
	gsoECN   = 0x80
)

// view is one packet, looked at. The slices share the buffer it was made from.
type view struct {
	buf      []byte // headers and packet
	ip       []byte // packet
	src, dst netip.Addr
	proto    Protocol
	transit  int // where the transport header starts in ip

	// Set for a packet that stands for several segments.
	gsoSize    int
	gsoHeaders int // length of IP and transport headers, repeated in each segment
}

func parse(buf []byte) (view, bool) {
	v := view{buf: buf}
	if len(buf) < room+20 {
		return v, false
	}
	v.ip = buf[room:]
	switch v.ip[0] >> 4 {
	case 4:
		v.transit = int(v.ip[0]&0xf) * 4
		if v.transit < 20 || len(v.ip) < v.transit {
			return v, false
		}
		v.src = netip.AddrFrom4([4]byte(v.ip[12:16]))
		v.dst = netip.AddrFrom4([4]byte(v.ip[16:20]))
		v.proto = Protocol(v.ip[9])
		v.trim(int(binary.BigEndian.Uint16(v.ip[2:])), v.transit)
	case 6:
		if len(v.ip) < 40 {
			return v, false
		}
		v.src = netip.AddrFrom16([16]byte(v.ip[8:24]))
		v.dst = netip.AddrFrom16([16]byte(v.ip[24:40]))
		v.trim(40+int(binary.BigEndian.Uint16(v.ip[4:])), 41)
		v.proto, v.transit = transportIPv6(v.ip)
	default:
		return v, false
	}
	return v, v.parseGSO()
}

// trim cuts off what Ethernet padded a packet of n bytes with.
func (v *view) trim(n, least int) {
	if n >= least && n < len(v.ip) {
		v.ip = v.ip[:n]
		v.buf = v.buf[:room+n]
	}
}

// transportIPv6 walks the extension headers.
func transportIPv6(ip []byte) (Protocol, int) {
	next, at := ip[6], 40
	for {
		switch next {
		case 0, 43, 60: // hop-by-hop, routing, destination options
			if len(ip) < at+8 {
				return Protocol(next), at
			}
			next, at = ip[at], at+8*(int(ip[at+1])+1)
		case 44: // fragment
			if len(ip) < at+8 {
				return Protocol(next), at
			}
			next, at = ip[at], at+8
		default:
			return Protocol(next), min(at, len(ip))
		}
	}
}

func (v *view) parseGSO() bool {
	switch v.buf[1] &^ gsoECN {
	case gsoNone:
		return true
	case gsoTCPv4, gsoTCPv6:
		if len(v.ip) < v.transit+20 {
			return false
		}
		v.gsoHeaders = v.transit + max(20, int(v.ip[v.transit+12]>>4)*4)
	case gsoUDP:
		v.gsoHeaders = v.transit + 8
	default:
		return false
	}
	v.gsoSize = int(binary.NativeEndian.Uint16(v.buf[4:]))
	return v.gsoSize > 0 && len(v.ip) > v.gsoHeaders
}

// onWire is how many packets and bytes this is on a wire.
func (v *view) onWire() (packets, bytes int) {
	if v.gsoSize == 0 {
		return 1, len(v.ip)
	}
	n := (len(v.ip) - v.gsoHeaders + v.gsoSize - 1) / v.gsoSize
	return n, len(v.ip) + (n-1)*v.gsoHeaders
}

// largest is the size of its largest packet on the wire.
func (v *view) largest() int {
	if v.gsoSize == 0 {
		return len(v.ip)
	}
	return min(len(v.ip), v.gsoHeaders+v.gsoSize)
}

// segments cuts the packet as a network card would, each with headers of its
// own that leave the checksum to the receiving kernel. The buffer given
// to yield is good until it returns.
func (v *view) segments(scratch []byte, yield func(segment []byte)) {
	headers, payload := v.ip[:v.gsoHeaders], v.ip[v.gsoHeaders:]
	tcp := v.buf[1]&^gsoECN != gsoUDP
	for i := 0; len(payload) > 0; i++ {
		n := min(v.gsoSize, len(payload))
		seg := append(scratch[:0], v.buf[:room]...)
		seg[1] = gsoNone
		binary.NativeEndian.PutUint16(seg[2:], 0)
		binary.NativeEndian.PutUint16(seg[4:], 0)
		seg = append(seg, headers...)
		seg = append(seg, payload[:n]...)
		payload = payload[n:]

		ip := seg[room:]
		transport := ip[v.transit:]
		if ip[0]>>4 == 4 {
			binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
			binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+uint16(i))
			sumHeaderIPv4(ip)
		} else {
			binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
		}
		pseudo := fold(v.pseudoSum(len(transport)))
		if tcp {
			seq := binary.BigEndian.Uint32(transport[4:])
			binary.BigEndian.PutUint32(transport[4:], seq+uint32(i*v.gsoSize))
			if len(payload) > 0 {
				transport[13] &^= 0x09 // FIN and PSH go with the last
			}
			if i > 0 {
				transport[13] &^= 0x80 // CWR goes with the first
			}
			binary.BigEndian.PutUint16(transport[16:], pseudo)
		} else {
			binary.BigEndian.PutUint16(transport[4:], uint16(len(transport)))
			binary.BigEndian.PutUint16(transport[6:], pseudo)
		}
		yield(seg)
	}
}

// finishChecksum writes the checksum that the sender left to its hardware.
func finishChecksum(buf []byte) {
	if buf[0]&vnetNeedsChecksum == 0 || len(buf) <= room {
		return
	}
	ip := buf[room:]
	start := int(binary.NativeEndian.Uint16(buf[6:]))
	at := start + int(binary.NativeEndian.Uint16(buf[8:]))
	if start < headerLen(ip) || at+2 > len(ip) {
		return
	}
	// The field holds the sum of the pseudo-header, so it counts as data.
	sum := ^fold(addSum(0, ip[start:]))
	if sum == 0 {
		sum = 0xffff // RFC 768: all zero means no checksum
	}
	binary.BigEndian.PutUint16(ip[at:], sum)
	buf[0] &^= vnetNeedsChecksum
}

// headerLen is the least that the IP header of a packet takes.
func headerLen(ip []byte) int {
	if ip[0]>>4 == 4 {
		return 20
	}
	return 40
}

func (v *view) pseudoSum(length int) uint64 {
	sum := uint64(v.proto) + uint64(length)
	if v.ip[0]>>4 == 4 {
		return addSum(sum, v.ip[12:20])
	}
	return addSum(sum, v.ip[8:40])
}

func addSum(sum uint64, b []byte) uint64 {
	for ; len(b) >= 4; b = b[4:] {
		sum += uint64(binary.BigEndian.Uint32(b))
	}
	if len(b) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}

func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func sumHeaderIPv4(ip []byte) {
	header := ip[:int(ip[0]&0xf)*4]
	header[10], header[11] = 0, 0
	binary.BigEndian.PutUint16(header[10:], ^fold(addSum(0, header)))
}

// hop takes n from the TTL, or says that fewer are left than it needs.
func (v *view) hop(n int) bool {
	left := int(*v.ttl()) - n
	if left > 0 {
		v.setTTL(byte(left))
	}
	return left > 0
}

func (v *view) ttl() *byte {
	if v.ip[0]>>4 == 4 {
		return &v.ip[8]
	}
	return &v.ip[7]
}

func (v *view) setTTL(ttl byte) {
	*v.ttl() = ttl
	if v.ip[0]>>4 == 4 {
		sumHeaderIPv4(v.ip)
	}
}
