package nat

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

func TestTooBig(t *testing.T) {
	g := newSides(t, Config{MTU: [Local]int{Outside: 1400}})
	at := g.leaves(x, y1)
	g.leaves(x6, y6)
	for _, c := range []struct {
		what     string
		from     Side
		src, dst netip.AddrPort
		size     int
		mtu      int // 0: it fits
		speaker  string
	}{
		{"fits", Inside, x, y1, 1400, 0, ""},
		{"one byte more", Inside, x, y1, 1401, 1400, "10.0.0.254"},
		{"IPv6 fits", Inside, x6, y6, 1400, 0, ""},
		{"IPv6", Inside, x6, y6, 1401, 1400, "2001:db8:1::fe"},
		{"in fits", Outside, y1, at, 1500, 0, ""},
		{"in", Outside, y1, at, 1501, 1500, "198.51.100.1"},
		{"in IPv6", Outside, y6, x6, 1501, 1500, "2001:db8:2::fe"},
	} {
		payload := make([]byte, c.size-ip.HeaderLen(c.src.Addr())-8)
		v := g.Handle(g.now, c.from, ip.AppendUDP(nil, c.src, c.dst, 64, payload), Offload{})
		if c.mtu == 0 {
			if v.Action != Forward {
				t.Errorf("%s: %+v", c.what, v)
			}
			g.silent()
			continue
		}
		if v != drop(TooBig) {
			t.Errorf("%s: %+v", c.what, v)
		}
		p := g.said(c.from)
		var q ip.Packet
		if cause, ok := p.Cause(); !ok || cause != ip.TooBig || p.MTU() != c.mtu || p.Src.Addr().String() != c.speaker || p.Dst.Addr() != c.src.Addr() {
			t.Errorf("%s: cause %d, MTU %d, %v > %v", c.what, cause, p.MTU(), p.Src, p.Dst)
		}
		if err := p.Quoted(&q); err != nil || !q.HeaderOK() || q.Src != c.src || q.Dst != c.dst || q.TTL != 64 {
			t.Errorf("%s: quotes %v > %v with a TTL of %d, %v", c.what, q.Src, q.Dst, q.TTL, err)
		}
	}
}

// A changed MTU counts from the next packet on, also on the short way.
func TestSetMTU(t *testing.T) {
	g := newSides(t, Config{})
	g.leaves(x, y1)
	send := func() Verdict {
		return g.Handle(g.now, Inside, ip.AppendUDP(nil, x, y1, 64, make([]byte, 1372)), Offload{})
	}
	for _, c := range []struct {
		mtu  int
		want Verdict
	}{{1399, drop(TooBig)}, {1400, forward(Outside)}, {576, drop(TooBig)}, {0, forward(Outside)}} {
		if err := g.SetMTU(Outside, c.mtu); err != nil {
			t.Fatal(err)
		}
		if v := send(); v != c.want {
			t.Errorf("MTU %d: %+v, want %+v", c.mtu, v, c.want)
		}
		if c.want.Action == Drop {
			if p := g.said(Inside); p.MTU() != c.mtu {
				t.Errorf("told of %d, not of %d", p.MTU(), c.mtu)
			}
		}
	}
	for _, bad := range []error{g.SetMTU(Outside, 67), g.SetMTU(Outside, 65536), g.SetMTU(Outside, -1), g.SetMTU(Local, 1500)} {
		if bad == nil {
			t.Error("a bad MTU was taken")
		}
	}
}

// Without DF, IPv4 is cut.
func TestCutToMTU(t *testing.T) {
	g := newSides(t, Config{MTU: [Local]int{Outside: 576}})
	payload := bytes.Repeat([]byte("bodkin"), 300)
	pkt := ip.AppendUDP(nil, x, y1, 64, payload)
	pkt[6] = 0
	sum(pkt)
	left, to := g.give(Inside, [][]byte{pkt})
	for _, part := range left {
		if len(part) > 576 {
			t.Errorf("a part of %d bytes", len(part))
		}
	}
	if p := whole(t, left); to != Outside || p.Src.Addr() != ours || p.Dst != y1 || p.TTL != 63 || !bytes.Equal(p.Payload(), payload) {
		t.Errorf("%v > %v, TTL %d", p.Src, p.Dst, p.TTL)
	}
}

// The pieces that a large packet will be cut into must fit, not the packet.
func TestMTUOfSegments(t *testing.T) {
	g := newSides(t, Config{MTU: [Local]int{Outside: 1000}})
	payload := make([]byte, 5000)
	for _, df := range []bool{true, false} {
		for _, size := range []int{972, 973} {
			pkt := ip.AppendUDP(nil, x, y1, 64, payload)
			if !df {
				pkt[6] = 0
				sum(pkt)
			}
			v := g.Handle(g.now, Inside, pkt, Offload{Segment: size})
			switch {
			case size == 972:
				if v != forward(Outside) {
					t.Errorf("%d, DF %v: %+v", size, df, v)
				}
				g.silent()
			case df:
				if v != drop(TooBig) {
					t.Errorf("%d, DF %v: %+v", size, df, v)
				}
				g.said(Inside)
			default:
				if v != drop(Kept) {
					t.Errorf("%d, DF %v: %+v", size, df, v)
				}
				got := 0
				for o, ok := g.Poll(); ok; o, ok = g.Poll() {
					var p ip.Packet
					if err := p.Decode(o.Packet); err != nil || len(o.Packet) > 1000 || !p.HeaderOK() {
						t.Fatalf("%d bytes: %v", len(o.Packet), err)
					}
					got += p.PartLen()
				}
				if want := len(payload) + 8*6; got != want {
					t.Errorf("%d bytes came out, want %d", got, want)
				}
			}
		}
	}
}

// The sender gets the numbers back that it sent, or it would not believe it.
func TestTooBigWithOtherNumbers(t *testing.T) {
	b := rewrites
	g := newSides(t, Config{Behaviour: b, MTU: [Local]int{Outside: 1000}})
	g.pass(g.Outbound, ip.AppendTCP(nil, x, y1, 64, &ip.Segment{Seq: 1000, Flags: syn}))
	g.Outbound(g.now, ip.AppendTCP(nil, x, y1, 64, &ip.Segment{Seq: 1000, Flags: syn, Payload: make([]byte, 1200)}))
	e := g.said(Inside)
	var q ip.Packet
	if err := e.Quoted(&q); err != nil || q.Seq() != 1000 || q.Src != x {
		t.Errorf("quotes number %d from %v, %v", q.Seq(), q.Src, err)
	}
}
