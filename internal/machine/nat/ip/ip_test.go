package ip

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

func randomEndpoint(r *rand.Rand, v4 bool) netip.AddrPort {
	// Extreme words are where ones' complement arithmetic goes wrong.
	var b [16]byte
	for i := 0; i < 16; i += 2 {
		binary.BigEndian.PutUint16(b[i:], [...]uint16{0, 0xffff, uint16(r.Uint32()), uint16(r.Uint32())}[r.IntN(4)])
	}
	port := [...]uint16{1, 0xffff, uint16(r.Uint32()), uint16(r.Uint32())}[r.IntN(4)]
	if v4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:])), port)
	}
	b[0] = 0x20
	return netip.AddrPortFrom(netip.AddrFrom16(b), port)
}

// randomPacket is well formed, of any kind that is built here.
func randomPacket(r *rand.Rand, v4 bool) []byte {
	src, dst := randomEndpoint(r, v4), randomEndpoint(r, v4)
	payload := make([]byte, r.IntN(100))
	for i := range payload {
		payload[i] = byte(r.Uint32()) * byte(r.IntN(2))
	}
	switch r.IntN(5) {
	case 0:
		return AppendUDP(nil, src, dst, 64, payload)
	case 1:
		return AppendTCP(nil, src, dst, 64, &Segment{
			Seq: r.Uint32(), Ack: r.Uint32(), Flags: byte(r.IntN(32)), Window: uint16(r.Uint32()),
			Options: []byte{2, 4, 5, 0xb4}, Payload: payload,
		})
	case 2:
		return AppendEcho(nil, src.Addr(), dst.Addr(), 64, EchoRequest, src.Port(), 7, payload)
	case 3:
		return AppendEcho(nil, src.Addr(), dst.Addr(), 64, EchoReply, dst.Port(), 7, payload)
	}
	return AppendError(nil, randomEndpoint(r, v4).Addr(), PortUnreachable, AppendUDP(nil, src, dst, 64, payload))
}

// slowSum is RFC 1071 to the letter.
func slowSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		if sum += w; sum > 0xffff {
			sum -= 0xffff
		}
	}
	return uint16(sum)
}

func TestSumAgainstSlow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 10000 {
		b := make([]byte, r.IntN(200))
		for i := range b {
			b[i] = [...]byte{0, 0xff, byte(r.Uint32())}[r.IntN(3)]
		}
		if got, want := fold(add(0, b)), slowSum(b); got != want {
			t.Fatalf("sum of %x is %#x, want %#x", b, got, want)
		}
	}
}

func TestEditsKeepChecksums(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 20000 {
		b := randomPacket(r, true)
		if len(b) == 0 {
			continue
		}
		var p, q Packet
		if err := p.Decode(b); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if !p.ChecksumOK() {
			t.Fatalf("built with a wrong checksum: %x", b)
		}
		src, dst := randomEndpoint(r, true), randomEndpoint(r, true)
		p.SetSrc(src)
		p.SetDst(dst)
		p.DecrementTTL()
		if !p.ChecksumOK() {
			t.Fatalf("wrong checksum after edits: %x", b)
		}
		if err := q.Decode(b); err != nil {
			t.Fatal(err)
		}
		if q.Src.Addr() != src.Addr() || q.Dst.Addr() != dst.Addr() || q.TTL != 63 {
			t.Fatalf("edited to %v > %v, TTL %d", q.Src, q.Dst, q.TTL)
		}
		if q.Proto != ICMP && (q.Src != src || q.Dst != dst) ||
			q.Kind == EchoRequest && q.Src != src || q.Kind == EchoReply && q.Dst != dst {
			t.Fatalf("edited to %v > %v, want %v > %v", q.Src, q.Dst, src, dst)
		}
	}
}

// A changed bit never goes unnoticed.
func TestChecksumDetectsDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 10000 {
		b := randomPacket(r, r.IntN(2) == 0)
		var p Packet
		if len(b) == 0 || p.Decode(b) != nil {
			continue
		}
		i := p.l4 + r.IntN(len(b)-p.l4)
		if p.Proto == UDP && (i == p.l4+4 || i == p.l4+5) {
			continue // then it is another length of packet
		}
		b[i] ^= 1 << r.IntN(8)
		if p.Proto == UDP && p.Is4() && b[p.sum] == 0 && b[p.sum+1] == 0 {
			continue // "no checksum"
		}
		if p.ChecksumOK() {
			t.Fatalf("flipped a bit of byte %d unnoticed: %x", i, b)
		}
	}
}

func TestUDPWithoutChecksumStaysWithout(t *testing.T) {
	b := AppendUDP(nil, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("192.0.2.1:2"), 64, []byte("x"))
	b[26], b[27] = 0, 0
	var p Packet
	p.Decode(b)
	p.SetSrc(netip.MustParseAddrPort("198.51.100.1:3"))
	if b[26] != 0 || b[27] != 0 || !p.ChecksumOK() {
		t.Errorf("checksum became %x", b[26:28])
	}
}

// Zero says that there is no checksum: one that comes to zero is sent as ones
// (RFC 768).
func TestUDPChecksumIsNeverZero(t *testing.T) {
	b := AppendUDP(nil, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("192.0.2.1:2"), 64, []byte("x"))
	var p Packet
	p.Decode(b)
	for port := range 1 << 16 {
		p.SetSrc(netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(port)))
		if b[26] == 0 && b[27] == 0 || !p.ChecksumOK() {
			t.Fatalf("port %d: checksum %x", port, b[26:28])
		}
	}
}

// Another implementation builds the same bytes.
func TestBuildAgainstGopacket(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 2000 {
		v4 := r.IntN(2) == 0
		src, dst := randomEndpoint(r, v4), randomEndpoint(r, v4)
		payload := make([]byte, r.IntN(50))
		for i := range payload {
			payload[i] = byte(r.Uint32())
		}
		seg := Segment{Seq: r.Uint32(), Ack: r.Uint32(), Flags: SYN | ACK, Window: 1234, Payload: payload}

		var ipLayer gopacket.SerializableLayer
		var nl gopacket.NetworkLayer
		number := func(p layers.IPProtocol) {
			if v4 {
				l := &layers.IPv4{Version: 4, TTL: 64, Flags: layers.IPv4DontFragment, Protocol: p, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
				ipLayer, nl = l, l
			} else {
				l := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: p, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
				ipLayer, nl = l, l
			}
		}
		check := func(what string, got []byte, l ...gopacket.SerializableLayer) {
			t.Helper()
			buf := gopacket.NewSerializeBuffer()
			all := append([]gopacket.SerializableLayer{ipLayer}, l...)
			if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append(all, gopacket.Payload(payload))...); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(buf.Bytes(), got) {
				t.Fatalf("%s\n     %x,\nwant %x", what, got, buf.Bytes())
			}
		}

		number(layers.IPProtocolUDP)
		u := &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
		u.SetNetworkLayerForChecksum(nl)
		got := AppendUDP(nil, src, dst, 64, payload)
		if sums := HeaderLen(src.Addr()) + 6; got[sums] == 0xff && got[sums+1] == 0xff {
			continue // gopacket leaves it zero
		}
		check("UDP", got, u)

		number(layers.IPProtocolTCP)
		c := &layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), Seq: seg.Seq, Ack: seg.Ack, SYN: true, ACK: true, Window: 1234}
		c.SetNetworkLayerForChecksum(nl)
		check("TCP", AppendTCP(nil, src, dst, 64, &seg), c)

		if v4 {
			number(layers.IPProtocolICMPv4)
			check("echo", AppendEcho(nil, src.Addr(), dst.Addr(), 64, EchoRequest, 5, 6, payload),
				&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 5, Seq: 6})
		}
	}
}

func TestErrorsQuote(t *testing.T) {
	for _, ends := range [][3]string{
		{"10.0.0.1:1000", "192.0.2.1:2000", "203.0.113.9"},
		{"[2001:db8::1]:1000", "[2001:db8::2]:2000", "2001:db8::9"},
	} {
		src, dst := netip.MustParseAddrPort(ends[0]), netip.MustParseAddrPort(ends[1])
		for _, cause := range []Cause{PortUnreachable, HostUnreachable, TimeExceeded, AdminProhibited, TooBig} {
			pkt := AppendTCP(nil, src, dst, 64, &Segment{Flags: SYN, Payload: make([]byte, 1400)})
			b := AppendError(nil, netip.MustParseAddr(ends[2]), cause, pkt)
			var p, q Packet
			if err := p.Decode(b); err != nil || !p.ChecksumOK() || p.Kind != Error {
				t.Fatalf("%v: %v, kind %v", cause, err, p.Kind)
			}
			if got, ok := p.Cause(); !ok || got != cause {
				t.Errorf("cause %v became %v", cause, got)
			}
			if err := p.Quoted(&q); err != nil || q.Src != src || q.Dst != dst || q.Proto != TCP {
				t.Errorf("quotes %v > %v, %v", q.Src, q.Dst, err)
			}
			if again := AppendError(nil, src.Addr(), cause, b); again != nil {
				t.Error("an error was answered by an error")
			}
		}
	}
}

// derive makes all the packets that are made from one, and decodes them.
func derive(t *testing.T, p *Packet, ok bool) {
	var q Packet
	check := func(what string, b []byte, sums bool) {
		if b == nil {
			return
		}
		if err := q.Decode(b); err != nil || sums && !q.ChecksumOK() {
			t.Fatalf("%s: %x: %v", what, b, err)
		}
	}
	check("error", AppendError(nil, p.Dst.Addr(), TimeExceeded, p.Data), true)
	if p.Kind == EchoRequest {
		check("pong", AppendPong(nil, p), true)
	}
	if (p.Proto == UDP || p.Proto == TCP) && !p.Fragment {
		check("other payload", p.AppendWith(nil, []byte("abc")), ok)
		for next := 0; ; {
			var b []byte
			b, next = p.AppendSegment(nil, 100, next)
			check("segment", b, ok)
			if next == 0 {
				break
			}
		}
	}
	if p.Is4() {
		for next := 0; ; {
			var b []byte
			b, next = p.AppendPart(nil, 128, next)
			if q.Decode(b) == nil && !q.HeaderOK() {
				t.Fatalf("part: %x", b)
			}
			if next == 0 {
				break
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 40 {
		f.Add(randomPacket(r, r.IntN(2) == 0))
	}
	f.Add([]byte{0x60, 0, 0, 0, 0, 16, 0, 1, 44, 1, 0})
	to := netip.MustParseAddrPort("198.51.100.7:65535")
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, q Packet
		if p.Decode(b) != nil {
			return
		}
		if !p.Src.IsValid() || !p.Dst.IsValid() || len(p.Data) > len(b) {
			t.Fatalf("decoded to %+v", p)
		}
		ok := p.ChecksumOK()
		p.Payload()
		p.TCPFlags()
		p.Cause()
		if p.Quoted(&q) == nil {
			q.Payload()
			q.TCPFlags()
			q.ChecksumOK()
			if q.Is4() {
				q.SetSrc(to)
				q.SetDst(to)
				p.ResetICMPChecksum()
			}
		}
		if p.Is4() {
			p.SetSrc(to)
			p.SetDst(to)
		}
		if p.TTL > 0 {
			p.DecrementTTL()
		}
		if p.Proto == TCP && !p.Headless {
			p.SetSeq(p.Seq() + 1)
			p.SetAck(p.Ack() + 1)
			p.MapSACK(func(v uint32) uint32 { return v + 1 })
			AppendReset(nil, &p)
		}
		if ok && !p.ChecksumOK() {
			t.Fatal("edits broke the checksum")
		}
		derive(t, &p, ok)
		if err := q.Decode(p.Data); err != nil || q.Proto != p.Proto || q.Kind != p.Kind {
			t.Fatalf("edits broke the packet: %v", err)
		}
	})
}

// What a gateway does to a packet, without its tables.
func BenchmarkTranslate(b *testing.B) {
	pkt := AppendUDP(nil, a4, b4, 64, make([]byte, 18))
	buf := make([]byte, len(pkt))
	to := netip.MustParseAddrPort("198.51.100.7:4711")
	var p Packet
	for b.Loop() {
		copy(buf, pkt)
		if p.Decode(buf) != nil {
			b.Fatal()
		}
		p.SetSrc(to)
		p.DecrementTTL()
	}
}
