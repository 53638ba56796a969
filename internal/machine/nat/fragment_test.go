package nat

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// cutUp cuts an IPv4 packet that may be.
func cutUp(t testing.TB, pkt []byte, id uint16, mtu int) (parts [][]byte) {
	t.Helper()
	binary.BigEndian.PutUint16(pkt[4:], id)
	pkt[6] = 0
	sum(pkt)
	var p ip.Packet
	if err := p.Decode(pkt); err != nil {
		t.Fatal(err)
	}
	for next := 0; ; {
		var part []byte
		part, next = p.AppendPart(nil, mtu, next)
		parts = append(parts, part)
		if next == 0 {
			return parts
		}
	}
}

// cutUp6 does what an IPv6 host does.
func cutUp6(pkt []byte, id uint32, size int) (parts [][]byte) {
	for from := 40; from < len(pkt); from += size {
		to := min(len(pkt), from+size)
		offset := uint16(from - 40)
		if to < len(pkt) {
			offset |= 1
		}
		part := append(bytes.Clone(pkt[:40]), pkt[6], 0, byte(offset>>8), byte(offset))
		part = append(binary.BigEndian.AppendUint32(part, id), pkt[from:to]...)
		part[6] = 44
		binary.BigEndian.PutUint16(part[4:], uint16(len(part)-40))
		parts = append(parts, part)
	}
	return parts
}

// whole puts parts together.
func whole(t testing.TB, parts [][]byte) (p ip.Packet) {
	t.Helper()
	var header, data []byte
	for _, part := range parts {
		if err := p.Decode(part); err != nil || !p.HeaderOK() {
			t.Fatalf("%x: %v", part, err)
		}
		_, offset, _ := p.Part()
		b := p.Data[len(p.Data)-p.PartLen():]
		if n := offset + len(b); n > len(data) {
			data = append(data, make([]byte, n-len(data))...)
		}
		copy(data[offset:], b)
		if offset == 0 {
			header = bytes.Clone(p.Data[:len(p.Data)-len(b)])
		}
	}
	if header == nil {
		t.Fatal("no first part")
	}
	if header[0]>>4 == 6 {
		header[6] = header[40]
		header = header[:40]
		binary.BigEndian.PutUint16(header[4:], uint16(len(data)))
		header = append(header, data...)
	} else {
		header = append(header, data...)
		binary.BigEndian.PutUint16(header[2:], uint16(len(header)))
		header[6], header[7] = 0, 0
		sum(header)
	}
	if err := p.Decode(header); err != nil || !p.ChecksumOK() {
		t.Fatalf("put together: %x: %v", header, err)
	}
	return p
}

// give hands parts over, and returns all that leaves, in the order in which it
// does.
func (b *bench) give(from Side, parts [][]byte) (left [][]byte, to Side) {
	for _, part := range parts {
		part = bytes.Clone(part)
		if v := b.Handle(b.now, from, part, Offload{}); v.Action == Forward {
			left, to = append(left, part), v.To
		}
		for o, ok := b.Poll(); ok; o, ok = b.Poll() {
			left, to = append(left, o.Packet), o.To
		}
	}
	return left, to
}

// RFC 4787 REQ-14: parts in order, and out of order.
func TestRFC4787REQ14Fragments(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	payload := make([]byte, 4000)
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	at := ep("198.51.100.1:5000")
	for range 100 {
		for _, how := range []Fragments{AnyOrder, InOrder, DropParts} {
			g := newBench(t, Behaviour{Filtering: AddressAndPortDependent, Fragments: how})
			order := func(parts [][]byte) [][]byte {
				if how == AnyOrder {
					r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
				}
				return parts
			}
			check := func(what string, parts [][]byte, from, to Side, src, dst netip.AddrPort) {
				t.Helper()
				n := len(parts)
				left, side := g.give(from, order(parts))
				if how == DropParts {
					if len(left) != 0 {
						t.Fatalf("%s: parts passed", what)
					}
					return
				}
				if len(left) != n || side != to {
					t.Fatalf("%s: %d of %d parts left to side %d", what, len(left), n, side)
				}
				if p := whole(t, left); p.Src != src || p.Dst != dst || !bytes.Equal(p.Payload(), payload) || p.TTL != 63 {
					t.Fatalf("%s: %v > %v, TTL %d", what, p.Src, p.Dst, p.TTL)
				}
			}
			mtu := 100 + r.IntN(1400)
			check("UDP out", cutUp(t, ip.AppendUDP(nil, x, y1, 64, payload), 7, mtu), Inside, Outside, at, y1)
			check("UDP in", cutUp(t, ip.AppendUDP(nil, y1, at, 64, payload), 7, mtu), Outside, Inside, y1, x)
			check("echo out", cutUp(t, ip.AppendEcho(nil, x.Addr(), y1.Addr(), 64, ip.EchoRequest, 5000, 1, payload), 8, mtu),
				Inside, Outside, at, netip.AddrPortFrom(y1.Addr(), 0))
			check("UDP 6", cutUp6(ip.AppendUDP(nil, x6, y6, 64, payload), 7, 400), Inside, Outside, x6, y6)
			check("UDP 6 in", cutUp6(ip.AppendUDP(nil, y6, x6, 64, payload), 7, 400), Outside, Inside, y6, x6)
			// All are forgotten as soon as they are complete.
			for side := range g.cut {
				if c := &g.cut[side]; len(c.by) != 0 || c.bytes != 0 {
					t.Fatalf("%d packets and %d bytes are left", len(c.by), c.bytes)
				}
			}
		}
	}
}

func TestFragmentsOutOfOrder(t *testing.T) {
	parts := cutUp(t, ip.AppendUDP(nil, x, y1, 64, make([]byte, 3000)), 7, 1500)
	slices.Reverse(parts)
	g := newBench(t, Behaviour{Fragments: InOrder})
	if left, _ := g.give(Inside, parts); len(left) != 1 {
		t.Errorf("in order: %d parts left", len(left))
	}
	// Nobody is let in in parts, nor is what the first part was not.
	g = newBench(t, Behaviour{Filtering: AddressAndPortDependent})
	g.leaves(x, y1)
	if left, _ := g.give(Outside, cutUp(t, ip.AppendUDP(nil, z1, ep("198.51.100.1:5000"), 64, make([]byte, 3000)), 7, 1500)); len(left) != 0 {
		t.Errorf("%d parts of a stranger's packet came in", len(left))
	}
	// A hairpinned packet gets both addresses.
	g = newBench(t, Behaviour{Hairpin: HairpinExternalSource})
	at2 := g.leaves(x2, y1)
	left, to := g.give(Inside, cutUp(t, ip.AppendUDP(nil, x, at2, 64, make([]byte, 3000)), 7, 1500))
	if p := whole(t, left); to != Inside || p.Dst != x2 || p.Src.Addr() != ours {
		t.Errorf("hairpin: %v > %v to %d", p.Src, p.Dst, to)
	}
	// Through a smaller MTU they are cut again.
	g = newBenchOf(t, Config{MTU: [Local]int{Outside: 576}})
	left, _ = g.give(Inside, cutUp(t, ip.AppendUDP(nil, x, y1, 64, make([]byte, 3000)), 7, 1500))
	for _, part := range left {
		if len(part) > 576 {
			t.Errorf("a part of %d bytes", len(part))
		}
	}
	whole(t, left)
}

// A part that comes twice, as links and other people's routers deliver them,
// costs nothing: what leaves can be put together by its number. A first part
// that is another begins a packet of its own.
func TestFragmentsTwice(t *testing.T) {
	cut := func(fill byte) [][]byte {
		return cutUp(t, ip.AppendUDP(nil, x, y1, 64, bytes.Repeat([]byte{fill}, 5000)), 7, 1500)
	}
	parts := cut('a')
	for _, order := range [][]int{{0, 0, 1, 2, 3}, {0, 1, 0, 2, 3}, {0, 1, 2, 0, 3}, {1, 0, 1, 0, 2, 3}, {0, 1, 2, 3, 0}, {3, 3, 2, 1, 0, 0}, {0, 3, 3, 1, 0, 2}} {
		g := newBench(t, Behaviour{})
		var given [][]byte
		for _, i := range order {
			given = append(given, parts[i])
		}
		left, _ := g.give(Inside, given)
		by := map[uint16][][]byte{}
		for _, part := range left {
			id := binary.BigEndian.Uint16(part[4:])
			by[id] = append(by[id], part)
		}
		complete := 0
		for _, parts := range by {
			if len(parts) == 4 {
				complete++
				whole(t, parts)
			}
		}
		if complete != 1 {
			t.Errorf("%v: %d parts left under %d numbers", order, len(left), len(by))
		}
	}
	g := newBench(t, Behaviour{})
	g.give(Inside, parts[:2]) // the others are lost, and the number comes again
	if left, _ := g.give(Inside, cut('b')); len(left) != 4 {
		t.Errorf("%d parts of the second packet left", len(left))
	} else if p := whole(t, left); p.Payload()[0] != 'b' {
		t.Errorf("the second packet is %q...", p.Payload()[:9])
	}
}

// What arrives late is forgotten; what waits is no more than the bounds.
func TestFragmentsAreBounded(t *testing.T) {
	parts := func(id uint16, n int) [][]byte {
		return cutUp(t, ip.AppendUDP(nil, y1, ep("198.51.100.1:5000"), 64, make([]byte, n)), id, 1500)
	}
	g := newBench(t, Behaviour{})
	g.leaves(x, y1)
	p := parts(1, 3000)
	g.give(Outside, p[1:])
	if next, ok := g.NextTimeout(); !ok || !next.Equal(g.now.Add(partsTime)) {
		t.Errorf("next timeout in %v", next.Sub(g.now))
	}
	g.now = g.now.Add(partsTime)
	g.HandleTimeout(g.now)
	if left, _ := g.give(Outside, p[:1]); len(left) != 1 {
		t.Errorf("after their time, %d parts left", len(left))
	}

	g = newBench(t, Behaviour{})
	g.leaves(x, y1)
	for id := range uint16(5000) {
		g.give(Outside, parts(id, 3000)[1:])
	}
	c := &g.cut[Outside]
	held := 0
	for _, one := range c.by {
		for _, b := range one.held {
			held += len(b)
		}
	}
	if len(c.by) > 2*maxCut || len(c.order) > maxCut || len(c.aside) > maxCut || c.bytes > maxHeld || held != c.bytes {
		t.Errorf("%d packets, %d in order, %d bytes, held %d", len(c.by), len(c.order), c.bytes, held)
	}
	// That is outside's; inside is served.
	out := cutUp(t, ip.AppendUDP(nil, x, y1, 64, make([]byte, 3000)), 7, 1500)
	slices.Reverse(out)
	if left, _ := g.give(Inside, out); len(left) != len(out) {
		t.Errorf("%d parts left from inside", len(left))
	}
	g.now = g.now.Add(partsTime)
	g.HandleTimeout(g.now)
	if len(c.by)+len(c.order)+c.bytes != 0 {
		t.Error("some are left")
	}
	// One packet alone may not hold all.
	huge := parts(1, 65000)
	for range 3 {
		g.give(Outside, huge[1:])
	}
	if c.bytes > maxHeldOne {
		t.Errorf("one packet holds %d bytes", c.bytes)
	}
}

// RFC 1858, RFC 5722: no part may overlap another.
func TestOverlaps(t *testing.T) {
	data := func(id uint16, offset, n int, more bool) []byte {
		b := ip.AppendUDP(nil, x, y1, 64, make([]byte, 2000))[:20+n]
		if offset > 0 {
			clear(b[20:])
		}
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], id)
		w := uint16(offset / 8)
		if more {
			w |= 0x2000
		}
		binary.BigEndian.PutUint16(b[6:], w)
		sum(b)
		return b
	}
	for _, c := range []struct {
		what  string
		parts [][]byte
		want  int
	}{
		{"none", [][]byte{data(1, 0, 800, true), data(1, 800, 800, true), data(1, 1600, 408, false)}, 3},
		{"the first last, over another", [][]byte{data(7, 400, 400, false), data(7, 0, 600, true)}, 0},
		{"the first last, beyond the end", [][]byte{data(8, 160, 80, false), data(8, 0, 600, true)}, 0},
		{"teardrop", [][]byte{data(1, 0, 800, true), data(1, 400, 800, true), data(1, 1200, 8, false)}, 1},
		{"within", [][]byte{data(1, 0, 800, true), data(1, 400, 8, true), data(1, 800, 8, false)}, 2},
		{"around", [][]byte{data(1, 0, 800, true), data(1, 1600, 8, true), data(1, 1592, 80, true), data(1, 800, 792, true)}, 2},
		{"over the end", [][]byte{data(1, 0, 800, true), data(1, 1600, 8, false), data(1, 1608, 8, true)}, 2},
		{"two ends", [][]byte{data(1, 0, 800, true), data(1, 1600, 8, false), data(1, 800, 8, false)}, 2},
		{"an end before", [][]byte{data(1, 0, 800, true), data(1, 1600, 8, true), data(1, 800, 8, false)}, 2},
		{"twice the same", [][]byte{data(1, 0, 800, true), data(1, 800, 8, true), data(1, 800, 8, true), data(1, 808, 8, false)}, 3},
		{"another packet", [][]byte{data(1, 0, 800, true), data(2, 0, 800, true), data(1, 800, 8, false), data(2, 800, 8, false)}, 4},
		{"the number again", [][]byte{data(1, 0, 800, true), data(1, 0, 400, true), data(1, 400, 8, false)}, 3},
		{"waiting, overlapping", [][]byte{data(1, 800, 800, true), data(1, 1200, 800, false), data(1, 0, 800, true)}, 1},
	} {
		g := newBench(t, Behaviour{})
		if left, _ := g.give(Inside, c.parts); len(left) != c.want {
			t.Errorf("%s: %d parts left, want %d", c.what, len(left), c.want)
		}
	}
}

// The spans are those that a plain list of bytes gives.
func TestSpansAgainstBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var c cutPacket
		var have [64]bool
		for range 20 {
			from := r.IntN(60)
			to := from + 1 + r.IntN(min(8, 64-from))
			n := 0
			for _, b := range have[from:to] {
				if b {
					n++
				}
			}
			fresh, sound := c.take(from, to, true)
			if fresh != (n == 0) || sound != (n == 0 || n == to-from) && len(c.spans) < maxSpans {
				t.Fatalf("%d to %d into %v: %v %v", from, to, c.spans, fresh, sound)
			}
			if fresh {
				for i := from; i < to; i++ {
					have[i] = true
				}
			}
			last := -1
			for _, s := range c.spans {
				if s.from <= last || s.to <= s.from {
					t.Fatalf("spans %v", c.spans)
				}
				last = s.to
			}
		}
	}
}

// Patterns are looked for in later parts too.
func TestBlockInParts(t *testing.T) {
	payload := make([]byte, 3000)
	copy(payload[2000:], "evil")
	g := newBench(t, Behaviour{Content: Content{Block: []string{"evil"}}})
	if left, _ := g.give(Inside, cutUp(t, ip.AppendUDP(nil, x, y1, 64, payload), 7, 1500)); len(left) != 1 {
		t.Errorf("%d parts left", len(left))
	}
}

// A ping in parts is nobody's.
func TestPingInParts(t *testing.T) {
	g := newSides(t, Config{})
	parts := cutUp(t, ip.AppendEcho(nil, y1.Addr(), ours, 64, ip.EchoRequest, 7, 9, make([]byte, 3000)), 7, 1500)
	if left, _ := g.give(Outside, parts); len(left) != 0 {
		t.Errorf("%d packets", len(left))
	}
}

// RFC 7857 section 10: packets that may be cut get a number of the gateway's,
// all parts of one the same, and others keep theirs.
func TestRFC7857Section10Numbers(t *testing.T) {
	g := newBench(t, Behaviour{})
	seen := map[uint16]bool{}
	for i := range byte(20) {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1 + i%2}), 5000)
		pkt := ip.AppendUDP(nil, src, y1, 64, make([]byte, 3000))
		left, _ := g.give(Inside, cutUp(t, pkt, uint16(i/2), 1500))
		whole(t, left)
		id := binary.BigEndian.Uint16(left[0][4:])
		if seen[id] {
			t.Errorf("number %d twice", id)
		}
		seen[id] = true
		for _, part := range left {
			if binary.BigEndian.Uint16(part[4:]) != id {
				t.Errorf("parts have numbers %d and %d", id, binary.BigEndian.Uint16(part[4:]))
			}
		}
	}
	p, _ := g.pass(g.Outbound, udpPacket(x, y1))
	if p.Numbered() || p.Data[4]|p.Data[5] != 0 {
		t.Errorf("a packet that may not be cut has number %x", p.Data[4:6])
	}
}

// A device numbers the packets that it makes of a large one from its number on:
// the next packet has none of these.
func TestNumbersOfSegments(t *testing.T) {
	for _, c := range []struct{ payload, segment, packets int }{{10_000, 1000, 10}, {9_001, 1000, 10}, {1000, 1000, 1}, {1, 1000, 1}, {0, 1000, 1}, {5000, 0, 1}} {
		g := newBench(t, Behaviour{})
		give := func(payload, segment int) uint16 {
			pkt := ip.AppendUDP(nil, x, y1, 64, make([]byte, payload))
			pkt[6] = 0 // may be cut
			sum(pkt)
			g.SetMTU(Outside, 60_000)
			if v := g.Handle(g.now, Inside, pkt, Offload{Segment: segment}); v.Action != Forward {
				t.Fatalf("%+v", v)
			}
			return binary.BigEndian.Uint16(pkt[4:])
		}
		first := give(c.payload, c.segment)
		if next := give(100, 0); int(next-first) != c.packets {
			t.Errorf("%d bytes in segments of %d: numbers from %d on, then %d", c.payload, c.segment, first, next)
		}
	}
}
