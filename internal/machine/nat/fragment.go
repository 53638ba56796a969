package nat

import (
	"bytes"
	"hash/crc32"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// The parts of a cut packet (RFC 4787 REQ-14). Only the first has ports, so it
// is handled as packets are, and the others as it was. What comes before it is
// kept until it comes, when the behaviour says AnyOrder.
const (
	partsTime  = 15 * time.Second // RFC 791 section 3.2
	maxCut     = 2048             // packets of which parts have come, for each side, and as many whose first has
	maxHeld    = 1 << 19          // bytes of parts that are kept, for each side
	maxHeldOne = 1 << 16          // and of one packet
	maxSpans   = 16
)

// partKey tells cut packets apart.
type partKey struct {
	src, dst netip.Addr
	id       uint32
	proto    ip.Proto
}

// cutPacket is a packet of which parts have come.
type cutPacket struct {
	key     partKey
	expires int64
	fate    fate
	verdict Verdict
	// The addresses and the number that the first part left with.
	src, dst netip.Addr
	number   uint16
	first    uint32 // the sum of the first part as it came
	// spans are the bytes that have come, in order, never touching each other.
	spans  []span
	length int // of all, once the last part has come
	held   [][]byte
	bytes  int // held
}

type fate uint8

const (
	waiting fate = iota // for the first part
	passed
	refused // all parts are dropped
)

type span struct{ from, to int }

// cutPackets are those from one side, the oldest first in order. Where there are
// too many, those whose first part has passed are put aside: anyone can send
// parts that wait for one, and they must not push these out (RFC 4787 REQ-14a).
type cutPackets struct {
	by    map[partKey]*cutPacket
	order cutQueue
	aside cutQueue
	bytes int
}

// cutQueue may have packets that are forgotten.
type cutQueue []*cutPacket

func (q *cutQueue) pop() *cutPacket {
	first := (*q)[0]
	(*q)[0] = nil
	if *q = (*q)[1:]; len(*q) == 0 {
		*q = nil
	}
	return first
}

// fragment takes a part of a packet, in modes that look at ports.
func (g *Gateway) fragment(from, dst Side, p *ip.Packet) Verdict {
	if g.cfg.Fragments == DropParts {
		return drop(Unsupported)
	}
	t := &g.cut[from]
	id, offset, more := p.Part()
	key := partKey{p.Src.Addr(), p.Dst.Addr(), id, p.Proto}
	if !p.Is4() {
		key.proto = ip.Other // later parts of IPv6 do not always say
	}
	c := t.by[key]
	if offset == 0 {
		first := crc32.ChecksumIEEE(p.Data)
		if c != nil && c.fate == passed && c.first == first {
			return drop(Malformed) // a second copy; the parts to come belong to the first
		}
		if c == nil || c.fate != waiting {
			t.forget(c)
			c = g.addCut(t, key)
		}
		c.first = first
		if _, sound := c.take(0, p.PartLen(), more); !sound {
			t.refuse(c, Malformed)
			return drop(Malformed)
		}
		return g.firstPart(from, dst, t, c, p)
	}
	if c == nil {
		if g.cfg.Fragments == InOrder {
			return drop(Unsupported)
		}
		c = g.addCut(t, key)
	}
	if c.fate == refused {
		return drop(c.verdict.Reason)
	}
	if fresh, sound := c.take(offset, offset+p.PartLen(), more); !sound {
		t.refuse(c, Malformed)
		return drop(Malformed)
	} else if !fresh {
		return drop(Malformed)
	}
	if g.content.next != nil {
		if _, found := g.content.scan(0, p.Payload()); found {
			t.refuse(c, BadContent)
			return drop(BadContent)
		}
	}
	if c.fate == waiting {
		if t.bytes+len(p.Data) > maxHeld || c.bytes+len(p.Data) > maxHeldOne {
			t.refuse(c, TableFull)
			return drop(TableFull)
		}
		p.FinishChecksum()
		c.held = append(c.held, bytes.Clone(p.Data))
		c.bytes += len(p.Data)
		t.bytes += len(p.Data)
		return drop(Kept)
	}
	c.address(p)
	if c.complete() {
		t.forget(c)
	}
	return c.verdict
}

// firstPart lets the first part decide, and sends on what was kept.
func (g *Gateway) firstPart(from, dst Side, t *cutPackets, c *cutPacket, p *ip.Packet) Verdict {
	v := g.through(from, dst, p)
	if v.Action == Drop {
		t.refuse(c, v.Reason)
		return v
	}
	c.fate, c.verdict = passed, v
	c.src, c.dst = p.Src.Addr(), p.Dst.Addr()
	id, _, _ := p.Part()
	c.number = uint16(id)
	g.released = c.held
	t.bytes -= c.bytes
	c.held, c.bytes = nil, 0
	g.releasing = *c
	if c.complete() {
		t.forget(c)
	}
	return v
}

// release emits the parts that waited for the one that was just sent.
func (g *Gateway) release(from Side) {
	if g.released == nil {
		return
	}
	for _, b := range g.released {
		var p ip.Packet
		if p.Decode(b) != nil {
			continue
		}
		g.releasing.address(&p)
		if v := g.depart(from, g.releasing.verdict, &p); v.Action == Forward {
			g.emit(v.To, b)
		}
	}
	g.released, g.releasing = nil, cutPacket{}
}

// address gives a later part the addresses and the number that the first one
// left with.
func (c *cutPacket) address(p *ip.Packet) {
	if !p.Is4() {
		return
	}
	p.SetNumber(c.number)
	if p.Src.Addr() != c.src {
		p.SetSrc(netip.AddrPortFrom(c.src, 0))
	}
	if p.Dst.Addr() != c.dst {
		p.SetDst(netip.AddrPortFrom(c.dst, 0))
	}
}

// number gives a packet of a host that shares its address with others a number
// of the gateway's own (RFC 7857 section 10, RFC 6864 section 5.3.1).
func (g *Gateway) number(p *ip.Packet) {
	if !p.Numbered() {
		return
	}
	a := p.Dst.Addr().As4()
	n := &g.numbers[a[3]^a[2]^a[1]^a[0]^byte(p.Proto)]
	p.SetNumber(*n + 1)
	*n += g.pieces(p)
}

// pieces is how many packets, with as many numbers, a device makes of one.
func (g *Gateway) pieces(p *ip.Packet) uint16 {
	if g.offload.Segment == 0 {
		return 1
	}
	return uint16(max(1, (len(p.Payload())+g.offload.Segment-1)/g.offload.Segment))
}

// take notes the bytes of a part. Not fresh: all of them have come before. Not
// sound: some have, as in attacks (RFC 1858, RFC 5722), or the part does not
// fit to others.
func (c *cutPacket) take(from, to int, more bool) (fresh, sound bool) {
	if !more {
		if c.length != 0 && c.length != to {
			return false, false
		}
		c.length = to
	}
	if n := len(c.spans); c.length != 0 && (to > c.length || n > 0 && c.spans[n-1].to > c.length) {
		return false, false
	}
	at, _ := slices.BinarySearchFunc(c.spans, from, func(s span, from int) int { return s.to - from })
	// c.spans[at] is the first that ends at from or later.
	if at < len(c.spans) && c.spans[at].from <= from && to <= c.spans[at].to {
		return false, true
	}
	next := at
	if at < len(c.spans) && c.spans[at].to == from {
		next++
	}
	if next < len(c.spans) && c.spans[next].from < to {
		return false, false
	}
	joins := next < len(c.spans) && c.spans[next].from == to
	switch {
	case next > at && joins:
		c.spans[at].to = c.spans[next].to
		c.spans = slices.Delete(c.spans, next, next+1)
	case next > at:
		c.spans[at].to = to
	case joins:
		c.spans[next].from = from
	case len(c.spans) == maxSpans:
		return false, false
	default:
		c.spans = slices.Insert(c.spans, at, span{from, to})
	}
	return true, true
}

func (c *cutPacket) complete() bool {
	return c.length != 0 && len(c.spans) == 1 && c.spans[0] == span{0, c.length}
}

func (g *Gateway) addCut(t *cutPackets, key partKey) *cutPacket {
	c := t.add(key, g.now)
	g.soon = min(g.soon, c.expires)
	return c
}

// add makes room by putting the oldest aside, or forgetting them.
func (t *cutPackets) add(key partKey, now int64) *cutPacket {
	if t.by == nil {
		t.by = make(map[partKey]*cutPacket)
	}
	for len(t.order) >= maxCut {
		c := t.order.pop()
		if c.fate != passed || t.by[c.key] != c {
			t.forget(c)
			continue
		}
		if len(t.aside) == maxCut {
			t.forget(t.aside.pop())
		}
		t.aside = append(t.aside, c)
	}
	c := &cutPacket{key: key, expires: now + int64(partsTime)}
	t.by[key] = c
	t.order = append(t.order, c)
	return c
}

// forget leaves the packet in order, where its time comes.
func (t *cutPackets) forget(c *cutPacket) {
	if c != nil && t.by[c.key] == c {
		t.bytes -= c.bytes
		c.held, c.bytes = nil, 0
		delete(t.by, c.key)
	}
}

// abandon forgets packets to or from addresses that are no longer ours.
func (t *cutPackets) abandon(gone []netip.Addr) {
	for key, c := range t.by {
		if slices.Contains(gone, key.dst) || slices.Contains(gone, c.src) || slices.Contains(gone, c.dst) {
			t.forget(c)
		}
	}
}

// refuse drops all parts, also those to come.
func (t *cutPackets) refuse(c *cutPacket, r Reason) {
	t.bytes -= c.bytes
	c.held, c.bytes = nil, 0
	c.fate, c.verdict = refused, drop(r)
}

// next is when the oldest is forgotten.
func (t *cutPackets) next() (at int64, ok bool) {
	at = never
	for _, q := range []cutQueue{t.order, t.aside} {
		if len(q) > 0 {
			at = min(at, q[0].expires)
		}
	}
	return at, at != never
}

func (t *cutPackets) expire(now int64) {
	for _, q := range []*cutQueue{&t.order, &t.aside} {
		for len(*q) > 0 && (*q)[0].expires <= now {
			t.forget(q.pop())
		}
	}
}
