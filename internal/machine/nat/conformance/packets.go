package conformance

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// fixHeader makes the IP checksum right again.
func fixHeader(pkt []byte) []byte {
	hl := int(pkt[0]&15) * 4
	pkt[10], pkt[11] = 0, 0
	binary.BigEndian.PutUint16(pkt[10:], ^sum(pkt[:hl], 0))
	return pkt
}

// divisible lets routers cut pkt, and numbers it.
func divisible(pkt []byte, id uint16) []byte {
	pkt[6] &^= 0x40
	binary.BigEndian.PutUint16(pkt[4:], id)
	return fixHeader(pkt)
}

// cut makes parts of a packet, each with at most size bytes of it.
func cut(pkt []byte, size int) (parts [][]byte) {
	body := pkt[20:]
	for at := 0; at < len(body); at += size {
		end := min(at+size, len(body))
		part := slices.Concat(pkt[:20], body[at:end])
		binary.BigEndian.PutUint16(part[2:], uint16(len(part)))
		where := uint16(at / 8)
		if end < len(body) {
			where |= 0x2000
		}
		binary.BigEndian.PutUint16(part[6:], where)
		parts = append(parts, fixHeader(part))
	}
	return parts
}

// whole puts parts together again; it is nil while some are missing.
func whole(parts []delivery) []byte {
	var body []byte
	filled := map[int]bool{}
	end := -1
	for _, d := range parts {
		if !d.Fragment {
			return d.Data
		}
		_, at, more := d.Part()
		part := d.Data[int(d.Data[0]&15)*4:]
		if grow := at + len(part) - len(body); grow > 0 {
			body = append(body, make([]byte, grow)...)
		}
		copy(body[at:], part)
		for i := at; i < at+len(part); i++ {
			filled[i] = true
		}
		if !more {
			end = at + len(part)
		}
	}
	if end < 0 || len(filled) != end || len(body) != end {
		return nil
	}
	pkt := slices.Concat(parts[0].Data[:20], body)
	pkt[0] = 0x45
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	pkt[6], pkt[7] = 0, 0
	return fixHeader(pkt)
}

// icmp is an ICMP message from one address to another; rest is the second word
// of its header.
func icmp(from, to netip.Addr, typ, code byte, rest uint32, body []byte) []byte {
	pkt := ip.AppendEcho(nil, from, to, 64, ip.EchoRequest, 0, 0, body)
	msg := pkt[20:]
	msg[0], msg[1], msg[2], msg[3] = typ, code, 0, 0
	binary.BigEndian.PutUint32(msg[4:], rest)
	binary.BigEndian.PutUint16(msg[2:], ^sum(msg, 0))
	return pkt
}

// unreachable is an ICMP error about a packet, which it quotes with eight
// bytes of its payload, as RFC 792 wants it.
func unreachable(from, to netip.Addr, code byte, quoted []byte) []byte {
	return icmp(from, to, 3, code, 0, quoted[:min(len(quoted), int(quoted[0]&15)*4+8)])
}

// withOptions is pkt with IP options in its header.
func withOptions(pkt, options []byte) []byte {
	pkt = slices.Concat(pkt[:20], options, pkt[20:])
	pkt[0] = 0x40 | byte(5+len(options)/4)
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	return fixHeader(pkt)
}

// quote is the packet that an ICMP error carries.
func quote(d delivery) (q ip.Packet, ok bool) {
	err := d.Quoted(&q)
	return q, err == nil
}

// isICMP says whether a packet is of this type and code.
func isICMP(d delivery, typ, code byte) bool {
	b := d.Transport()
	return d.Proto == ip.ICMP && !d.Headless && len(b) >= 8 && b[0] == typ && b[1] == code
}
