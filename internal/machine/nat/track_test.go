package nat

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// wire passes the segments of one connection between x and y1 through a
// gateway.
type wire struct {
	*bench
	at netip.AddrPort // x, as seen outside
}

func newWire(t testing.TB, b Behaviour) *wire {
	b.Filtering = AddressAndPortDependent
	return &wire{newBench(t, b), netip.AddrPortFrom(ours, x.Port())}
}

// out sends a segment out and returns it as it came out.
func (w *wire) out(s ip.Segment) (ip.Segment, bool) { return w.send(Inside, x, y1, s) }
func (w *wire) in(s ip.Segment) (ip.Segment, bool)  { return w.send(Outside, y1, w.at, s) }

func (w *wire) send(from Side, src, dst netip.AddrPort, s ip.Segment) (got ip.Segment, ok bool) {
	w.t.Helper()
	if s.Window == 0 {
		s.Window = 1000
	}
	pkt := ip.AppendTCP(nil, src, dst, 64, &s)
	v := w.Handle(w.now, from, pkt, Offload{})
	if v.Action == Drop && v.Reason == Kept {
		o, _ := w.Poll()
		pkt, ok = o.Packet, o.Packet != nil
	} else {
		ok = v.Action == Forward
	}
	if !ok {
		return got, false
	}
	var p ip.Packet
	if err := p.Decode(pkt); err != nil || !p.ChecksumOK() {
		w.t.Fatalf("%+v became %x, %v", s, pkt, err)
	}
	p.Segment(&got)
	return got, true
}

// step is a segment and what becomes of it.
type step struct {
	what string
	out  bool
	seg  ip.Segment
	pass bool
}

func (w *wire) steps(steps ...step) {
	w.t.Helper()
	for _, s := range steps {
		send := w.in
		if s.out {
			send = w.out
		}
		if _, ok := send(s.seg); ok != s.pass {
			w.t.Errorf("%s: passed %v, want %v", s.what, ok, s.pass)
		}
	}
}

const (
	syn    = ip.SYN
	synAck = ip.SYN | ip.ACK
	ack    = ip.ACK
	finAck = ip.FIN | ip.ACK
	rst    = ip.RST
)

var checks = Behaviour{TCP: TCP{CheckWindow: true}}

func bytesOf(n int) []byte { return make([]byte, n) }

func open(scaleX, scaleY byte) []step {
	options := func(scale byte) []byte { return []byte{4, 2, 3, 3, scale, 1, 1, 1} }
	return []step{
		{"SYN", true, ip.Segment{Seq: 1000, Flags: syn, Options: options(scaleX)}, true},
		{"SYN-ACK", false, ip.Segment{Seq: 5000, Ack: 1001, Flags: synAck, Options: options(scaleY)}, true},
		{"ACK", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack}, true},
	}
}

// What was measured on Linux 6.18: docs name the facts.
func TestConntrackHandshakes(t *testing.T) {
	for _, c := range []struct {
		what  string
		steps []step
	}{
		{"the usual", open(0, 0)},
		{"crossing SYNs", []step{
			{"SYN", true, ip.Segment{Seq: 1000, Flags: syn}, true},
			{"SYN of the other", false, ip.Segment{Seq: 5000, Flags: syn}, true},
			{"SYN-ACK", true, ip.Segment{Seq: 1000, Ack: 5001, Flags: synAck}, true},
			{"SYN-ACK of the other", false, ip.Segment{Seq: 5000, Ack: 1001, Flags: synAck}, true},
			{"data", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Payload: bytesOf(100)}, true},
			{"data of the other", false, ip.Segment{Seq: 5001, Ack: 1101, Flags: ack, Payload: bytesOf(100)}, true},
		}},
		{"a listener answers with a number of its own", []step{
			{"SYN", true, ip.Segment{Seq: 1000, Flags: syn}, true},
			{"SYN of the other", false, ip.Segment{Seq: 5000, Flags: syn}, true},
			{"SYN-ACK", true, ip.Segment{Seq: 900000, Ack: 5001, Flags: synAck}, false},
		}},
		{"NATBlaster", []step{
			{"SYN", true, ip.Segment{Seq: 1000, Flags: syn}, true},
			{"SYN-ACK out", true, ip.Segment{Seq: 1000, Ack: 5001, Flags: synAck}, false},
		}},
		{"STUNT #1", []step{
			{"SYN", true, ip.Segment{Seq: 1000, Flags: syn}, true},
			{"spoofed SYN-ACK", false, ip.Segment{Seq: 5000, Ack: 1001, Flags: synAck}, true},
			{"ACK", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack}, true},
			{"data", false, ip.Segment{Seq: 5001, Ack: 1001, Flags: ack, Payload: bytesOf(100)}, true},
		}},
		{"a SYN-ACK for another SYN", []step{
			{"SYN", true, ip.Segment{Seq: 1000, Flags: syn}, true},
			{"spoofed SYN-ACK", false, ip.Segment{Seq: 5000, Ack: 2001, Flags: synAck}, false},
		}},
		{"no data before the SYN-ACK", []step{
			{"SYN", true, ip.Segment{Seq: 1000, Flags: syn}, true},
			{"ACK", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack}, false},
			{"FIN", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: finAck}, false},
		}},
		{"another try from the same port", []step{
			{"SYN", true, ip.Segment{Seq: 1000, Flags: syn}, true},
			{"again", true, ip.Segment{Seq: 1000, Flags: syn}, true},
			{"of a new socket", true, ip.Segment{Seq: 9000, Flags: syn}, true},
			{"SYN-ACK", false, ip.Segment{Seq: 5000, Ack: 9001, Flags: synAck}, true},
			{"ACK", true, ip.Segment{Seq: 9001, Ack: 5001, Flags: ack}, true},
		}},
		{"repair punch: picked up in the middle", []step{
			{"before anything went out", false, ip.Segment{Seq: 5001, Ack: 1001, Flags: ack}, false},
			{"ACK", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack}, true},
			{"ACK of the other", false, ip.Segment{Seq: 5001, Ack: 1001, Flags: ack}, true},
			{"data", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Payload: bytesOf(1400)}, true},
			{"data of the other", false, ip.Segment{Seq: 5001, Ack: 2401, Flags: ack, Payload: bytesOf(1400)}, true},
		}},
		{"nothing else picks up", []step{
			{"SYN-ACK", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: synAck}, false},
			{"FIN", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: finAck}, false},
			{"RST", true, ip.Segment{Seq: 1001, Flags: rst}, false},
			{"no flags", true, ip.Segment{Seq: 1001}, false},
		}},
		{"flags that no stack sends", []step{
			{"SYN", true, ip.Segment{Seq: 1000, Flags: syn}, true},
			{"SYN, FIN", true, ip.Segment{Seq: 1000, Flags: syn | ip.FIN}, false},
			{"SYN, RST", true, ip.Segment{Seq: 1000, Flags: syn | rst}, false},
			{"none", true, ip.Segment{Seq: 1000}, false},
			{"all", true, ip.Segment{Seq: 1000, Flags: 0x3f}, false},
		}},
		{"a lost SYN-ACK, sent again", []step{
			open(0, 0)[0], open(0, 0)[1],
			{"again", false, ip.Segment{Seq: 5000, Ack: 1001, Flags: synAck}, true},
			{"SYN again", true, ip.Segment{Seq: 1000, Flags: syn}, true},
			open(0, 0)[2],
		}},
		{"the other starts anew, which only the ends know", append(open(0, 0),
			step{"SYN over an old connection", true, ip.Segment{Seq: 700000, Flags: syn}, true},
			step{"SYN-ACK to that", false, ip.Segment{Seq: 800000, Ack: 700001, Flags: synAck}, true},
			step{"ACK", true, ip.Segment{Seq: 700001, Ack: 800001, Flags: ack}, true},
			step{"data", false, ip.Segment{Seq: 800001, Ack: 700001, Flags: ack, Payload: bytesOf(10)}, true},
		)},
	} {
		t.Run(c.what, func(t *testing.T) {
			newWire(t, checks).steps(c.steps...)
		})
	}
}

func TestConntrackWindow(t *testing.T) {
	for _, c := range []struct {
		what  string
		steps []step
	}{
		{"far ahead", []step{
			{"within", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Payload: bytesOf(1000)}, true},
			{"over", true, ip.Segment{Seq: 1001 + 200000, Ack: 5001, Flags: ack, Payload: bytesOf(10)}, false},
		}},
		{"far behind passes, and changes nothing", []step{
			{"an old one", true, ip.Segment{Seq: 1001 - 200000 + 1<<32, Ack: 5001, Flags: ack, Payload: bytesOf(10)}, true},
			{"the next", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Payload: bytesOf(10)}, true},
		}},
		{"acknowledgements", []step{
			{"of what was not sent", false, ip.Segment{Seq: 5001, Ack: 1002, Flags: ack}, false},
			{"data", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Payload: bytesOf(100)}, true},
			{"of a part", false, ip.Segment{Seq: 5001, Ack: 1051, Flags: ack}, true},
			{"of all", false, ip.Segment{Seq: 5001, Ack: 1101, Flags: ack}, true},
			{"in a SACK block of what was not sent", false, ip.Segment{Seq: 5001, Ack: 1051, Flags: ack,
				Options: []byte{1, 1, 5, 10, 0, 0, 4, 70, 0, 0, 4, 78}}, false},
			{"in a SACK block", false, ip.Segment{Seq: 5001, Ack: 1051, Flags: ack,
				Options: []byte{1, 1, 5, 10, 0, 0, 4, 70, 0, 0, 4, 77}}, true},
		}},
		{"RST", []step{
			{"data", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Payload: bytesOf(100)}, true},
			{"older than what was acknowledged", false, ip.Segment{Seq: 5000, Flags: rst}, false},
			{"over the window", false, ip.Segment{Seq: 5001 + 200000, Flags: rst}, false},
			{"not quite right", false, ip.Segment{Seq: 5101, Flags: rst}, true},
			{"it goes on", false, ip.Segment{Seq: 5001, Ack: 1101, Flags: ack, Payload: bytesOf(100)}, true},
			{"right", false, ip.Segment{Seq: 5101, Flags: rst}, true},
		}},
		{"the end", []step{
			{"FIN", true, ip.Segment{Seq: 1001, Ack: 5001, Flags: finAck}, true},
			{"ACK", false, ip.Segment{Seq: 5001, Ack: 1002, Flags: ack}, true},
			{"data", false, ip.Segment{Seq: 5001, Ack: 1002, Flags: ack, Payload: bytesOf(100)}, true},
			{"FIN of the other", false, ip.Segment{Seq: 5101, Ack: 1002, Flags: finAck}, true},
			{"ACK", true, ip.Segment{Seq: 1002, Ack: 5102, Flags: ack}, true},
			{"again, from TIME-WAIT", true, ip.Segment{Seq: 300, Flags: syn}, true},
			{"SYN-ACK", false, ip.Segment{Seq: 77, Ack: 301, Flags: synAck}, true},
			{"ACK", true, ip.Segment{Seq: 301, Ack: 78, Flags: ack}, true},
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWire(t, checks)
			w.steps(open(0, 0)...)
			w.steps(c.steps...)
		})
	}
}

// Windows scale when both say so, as each says (RFC 7323 section 2.2).
func TestConntrackScale(t *testing.T) {
	far := step{"far within the scaled window", true, ip.Segment{Seq: 1001 + 1000<<7 - 10, Ack: 5001, Flags: ack, Payload: bytesOf(10)}, true}
	w := newWire(t, checks)
	w.steps(open(2, 7)...)
	w.steps(
		step{"a window of the other", false, ip.Segment{Seq: 5001, Ack: 1001, Flags: ack}, true},
		far,
		step{"the other's turn", false, ip.Segment{Seq: 5001 + 1000<<2 - 10, Ack: 1001, Flags: ack, Payload: bytesOf(10)}, true},
		step{"over its window", false, ip.Segment{Seq: 5001 + 1000<<7, Ack: 1001, Flags: ack, Payload: bytesOf(10)}, false},
	)
	w = newWire(t, checks)
	one := open(0, 7)
	one[0].seg.Options = []byte{4, 2, 1, 1} // no scale
	w.steps(one...)
	far.pass = false
	w.steps(step{"a window of the other", false, ip.Segment{Seq: 5001, Ack: 1001, Flags: ack}, true}, far)
}

// An RST as the first answer ends the entry; an ICMP error does not.
func TestConntrackFirstAnswers(t *testing.T) {
	router := netip.MustParseAddr("203.0.113.77")
	w := newWire(t, checks)
	w.out(ip.Segment{Seq: 1000, Flags: syn})
	pkt := ip.AppendTCP(nil, w.at, y1, 60, &ip.Segment{Seq: 1000, Flags: syn})
	if _, v := w.pass(w.Inbound, ip.AppendError(nil, router, ip.HostUnreachable, pkt)); v.Action != Forward {
		t.Fatalf("ICMP error: %+v", v)
	}
	if w.Stats().Sessions != 1 {
		t.Fatal("an ICMP error ended the entry")
	}
	if _, ok := w.in(ip.Segment{Seq: 0, Ack: 2001, Flags: rst | ack}); ok {
		t.Error("an RST for another SYN passed")
	}
	if _, ok := w.in(ip.Segment{Seq: 0, Ack: 1001, Flags: rst | ack}); !ok {
		t.Error("the RST did not pass")
	}
	if s := w.Stats(); s.Sessions+s.Mappings != 0 || w.tracks.slab.top > 2 || w.tracks.slab.used != 0 {
		t.Errorf("left: %+v", s)
	}
	// Later, it lasts for the time after an RST.
	w.steps(open(0, 0)...)
	w.in(ip.Segment{Seq: 5001, Flags: rst})
	if w.Stats().Sessions != 1 {
		t.Error("forgotten at once")
	}
}

// exchange is two stacks that send each other a stream, over a network that
// loses, repeats and reorders.
type exchange struct {
	*wire
	r    *rand.Rand
	ends [2]stack
	// queue of each direction
	flying [2][]ip.Segment
	drops  int
	// lines makes every segment begin and end where a line of "-...+++" does.
	lines bool
}

type stack struct {
	isn      uint32
	send     []byte // all of it
	una, nxt int    // in send
	peerISN  uint32
	got      []byte // in order
	early    map[int]byte
	window   int // of the peer
	scale    byte
}

// segment makes the next segment to send, or sends an old one again.
func (e *exchange) segment(i int) ip.Segment {
	s := &e.ends[i]
	from := s.nxt
	if e.r.IntN(4) == 0 {
		from = s.una
	}
	n := min(len(s.send)-from, s.window-(from-s.una), e.r.IntN(600))
	n = max(n, 0)
	if e.lines {
		n = lineEnd(s.send[from : from+n])
	}
	s.nxt = max(s.nxt, from+n)
	seg := ip.Segment{
		Seq: s.isn + 1 + uint32(from), Ack: s.peerISN + 1 + uint32(len(s.got)), Flags: ack,
		Window: uint16(e.space() >> s.scale), Payload: s.send[from : from+n],
	}
	for at := range s.early { // one SACK block, of one byte or more
		right := at
		for _, ok := s.early[right]; ok; _, ok = s.early[right] {
			right++
		}
		edge := func(v int) uint32 { return s.peerISN + 1 + uint32(v) }
		l, r := edge(at), edge(right)
		seg.Options = []byte{1, 1, 5, 10, byte(l >> 24), byte(l >> 16), byte(l >> 8), byte(l), byte(r >> 24), byte(r >> 16), byte(r >> 8), byte(r)}
		break
	}
	return seg
}

// lineEnd is where the last whole line ends, or none has begun.
func lineEnd(b []byte) int {
	for n := len(b); n > 0; n-- {
		if b[n-1] == '+' {
			return n
		}
	}
	return 0
}

func (e *exchange) space() int { return 20000 }

func (e *exchange) receive(i int, seg ip.Segment) {
	s, o := &e.ends[i], &e.ends[1-i]
	if acked := int(int32(seg.Ack - s.isn - 1)); acked >= s.una && acked <= s.nxt {
		s.una = acked
		s.window = int(seg.Window) << o.scale
	} else if acked > s.nxt {
		e.t.Fatalf("%d of %d bytes are acknowledged", acked, s.nxt)
	}
	at := int(int32(seg.Seq - s.peerISN - 1))
	for j, b := range seg.Payload {
		if at+j >= len(s.got) {
			s.early[at+j] = b
		}
	}
	for b, ok := s.early[len(s.got)]; ok; b, ok = s.early[len(s.got)] {
		delete(s.early, len(s.got))
		s.got = append(s.got, b)
	}
}

// run exchanges the two streams, and returns what arrived.
func (e *exchange) run(sends [2][]byte, wants [2][]byte) {
	e.t.Helper()
	for i := range e.ends {
		e.ends[i] = stack{isn: e.r.Uint32(), send: sends[i], early: map[int]byte{}, scale: byte(2 + 3*i), window: 1000}
	}
	x, y := &e.ends[0], &e.ends[1]
	options := func(scale byte) []byte { return []byte{4, 2, 3, 3, scale, 1, 1, 1} }
	got, ok := e.out(ip.Segment{Seq: x.isn, Flags: syn, Options: options(x.scale)})
	if !ok {
		e.t.Fatal("SYN")
	}
	y.peerISN = got.Seq
	got, ok = e.in(ip.Segment{Seq: y.isn, Ack: got.Seq + 1, Flags: synAck, Options: options(y.scale)})
	if !ok || got.Ack != x.isn+1 {
		e.t.Fatalf("SYN-ACK: %v, %+v", ok, got)
	}
	x.peerISN = got.Seq
	for steps := 0; len(x.got) < len(wants[0]) || len(y.got) < len(wants[1]); steps++ {
		if steps > 200000 {
			e.t.Fatalf("stuck at %d of %d and %d of %d bytes", len(x.got), len(wants[0]), len(y.got), len(wants[1]))
		}
		e.now = e.now.Add(time.Millisecond)
		i := e.r.IntN(2)
		if steps == 0 {
			i = 0 // completes the handshake
		}
		seg := e.segment(i)
		send := e.out
		if i == 1 {
			send = e.in
		}
		got, ok := send(seg)
		if !ok {
			e.drops++
			continue
		}
		e.flying[i] = append(e.flying[i], got)
		if len(e.flying[i]) > 3 || e.r.IntN(3) > 0 {
			at := 0
			if e.r.IntN(10) == 0 {
				at = e.r.IntN(len(e.flying[i]))
			}
			arrived := e.flying[i][at]
			if e.r.IntN(10) > 0 { // or sent twice
				e.flying[i] = append(e.flying[i][:at:at], e.flying[i][at+1:]...)
			}
			if e.r.IntN(20) > 0 || steps == 0 { // or lost
				e.receive(1-i, arrived)
			}
		}
	}
	for i, s := range e.ends {
		if string(s.got) != string(wants[i]) {
			e.t.Fatalf("end %d got %q, want %q", i, s.got[:min(len(s.got), 300)], wants[i][:min(len(wants[i]), 300)])
		}
	}
}

// No segment of an honest connection is dropped, whatever the network does,
// and every byte arrives, also with other sequence numbers.
func TestConntrackPassesTheHonest(t *testing.T) {
	for _, rewrite := range []bool{false, true} {
		for seed := range uint64(30) {
			b := checks
			b.TCP.RewriteSequence = rewrite
			e := &exchange{wire: newWire(t, b), r: rand.New(rand.NewPCG(seed, 1))}
			var sends [2][]byte
			for i := range sends {
				sends[i] = bytesOf(20000)
				for j := range sends[i] {
					sends[i][j] = byte(e.r.Uint32())
				}
			}
			e.run(sends, [2][]byte{sends[1], sends[0]})
			if e.drops > 0 {
				t.Errorf("seed %d: %d segments were dropped", seed, e.drops)
			}
		}
	}
}

// On the ordinary path nothing is allocated, whatever is looked at.
func TestNoAllocationWhateverIsLookedAt(t *testing.T) {
	b := Behaviour{
		Filtering: AddressAndPortDependent,
		ALG:       true,
		TCP:       TCP{CheckWindow: true, RewriteSequence: true},
		Content:   Content{WebOnly: true, BlockSTUN: true, Block: []string{"evil"}},
		Rules:     []Rule{{Action: Accept, From: SidesOf(Inside), Protocol: ip.TCP}, {Action: Accept, From: SidesOf(Inside), Protocol: ip.UDP}},
	}
	w := newWire(t, b)
	shift := uint32(0)
	for _, s := range open(2, 7) {
		if s.out {
			got, _ := w.out(s.seg)
			shift = got.Seq - s.seg.Seq
		} else {
			s.seg.Ack += shift
			w.in(s.seg)
		}
	}
	w.leaves(x, z1)
	sack := func(v uint32) []byte {
		b := []byte{1, 1, 5, 10}
		return append(append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v)), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	}
	out := ip.AppendTCP(nil, x, y1, 64, &ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Window: 1000, Options: sack(5001), Payload: bytesOf(500)})
	in := ip.AppendTCP(nil, y1, w.at, 64, &ip.Segment{Seq: 5001, Ack: 1001 + shift, Flags: ack, Window: 1000, Options: sack(1001 + shift), Payload: bytesOf(500)})
	udp := udpPacket(x, z1)
	buf := make([]byte, 0, 2048)
	if got := testing.AllocsPerRun(100, func() {
		if w.Outbound(w.now, append(buf[:0], out...)).Action != Forward ||
			w.Inbound(w.now, append(buf[:0], in...)).Action != Forward ||
			w.Outbound(w.now, append(buf[:0], udp...)).Action != Forward {
			t.Fatal("dropped")
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkTCP(b *testing.B) {
	for _, c := range []struct {
		name string
		b    Behaviour
	}{
		{"plain", Behaviour{}},
		{"window", Behaviour{TCP: TCP{CheckWindow: true}}},
		{"window and sequence", Behaviour{TCP: TCP{CheckWindow: true, RewriteSequence: true}}},
		{"patterns", Behaviour{Content: Content{Block: []string{"evil", "bad"}}}},
		{"ALG", Behaviour{ALG: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWire(b, c.b)
			var got ip.Segment
			for _, s := range open(2, 7) {
				if s.out {
					got, _ = w.out(s.seg)
				} else {
					s.seg.Ack = got.Seq + 1
					w.in(s.seg)
				}
			}
			pkt := ip.AppendTCP(nil, x, y1, 64, &ip.Segment{Seq: 1001, Ack: 5001, Flags: ack, Window: 1000, Payload: bytesOf(900)})
			buf := make([]byte, len(pkt))
			b.ReportAllocs()
			since, stop := cpu()
			defer stop()
			for b.Loop() {
				copy(buf, pkt)
				if w.Outbound(w.now, buf).Action != Forward {
					b.Fatal("dropped")
				}
			}
			b.ReportMetric(float64(since())/float64(b.N), "cpu-ns/op")
		})
	}
}
