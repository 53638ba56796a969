package ip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
)

var (
	a4 = netip.MustParseAddrPort("10.0.0.1:1000")
	b4 = netip.MustParseAddrPort("192.0.2.1:2000")
	a6 = netip.MustParseAddrPort("[2001:db8::1]:1000")
	b6 = netip.MustParseAddrPort("[2001:db8::2]:2000")
)

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// withOptions puts IP options into an IPv4 packet.
func withOptions(pkt, opts []byte) []byte {
	b := append(append(bytes.Clone(pkt[:20]), opts...), pkt[20:]...)
	b[0] += byte(len(opts) / 4)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:20+len(opts)]))
	return b
}

// parts cuts pkt, and fails the test if a part is not what it should be.
func parts(t *testing.T, pkt []byte, mtu int) (all [][]byte) {
	t.Helper()
	var p, q Packet
	if err := p.Decode(pkt); err != nil {
		t.Fatal(err)
	}
	for from := 0; ; {
		part, next := p.AppendPart(nil, mtu, from)
		if err := q.Decode(part); err != nil || !q.HeaderOK() || len(part) > mtu || q.Headless != (p.Headless || from > 0) || q.Src.Addr() != p.Src.Addr() {
			t.Fatalf("part at %d: %x, %v", from, part, err)
		}
		all = append(all, part)
		if next == 0 {
			return all
		}
		from = next
	}
}

// join is what a receiver makes of parts, in whatever order.
func join(t *testing.T, parts [][]byte) []byte {
	t.Helper()
	var p Packet
	var whole, header []byte
	got := 0
	for _, part := range parts {
		p.Decode(part)
		_, offset, _ := p.Part()
		whole = append(whole, make([]byte, max(0, offset+p.PartLen()-len(whole)))...)
		got += copy(whole[offset:], p.Transport())
		if offset == 0 {
			header = part[:p.l4]
		}
	}
	if got != len(whole) {
		t.Fatalf("%d of %d bytes", got, len(whole))
	}
	b := append(bytes.Clone(header), whole...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[6] &^= moreParts4 >> 8
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:len(header)]))
	return b
}

func TestPartsMakeTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		pkt := AppendUDP(nil, a4, b4, 64, randomBytes(r, r.IntN(4000)))
		pkt[6] = 0 // may be cut
		pkt[10], pkt[11] = 0, 0
		binary.BigEndian.PutUint16(pkt[10:], ^slowSum(pkt[:20]))
		if r.IntN(2) == 0 {
			pkt = withOptions(pkt, []byte{7, 3, 4, 0x94, 4, 0, 0, 0}) // record route, router alert
		}
		once := parts(t, pkt, 68+r.IntN(1500))
		var twice [][]byte
		for _, part := range once {
			twice = append(twice, parts(t, part, 68+r.IntN(200))...)
		}
		for _, all := range [][][]byte{once, twice} {
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			if got := join(t, all); !bytes.Equal(got, pkt) {
				t.Fatalf("joined to %x\nfrom %x", got, pkt)
			}
		}
	}
}

// RFC 791: an option without the copy flag goes with the first part alone.
func TestOptionsOfParts(t *testing.T) {
	pkt := withOptions(AppendUDP(nil, a4, b4, 64, make([]byte, 200)), []byte{7, 3, 4, 0x94, 4, 0, 0, 0})
	all := parts(t, pkt, 100)
	if len(all) < 3 {
		t.Fatalf("%d parts", len(all))
	}
	for i, part := range all {
		want := []byte{0x94, 4, 0, 0}
		if i == 0 {
			want = pkt[20:28]
		}
		if got := part[20 : int(part[0]&15)*4]; !bytes.Equal(got, want) {
			t.Errorf("part %d has options %x", i, got)
		}
	}
}

// The first part has ports, and the checksum follows them although most of
// what it is over is elsewhere.
func TestEditOfFirstPart(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, pkt := range [][]byte{
		AppendUDP(nil, a4, b4, 64, randomBytes(r, 500)),
		AppendTCP(nil, a4, b4, 64, &Segment{Flags: ACK, Payload: randomBytes(r, 500)}),
		AppendEcho(nil, a4.Addr(), b4.Addr(), 64, EchoRequest, 1000, 1, randomBytes(r, 500)),
	} {
		to := netip.MustParseAddrPort("198.51.100.7:4711")
		all := parts(t, pkt, 108)
		for i, part := range all {
			var p Packet
			p.Decode(part)
			if (p.Src.Port() == 1000) != (i == 0) {
				t.Errorf("%v: part %d is from %v", p.Proto, i, p.Src)
			}
			p.SetSrc(to)
			p.DecrementTTL()
		}
		var p Packet
		if err := p.Decode(join(t, all)); err != nil || !p.ChecksumOK() || p.Src != to {
			t.Errorf("%v: joined to one from %v, %v", p.Proto, p.Src, err)
		}
	}
}

// RFC 1858, RFC 3128, RFC 7112, and what no reassembly survived once.
func TestBadParts(t *testing.T) {
	tcp := AppendTCP(nil, a4, b4, 64, &Segment{Flags: SYN, Payload: make([]byte, 100)})
	part := func(offset int, more bool, n int) []byte {
		b := bytes.Clone(tcp[:20+n])
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		w := uint16(offset / 8)
		if more {
			w |= moreParts4
		}
		binary.BigEndian.PutUint16(b[6:], w)
		return b
	}
	for _, c := range []struct {
		what string
		pkt  []byte
		want error
	}{
		{"a good one", part(0, true, 24), nil},
		{"a later one", part(24, true, 24), nil},
		{"flags in the second", part(0, true, 8), ErrTruncated},
		{"options in the second", part(0, true, 16), ErrTruncated},
		{"over the flags", part(8, true, 24), ErrHeader},
		{"an odd length", part(16, true, 23), ErrHeader},
		{"an odd last length", part(16, false, 23), nil},
		{"over the end", part(65528, false, 24), ErrHeader},
		{"nothing", part(16, true, 0), ErrHeader},
	} {
		var p Packet
		if err := p.Decode(c.pkt); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

func TestParts6(t *testing.T) {
	udp := AppendUDP(nil, a6, b6, 64, make([]byte, 100))
	part := func(offset uint16, more bool, n int) []byte {
		b := append(bytes.Clone(udp[:40]), protoUDP, 0, byte(offset>>8), byte(offset), 1, 2, 3, 4)
		if more {
			b[43]++
		}
		b = append(b, udp[40+offset:][:n]...)
		b[6] = protoFragment
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		return b
	}
	var p Packet
	if err := p.Decode(part(0, true, 56)); err != nil || !p.Fragment || p.Headless || p.Src != a6 || p.Proto != UDP || p.PartLen() != 56 {
		t.Errorf("first part: %+v, %v", p, err)
	}
	if err := p.Decode(part(56, false, 52)); err != nil || !p.Headless || p.Src.Port() != 0 {
		t.Errorf("last part: %+v, %v", p, err)
	}
	if id, offset, more := p.Part(); id != 0x01020304 || offset != 56 || more {
		t.Errorf("last part: %#x at %d, more %v", id, offset, more)
	}
	// RFC 6946: an atomic fragment is a whole packet.
	if err := p.Decode(part(0, false, 108)); err != nil || p.Fragment || p.Src != a6 || !p.ChecksumOK() {
		t.Errorf("atomic part: %+v, %v", p, err)
	}
	twice := part(0, true, 56)
	twice[40] = protoFragment
	if err := p.Decode(twice); !errors.Is(err, ErrHeader) {
		t.Errorf("two fragment headers: %v", err)
	}
}

// A large packet is cut as the builders would have built the pieces.
func TestSegmentsAreAsBuilt(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		src, dst := a4, b4
		if r.IntN(2) == 0 {
			src, dst = a6, b6
		}
		payload := randomBytes(r, 1+r.IntN(5000))
		size := 1 + r.IntN(1400)
		tcp := r.IntN(2) == 0
		seg := Segment{Seq: r.Uint32(), Ack: 7, Flags: ACK | PSH | FIN | CWR, Window: 9, Options: []byte{1, 1, 1, 0}, Payload: payload}
		var p Packet
		if tcp {
			p.Decode(AppendTCP(nil, src, dst, 64, &seg))
		} else {
			p.Decode(AppendUDP(nil, src, dst, 64, payload))
		}
		unfinish(&p)
		for from := 0; ; {
			got, next := p.AppendSegment(nil, size, from)
			piece := payload[from:min(len(payload), from+size)]
			var want []byte
			if tcp {
				s := seg
				s.Seq += uint32(from)
				s.Payload = piece
				if next != 0 {
					s.Flags &^= FIN | PSH
				}
				if from != 0 {
					s.Flags &^= CWR
				}
				want = AppendTCP(nil, src, dst, 64, &s)
			} else {
				want = AppendUDP(nil, src, dst, 64, piece)
			}
			if src.Addr().Is4() { // numbered
				binary.BigEndian.PutUint16(want[4:], uint16(from/size))
				want[10], want[11] = 0, 0
				binary.BigEndian.PutUint16(want[10:], ^slowSum(want[:20]))
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("tcp %v, %d from %d:\n     %x,\nwant %x", tcp, size, from, got, want)
			}
			if next == 0 {
				break
			}
			from = next
		}
	}
}

// unfinish leaves the checksum to a device.
func unfinish(p *Packet) {
	proto := uint8(protoUDP)
	if p.Proto == TCP {
		proto = protoTCP
	}
	binary.BigEndian.PutUint16(p.Data[p.sum:], uint16(p.pseudoSum(proto, len(p.segment()))))
	p.Partial = true
}
