package nat

import (
	"encoding/binary"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// before and after compare sequence numbers (RFC 9293 section 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }
func after(a, b uint32) bool  { return int32(a-b) > 0 }

// slack is how far acknowledgements may lag behind, whatever the window.
const slack = 66000

// inWindow judges the numbers of a segment by four bounds, and learns from it:
//
//	I    seq is within what the receiver allowed, as far as was seen
//	II   end is not further back than the receiver's window
//	III  what it acknowledges was sent
//	IV   and is not too old
func (c *conn) inWindow(s *segment, side uint8) judgement {
	from, to := &c.half[side], &c.half[1-side]
	switch {
	case from.window == 0 && s.has(ip.SYN):
		c.meet(s, side)
		if !s.has(ip.ACK) {
			return good // crossing SYNs
		}
	case from.window == 0:
		from.end = s.end
		from.window = max(1, uint32(s.window)<<from.scale)
		from.limit = s.end + from.window
		if to.window == 0 {
			to.end, to.limit = s.sack, s.sack
		} else if s.sack == to.end+1 { // answers a keepalive
			to.end++
		}
	case s.has(ip.SYN) && after(s.end, from.end) && (c.state == synSent || c.state == synReceived):
		// Another attempt, with another number.
		c.meet(s, side)
		if side == 1 && !s.has(ip.ACK) {
			return good
		}
	}

	seq, end, ack, sack := s.seq, s.end, s.ack, s.sack
	if !s.has(ip.ACK) || s.has(ip.RST) && ack == 0 {
		ack, sack = to.end, to.end
	}
	if s.has(ip.RST) && seq == 0 && c.state == synSent { // answers a SYN
		seq, end = from.end, from.end
	}
	liberal := func(j judgement) judgement {
		if from.flags&tolerant != 0 {
			return good
		}
		return j
	}
	lag := max(from.window, slack)
	if after(seq, from.limit) {
		over := end - from.limit + 1
		if to.window != 0 && after(end, from.end-to.window-1) && after(sack, to.end-lag-1) &&
			over <= to.window && !after(sack, to.end) {
			from.end = end // so that its acknowledgement is not refused too
			return liberal(ignored)
		}
		return liberal(invalid)
	}
	if after(sack, to.end) {
		return liberal(invalid)
	}
	if to.window != 0 && !after(end, from.end-to.window-1) || !after(sack, to.end-lag-1) {
		return liberal(ignored)
	}

	window := uint32(s.window)
	if !s.has(ip.SYN) {
		window <<= from.scale
	}
	from.window = max(from.window, window+(sack-ack))
	if after(end, from.end) {
		from.end = end
	}
	if s.has(ip.ACK) && (from.flags&ackedAny == 0 || after(ack, from.acked)) {
		from.acked = ack
		from.flags |= ackedAny
	}
	if to.window != 0 && after(end, from.limit) {
		to.window += end - from.limit
	}
	if after(sack+window, to.limit-1) {
		to.limit = sack + max(window, 1)
	}
	if kindOf(s.flags) == kindACK {
		c.lastEnd, c.lastWindow = s.end, s.window
	}
	return good
}

// meet learns a side's numbers and options from its SYN or SYN-ACK. Windows
// scale only where both say so (RFC 7323 section 2.2).
func (c *conn) meet(s *segment, side uint8) {
	from, to := &c.half[side], &c.half[1-side]
	from.end, from.limit = s.end, s.end
	from.window = max(1, uint32(s.window))
	from.offers(s.options)
	if side == 1 && from.flags&to.flags&scales == 0 {
		from.scale, to.scale = 0, 0
	}
}

// maxScale is from RFC 7323 section 2.3.
const maxScale = 14

func (h *half) offers(options []byte) {
	if len(options) == 0 {
		return
	}
	h.scale, h.flags = 0, h.flags&tolerant
	for len(options) > 0 {
		kind, value, rest := ip.NextOption(options)
		switch {
		case kind == ip.OptionSACKPermitted && len(value) == 0:
			h.flags |= sacks
		case kind == ip.OptionWindowScale && len(value) == 1:
			h.scale = min(value[0], maxScale)
			h.flags |= scales
		}
		options = rest
	}
}

// highestSACK is the highest number in the SACK blocks, if higher than ack.
func highestSACK(options []byte, ack uint32) uint32 {
	const timestamps = 0x0101080a // and padding, alone, as in most segments
	if len(options) == 12 && binary.BigEndian.Uint32(options) == timestamps {
		return ack
	}
	for len(options) > 0 {
		kind, blocks, rest := ip.NextOption(options)
		if kind == ip.OptionSACK && len(blocks)%8 == 0 {
			for ; len(blocks) > 0; blocks = blocks[8:] {
				if right := binary.BigEndian.Uint32(blocks[4:]); after(right, ack) {
					ack = right
				}
			}
			return ack
		}
		options = rest
	}
	return ack
}
