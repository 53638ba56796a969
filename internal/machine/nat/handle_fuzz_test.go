package nat

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// behaviourOf draws one of many behaviours.
func behaviourOf(seed uint64) Behaviour {
	bits := seed
	pick := func(n uint64) uint64 {
		v := bits % n
		bits /= n
		return v
	}
	is := func() bool { return pick(2) == 1 }
	b := Behaviour{
		Mapping:     Dependence(pick(3)),
		Filtering:   Dependence(pick(3)),
		Hairpin:     Hairpin(pick(3)),
		Mode:        Mode(pick(3)),
		Fragments:   Fragments(pick(3)),
		ALG:         is(),
		KeepTTL:     is(),
		TCP:         TCP{RefuseSYN: is(), RefuseSYNACK: is(), RefuseSYNACKOut: is(), RSTCloses: is(), ICMPCloses: is(), CheckWindow: is(), RewriteSequence: is()},
		ICMP:        ICMP{DropErrors: pick(8) == 7, NoPing: is(), KeepQuote: is()},
		Unsolicited: Unsolicited{TCP: Answer(pick(4)), Other: Answer(pick(4))},
		Content:     Content{WebOnly: is(), BlockSTUN: is()},
	}
	b.Content.WebOnly = b.Content.WebOnly && b.Mode != Open
	if is() {
		b.Unsolicited.After = 6 * time.Second
	}
	if is() {
		b.Content.Block = []string{"evil", "bad"}
	}
	if is() {
		b.Rules = []Rule{{Action: Reject, Protocol: ip.UDP, DstPorts: []PortRange{{2000, 3000}}}, {Action: Accept, From: SidesOf(Inside)}}
	}
	return b
}

// fuzzed is a gateway with some state, and what has been said of it.
type fuzzed struct {
	*bench
	err func(format string, args ...any)
}

func newFuzzed(t testing.TB, seed uint64) *fuzzed {
	g := newSides(t, Config{Behaviour: behaviourOf(seed), MTU: [Local]int{Outside: 600, Inside: 700}, MaxMappings: 8})
	f := &fuzzed{g, t.Fatalf}
	at := netip.AddrPortFrom(ours, 5000)
	for _, pkt := range [][]byte{
		udpPacket(x, y1), udpPacket(x6, y6),
		ip.AppendTCP(nil, x, y1, 64, &ip.Segment{Seq: 1000, Flags: syn, Options: []byte{4, 2, 3, 3, 2, 1, 1, 1}}),
	} {
		f.handle(Inside, pkt, Offload{})
	}
	f.handle(Outside, ip.AppendTCP(nil, y1, at, 64, &ip.Segment{Seq: 5000, Ack: 1001, Flags: synAck}), Offload{})
	return f
}

// handle holds what must be true of everything that leaves: a right checksum
// does not become wrong, nothing is written behind the packet, and nothing is
// larger than the MTU unless it is to be cut.
func (f *fuzzed) handle(from Side, pkt []byte, off Offload) {
	var p, q ip.Packet
	right := p.Decode(pkt) == nil && p.ChecksumOK()
	if off.PartialSum {
		pkt = bytes.Clone(pkt)
		off.PartialSum = right && unfinish(pkt)
	}
	b := append(bytes.Clone(pkt), 0xaa, 0xaa)
	v := f.Handle(f.now, from, b[:len(pkt)], off)
	if b[len(pkt)] != 0xaa || b[len(pkt)+1] != 0xaa {
		f.err("wrote behind %x", pkt)
	}
	if v.Action == Forward {
		if err := q.Decode(b[:len(pkt)]); err != nil {
			f.err("%x became %x: %v", pkt, b, err)
		}
		q.Partial = off.PartialSum
		if right && !q.ChecksumOK() {
			f.err("%x became %x with a wrong checksum", pkt, b)
		}
		if v.To == Outside && off.Segment == 0 && len(q.Data) > 600 {
			f.err("%d bytes left", len(q.Data))
		}
	}
	f.drain(right)
}

func (f *fuzzed) drain(right bool) {
	var q ip.Packet
	for o, ok := f.Poll(); ok; o, ok = f.Poll() {
		if err := q.Decode(o.Packet); err != nil || !q.HeaderOK() && right {
			f.err("said %x, %v", o.Packet, err)
		}
		if right && !q.ChecksumOK() {
			f.err("said %x with a wrong checksum", o.Packet)
		}
	}
}

// seeds are packets of every kind that matters to the gateway that newFuzzed
// makes.
func fuzzSeeds() (all [][]byte) {
	at := netip.AddrPortFrom(ours, 5000)
	router, router6 := netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("2001:db8:77::1")
	text := []byte("GET 10.0.0.1:5000 198.51.100.1:5000 evil")
	seg := ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Window: 1000, Options: []byte{1, 1, 5, 10, 0, 0, 4, 0, 0, 0, 5, 0}, Payload: text}
	back := seg
	back.Seq, back.Ack = 5001, 1001
	all = [][]byte{
		udpPacket(x, y1), udpPacket(y1, at), udpPacket(x6, y6), udpPacket(y6, x6), udpPacket(x, at), udpPacket(z1, at),
		ip.AppendUDP(nil, x, y1, 64, text), ip.AppendUDP(nil, y1, at, 64, text), ip.AppendUDP(nil, x, y1, 1, text),
		ip.AppendTCP(nil, x, y1, 64, &seg), ip.AppendTCP(nil, y1, at, 64, &back),
		tcpPacket(x, y2, syn), tcpPacket(y2, at, syn), tcpPacket(y1, at, rst), tcpPacket(x6, y6, syn), tcpPacket(x, at, syn),
		ip.AppendEcho(nil, x.Addr(), y1.Addr(), 64, ip.EchoRequest, 1, 1, nil),
		ip.AppendEcho(nil, y1.Addr(), ours, 64, ip.EchoRequest, 1, 1, text),
		ip.AppendEcho(nil, y1.Addr(), ours, 64, ip.EchoReply, 1, 1, text),
		ip.AppendError(nil, router, ip.TimeExceeded, udpPacket(at, y1)),
		ip.AppendError(nil, router, ip.TimeExceeded, ip.AppendTCP(nil, at, y1, 64, &seg)),
		ip.AppendError(nil, x.Addr(), ip.PortUnreachable, udpPacket(y1, x)),
		ip.AppendError(nil, router6, ip.TimeExceeded, tcpPacket(x6, y6, syn)),
	}
	large := ip.AppendUDP(nil, x, y1, 64, bytes.Repeat(text, 30))
	large[6] = 0
	sum(large)
	all = append(all, large)
	var p ip.Packet
	p.Decode(large)
	for next := 0; ; {
		var part []byte
		part, next = p.AppendPart(nil, 400, next)
		all = append(all, part)
		if next == 0 {
			break
		}
	}
	return append(all, cutUp6(ip.AppendUDP(nil, x6, y6, 64, make([]byte, 900)), 7, 400)...)
}

func FuzzHandle(f *testing.F) {
	for i, pkt := range fuzzSeeds() {
		for k := range uint64(4) {
			f.Add(uint64(i)*0x9e3779b97f4a7c15*(k+1), byte(k), pkt)
		}
	}
	f.Fuzz(func(t *testing.T, seed uint64, how byte, pkt []byte) {
		g := newFuzzed(t, seed)
		off := Offload{PartialSum: how&1 != 0}
		if how&2 != 0 {
			off.Segment = 100
		}
		if pkt = bytes.Clone(pkt); how&4 == 0 { // what a sender wrote
			mend(pkt)
		}
		for _, from := range []Side{Inside, Outside, Inside, Local} {
			g.handle(from, pkt, off)
			g.now = g.now.Add(time.Second)
		}
		g.now = g.now.Add(time.Minute)
		g.HandleTimeout(g.now)
		g.drain(false)
	})
}

// Packets of every kind, changed a little or much, in long walks over every
// behaviour.
func TestMutatedPackets(t *testing.T) {
	seeds := fuzzSeeds()
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 7))
		g := newFuzzed(t, r.Uint64())
		for range 200 {
			pkt := bytes.Clone(seeds[r.IntN(len(seeds))])
			for range r.IntN(4) {
				at := r.IntN(len(pkt))
				if r.IntN(2) == 0 {
					at = r.IntN(min(len(pkt), 60))
				}
				switch r.IntN(3) {
				case 0:
					pkt[at] ^= 1 << r.IntN(8)
				case 1:
					pkt[at] = byte(r.Uint32())
				case 2:
					pkt = pkt[:at+1]
				}
			}
			if r.IntN(2) == 0 {
				mend(pkt)
			}
			g.handle(Side(r.IntN(4)), pkt, Offload{PartialSum: r.IntN(8) == 0, Segment: r.IntN(8) / 7 * (1 + r.IntN(500))})
			g.now = g.now.Add(time.Duration(r.IntN(2000)) * time.Millisecond)
			if r.IntN(10) == 0 {
				g.HandleTimeout(g.now)
			}
		}
		if g.tracks.slab.top > 4*8*2+2 {
			t.Errorf("%d tracks", g.tracks.slab.top)
		}
	}
}

// unfinish leaves the checksum of a UDP or TCP packet to a device.
func unfinish(pkt []byte) bool {
	var p ip.Packet
	if p.Decode(pkt) != nil || p.Fragment || p.Proto != ip.UDP && p.Proto != ip.TCP {
		return false
	}
	at, proto := 16, 6
	n := len(p.Transport())
	if p.Proto == ip.UDP {
		at, proto = 6, 17
		n = int(binary.BigEndian.Uint16(p.Transport()[4:]))
	}
	addrs := p.Data[8:40]
	if p.Is4() {
		addrs = p.Data[12:20]
	}
	s := uint32(proto + n)
	for i := 0; i < len(addrs); i += 2 {
		s += uint32(addrs[i])<<8 | uint32(addrs[i+1])
	}
	s = s>>16 + s&0xffff
	binary.BigEndian.PutUint16(p.Transport()[at:], uint16(s>>16+s&0xffff))
	return true
}

// mend makes lengths and checksums right again, as far as it can.
func mend(pkt []byte) {
	if len(pkt) < 20 {
		return
	}
	if pkt[0]>>4 == 4 && int(pkt[0]&15)*4 <= len(pkt) && pkt[0]&15 >= 5 {
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		sum(pkt)
	}
	var p ip.Packet
	if p.Decode(pkt) != nil || p.Fragment {
		return
	}
	if p.Proto == ip.ICMP {
		p.ResetICMPChecksum()
	}
}
