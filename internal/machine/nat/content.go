package nat

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// contentFilter is Content, compiled.
//
// Patterns are found in each packet, and across the segments of a TCP
// connection as long as these come in order. A pattern that is spread over
// segments out of order, or over the parts of a cut packet, is not found.
type contentFilter struct {
	Content
	// next is an automaton after Aho and Corasick: by state and byte, the next
	// state. found says which states end a pattern.
	next  [][256]uint16
	found []bool
}

// maxPatterns bounds the sum of the lengths of all patterns.
const maxPatterns = 4096

func compileContent(c Content) (contentFilter, error) {
	f := contentFilter{Content: c}
	if len(c.Block) == 0 {
		return f, nil
	}
	sum := 0
	for _, p := range c.Block {
		if p == "" {
			return f, errors.New("nat: an empty pattern blocks everything")
		}
		sum += len(p)
	}
	if sum > maxPatterns {
		return f, errors.New("nat: too many or too long patterns")
	}
	// A tree of the patterns first; 0 is its root, and where nothing leads.
	f.next, f.found = make([][256]uint16, 1, sum+1), make([]bool, 1, sum+1)
	for _, p := range c.Block {
		at := uint16(0)
		for _, b := range []byte(p) {
			if f.next[at][b] == 0 {
				f.next[at][b] = uint16(len(f.next))
				f.next, f.found = append(f.next, [256]uint16{}), append(f.found, false)
			}
			at = f.next[at][b]
		}
		f.found[at] = true
	}
	// Then, level by level, where to go on when the tree ends: to the state of
	// the longest suffix of what was read that begins a pattern.
	suffix := make([]uint16, len(f.next))
	queue := make([]uint16, 0, len(f.next))
	for _, child := range f.next[0] {
		if child != 0 {
			queue = append(queue, child)
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		f.found[at] = f.found[at] || f.found[suffix[at]]
		for b, child := range f.next[at] {
			other := f.next[suffix[at]][b]
			if child == 0 {
				f.next[at][b] = other
				continue
			}
			suffix[child] = other
			queue = append(queue, child)
		}
	}
	return f, nil
}

// scan reads on in a state; found says that a pattern ended on the way.
func (f *contentFilter) scan(state uint16, b []byte) (next uint16, found bool) {
	for _, c := range b {
		state = f.next[state][c]
		if f.found[state] {
			return 0, true
		}
	}
	return state, false
}

// active says whether there is anything to look for.
func (f *contentFilter) active() bool { return f.WebOnly || f.BlockSTUN || f.next != nil }

// inspect asks the content filter about a packet of a session, before it is
// translated. TCP segments wait until follow has judged them.
func (g *Gateway) inspect(f *flow, p *ip.Packet) Reason {
	c := &g.content
	if p.Proto == ip.TCP || !c.active() {
		return None
	}
	b := p.Payload()
	if c.BlockSTUN && p.Proto == ip.UDP && isSTUN(b) {
		return BadContent
	}
	if c.next != nil {
		if _, found := c.scan(0, b); found {
			return BadContent
		}
	}
	return None
}

// glance asks the content filter about a packet where nothing is remembered of
// others.
func (g *Gateway) glance(to Side, p *ip.Packet) Verdict {
	c := &g.content
	if !c.active() {
		return forward(to)
	}
	b := p.Payload()
	if c.BlockSTUN && !p.Headless && (p.Proto == ip.UDP && isSTUN(b) || p.Proto == ip.TCP && carriesSTUN(b)) {
		return drop(BadContent)
	}
	if c.next != nil {
		if _, found := c.scan(0, b); found {
			return drop(BadContent)
		}
	}
	return forward(to)
}

const stunHeader = 20

// beginsSTUN says whether b begins with the header of a STUN message (RFC 8489
// section 5).
func beginsSTUN(b []byte) bool {
	const cookie = 0x2112a442
	return len(b) >= stunHeader && b[0]&0xc0 == 0 && b[3]%4 == 0 && binary.BigEndian.Uint32(b[4:]) == cookie
}

// isSTUN says whether a STUN message is in a datagram.
func isSTUN(b []byte) bool {
	return beginsSTUN(b) && stunHeader+int(binary.BigEndian.Uint16(b[2:])) <= len(b)
}

// carriesSTUN says whether a TCP segment has a STUN message in it, which may go
// on in the next one. It begins the segment, or is in a frame of RFC 4571, as
// ICE sends it (RFC 6544 section 3), and comes first or behind other frames or
// TURN's channel data, which are as long as they say (RFC 8656 section 12.4).
func carriesSTUN(b []byte) bool {
	for len(b) >= stunHeader {
		if beginsSTUN(b) || beginsSTUN(b[2:]) {
			return true
		}
		size := 2 + int(binary.BigEndian.Uint16(b))
		if b[0]&0xf0 == 0x40 {
			size = 4 + (int(binary.BigEndian.Uint16(b[2:]))+3)&^3
		}
		b = b[min(size, len(b)):]
	}
	return false
}

// stream is how far the content filter has read what one end of a connection
// sends.
type stream struct {
	first uint32 // the sequence number of the first byte
	top   uint32 // one past the highest that passed the ALG
	next  uint32 // of the next byte in order
	state uint16 // of the automaton
	known bool   // first, top and next are
}

func streamFrom(seq uint32) stream { return stream{first: seq, top: seq, next: seq, known: true} }

// web is how far a connection to a web port has shown that it is one.
type web struct {
	port  uint8 // notWeb, or which
	shown uint8 // bytes of start
	fine  bool
	start [8]byte // of what the client sends
}

const (
	notWeb uint8 = iota
	onHTTP
	onTLS
)

// inspectSegment is inspect for a segment in the window. client says that it
// is from the end that began the connection.
func (c *contentFilter) inspectSegment(s *stream, w *web, client bool, seq uint32, b []byte) Reason {
	if len(b) == 0 {
		return None
	}
	if !s.known {
		*s = streamFrom(seq)
	}
	if c.BlockSTUN && carriesSTUN(b) {
		return BadContent
	}
	if w.port != notWeb && !w.fine && !(client && w.read(seq-s.first, b)) {
		return BadContent
	}
	if c.next != nil {
		state := s.state
		if seq != s.next {
			state = 0
		}
		state, found := c.scan(state, b)
		if found {
			return BadContent
		}
		if seq == s.next || after(seq+uint32(len(b)), s.next) {
			s.state, s.next = state, seq+uint32(len(b))
		}
	}
	return None
}

// read takes what the client sends at an offset of its stream, and says
// whether it may pass: as long as it may become a request.
func (w *web) read(at uint32, b []byte) bool {
	if at > uint32(w.shown) {
		return false // a gap: it will be sent again
	}
	if skip := uint32(w.shown) - at; skip < uint32(len(b)) {
		w.shown += uint8(copy(w.start[w.shown:], b[skip:]))
	}
	shown := w.start[:w.shown]
	switch w.port {
	case onHTTP:
		for _, m := range methods {
			if bytes.HasPrefix(shown, m) {
				w.fine = true
				return true
			}
			if bytes.HasPrefix(m, shown) {
				return true
			}
		}
		return false
	default:
		may := beginsHello(shown)
		w.fine = may && len(shown) > helloLen
		return may
	}
}

// methods of HTTP/1 (RFC 9110 section 9, RFC 5789), as they begin a request.
var methods = [][]byte{
	[]byte("GET "), []byte("HEAD "), []byte("POST "), []byte("PUT "), []byte("DELETE "),
	[]byte("CONNECT "), []byte("OPTIONS "), []byte("TRACE "), []byte("PATCH "),
}

// helloLen is how many bytes say that a TLS client begins: a handshake record
// (RFC 8446 section 5.1), and in it a ClientHello.
const helloLen = 5

// beginsHello says whether b may be the beginning of one.
func beginsHello(b []byte) bool {
	for i, c := range b {
		ok := true
		switch i {
		case 0:
			ok = c == 22 // handshake
		case 1:
			ok = c == 3
		case 2:
			ok = c <= 4
		case 3:
			ok = c <= 0x40 // at most 2^14 bytes
		case 5:
			ok = c == 1 // ClientHello
		}
		if !ok {
			return false
		}
	}
	return true
}
