package nat

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

func TestFind(t *testing.T) {
	from, to := ep("10.0.0.1:5000"), ep("198.51.100.17:61234")
	for _, c := range []struct{ what, in, want string }{
		{"nothing", "hello", "hello"},
		{"alone", "10.0.0.1", "198.51.100.17"},
		{"in words", "I am 10.0.0.1, or so.", "I am 198.51.100.17, or so."},
		{"with the port", "udp 10.0.0.1:5000\r\n", "udp 198.51.100.17:61234\r\n"},
		{"with another port", "10.0.0.1:5001", "198.51.100.17:5001"},
		{"with a longer port", "10.0.0.1:50000", "198.51.100.17:50000"},
		{"with no port at all", "10.0.0.1:", "198.51.100.17:"},
		{"with a number that is no port", "10.0.0.1:5000000000000000000000", "198.51.100.17:5000000000000000000000"},
		{"at the end of a sentence", "10.0.0.1.", "198.51.100.17."},
		{"twice", "10.0.0.1 10.0.0.1", "198.51.100.17 198.51.100.17"},
		{"in a longer number", "110.0.0.1 10.0.0.12 1.10.0.0.1 10.0.0.1.2", "110.0.0.1 10.0.0.12 1.10.0.0.1 10.0.0.1.2"},
		{"bytes", "a\x0a\x00\x00\x01b", "a\xc6\x33\x64\x11b"},
		{"bytes, port before", "\x13\x88\x0a\x00\x00\x01", "\xef\x32\xc6\x33\x64\x11"},
		{"bytes, port behind", "\x0a\x00\x00\x01\x13\x88", "\xc6\x33\x64\x11\xef\x32"},
		{"bytes, another port", "\x13\x89\x0a\x00\x00\x01\x13\x87", "\x13\x89\xc6\x33\x64\x11\x13\x87"},
		{"bytes, cut", "\x0a\x00\x00", "\x0a\x00\x00"},
		{"bytes, one port for two", "\x0a\x00\x00\x01\x13\x88\x0a\x00\x00\x01", "\xc6\x33\x64\x11\xef\x32\xc6\x33\x64\x11"},
		{"both", "\x0a\x00\x00\x01 10.0.0.1", "\xc6\x33\x64\x11 198.51.100.17"},
	} {
		var got []byte
		last := 0
		for _, f := range find(nil, []byte(c.in), from, to) {
			got = append(append(got, c.in[last:f.at]...), f.text[:f.n]...)
			last = f.end
		}
		if got = append(got, c.in[last:]...); string(got) != c.want {
			t.Errorf("%s: %q became %q, want %q", c.what, c.in, got, c.want)
		}
	}
}

func FuzzFind(f *testing.F) {
	f.Add([]byte("10.0.0.1:5000 \x0a\x00\x00\x01\x13\x88"))
	f.Fuzz(func(t *testing.T, b []byte) {
		last := 0
		for _, one := range find(nil, b, ep("10.0.0.1:5000"), ep("198.51.100.17:61234")) {
			if one.at < last || one.end <= one.at || one.end > len(b) || int(one.n) > maxText {
				t.Fatalf("%q: found %+v", b, one)
			}
			last = one.end
		}
	})
}

// sent passes a UDP payload and returns what comes out.
func sent(t *testing.T, g *bench, from Side, src, dst netip.AddrPort, payload string, off Offload) []byte {
	t.Helper()
	pkt := ip.AppendUDP(nil, src, dst, 64, []byte(payload))
	v := g.Handle(g.now, from, pkt, off)
	if v.Action == Drop {
		o, ok := g.Poll()
		if v.Reason != Kept || !ok {
			t.Fatalf("%q: %+v", payload, v)
		}
		pkt = o.Packet
	}
	var p ip.Packet
	if err := p.Decode(pkt); err != nil || !p.ChecksumOK() || p.TTL != 63 {
		t.Fatalf("%q became %x, %v", payload, pkt, err)
	}
	return bytes.Clone(p.Payload())
}

var meddles = Behaviour{Filtering: AddressAndPortDependent, ALG: true}

func TestALG(t *testing.T) {
	g := newBench(t, meddles)
	at := netip.AddrPortFrom(ours, 5000)
	if got := sent(t, g, Inside, x, y1, "I am 10.0.0.1:5000", Offload{}); string(got) != "I am 198.51.100.1:5000" {
		t.Errorf("out: %q", got)
	}
	if got := sent(t, g, Outside, y1, at, "You are 198.51.100.1:5000", Offload{}); string(got) != "You are 10.0.0.1:5000" {
		t.Errorf("in: %q", got)
	}
	if got := sent(t, g, Inside, x, y1, "\x0a\x00\x00\x01", Offload{}); string(got) != "\xc6\x33\x64\x01" {
		t.Errorf("bytes out: %x", got)
	}
	if got := sent(t, newBench(t, Behaviour{}), Inside, x, y1, "I am 10.0.0.1:5000", Offload{}); string(got) != "I am 10.0.0.1:5000" {
		t.Errorf("without ALG: %q", got)
	}
}

// RFC 8489 section 14.2: MAPPED-ADDRESS is what such gateways spoil, and
// XOR-MAPPED-ADDRESS is what hole punching survives by.
func TestALGSpoilsMappedAddressOnly(t *testing.T) {
	g := newBench(t, meddles)
	at := g.leaves(x, y1)
	const cookie = 0x2112a442
	msg := []byte{1, 1, 0, 24, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	addr := at.Addr().As4()
	attr := func(typ byte, xor uint32) {
		msg = append(msg, 0, typ, 0, 8, 0, 1)
		msg = binary.BigEndian.AppendUint16(msg, at.Port()^uint16(xor>>16))
		msg = binary.BigEndian.AppendUint32(msg, binary.BigEndian.Uint32(addr[:])^xor)
	}
	attr(0x01, 0)
	attr(0x20, cookie)
	got := sent(t, g, Outside, y1, at, string(msg), Offload{})
	if want := "\x13\x88\x0a\x00\x00\x01"; string(got[26:32]) != want {
		t.Errorf("MAPPED-ADDRESS became %x", got[26:32])
	}
	if !bytes.Equal(got[32:], msg[32:]) {
		t.Errorf("XOR-MAPPED-ADDRESS %x became %x", msg[32:], got[32:])
	}
}

// Text of another length in the streams of a TCP connection that loses and
// reorders: every byte arrives once, changed where it should be.
func TestALGInStreams(t *testing.T) {
	for seed := range uint64(20) {
		for _, tcp := range []TCP{{}, {CheckWindow: true}, {CheckWindow: true, RewriteSequence: true}} {
			b := meddles
			b.TCP = tcp
			e := &exchange{wire: newWire(t, b), r: rand.New(rand.NewPCG(seed, 2)), lines: true}
			line := func(addr string) string {
				return strings.Repeat("-", 3) + addr + strings.Repeat("+", 300)
			}
			var sends, wants [2][]byte
			for range 12 { // within what the gateway looks at
				sends[0] = append(sends[0], line("10.0.0.1:5000")...)
				wants[1] = append(wants[1], line("198.51.100.1:5000")...)
				sends[1] = append(sends[1], line("198.51.100.1")...)
				wants[0] = append(wants[0], line("10.0.0.1")...)
			}
			e.run(sends, wants)
			if e.drops > 0 {
				t.Errorf("seed %d, %+v: %d segments were dropped", seed, tcp, e.drops)
			}
		}
	}
}

// Segments that get lost or overtake each other before they reach the gateway,
// and are sent again in other pieces: no byte that the receiver may have by its number is ever sent as another, and
// together they are what was sent, with some addresses changed.
func TestALGBehindLoss(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		w := newWire(t, meddles)
		w.steps(open(0, 0)...)
		const here, there = "10.0.0.1", "198.51.100.1"
		var lines []string
		for i := range 8 {
			lines = append(lines, strings.Repeat(string(rune('a'+i)), 20)+here+":5000"+strings.Repeat("+", r.IntN(30)))
		}
		text := strings.Join(lines, "")
		got := map[uint32]byte{}
		give := func(from, to int) {
			s, ok := w.out(ip.Segment{Seq: 1001 + uint32(from), Ack: 5001, Flags: ack, Payload: []byte(text[from:to])})
			if !ok {
				t.Fatalf("seed %d: bytes %d to %d were dropped", seed, from, to)
			}
			for i, b := range s.Payload {
				at := s.Seq + uint32(i)
				if was, ok := got[at]; ok && was != b {
					t.Fatalf("seed %d: bytes %d to %d: byte %d is %q and was %q", seed, from, to, at-1001, b, was)
				}
				got[at] = b
			}
		}
		end := 0
		for _, line := range lines { // most in order, some late, some in other pieces
			from := end
			end += len(line)
			if r.IntN(3) > 0 {
				give(from, end)
			}
			for range r.IntN(3) {
				from = r.IntN(end)
				give(from, from+1+r.IntN(end-from))
			}
		}
		for _, i := range r.Perm(len(lines)) {
			from := len(strings.Join(lines[:i], ""))
			give(from, from+len(lines[i]))
		}
		give(0, len(text))
		var all []byte
		for at := uint32(1001); ; at++ {
			b, ok := got[at]
			if !ok {
				break
			}
			all = append(all, b)
		}
		if back := strings.ReplaceAll(string(all), there, here); len(all) != len(got) || back != text {
			t.Fatalf("seed %d: %d of %d bytes in order: %q", seed, len(all), len(got), all)
		}
		if seed == 0 && !strings.Contains(string(all), there) {
			t.Errorf("nothing was changed: %q", all)
		}
	}
}

// What a SYN carries (RFC 7413) is the beginning of the stream: sent again behind
// the SYN, in whatever pieces, it has the same bytes at the same numbers.
func TestALGInSYN(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 4))
		w := newWire(t, meddles)
		text := strings.Repeat("-", r.IntN(3)) + "10.0.0.1:5000" + strings.Repeat("+", 1+r.IntN(20)) + "10.0.0.1"
		want := strings.ReplaceAll(text, "10.0.0.1", "198.51.100.1")
		got := make([]byte, len(want))
		take := func(s ip.Segment) {
			at := int(int32(s.Seq - 1001))
			if s.Flags&syn != 0 {
				at++
			}
			if at < 0 || at+len(s.Payload) > len(want) || want[at:at+len(s.Payload)] != string(s.Payload) {
				t.Fatalf("seed %d: %q has %q at %d", seed, want, s.Payload, at)
			}
			copy(got[at:], s.Payload)
		}
		for range 1 + r.IntN(2) {
			s, ok := w.out(ip.Segment{Seq: 1000, Flags: syn, Payload: []byte(text)})
			if !ok {
				t.Fatal("dropped")
			}
			take(s)
		}
		if string(got) != want {
			t.Fatalf("seed %d: %q became %q", seed, text, got)
		}
		// The server takes note of the SYN alone, or of all of it.
		for _, c := range []struct{ ack, want int }{{0, 0}, {len(want), len(text)}} {
			if s, ok := w.in(ip.Segment{Seq: 5000, Ack: 1001 + uint32(c.ack), Flags: synAck}); !ok || s.Ack != 1001+uint32(c.want) {
				t.Fatalf("seed %d: %d bytes acknowledged, %v, became %d of %d", seed, c.ack, ok, s.Ack-1001, len(text))
			}
		}
		for range 10 {
			from := r.IntN(len(text))
			s, ok := w.out(ip.Segment{Seq: 1001 + uint32(from), Ack: 5001, Flags: ack, Payload: []byte(text[from : from+1+r.IntN(len(text)-from)])})
			if !ok {
				t.Fatal("dropped")
			}
			take(s)
		}
	}
}

// What comes after the first bytes of a stream is data.
func TestALGLeavesDataAlone(t *testing.T) {
	b := meddles
	w := newWire(t, b)
	w.steps(open(0, 0)...)
	text := "10.0.0.1"
	for _, c := range []struct {
		at    uint32
		grown bool
	}{{0, true}, {algDepth - 8, true}, {algDepth - 7, false}, {1 << 20, false}} {
		got, ok := w.out(ip.Segment{Seq: 1001 + c.at, Ack: 5001, Flags: ack, Payload: []byte(text)})
		if !ok || (len(got.Payload) > len(text)) != c.grown {
			t.Errorf("at %d: %v, %q", c.at, ok, got.Payload)
		}
	}
}

// A large packet is cut before its text changes length.
func TestALGWithOffload(t *testing.T) {
	g := newBench(t, meddles)
	size := 100
	payload := bytes.Repeat([]byte(strings.Repeat("-", size-20)+"10.0.0.1:5000"+strings.Repeat("+", 7)), 5)
	pkt := ip.AppendUDP(nil, x, y1, 64, payload)
	if v := g.Handle(g.now, Inside, pkt, Offload{Segment: size}); v.Reason != Kept {
		t.Fatalf("%+v", v)
	}
	want := strings.Repeat("-", size-20) + "198.51.100.1:5000" + strings.Repeat("+", 7)
	for i := range 5 {
		o, ok := g.Poll()
		var p ip.Packet
		if err := p.Decode(o.Packet); !ok || err != nil || !p.ChecksumOK() || string(p.Payload()) != want || o.To != Outside || p.Src.Addr() != ours {
			t.Errorf("segment %d: %v %v: %q", i, ok, err, p.Payload())
		}
	}
	if _, ok := g.Poll(); ok {
		t.Error("one segment too many")
	}
	// What is wrong stays so, however it is cut.
	pkt = ip.AppendUDP(nil, x, y1, 64, payload)
	pkt[10] ^= 1
	if v := g.Handle(g.now, Inside, pkt, Offload{Segment: size}); v.Reason != Malformed {
		t.Errorf("with a wrong header checksum: %+v", v)
	}
}

// A large TCP packet stays one unless its length changes.
func TestALGWithSegments(t *testing.T) {
	for _, c := range []struct {
		text, want string
		pieces     int // from Poll
	}{{"10.0.0.1", "198.51.100.1", 4}, {"\x0a\x00\x00\x01", "\xc6\x33\x64\x01", 0}, {"10.0.0.2", "10.0.0.2", 0}} {
		w := newWire(t, meddles)
		w.steps(open(0, 0)...)
		payload := append([]byte(c.text), bytesOf(3500)...)
		pkt := ip.AppendTCP(nil, x, y1, 64, &ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Payload: payload})
		v := w.Handle(w.now, Inside, pkt, Offload{Segment: 1000})
		var got []byte
		pieces := 0
		for o, ok := w.Poll(); ok; o, ok = w.Poll() {
			var p ip.Packet
			if err := p.Decode(o.Packet); err != nil || !p.ChecksumOK() || p.Seq() != 1001+uint32(len(got)) {
				t.Fatalf("%q: piece at %d: %v", c.text, len(got), err)
			}
			got = append(got, p.Payload()...)
			pieces++
		}
		if pieces == 0 {
			var p ip.Packet
			p.Decode(pkt)
			got = p.Payload()
		}
		if pieces != c.pieces || (v.Action == Forward) != (c.pieces == 0) || string(got) != c.want+string(bytesOf(3500)) {
			t.Errorf("%q: %+v, %d pieces, %d bytes that begin %q", c.text, v, pieces, len(got), got[:20])
		}
	}
}

// A packet that fits until its text grows gets through all the same: a segment
// as two, and the sender of a datagram that must not be cut is told a size from
// which there is room to grow.
func TestALGFillsMTU(t *testing.T) {
	w := newWire(t, meddles)
	w.steps(open(0, 0)...)
	text, want := "10.0.0.1:5000", "198.51.100.1:5000"
	rest := bytesOf(1500 - 40 - len(text))
	pkt := ip.AppendTCP(nil, x, y1, 64, &ip.Segment{Seq: 1001, Ack: 5001, Flags: ack | ip.PSH, Payload: append([]byte(text), rest...)})
	for range 2 { // once more when it was lost
		v := w.Handle(w.now, Inside, bytes.Clone(pkt), Offload{})
		var got []byte
		for o, ok := w.Poll(); ok; o, ok = w.Poll() {
			var p ip.Packet
			if err := p.Decode(o.Packet); err != nil || !p.ChecksumOK() || o.To != Outside || len(o.Packet) > 1500 || p.Seq() != 1001+uint32(len(got)) {
				t.Fatalf("%v: seq %d, %d bytes to %d", err, p.Seq(), len(o.Packet), o.To)
			}
			got = append(got, p.Payload()...)
			if last := len(got) == len(want)+len(rest); (p.TCPFlags()&ip.PSH != 0) != last {
				t.Errorf("flags %x at %d", p.TCPFlags(), len(got))
			}
		}
		if v.Reason != Kept || string(got) != want+string(rest) {
			t.Errorf("%+v: %d bytes, %q...", v, len(got), got[:min(20, len(got))])
		}
	}

	g := newBench(t, meddles)
	datagram := append([]byte(text), bytesOf(1500-28-len(text))...)
	buf := append(ip.AppendUDP(nil, x, y1, 64, datagram), bytesOf(30)...) // what is behind it does not count
	v := g.Handle(g.now, Inside, buf, Offload{})
	o, ok := g.Poll()
	var p, q ip.Packet
	if v.Reason != TooBig || !ok || o.To != Inside || p.Decode(o.Packet) != nil || p.Quoted(&q) != nil {
		t.Fatalf("%+v, %v: % x", v, ok, o.Packet)
	}
	room := 1500 - (len(want) - len(text))
	if mtu := int(binary.BigEndian.Uint16(p.Data[26:])); mtu != room || q.Src != x || q.Dst != y1 {
		t.Errorf("MTU %d, want %d; about %v > %v", mtu, room, q.Src, q.Dst)
	}
	v = g.Handle(g.now, Inside, ip.AppendUDP(nil, x, y1, 64, datagram[:room-28]), Offload{})
	if o, ok := g.Poll(); v.Reason != Kept || !ok || o.To != Outside || len(o.Packet) != 1500 {
		t.Errorf("%+v, %v: %d bytes", v, ok, len(o.Packet))
	}
}

// A hairpinned packet is changed on the way out and on the way in.
func TestALGHairpin(t *testing.T) {
	g := newBench(t, Behaviour{Hairpin: HairpinExternalSource, ALG: true})
	at2 := g.leaves(x2, y1)
	pkt := ip.AppendUDP(nil, x, at2, 64, []byte("from 10.0.0.1 to "+at2.String()))
	v := g.Handle(g.now, Inside, pkt, Offload{})
	o, ok := g.Poll()
	var p ip.Packet
	if v.Reason != Kept || !ok || o.To != Inside || p.Decode(o.Packet) != nil || !p.ChecksumOK() || p.Dst != x2 {
		t.Fatalf("%+v, %v", v, ok)
	}
	// Both have the same outer address, so the way in changes that too.
	if got := string(p.Payload()); got != "from 10.0.0.2 to 10.0.0.2:5000" {
		t.Errorf("%q", got)
	}
}
