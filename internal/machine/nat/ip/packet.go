// Package ip reads, edits and builds the raw IP packets that gateways
// translate and that simulated hosts exchange.
//
//	IPv4   version 4, IHL | TOS | length(2) | id(2) | flags, offset(2) | TTL | protocol | checksum(2) | source(4) | destination(4) | options
//	IPv6   version 6, class, label(4) | payload length(2) | next header | hop limit | source(16) | destination(16) | extension headers
//	part   next header | 0 | offset, flags(2) | id(4): the IPv6 extension header of a fragment
//	UDP    source port(2) | destination port(2) | length(2) | checksum(2)
//	TCP    source port(2) | destination port(2) | sequence(4) | acknowledgement(4) | offset | flags | window(2) | checksum(2) | urgent(2) | options
//	ICMP   type | code | checksum(2) | echo: identifier(2), sequence(2); error: unused(4), then the packet that caused it, perhaps cut
//
// Only IPv4 addresses are ever edited: nothing here translates IPv6.
package ip

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Proto is a transport protocol; ICMP stands for ICMPv6 too.
type Proto uint8

const (
	Other Proto = iota
	UDP
	TCP
	ICMP
)

func (p Proto) String() string {
	return [...]string{"other", "udp", "tcp", "icmp"}[p]
}

// Kind tells the ICMP messages apart.
type Kind uint8

const (
	Plain       Kind = iota // not ICMP, or an ICMP message of no interest
	EchoRequest             // Src's port is the identifier
	EchoReply               // Dst's port is the identifier
	Error                   // quotes a packet
)

// Protocol numbers.
const (
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoFragment = 44
	protoICMPv6   = 58
)

const (
	FIN = 1 << iota // the flags of TCP
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

var (
	ErrTruncated = errors.New("ip: truncated packet")
	ErrHeader    = errors.New("ip: malformed header")
)

// Packet is a decoded view of a raw packet. Edits go through to Data.
type Packet struct {
	Data     []byte // the IP packet, without anything behind it
	Src, Dst netip.AddrPort
	Proto    Proto
	Kind     Kind
	TTL      uint8
	// Fragment says that this is a part of a packet, and Headless that it is
	// not the first: it has no ports.
	Fragment, Headless bool
	// Partial says that the transport checksum field holds the sum of the
	// pseudo-header alone, because a device is to finish it. Whoever decodes
	// sets it.
	Partial bool

	cut  bool // quoted in an ICMP error, so maybe incomplete
	l4   int  // where the transport header starts
	part int  // where the IPv6 fragment header starts; 0: there is none
	// Where in Data these stand; 0: nowhere.
	srcPort, dstPort, sum int
}

// Decode reads b, which p refers to from then on.
func (p *Packet) Decode(b []byte) error {
	return p.decode(b, false)
}

func (p *Packet) decode(b []byte, cut bool) error {
	*p = Packet{cut: cut}
	if len(b) == 0 {
		return ErrTruncated
	}
	switch b[0] >> 4 {
	case 4:
		return p.decode4(b)
	case 6:
		return p.decode6(b)
	}
	return ErrHeader
}

func (p *Packet) decode4(b []byte) error {
	if len(b) < 20 {
		return ErrTruncated
	}
	p.l4 = int(b[0]&15) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if p.l4 < 20 || total < p.l4 {
		return ErrHeader
	}
	if total > len(b) {
		if !p.cut || len(b) < p.l4 {
			return ErrTruncated
		}
		total = len(b)
	}
	p.Data = b[:total]
	p.TTL = b[8]
	if binary.BigEndian.Uint16(b[6:])&(moreParts4|offset4) != 0 {
		if err := p.fragment(b[9] == protoTCP); err != nil {
			return err
		}
	}
	return p.transport(b[9], netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])))
}

// maxExtensions bounds the walk through IPv6 extension headers.
const maxExtensions = 4

func (p *Packet) decode6(b []byte) error {
	if len(b) < 40 {
		return ErrTruncated
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		if !p.cut {
			return ErrTruncated
		}
		total = len(b)
	}
	p.Data = b[:total]
	p.TTL = b[7]
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	if src.Is4In6() || dst.Is4In6() {
		return ErrHeader
	}
	next, err := p.extensions(b[6])
	if err != nil {
		return err
	}
	return p.transport(next, src, dst)
}

// extensions walks to the transport header and returns its number.
func (p *Packet) extensions(next uint8) (uint8, error) {
	p.l4 = 40
	for range maxExtensions {
		switch next {
		case 0, 43, 60: // hop-by-hop, routing, destination options
			if p.l4+8 > len(p.Data) {
				return 0, ErrTruncated
			}
			next, p.l4 = p.Data[p.l4], p.l4+8+int(p.Data[p.l4+1])*8
			if p.l4 > len(p.Data) {
				return 0, ErrTruncated
			}
		case protoFragment:
			if p.l4+8 > len(p.Data) {
				return 0, ErrTruncated
			}
			if p.part != 0 {
				return 0, ErrHeader
			}
			next, p.part, p.l4 = p.Data[p.l4], p.l4, p.l4+8
			// A part that is the whole packet is none (RFC 6946).
			if _, offset, more := p.Part(); offset != 0 || more {
				if err := p.fragment(next == protoTCP); err != nil || p.Headless {
					return next, err
				}
			}
		default:
			return next, nil
		}
	}
	return next, nil
}

func (p *Packet) transport(proto uint8, src, dst netip.Addr) error {
	switch {
	case proto == protoUDP:
		p.Proto = UDP
	case proto == protoTCP:
		p.Proto = TCP
	case proto == protoICMP && src.Is4(), proto == protoICMPv6 && src.Is6():
		p.Proto = ICMP
	}
	var sport, dport uint16
	if !p.Headless && p.Proto != Other {
		b := p.Data[p.l4:]
		if len(b) < 8 {
			return ErrTruncated
		}
		if p.Proto == ICMP {
			p.sum = p.l4 + 2
			p.Kind = kind(b[0], src.Is4())
			switch p.Kind {
			case EchoRequest:
				p.srcPort, sport = p.l4+4, binary.BigEndian.Uint16(b[4:])
			case EchoReply:
				p.dstPort, dport = p.l4+4, binary.BigEndian.Uint16(b[4:])
			}
		} else {
			p.srcPort, p.dstPort = p.l4, p.l4+2
			sport, dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
			p.sum = p.l4 + 6
			if p.Proto == TCP {
				if p.sum = p.l4 + 16; p.sum+2 > len(p.Data) {
					p.sum = 0
				}
			}
			if err := p.lengths(b); err != nil && !p.cut {
				return err
			}
		}
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return nil
}

// lengths holds what the transport header says about lengths against those
// there are. The header must be in the first part as a whole (RFC 1858, RFC
// 7112), or filters could not read it.
func (p *Packet) lengths(b []byte) error {
	if p.Proto == UDP {
		n := int(binary.BigEndian.Uint16(b[4:]))
		if n < 8 || n > len(b) && !p.Fragment {
			return ErrHeader
		}
		return nil
	}
	if len(b) < 20 {
		return ErrTruncated
	}
	if n := tcpHeaderLen(b); n < 20 || n > len(b) {
		return ErrHeader
	}
	return nil
}

func tcpHeaderLen(tcp []byte) int {
	if len(tcp) < 13 {
		return 0
	}
	return int(tcp[12]>>4) * 4
}

func kind(typ uint8, v4 bool) Kind {
	if v4 {
		switch typ {
		case 8:
			return EchoRequest
		case 0:
			return EchoReply
		case 3, 11, 12: // unreachable, time exceeded, parameter problem; source quench is no more (RFC 6633)
			return Error
		}
		return Plain
	}
	switch typ {
	case 128:
		return EchoRequest
	case 129:
		return EchoReply
	case 1, 2, 3, 4: // unreachable, too big, time exceeded, parameter problem
		return Error
	}
	return Plain
}

// Is4 reports whether the packet is IPv4.
func (p *Packet) Is4() bool { return p.Data[0]>>4 == 4 }

// SourceRouted reports whether an IPv4 packet says by itself which way it goes.
func (p *Packet) SourceRouted() bool {
	if !p.Is4() {
		return false
	}
	for b := p.Data[20:p.l4]; len(b) > 0 && b[0] != 0; { // 0 is the end
		if b[0] == 131 || b[0] == 137 { // loose, strict
			return true
		}
		n := 1
		if b[0] != 1 { // no operation
			if len(b) < 2 || b[1] < 2 {
				return false
			}
			n = int(b[1])
		}
		b = b[min(n, len(b)):]
	}
	return false
}

// Transport is the transport header and what follows.
func (p *Packet) Transport() []byte { return p.Data[p.l4:] }

// Payload is what follows the UDP, TCP or ICMP header.
func (p *Packet) Payload() []byte {
	b := p.Transport()
	if p.Headless {
		return b
	}
	switch p.Proto {
	case UDP:
		return b[8:max(8, min(len(b), int(binary.BigEndian.Uint16(b[4:]))))]
	case TCP:
		return b[min(len(b), tcpHeaderLen(b)):]
	case ICMP:
		return b[8:]
	}
	return b
}

// PayloadAt is where the payload starts in the transport header and what
// follows.
func (p *Packet) PayloadAt() int {
	switch {
	case p.Headless:
		return 0
	case p.Proto == TCP:
		return tcpHeaderLen(p.Transport())
	case p.Proto == Other:
		return 0
	}
	return 8
}

// Quoted decodes the packet that an ICMP error carries. Its Data is part of
// p's.
func (p *Packet) Quoted(q *Packet) error {
	if p.Kind != Error {
		return ErrHeader
	}
	if err := q.decode(p.Data[p.l4+8:], true); err != nil {
		return err
	}
	if q.Is4() != p.Is4() || q.Headless {
		return ErrHeader
	}
	return nil
}
