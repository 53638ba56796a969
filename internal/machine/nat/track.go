package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// This file and trackwindow.go judge the segments of a connection as Linux
// conntrack does (net/netfilter/nf_conntrack_proto_tcp.c, with its defaults:
// not liberal, loose). Not followed: the shorter timeouts that Linux gives to
// connections with many retransmissions or with data unacknowledged.

// judgement is what is thought of a segment.
type judgement uint8

const (
	good    judgement = iota
	ignored           // it passes and changes nothing: the ends may know better
	invalid           // it is dropped
	last              // it passes, and nothing is remembered after it
	anew              // it begins another connection: forget this one, and judge again
)

// kind is what a segment is for.
type kind uint8

const (
	kindSYN kind = iota
	kindSYNACK
	kindFIN
	kindACK
	kindRST
	kindNone // no flags that say
)

func kindOf(flags uint8) kind {
	switch {
	case flags&ip.RST != 0:
		return kindRST
	case flags&(ip.SYN|ip.ACK) == ip.SYN|ip.ACK:
		return kindSYNACK
	case flags&ip.SYN != 0:
		return kindSYN
	case flags&ip.FIN != 0:
		return kindFIN
	case flags&ip.ACK != 0:
		return kindACK
	}
	return kindNone
}

// soundFlags reports whether a stack sends such a combination. PSH, ECE and
// CWR go with anything.
func soundFlags(flags uint8) bool {
	switch flags &^ (ip.PSH | ip.ECE | ip.CWR) {
	case ip.SYN, ip.SYN | ip.URG, ip.SYN | ip.ACK, ip.RST, ip.RST | ip.ACK,
		ip.FIN | ip.ACK, ip.FIN | ip.ACK | ip.URG, ip.ACK, ip.ACK | ip.URG:
		return true
	}
	return false
}

// connState is how far a connection is. The letters are those of moves.
type connState uint8

const (
	unknown     connState = iota // 0
	synSent                      // S: a SYN of the one who began
	synReceived                  // R: a SYN-ACK, of either
	established                  // E
	finWait                      // F: a FIN
	closeWait                    // C: and an ACK
	lastAck                      // L: and a FIN of the other
	timeWait                     // T: and an ACK
	closed                       // X: an RST
	synCrossed                   // 2: a SYN of each
	ignore                       // -: whatever the state, leave it
	refuse                       // .
)

const letters = "0SREFCLTX2-."

// moves leads from a state, by the kind of segment, to the next, for the one
// who began and for the other.
var moves = func() (t [2][kindNone + 1][synCrossed + 1]connState) {
	for side, rows := range [2][kindNone + 1]string{{
		// 0SREFCLTX2
		"SS-----SS2", // SYN
		"..R......R", // SYN-ACK: only where SYNs have crossed
		"..FFLLLTX.", // FIN
		"E.EECCTTX.", // ACK: the first may be in the middle of a connection
		".XXXXXXXXX", // RST
		"..........",
	}, {
		".2.....S.2",
		".R-------R",
		"..FFLLLTX.",
		".-RECCTTX-",
		".XXXXXXXXX",
		"..........",
	}} {
		for k, row := range rows {
			for from, letter := range []byte(row) {
				for to := range letters {
					if letters[to] == letter {
						t[side][k][from] = connState(to)
					}
				}
			}
		}
	}
	return t
}()

// half is what one end has shown of itself.
type half struct {
	end    uint32 // one past the highest sequence number that it sent
	limit  uint32 // one past the highest that the other allowed it to send
	window uint32 // the largest window that it opened; 0: it sent nothing yet
	acked  uint32 // the highest number that it acknowledged, if ackedAny
	scale  uint8
	flags  halfFlags
}

type halfFlags uint8

const (
	scales   halfFlags = 1 << iota // it sent a window scale option
	sacks                          // it permits SACK
	ackedAny                       // acked is known
	tolerant                       // the beginning was not seen: any number goes
	closedFirst
	challenged // a SYN passed in lastAck: an ACK may be about that
)

// conn is a connection. The halves are of the one who began and of the other.
type conn struct {
	half [2]half
	// Of the last segment that was good or ignored:
	lastEnd, lastAcked uint32
	lastWindow         uint16
	lastKind           kind
	lastSide           uint8
	// What an ignored SYN offered.
	lastScale uint8
	lastFlags halfFlags

	state   connState
	crossed bool // SYNs have crossed
	replied bool // the other has sent something
	assured bool // both have, and more than a handshake
}

// segment is what counts of a segment. Its numbers are those that its sender
// and its receiver know.
type segment struct {
	seq, end  uint32 // end includes SYN and FIN
	ack, sack uint32 // sack is the highest number that a SACK block has, or ack
	window    uint16
	flags     uint8
	options   []byte
}

func (s *segment) has(flags uint8) bool { return s.flags&flags != 0 }

// read reads the segment of a packet. Only who permits SACK gets its blocks
// looked at.
func (s *segment) read(p *ip.Packet, sack bool) {
	*s = segment{seq: p.Seq(), ack: p.Ack(), window: p.Window(), flags: p.TCPFlags(), options: p.TCPOptions()}
	s.end = s.seq + p.SegmentLen()
	s.sack = s.ack
	if sack {
		s.sack = highestSACK(s.options, s.ack)
	}
}

// judge judges the next segment, of side 0 or 1.
func (c *conn) judge(s *segment, side uint8) judgement {
	if !soundFlags(s.flags) {
		return invalid
	}
	if c.state == unknown && !c.begin(s) {
		return invalid
	}
	k := kindOf(s.flags)
	was := c.state
	next := moves[side][k][was]
	inWindow := false
	switch next {
	case refuse:
		return invalid
	case synSent, ignore:
		if next == synSent && was < timeWait {
			break
		}
		if next == synSent && ((c.half[0].flags|c.half[1].flags)&closedFirst != 0 || c.lastSide == side && c.lastKind == kindRST) {
			return anew
		}
		if !c.resync(s, k, side) {
			c.pass(s, k, side, was)
			return c.reply(side, ignored)
		}
		was, next = synSent, synReceived
	case timeWait:
		if was == lastAck && k == kindACK && c.lastSide != side && c.lastKind == kindSYN && c.lastFlags&challenged != 0 {
			c.lastFlags &^= challenged // RFC 5961: it is about the SYN
			return c.reply(side, ignored)
		}
	case synCrossed:
		c.crossed = true
	case synReceived:
		if side == 1 && k == kindACK && c.crossed {
			next = established
		}
	case closed:
		if k == kindRST {
			var ok bool
			if next, inWindow, ok = c.reset(s, side); !ok {
				return invalid
			}
		}
	}
	if !inWindow {
		if j := c.inWindow(s, side); j != good {
			if j == ignored {
				return c.reply(side, j)
			}
			if ends := func(k kind) bool { return k == kindRST || k == kindFIN }; c.assured && ends(k) && (c.lastSide == side || !ends(c.lastKind)) {
				c.lastKind, c.lastSide = k, side
			}
			return j
		}
	}
	c.lastKind, c.lastSide = k, side
	c.state = next
	if was != next && next == finWait {
		c.half[side].flags |= closedFirst
	}
	// An RST that comes before anything else from the other, or from the one
	// who began, leaves nothing to remember.
	if !c.replied && k == kindRST {
		return last
	}
	if c.replied && (was == synReceived || was == established) && next == established {
		c.assured = true
	}
	return c.reply(side, good)
}

func (c *conn) reply(side uint8, j judgement) judgement {
	c.replied = c.replied || side == 1
	return j
}

// begin takes the first segment: a SYN, or an ACK in the middle of a
// connection that is older than what is remembered.
func (c *conn) begin(s *segment) bool {
	first := &c.half[0]
	switch moves[0][kindOf(s.flags)][unknown] {
	case synSent:
		*first = half{end: s.end, limit: s.end, window: max(1, uint32(s.window))}
		first.offers(s.options)
	case established:
		*first = half{end: s.end, window: max(1, uint32(s.window))}
		first.limit = first.end + first.window
		// Nobody knows their scales.
		first.flags = tolerant | sacks
		c.half[1].flags = tolerant | sacks
	default:
		return false
	}
	c.lastKind = kindNone
	return true
}

// resync: a SYN-ACK to a SYN that was ignored shows that the ends agree and
// that it is here that something was missed.
func (c *conn) resync(s *segment, k kind, side uint8) bool {
	if k != kindSYNACK || c.lastKind != kindSYN || c.lastSide == side || s.ack != c.lastEnd {
		return false
	}
	c.half[1-side] = half{
		end: c.lastEnd, limit: c.lastEnd, window: max(1, uint32(c.lastWindow)),
		scale: c.lastScale, flags: c.lastFlags &^ challenged,
	}
	c.half[side] = half{flags: c.half[side].flags & tolerant}
	return true
}

// pass notes a segment that passes without being believed.
func (c *conn) pass(s *segment, k kind, side uint8, was connState) {
	c.lastKind, c.lastSide = k, side
	c.lastEnd, c.lastWindow = s.end, s.window
	if k == kindSYN && side == 0 {
		var h half
		h.offers(s.options)
		c.lastScale, c.lastFlags, c.crossed = h.scale, h.flags, false
		if was == lastAck {
			c.lastFlags |= challenged
		}
	}
	if was == synSent && k == kindACK && side == 1 {
		c.lastAcked = s.ack
	}
}

// reset judges an RST by its numbers: the state that it leads to, and whether
// the window need not be looked at. Not ok: it is forged.
func (c *conn) reset(s *segment, side uint8) (next connState, inWindow, ok bool) {
	next = closed
	switch c.state {
	case finWait, closeWait, lastAck, timeWait, closed:
		return next, true, true
	}
	whole := c.state == established && c.assured
	other := &c.half[1-side]
	if other.flags&ackedAny != 0 && c.lastKind != kindSYN {
		switch {
		case s.seq == 0 && !whole: // it answers a SYN that passed
			return next, false, true
		case before(s.seq, other.acked):
			return 0, false, false
		case !whole || s.seq == other.acked,
			c.lastKind == kindACK && c.lastSide == side && s.seq == c.lastEnd: // right behind data
			return next, false, true
		}
		// Maybe the other sends a challenge (RFC 5961): not over yet.
		next = c.state
	}
	if (c.replied && c.lastKind == kindSYN && c.lastSide != side || !c.assured && c.lastKind == kindACK) && s.ack == c.lastEnd ||
		c.state == synSent && c.lastKind == kindACK && c.lastSide == 1 && s.seq == c.lastAcked {
		inWindow = true // it answers what was ignored
	}
	return next, inWindow, true
}
