package nat

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// A careless application level gateway. It looks for the inner endpoint in
// what leaves and for the outer one in what enters, in every UDP payload and in
// the first algDepth bytes of each stream of a TCP connection: later bytes are
// data, where four of them look like an address by chance once in 4 GB. It
// finds the address as four bytes or as text, with the port before or behind
// the bytes (as in STUN's MAPPED-ADDRESS), or behind the text and a colon, or
// without it. What is spread over two segments or over the parts of a cut
// packet it does not see. Text in a stream keeps its length if it, or what is
// behind it, has passed already: the receiver may have that by its old numbers.
// What was replaced once is replaced whenever it is sent again.
const (
	algDepth    = 4096
	maxFindings = 32 // in one packet
)

// finding is where a payload has other bytes from now on.
type finding struct {
	at, end int
	text    [maxText]byte // what replaces payload[at:end]
	n       uint8
}

// maxText is the length of the longest endpoint.
const maxText = len("255.255.255.255:65535")

func (f *finding) grew() int { return int(f.n) - (f.end - f.at) }

// algScratch is where the gateway looks for endpoints.
type algScratch struct {
	findings []finding
	again    []finding // of before
	payload  []byte
}

// rewrite changes the payload of a packet that has been translated, when the
// behaviour says ALG. With a payload of another length, it is another packet.
func (g *Gateway) rewrite(f *flow, p *ip.Packet) {
	m := g.mapping(f.mapping)
	if m.addr == identity || p.Fragment || p.Proto != ip.UDP && p.Proto != ip.TCP {
		return
	}
	from, to := g.internal(m), g.external(m)
	if f.d == inbound {
		from, to = to, from
	}
	a := &g.alg
	payload := p.Payload()
	a.findings = find(a.findings[:0], payload, from, to)
	if len(p.Data)+len(a.findings)*maxText > 65535 {
		a.findings = a.findings[:0]
	}
	if p.Proto == ip.TCP {
		g.rewriteStream(f, p)
	}
	same := true
	for i := range a.findings {
		same = same && a.findings[i].grew() == 0
	}
	if same {
		head := p.PayloadAt()
		for i := range a.findings {
			at := &a.findings[i]
			p.Overwrite(head+at.at, at.text[:at.n])
		}
		return
	}
	a.payload = a.payload[:0]
	last := 0
	for i := range a.findings {
		at := &a.findings[i]
		a.payload = append(append(a.payload, payload[last:at.at]...), at.text[:at.n]...)
		last = at.end
	}
	a.payload = append(a.payload, payload[last:]...)
	if len(p.Data)-len(payload)+len(a.payload) > 65535 {
		return
	}
	g.replaced = p.Decode(p.AppendWith(nil, a.payload)) == nil
}

// rewriteStream makes findings of what was replaced in these bytes of a stream
// before, and keeps of those that there are what does not change what the
// receiver may have.
func (g *Gateway) rewriteStream(f *flow, p *ip.Packet) {
	a, seq, n := &g.alg, g.segment.seq, len(p.Payload())
	if g.segment.has(ip.SYN) { // has a number too
		seq++
	}
	track := g.session(f.session).track
	fresh := g.early(a.findings, track, f.d, seq)
	s := &g.tracks.at(track).stream[f.d.index()]
	top := s.top
	if before(top, g.segment.end) {
		s.top = g.segment.end
	}
	was := g.tracks.numbering(track)
	var known edits
	if was.edits != nil {
		known = was.edits[f.d.index()]
	}
	again, from := known.again(a.again[:0], seq, n)
	if from != seq {
		p.SetSeq(was.forward(f.d, from))
	}
	fresh = slices.DeleteFunc(fresh, func(one finding) bool {
		return one.grew() != 0 && before(seq+uint32(one.at), top) ||
			slices.ContainsFunc(again, func(o finding) bool { return one.at < o.end && o.at < one.end })
	})
	fresh = slices.DeleteFunc(fresh, func(one finding) bool {
		return one.grew() != 0 && !g.tracks.edit(track, f.d, edit{seq + uint32(one.end), int32(one.grew()), one.text, one.n})
	})
	a.again, a.findings = again, append(fresh, again...)
	slices.SortFunc(a.findings, func(a, b finding) int { return a.at - b.at })
}

// early keeps the findings, in bytes from seq on, that are near the beginning of
// their stream.
func (g *Gateway) early(all []finding, track uint32, d direction, seq uint32) []finding {
	s := &g.tracks.at(track).stream[d.index()]
	if !s.known {
		*s = streamFrom(seq)
	}
	at := seq - s.first
	return slices.DeleteFunc(all, func(f finding) bool { return at+uint32(f.end) > algDepth })
}

// find appends what in b is to be replaced, in order.
func find(all []finding, b []byte, from, to netip.AddrPort) []finding {
	if len(b) < 4 {
		return all
	}
	all = findText(all, b, from, to)
	all = findBytes(all, b, from, to)
	slices.SortFunc(all, func(a, b finding) int { return a.at - b.at })
	return all
}

func findText(all []finding, b []byte, from, to netip.AddrPort) []finding {
	var buf [maxText]byte
	old := from.Addr().AppendTo(buf[:0])
	for at := 0; len(all) < maxFindings; {
		i := bytes.Index(b[at:], old)
		if i < 0 {
			break
		}
		f := finding{at: at + i, end: at + i + len(old)}
		at = f.end
		if goesBack(b[:f.at]) || goesOn(b[f.end:]) {
			continue // part of a longer number or address
		}
		text := to.Addr().AppendTo(f.text[:0])
		if end, port := portBehind(b, f.end); end != 0 && port == from.Port() {
			f.end = end
			text = strconv.AppendUint(append(text, ':'), uint64(to.Port()), 10)
		}
		f.n = uint8(len(text))
		all = append(all, f)
	}
	return all
}

func goesBack(b []byte) bool {
	return len(b) > 0 && (isDigit(b[len(b)-1]) || b[len(b)-1] == '.')
}

func goesOn(b []byte) bool {
	return len(b) > 0 && (isDigit(b[0]) || b[0] == '.' && len(b) > 1 && isDigit(b[1]))
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// portBehind reads a colon and a number; end is 0 where there is none.
func portBehind(b []byte, at int) (end int, port uint16) {
	if at >= len(b) || b[at] != ':' {
		return 0, 0
	}
	end = at + 1
	n := 0
	for end < len(b) && isDigit(b[end]) && n < 1<<16 {
		n = 10*n + int(b[end]-'0')
		end++
	}
	if end == at+1 || n >= 1<<16 {
		return 0, 0
	}
	return end, uint16(n)
}

func findBytes(all []finding, b []byte, from, to netip.AddrPort) []finding {
	old, now := from.Addr().As4(), to.Addr().As4()
	texts := all
	for at := 0; len(all) < maxFindings; {
		i := bytes.Index(b[at:], old[:])
		if i < 0 {
			break
		}
		f := finding{at: at + i, end: at + i + 4}
		at = f.end
		text := f.text[:0]
		switch {
		case hasPort(b, f.at-2, from.Port()) && f.at-2 >= at-4-i:
			f.at -= 2
			text = binary.BigEndian.AppendUint16(text, to.Port())
			text = append(text, now[:]...)
		case hasPort(b, f.end, from.Port()):
			f.end += 2
			at = f.end
			text = append(text, now[:]...)
			text = binary.BigEndian.AppendUint16(text, to.Port())
		default:
			text = append(text, now[:]...)
		}
		f.n = uint8(len(text))
		if !slices.ContainsFunc(texts, func(t finding) bool { return t.at < f.end && f.at < t.end }) {
			all = append(all, f)
		}
	}
	return all
}

func hasPort(b []byte, at int, port uint16) bool {
	return at >= 0 && at+2 <= len(b) && binary.BigEndian.Uint16(b[at:]) == port
}
