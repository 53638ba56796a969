package ip

import (
	"encoding/binary"
	"net/netip"
)

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
	n := tcpHeaderLen(b)
	*s = Segment{
		Seq:     binary.BigEndian.Uint32(b[4:]),
		Ack:     binary.BigEndian.Uint32(b[8:]),
		Flags:   b[13],
		Window:  binary.BigEndian.Uint16(b[14:]),
		Options: b[20:n],
		Payload: b[n:],
	}
}

// TCPFlags are the flags of a TCP segment, none in other packets.
func (p *Packet) TCPFlags() uint8 {
	if p.Proto != TCP || p.Headless || len(p.Data) < p.l4+14 {
		return 0
	}
	return p.Data[p.l4+13]
}

// Seq is the sequence number of a TCP segment. Like SetSeq it works on quoted
// ones.
func (p *Packet) Seq() uint32 { return binary.BigEndian.Uint32(p.Data[p.l4+4:]) }

// Ack is the acknowledgement number of a TCP segment; a quoted one may have
// none, and gives 0.
func (p *Packet) Ack() uint32 {
	if len(p.Data) < p.l4+12 {
		return 0
	}
	return binary.BigEndian.Uint32(p.Data[p.l4+8:])
}

// Window is the window of a TCP segment as it stands in the header.
func (p *Packet) Window() uint16 { return binary.BigEndian.Uint16(p.Data[p.l4+14:]) }

// SetSeq and SetAck rewrite the numbers of a TCP segment and its checksum.
func (p *Packet) SetSeq(v uint32) { p.adjustSum(p.put32(p.l4+4, v)) }

func (p *Packet) SetAck(v uint32) {
	if len(p.Data) >= p.l4+12 {
		p.adjustSum(p.put32(p.l4+8, v))
	}
}

// TCPOptions are the options of a TCP segment.
func (p *Packet) TCPOptions() []byte {
	b := p.Transport()
	if len(b) < 20 {
		return nil
	}
	return b[20:min(len(b), max(20, tcpHeaderLen(b)))]
}

// The options of TCP that gateways read (RFC 9293, RFC 7323, RFC 2018).
const (
	OptionWindowScale   = 3
	OptionSACKPermitted = 4
	OptionSACK          = 5
)

// NextOption splits off the first option that is more than padding: its kind,
// what it carries, and the options behind it. Kind 0 is none.
func NextOption(opts []byte) (kind uint8, value, rest []byte) {
	for len(opts) > 0 {
		switch {
		case opts[0] == 1:
			opts = opts[1:]
			continue
		case opts[0] == 0 || len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts):
			return 0, nil, nil
		}
		return opts[0], opts[2:opts[1]], opts[opts[1]:]
	}
	return 0, nil, nil
}

// MapSACK replaces every edge of the SACK blocks of a TCP segment by what f
// makes of it.
func (p *Packet) MapSACK(f func(uint32) uint32) {
	all := p.TCPOptions()
	for opts := all; len(opts) > 0; {
		kind, blocks, rest := NextOption(opts)
		if kind == OptionSACK {
			at := 20 + len(all) - len(rest) - len(blocks)
			for i := 0; i+4 <= len(blocks); i += 4 {
				var b [4]byte
				binary.BigEndian.PutUint32(b[:], f(binary.BigEndian.Uint32(blocks[i:])))
				p.Overwrite(at+i, b[:])
			}
		}
		opts = rest
	}
}

// SegmentLen is how many sequence numbers a TCP segment takes.
func (p *Packet) SegmentLen() uint32 {
	b := p.Transport()
	n := uint32(len(b) - tcpHeaderLen(b))
	if b[13]&SYN != 0 {
		n++
	}
	if b[13]&FIN != 0 {
		n++
	}
	return n
}

// AppendReset appends the RST that answers a TCP segment (RFC 9293 section
// 3.10.7.1), but none to an RST.
func AppendReset(b []byte, p *Packet) []byte {
	flags := p.TCPFlags()
	if p.Proto != TCP || p.Headless || flags&RST != 0 {
		return b
	}
	s := Segment{Flags: RST, Seq: p.Ack()}
	if flags&ACK == 0 {
		s = Segment{Flags: RST | ACK, Ack: p.Seq() + p.SegmentLen()}
	}
	return AppendTCP(b, p.Dst, p.Src, DefaultTTL, &s)
}

// AppendSegment appends one of the packets that a large TCP or UDP packet is
// to be cut into, each with size bytes of its payload, as network cards do: the
// one that starts at byte from. It says where the next one starts; 0 is
// nowhere. The checksum is finished, whether it was before or not.
func (p *Packet) AppendSegment(b []byte, size, from int) (segment []byte, next int) {
	start := len(b)
	payload := p.Payload()
	headers := p.l4 + p.PayloadAt()
	n := min(size, len(payload)-from)
	if from+n < len(payload) {
		next = from + n
	}
	b = append(b, p.Data[:headers]...)
	b = append(b, payload[from:from+n]...)

	h := b[start:]
	if p.Is4() {
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
		binary.BigEndian.PutUint16(h[4:], binary.BigEndian.Uint16(h[4:])+uint16(from/size))
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], ^fold(add(0, h[:int(h[0]&15)*4])))
	} else {
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40))
	}
	t := h[p.l4:]
	proto := uint8(protoUDP)
	if p.Proto == TCP {
		proto = protoTCP
		binary.BigEndian.PutUint32(t[4:], p.Seq()+uint32(from))
		if next != 0 {
			t[13] &^= FIN | PSH
		}
		if from != 0 {
			t[13] &^= CWR
		}
	} else {
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
	}
	sum := h[p.sum : p.sum+2]
	sum[0], sum[1] = 0, 0
	c := ^fold(p.pseudoSum(proto, len(t)) + uint64(fold(add(0, t))))
	if c == 0 && p.Proto == UDP {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(sum, c)
	return b, next
}

// AppendWith appends the UDP or TCP packet p with another payload. Its
// checksum is as right or wrong as p's was; one that was left to a device is
// finished.
func (p *Packet) AppendWith(b, payload []byte) []byte {
	old := p.Payload()
	start := len(b)
	headers := p.l4 + p.PayloadAt()
	b = append(b, p.Data[:headers]...)
	b = append(b, payload...)
	h := b[start:]

	// The pseudo-header has the length too.
	before, after := uint16(len(old)+headers-p.l4), uint16(len(h)-p.l4)
	d := delta16(before, after)
	if p.Is4() {
		adjust(h[10:12], delta16(binary.BigEndian.Uint16(h[2:]), uint16(len(h))))
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	} else {
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40))
	}
	if p.Proto == UDP {
		d = d.and(d)
		binary.BigEndian.PutUint16(h[p.l4+4:], after)
	}
	q := *p
	q.Data = h
	if p.Partial {
		// The length in the pseudo-header is all that has changed there.
		q.adjustPartial(delta16(before, after))
		q.FinishChecksum()
		return b
	}
	q.adjustSum(d.and(delta16(fold(add(0, old)), fold(add(0, payload)))))
	return b
}
