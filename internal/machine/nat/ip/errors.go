package ip

import (
	"encoding/binary"
	"net/netip"
)

// Cause is why a packet is refused by an ICMP error.
type Cause uint8

const (
	PortUnreachable Cause = iota
	HostUnreachable
	TimeExceeded
	AdminProhibited
	TooBig // fragmentation needed (RFC 1191), packet too big (RFC 8201)
)

var codes4 = [...][2]byte{{3, 3}, {3, 1}, {11, 0}, {3, 13}, {3, 4}}
var codes6 = [...][2]byte{{1, 4}, {1, 3}, {3, 0}, {1, 1}, {2, 0}}

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

// MTU is what an ICMP error of cause TooBig names.
func (p *Packet) MTU() int {
	if p.Is4() {
		return int(binary.BigEndian.Uint16(p.Data[p.l4+6:]))
	}
	return int(min(binary.BigEndian.Uint32(p.Data[p.l4+4:]), 1<<30))
}

// Answerable reports whether an ICMP error or a reset may answer the packet at
// all: not an ICMP error or redirect, nor a later part, nor what came to or
// from more than one host (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
func (p *Packet) Answerable() bool {
	src, dst := p.Src.Addr(), p.Dst.Addr()
	if p.Headless || !src.IsValid() || src.IsUnspecified() || src.IsMulticast() || src.IsLoopback() ||
		dst.IsMulticast() || src == broadcast || dst == broadcast {
		return false
	}
	if p.Proto != ICMP {
		return true
	}
	typ := p.Data[p.l4]
	if p.Is4() {
		return p.Kind != Error && typ != 4 && typ != 5 // source quench, redirect
	}
	return typ >= 128 && typ != 137
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// AppendError appends the ICMP error that from sends about pkt, unless pkt is
// one that must not be answered by an error.
func AppendError(b []byte, from netip.Addr, c Cause, pkt []byte) []byte {
	return appendError(b, from, c, 0, pkt)
}

// AppendTooBig appends the error that names the MTU of the way on.
func AppendTooBig(b []byte, from netip.Addr, mtu int, pkt []byte) []byte {
	return appendError(b, from, TooBig, uint32(mtu), pkt)
}

// diffserv is the class in the DS field. Errors have that of what they are about
// (RFC 5508 section 7.7), where routers have a precedence of their own (RFC 1812
// section 4.3.2.5).
const diffserv = 0xfc

func appendError(b []byte, from netip.Addr, c Cause, rest uint32, pkt []byte) []byte {
	var p Packet
	if p.Decode(pkt) != nil || !p.Answerable() {
		return b
	}
	start := len(b)
	proto, code, most := uint8(protoICMP), codes4[c], 576-28 // RFC 1812 section 4.3.2.3
	if !p.Is4() {
		proto, code, most = protoICMPv6, codes6[c], 1280-48
	}
	quoted := p.Data[:min(len(p.Data), most)]
	b = header(b, proto, DefaultTTL, from, p.Src.Addr(), 8+len(quoted))
	if p.Is4() {
		h := b[start:]
		h[1] = p.Data[1] & diffserv
		adjust(h[10:12], delta(h[1]))
	}
	b = append(b, code[0], code[1], 0, 0)
	b = binary.BigEndian.AppendUint32(b, rest)
	b = append(b, quoted...)
	return finish(b, start, proto, 2)
}

// AppendPong appends the echo reply to an echo request.
func AppendPong(b []byte, p *Packet) []byte {
	req := p.Transport()
	seq := binary.BigEndian.Uint16(req[6:])
	return AppendEcho(b, p.Dst.Addr(), p.Src.Addr(), DefaultTTL, EchoReply, p.Src.Port(), seq, p.Payload())
}
