package ip

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// With the checksum left to a device, edits follow the pseudo-header alone.
func TestEditsOfUnfinishedChecksums(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		src, dst := randomEndpoint(r, true), randomEndpoint(r, true)
		payload := randomBytes(r, r.IntN(50))
		pkt := AppendUDP(nil, src, dst, 64, payload)
		if r.IntN(2) == 0 {
			pkt = AppendTCP(nil, src, dst, 64, &Segment{Seq: r.Uint32(), Flags: SYN, Payload: payload})
		}
		var p Packet
		p.Decode(pkt)
		unfinish(&p)
		p.SetSrc(randomEndpoint(r, true))
		p.SetDst(randomEndpoint(r, true))
		if p.Proto == TCP {
			p.SetSeq(r.Uint32())
			p.SetAck(r.Uint32())
		}
		if len(payload) > 3 {
			p.Overwrite(len(p.Transport())-3, []byte{1, 2, 3})
		}
		p.FinishChecksum()
		if !p.ChecksumOK() || p.Partial {
			t.Fatalf("finished wrong: %x", pkt)
		}
	}
}

func TestNumbers(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, pad := range []int{0, 1, 2, 3} { // blocks at odd offsets too
		sack := append(bytes.Repeat([]byte{1}, pad), OptionSACK, 18)
		for i := range uint32(4) {
			sack = binary.BigEndian.AppendUint32(sack, 1000+i)
		}
		for len(sack)%4 != 0 {
			sack = append(sack, 1)
		}
		for range 1000 {
			pkt := AppendTCP(nil, a4, b4, 64, &Segment{Seq: r.Uint32(), Ack: r.Uint32(), Flags: ACK, Options: sack, Payload: randomBytes(r, r.IntN(9))})
			var p Packet
			p.Decode(pkt)
			seq, ack, shift := p.Seq(), p.Ack(), r.Uint32()
			p.SetSeq(seq + shift)
			p.SetAck(ack - shift)
			p.MapSACK(func(v uint32) uint32 { return v + shift })
			var s Segment
			p.Segment(&s)
			if !p.ChecksumOK() || s.Seq != seq+shift || s.Ack != ack-shift || p.Window() != s.Window {
				t.Fatalf("became %+v", s)
			}
			for i := range uint32(4) {
				if got := binary.BigEndian.Uint32(s.Options[pad+2+4*int(i):]); got != 1000+i+shift {
					t.Fatalf("edge %d became %d", i, got)
				}
			}
		}
	}
}

func TestNextOption(t *testing.T) {
	opts := []byte{1, 2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 0, 9, 9}
	var got []byte
	for len(opts) > 0 {
		kind, value, rest := NextOption(opts)
		got = append(append(got, kind), value...)
		opts = rest
	}
	if want := []byte{2, 5, 180, 3, 7, 4, 0}; !bytes.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, bad := range [][]byte{{3}, {3, 0}, {3, 1, 0}, {3, 9, 0}} {
		if kind, _, rest := NextOption(bad); kind != 0 || rest != nil {
			t.Errorf("%v has option %d", bad, kind)
		}
	}
}

func TestAppendReset(t *testing.T) {
	for _, c := range []struct {
		in   Segment
		want Segment
	}{
		{Segment{Seq: 10, Flags: SYN}, Segment{Ack: 11, Flags: RST | ACK}},
		{Segment{Seq: 10, Flags: SYN, Payload: []byte("abc")}, Segment{Ack: 14, Flags: RST | ACK}},
		{Segment{Seq: 10, Ack: 20, Flags: SYN | ACK}, Segment{Seq: 20, Flags: RST}},
		{Segment{Seq: 10, Ack: 20, Flags: FIN | ACK}, Segment{Seq: 20, Flags: RST}},
	} {
		for _, ends := range [][2]netip.AddrPort{{a4, b4}, {a6, b6}} {
			var p, q Packet
			p.Decode(AppendTCP(nil, ends[0], ends[1], 64, &c.in))
			if err := q.Decode(AppendReset(nil, &p)); err != nil || !q.ChecksumOK() || q.Src != ends[1] || q.Dst != ends[0] {
				t.Fatalf("%+v: %v", c.in, err)
			}
			var got Segment
			q.Segment(&got)
			if got.Seq != c.want.Seq || got.Ack != c.want.Ack || got.Flags != c.want.Flags {
				t.Errorf("%+v is answered by %+v", c.in, got)
			}
			if again := AppendReset(nil, &q); again != nil {
				t.Error("an RST is answered by an RST")
			}
		}
	}
}

// Another payload leaves a right checksum right, a wrong one wrong, and none
// none.
func TestAppendWith(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 5000 {
		v4 := r.IntN(2) == 0
		src, dst := randomEndpoint(r, v4), randomEndpoint(r, v4)
		old, payload := randomBytes(r, r.IntN(60)), randomBytes(r, r.IntN(60))
		seg := Segment{Seq: 5, Flags: ACK, Options: []byte{1, 1, 1, 1}, Payload: old}
		pkt := AppendUDP(nil, src, dst, 64, old)
		tcp := r.IntN(2) == 0
		if tcp {
			pkt = AppendTCP(nil, src, dst, 64, &seg)
		}
		var p, q Packet
		p.Decode(pkt)
		wrong, none := false, false
		switch r.IntN(4) {
		case 0:
			unfinish(&p)
		case 1:
			wrong = true
			p.Data[p.sum] ^= 1
		case 2:
			if none = !tcp && v4; none {
				p.Data[p.sum], p.Data[p.sum+1] = 0, 0
			}
		}
		if wrong && p.ChecksumOK() {
			continue // it became "none"
		}
		if err := q.Decode(p.AppendWith(nil, payload)); err != nil || q.ChecksumOK() == wrong || !bytes.Equal(q.Payload(), payload) {
			t.Fatalf("%x\nbecame %x: %v", p.Data, q.Data, err)
		}
		if none != (!tcp && q.Data[q.sum]|q.Data[q.sum+1] == 0) {
			t.Fatalf("checksum %x", q.Data[q.sum:q.sum+2])
		}
	}
}

func TestUnanswerable(t *testing.T) {
	udp := func(src, dst string) []byte {
		return AppendUDP(nil, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), 64, make([]byte, 100))
	}
	later := udp("10.0.0.1:1", "192.0.2.1:2")
	later[7] = 9
	redirect := AppendEcho(nil, a4.Addr(), b4.Addr(), 64, EchoRequest, 1, 1, nil)
	redirect[20] = 5
	for what, pkt := range map[string][]byte{
		"broadcast":            udp("10.0.0.1:1", "255.255.255.255:2"),
		"multicast":            udp("10.0.0.1:1", "224.0.0.1:2"),
		"from broadcast":       udp("255.255.255.255:1", "192.0.2.1:2"),
		"from nowhere":         udp("0.0.0.0:1", "192.0.2.1:2"),
		"from loopback":        udp("127.0.0.1:1", "192.0.2.1:2"),
		"from multicast":       udp("224.0.0.1:1", "192.0.2.1:2"),
		"IPv6 multicast":       udp("[2001:db8::1]:1", "[ff02::1]:2"),
		"a later part":         later,
		"a redirect":           redirect,
		"an error":             AppendError(nil, b4.Addr(), PortUnreachable, udp("10.0.0.1:1", "192.0.2.1:2")),
		"an IPv6 error":        AppendError(nil, b6.Addr(), PortUnreachable, udp("[2001:db8::1]:1", "[2001:db8::2]:2")),
		"a truncated one":      later[:30],
		"neighbour redirected": append(AppendEcho(nil, a6.Addr(), b6.Addr(), 64, EchoRequest, 1, 1, nil)[:40], 137, 0, 0, 0, 0, 0, 0, 0),
	} {
		if b := AppendError(nil, b4.Addr(), HostUnreachable, pkt); b != nil {
			t.Errorf("%s is answered by %x", what, b)
		}
	}
}

func TestTooBigNamesMTU(t *testing.T) {
	for _, ends := range [][2]netip.AddrPort{{a4, b4}, {a6, b6}} {
		pkt := AppendUDP(nil, ends[0], ends[1], 64, make([]byte, 2000))
		var p Packet
		if err := p.Decode(AppendTooBig(nil, ends[1].Addr(), 1400, pkt)); err != nil || !p.ChecksumOK() || p.MTU() != 1400 {
			t.Errorf("%v: MTU %d, %v", ends[0], p.MTU(), err)
		}
		if c, ok := p.Cause(); c != TooBig || !ok {
			t.Errorf("cause %v", c)
		}
	}
}
