package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// track is what is kept of a connection by gateways that look at more of it
// than flags. The elements of conn are by who began, those of stream by
// direction.
type track struct {
	conn
	stream [2]stream
	web
	shift  uint32 // see numbering
	began  direction
	picked bool   // the beginning was not seen
	edited bool   // edits has some
	next   uint32 // in a free element, the next free one
}

func (t *track) link() *uint32 { return &t.next }

// tracks are all of them; 0 is none.
type tracks struct {
	slab  slab[track, *track]
	edits map[uint32]*[2]edits // few connections have any
}

func (t *tracks) at(ref uint32) *track { return t.slab.at(ref) }

func (t *tracks) make() uint32 {
	ref, _ := t.slab.take()
	return ref
}

func (t *tracks) drop(ref uint32) {
	if t.at(ref).edited {
		delete(t.edits, ref)
	}
	t.slab.give(ref)
}

func (t *tracks) numbering(ref uint32) numbering {
	n := numbering{shift: t.at(ref).shift}
	if t.at(ref).edited {
		n.edits = t.edits[ref]
	}
	return n
}

// maxEdited bounds the connections that have edits.
const maxEdited = 4096

// edit takes note of an edit in a stream, behind all others. False: there are
// too many.
func (t *tracks) edit(ref uint32, d direction, one edit) bool {
	if !t.at(ref).edited {
		if len(t.edits) == maxEdited {
			return false
		}
		if t.edits == nil {
			t.edits = make(map[uint32]*[2]edits)
		}
		t.edits[ref] = new([2]edits)
		t.at(ref).edited = true
	}
	return t.edits[ref][d.index()].add(one)
}

// unfollow gives back what follow keeps elsewhere about a session that ends.
func (g *Gateway) unfollow(s *session) {
	if s.track != 0 {
		g.tracks.drop(s.track)
		s.track = 0
	}
}

// track judges a segment and looks into it, and gives it the numbers that its
// receiver knows.
func (g *Gateway) track(f *flow, s *session, p *ip.Packet) (judgement, Reason) {
	flags := p.TCPFlags()
	if s.track == 0 {
		s.track = g.tracks.make()
		g.beginTrack(f, s, p)
	}
	t := g.tracks.at(s.track)
	n := g.tracks.numbering(s.track)
	if !n.none() {
		n.acks(f.d, p)
	}
	side := uint8(0)
	if f.d != t.began {
		side = 1
	}
	seg := &g.segment
	seg.read(p, t.state == unknown || t.half[1-side].flags&sacks != 0)
	j := good
	if g.cfg.TCP.CheckWindow {
		if p.Fragment { // its end is in another part
			t.half[0].flags |= tolerant
			t.half[1].flags |= tolerant
		}
		switch j = t.judge(seg, side); j {
		case invalid:
			return j, OutOfWindow
		case anew:
			if f.d == inbound && !g.invited(f.mapping, p.Src) {
				f.fresh = true // so that what is remembered is forgotten
				return j, Filtered
			}
			g.tracks.drop(s.track)
			s.track, s.tcp = 0, 0
			return g.track(f, s, p)
		}
	}
	if i := f.d.index(); flags&ip.SYN != 0 && j == good && (!t.stream[i].known || t.stream[i].first != seg.seq+1) {
		t.stream[i] = streamFrom(seg.seq + 1)
		if n.edits != nil { // they were in another connection
			n.edits[i] = nil
		}
	}
	if g.content.active() {
		seq := seg.seq
		if flags&ip.SYN != 0 {
			seq++
		}
		if r := g.content.inspectSegment(&t.stream[f.d.index()], &t.web, f.d == t.began, seq, p.Payload()); r != None {
			return j, r
		}
	}
	if !n.none() {
		p.SetSeq(n.forward(f.d, seg.seq))
	}
	if t.picked && j == good { // as if its SYN had been seen
		if f.d == outbound {
			s.tcp |= synOut
		} else {
			s.tcp |= synIn
		}
	}
	return j, None
}

// beginTrack is for the first segment that is seen of a connection.
func (g *Gateway) beginTrack(f *flow, s *session, p *ip.Packet) {
	t := g.tracks.at(s.track)
	t.began = f.d
	syn := p.TCPFlags()&ip.SYN != 0
	t.picked = !syn
	if g.cfg.TCP.RewriteSequence && syn && f.d == outbound {
		t.shift = g.rnd.Uint32() | 1
	}
	if g.content.WebOnly {
		server := p.Dst
		if f.d == inbound {
			server = g.internal(g.mapping(f.mapping))
		}
		switch server.Port() {
		case 80:
			t.web.port = onHTTP
		case 443:
			t.web.port = onTLS
		}
	}
}
