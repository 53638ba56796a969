package nat

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// The automaton finds what a plain search finds, wherever the text is cut.
func TestPatternsAgainstSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	letters := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab"[r.IntN(2)]
		}
		return string(b)
	}
	found := 0
	for range 3000 {
		var patterns []string
		for range 1 + r.IntN(4) {
			patterns = append(patterns, letters(1+r.IntN(7)))
		}
		f, err := compileContent(Content{Block: patterns})
		if err != nil {
			t.Fatal(err)
		}
		text := letters(r.IntN(20))
		state, got := uint16(0), false
		for rest := text; rest != "" && !got; {
			n := 1 + r.IntN(len(rest))
			state, got = f.scan(state, []byte(rest[:n]))
			rest = rest[n:]
		}
		want := slices.ContainsFunc(patterns, func(p string) bool { return strings.Contains(text, p) })
		if got != want {
			t.Fatalf("%q in %q: %v", patterns, text, got)
		}
		if got {
			found++
		}
	}
	if found < 1000 || found > 2900 {
		t.Errorf("%d of 3000 had one: the test says nothing", found)
	}
}

func TestNewRefusesPatterns(t *testing.T) {
	for _, p := range []string{"", strings.Repeat("x", maxPatterns+1)} {
		if _, err := compileContent(Content{Block: []string{p}}); err == nil {
			t.Errorf("%.10q was taken", p)
		}
	}
}

func TestBlockPatterns(t *testing.T) {
	g := newBench(t, Behaviour{Content: Content{Block: []string{"BitTorrent", "\x00\x01evil"}}})
	for payload, want := range map[string]Reason{
		"fine":                 None,
		"19 BitTorrent proto":  BadContent,
		"BitTorren":            None,
		"t":                    None, // datagrams are each for themselves
		"\x00\x01\x00\x01evil": BadContent,
	} {
		if v := g.Outbound(g.now, ip.AppendUDP(nil, x, y1, 64, []byte(payload))); v.Reason != want {
			t.Errorf("%q: %+v", payload, v)
		}
	}
	// A first packet that is blocked leaves nothing.
	g = newBench(t, Behaviour{Content: Content{Block: []string{"evil"}}})
	g.Outbound(g.now, ip.AppendUDP(nil, x, y1, 64, []byte("evil")))
	if s := g.Stats(); s.Mappings+s.Sessions != 0 {
		t.Errorf("left %+v", s)
	}
	// Nor does it come in.
	at := g.leaves(x, y1)
	if v := g.Inbound(g.now, ip.AppendUDP(nil, y1, at, 64, []byte("an evil one"))); v.Reason != BadContent {
		t.Errorf("in: %+v", v)
	}
}

// Across the segments of a connection, in either direction, also when some
// are sent again.
func TestBlockAcrossSegments(t *testing.T) {
	w := newWire(t, Behaviour{Content: Content{Block: []string{"forbidden"}}})
	w.steps(open(0, 0)...)
	data := func(what string, out bool, at uint32, text string, pass bool) step {
		s := step{what, out, ip.Segment{Seq: 1001 + at, Ack: 5001, Flags: ack, Payload: []byte(text)}, pass}
		if !out {
			s.seg.Seq, s.seg.Ack = 5001+at, 1001
		}
		return s
	}
	w.steps(
		data("first", true, 0, "this is for", true),
		data("again", true, 0, "this is for", true),
		data("the other way is another stream", false, 0, "bidden", true),
		data("the rest", true, 11, "bidden", false),
		data("the rest again", true, 11, "bidden", false),
		data("something else", true, 11, "ever", true),
		data("forbi", false, 6, "forbi", true),
		data("dden", false, 11, "dden", false),
		data("sent again as one", false, 6, "forbidden", false),
		data("alone", false, 1000, "forbidden", false),
	)
}

func TestBlockSTUN(t *testing.T) {
	g := newBench(t, Behaviour{Content: Content{BlockSTUN: true}})
	msg := []byte{0, 1, 0, 4, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0}
	change := func(i int, b byte) []byte {
		c := bytes.Clone(msg)
		c[i] = b
		return c
	}
	for _, c := range []struct {
		what string
		b    []byte
		want Reason
	}{
		{"STUN", msg, BadContent},
		{"QUIC", change(0, 0xc0), None},
		{"no cookie", change(4, 0), None},
		{"an odd length", change(3, 3), None},
		{"longer than the packet", change(3, 8), None},
		{"truncated", msg[:19], None},
	} {
		if v := g.Outbound(g.now, ip.AppendUDP(nil, x, y1, 64, c.b)); v.Reason != c.want {
			t.Errorf("%s: %+v", c.what, v)
		}
	}
	frame := func(b []byte) []byte { return append([]byte{0, byte(len(b))}, b...) }
	channel := []byte{0x40, 1, 0, 3, 'a', 'b', 'c', 0}
	for _, c := range []struct {
		what string
		b    []byte
		pass bool
	}{
		{"over TCP", msg, false},
		{"the beginning of one", msg[:20], false},
		{"in a frame", frame(msg), false},
		{"in the second frame", append(frame([]byte("RTP")), frame(msg)...), false},
		{"behind channel data", append(bytes.Clone(channel), msg...), false},
		{"channel data", bytes.Repeat(channel, 5), true},
		{"frames", bytes.Repeat(frame([]byte("RTP")), 9), true},
		{"empty frames", make([]byte, 1000), true},
		{"a frame that goes on", append([]byte{5, 0}, make([]byte, 100)...), true},
		{"text", []byte("The quick brown fox jumps over the lazy dog."), true},
	} {
		w := newWire(t, Behaviour{Content: Content{BlockSTUN: true}})
		w.steps(open(0, 0)...)
		w.steps(step{c.what, true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Payload: c.b}, c.pass})
	}
}

func TestWebOnly(t *testing.T) {
	hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
	type data struct {
		out  bool
		text string
		pass bool
	}
	for _, c := range []struct {
		what string
		port uint16
		data []data
	}{
		{"HTTP", 80, []data{{true, "GET / HTTP/1.1\r\n", true}, {false, "HTTP/1.1 200 OK\r\n", true}, {true, "anything", true}}},
		{"HTTP in pieces", 80, []data{{true, "OPT", true}, {false, "x", false}, {true, "IONS", true}, {true, " ", true}, {false, "x", true}}},
		{"a method that is none", 80, []data{{true, "GOT / HTTP/1.1\r\n", false}}},
		{"it turns out to be none", 80, []data{{true, "GE", true}, {true, "M ", false}}},
		{"TLS to the HTTP port", 80, []data{{true, hello, false}}},
		{"a server that speaks first", 80, []data{{false, "220 ready\r\n", false}}},
		{"TLS", 443, []data{{true, hello, true}, {false, "\x16\x03\x03", true}, {true, "\x17\x03\x03", true}}},
		{"TLS in pieces", 443, []data{{true, hello[:1], true}, {true, hello[1:5], true}, {false, "x", false}, {true, hello[5:], true}, {false, "x", true}}},
		{"HTTP to the TLS port", 443, []data{{true, "GET / HTTP/1.1\r\n", false}}},
		{"SSH to the TLS port", 443, []data{{true, "SSH-2.0-x\r\n", false}, {false, "SSH-2.0-y\r\n", false}}},
		{"a TLS alert", 443, []data{{true, "\x15\x03\x01\x00\x02\x01\x00", false}}},
		{"a ServerHello", 443, []data{{true, "\x16\x03\x01\x02\x00\x02", false}}},
		{"another port", 22, []data{{false, "SSH-2.0-x\r\n", true}, {true, "anything", true}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			g := newBench(t, Behaviour{Content: Content{WebOnly: true}})
			server := netip.AddrPortFrom(y1.Addr(), c.port)
			pass := func(out bool, s ip.Segment) bool {
				pkt, from := ip.AppendTCP(nil, x, server, 64, &s), Inside
				if !out {
					pkt, from = ip.AppendTCP(nil, server, ep("198.51.100.1:5000"), 64, &s), Outside
				}
				return g.Handle(g.now, from, pkt, Offload{}).Action == Forward
			}
			if !pass(true, ip.Segment{Seq: 1000, Flags: syn}) || !pass(false, ip.Segment{Seq: 5000, Ack: 1001, Flags: synAck}) || !pass(true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack}) {
				t.Fatal("no connection")
			}
			seq := [2]uint32{5001, 1001}
			for i, d := range c.data {
				at := &seq[0]
				if d.out {
					at = &seq[1]
				}
				if got := pass(d.out, ip.Segment{Seq: *at, Flags: ack, Payload: []byte(d.text)}); got != d.pass {
					t.Errorf("%d: %q passed %v", i, d.text, got)
				}
				if d.pass {
					*at += uint32(len(d.text))
				}
			}
		})
	}
}

// A router that remembers nothing still looks into each packet.
func TestContentInModeOpen(t *testing.T) {
	g := newBench(t, Behaviour{Mode: Open, Content: Content{BlockSTUN: true, Block: []string{"evil"}}})
	stun := "\x00\x01\x00\x00\x21\x12\xa4\x42............"
	for payload, want := range map[string]Verdict{"fine": forward(Outside), "an evil one": drop(BadContent), stun: drop(BadContent)} {
		if v := g.Outbound(g.now, ip.AppendUDP(nil, x, y1, 64, []byte(payload))); v != want {
			t.Errorf("%q: %+v", payload, v)
		}
	}
	if _, err := New(Config{Rand: rand.NewPCG(1, 1), Behaviour: Behaviour{Mode: Open, Content: Content{WebOnly: true}}}); err == nil {
		t.Error("WebOnly without state was taken")
	}
}
