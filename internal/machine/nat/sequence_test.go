package nat

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

var rewrites = Behaviour{TCP: TCP{RewriteSequence: true, CheckWindow: true}}

func TestRewriteSequence(t *testing.T) {
	w := newWire(t, rewrites)
	got, _ := w.out(ip.Segment{Seq: 1000, Flags: syn})
	shift := got.Seq - 1000
	if shift == 0 {
		t.Fatal("the number was kept")
	}
	if got, _ = w.out(ip.Segment{Seq: 1000, Flags: syn}); got.Seq != 1000+shift {
		t.Errorf("sent again, the SYN has number %d", got.Seq)
	}
	if got, ok := w.in(ip.Segment{Seq: 5000, Ack: 1001 + shift, Flags: synAck}); !ok || got.Ack != 1001 || got.Seq != 5000 {
		t.Errorf("SYN-ACK: %v, %+v", ok, got)
	}
	if got, _ = w.out(ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Payload: bytesOf(100)}); got.Seq != 1001+shift || got.Ack != 5001 {
		t.Errorf("data: %+v", got)
	}
	sack := []byte{1, 1, 5, 10, 0, 0, 0, 0, 0, 0, 0, 0}
	for i, v := range []uint32{1051 + shift, 1101 + shift} {
		sack[4+4*i], sack[5+4*i], sack[6+4*i], sack[7+4*i] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
	}
	if got, _ = w.in(ip.Segment{Seq: 5001, Ack: 1001 + shift, Flags: ack, Options: sack}); string(got.Options[4:]) != "\x00\x00\x04\x1b\x00\x00\x04\x4d" {
		t.Errorf("SACK block %x", got.Options)
	}
	// An error that quotes eight bytes of the segment, and one that quotes all.
	pkt := ip.AppendTCP(nil, w.at, y1, 60, &ip.Segment{Seq: 1001 + shift, Ack: 5001, Flags: ack})
	for _, n := range []int{28, 40} {
		e, v := w.pass(w.Inbound, errorQuoting(ip.TimeExceeded, pkt, n))
		var q ip.Packet
		if err := e.Quoted(&q); v.Action != Forward || err != nil || q.Seq() != 1001 || q.Src != x || n == 40 && q.Ack() != 5001 {
			t.Errorf("error with %d bytes: %+v, quotes %v, %v", n, v, q.Src, err)
		}
	}
	if got, ok := w.in(ip.Segment{Seq: 5001, Ack: 1101 + shift, Flags: rst | ack}); !ok || got.Ack != 1101 {
		t.Errorf("RST: %v, %+v", ok, got)
	}
	if got, ok := w.out(ip.Segment{Seq: 1101, Flags: rst}); !ok || got.Seq != 1101+shift {
		t.Errorf("RST out: %v, %+v", ok, got)
	}

	// Another connection, another number. One from outside keeps its.
	w = newWire(t, rewrites)
	w.leaves(x, y1) // takes the port
	again, _ := w.out(ip.Segment{Seq: 1000, Flags: syn})
	b := rewrites
	b.Filtering = EndpointIndependent
	g := &wire{newBench(t, b), netip.AddrPortFrom(ours, x.Port())}
	g.tcpOut(x, z1, syn)
	g.in(ip.Segment{Seq: 5000, Flags: syn})
	if got, ok := g.out(ip.Segment{Seq: 1000, Ack: 5001, Flags: synAck}); !ok || got.Seq != 1000 {
		t.Errorf("SYN-ACK of the inside: %v, %+v, after %+v", ok, got, again)
	}
}

// errorQuoting is an ICMP error from a router that quotes n bytes.
func errorQuoting(c ip.Cause, pkt []byte, n int) []byte {
	router, src := netip.MustParseAddr("203.0.113.77"), netip.AddrFrom4([4]byte(pkt[12:16]))
	if pkt[0]>>4 == 6 {
		router, src = netip.MustParseAddr("2001:db8:77::1"), netip.AddrFrom16([16]byte(pkt[8:24]))
	}
	e := ip.AppendError(nil, router, c, udpPacket(netip.AddrPortFrom(src, 1), netip.AddrPortFrom(src, 2)))
	e = append(e[:ip.HeaderLen(src)+8], pkt[:n]...)
	if e[0]>>4 == 6 {
		e[4], e[5] = byte((len(e)-40)>>8), byte(len(e)-40)
	} else {
		e[2], e[3] = byte(len(e)>>8), byte(len(e))
		sum(e)
	}
	var p ip.Packet
	if p.Decode(e) == nil {
		p.ResetICMPChecksum()
	}
	return e
}

// A firewall that translates nothing rewrites numbers too, in errors too.
func TestRewriteSequenceIPv6(t *testing.T) {
	g := newBench(t, rewrites)
	pkt := ip.AppendTCP(nil, x6, y6, 64, &ip.Segment{Seq: 1000, Flags: syn})
	p, v := g.pass(g.Outbound, pkt)
	if v.Action != Forward || p.Seq() == 1000 {
		t.Fatalf("%+v, number %d", v, p.Seq())
	}
	e, v := g.pass(g.Inbound, errorQuoting(ip.HostUnreachable, pkt, 48))
	var q ip.Packet
	if err := e.Quoted(&q); v.Action != Forward || err != nil || q.Seq() != 1000 {
		t.Errorf("%+v, %v: quotes number %d", v, err, q.Seq())
	}
}

func TestEdits(t *testing.T) {
	// The stream "....AAAA....BB....", where A became aaaaaaa and B became b.
	var e edits
	e.add(edit{end: 8, grew: 3})
	e.add(edit{end: 18, grew: -1})
	for _, c := range []struct{ sent, received uint32 }{{0, 0}, {4, 4}, {8, 11}, {12, 15}, {16, 19}, {18, 20}, {30, 32}} {
		if got := e.forward(c.sent); got != c.received {
			t.Errorf("%d became %d, want %d", c.sent, got, c.received)
		}
		if got := e.back(c.received); got != c.sent {
			t.Errorf("%d came from %d, want %d", c.received, got, c.sent)
		}
	}
	for ack := uint32(8); ack < 11; ack++ { // within aaaaaaa
		if got := e.back(ack); got != 7 {
			t.Errorf("%d came from %d: not all of it was received", ack, got)
		}
	}
}

// Forward and back are inverse, around zero too, and what is acknowledged was
// always received as a whole.
func TestEditsAreInverse(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var e edits
		start := r.Uint32() * uint32(r.IntN(2))
		at := start
		for range 1 + r.IntN(8) {
			at += 20 + uint32(r.IntN(100))
			e.add(edit{end: at, grew: int32(r.IntN(13) - 6)})
		}
		recent := e[0].end
		last := e.forward(recent)
		inText := func(seq uint32) bool { // the texts have 10 bytes each
			for _, one := range e {
				if before(seq, one.end) && after(seq, one.end-10) {
					return true
				}
			}
			return false
		}
		for seq := recent; seq != at+50; seq++ {
			if inText(seq) {
				continue
			}
			got := e.forward(seq)
			if before(got, last) {
				t.Fatalf("%d became %d, less than the one before", seq, got)
			}
			last = got
			if back := e.back(got); back != seq {
				t.Fatalf("%d became %d, which came from %d", seq, got, back)
			}
		}
		if got := e.back(e.forward(at + 1)); got != at+1 {
			t.Fatalf("%d came back as %d", at+1, got)
		}
	}
}
