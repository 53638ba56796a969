package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// The two ends of a connection may count its bytes differently: where the
// gateway gives it another initial sequence number, and where it put longer or
// shorter text into it. Each stream has the numbers of its sender and those of
// its receiver.

// edit is a text that was replaced by one that is longer by grew.
type edit struct {
	end  uint32 // the sender's number of the byte behind the text
	grew int32
	text [maxText]byte // what stands there instead
	n    uint8
}

// start is the sender's number of the first byte of the text.
func (e *edit) start() uint32 { return e.end - uint32(int32(e.n)-e.grew) }

// edits are those in one stream, in order.
type edits []edit

// maxEdits bounds them.
const maxEdits = 64

// add takes note of an edit behind all others. False: there are too many.
func (e *edits) add(one edit) bool {
	if len(*e) == maxEdits {
		return false
	}
	*e = append(*e, one)
	return true
}

// again appends what is to be done to n bytes from seq, of which some may have
// been sent before, in whatever pieces: who has the first byte of a text that
// was replaced gets all of the new one, and what else there is of it is left
// out. The rest begins with the number from, which is seq unless it is within
// such a text.
func (e edits) again(all []finding, seq uint32, n int) (_ []finding, from uint32) {
	from = seq
	for i := range e {
		one := &e[i]
		at, end := int(int32(one.start()-seq)), int(int32(one.end-seq))
		if end <= 0 || at >= n {
			continue
		}
		f := finding{at: max(at, 0), end: min(end, n)}
		if at < 0 {
			from = one.end
		} else {
			f.text, f.n = one.text, one.n
		}
		all = append(all, f)
	}
	return all, from
}

// forward makes the receiver's number of the sender's.
func (e edits) forward(seq uint32) uint32 {
	shift := uint32(0)
	for _, one := range e {
		if before(seq, one.end) {
			break
		}
		shift += uint32(one.grew)
	}
	return seq + shift
}

// back makes the sender's number of the receiver's. A number within a replaced
// text becomes that of the last byte of the old one: it was not received as a
// whole.
func (e edits) back(ack uint32) uint32 {
	shift := uint32(0)
	for _, one := range e {
		if before(ack, one.end+shift+uint32(one.grew)) {
			if ack -= shift; !before(ack, one.end) {
				ack = one.end - 1
			}
			return ack
		}
		shift += uint32(one.grew)
	}
	return ack - shift
}

// numbering is how the numbers of a connection are changed. Streams are named
// by the direction in which they flow.
type numbering struct {
	shift uint32    // of the initial sequence number outward
	edits *[2]edits // nil: none
}

func (n *numbering) none() bool { return n.shift == 0 && n.edits == nil }

// forward makes the number that the receiver knows of the one that the sender
// of the stream knows, and backward undoes that.
func (n *numbering) forward(d direction, seq uint32) uint32 {
	if n.edits != nil {
		seq = n.edits[d.index()].forward(seq)
	}
	if d == outbound {
		seq += n.shift
	}
	return seq
}

func (n *numbering) backward(d direction, seq uint32) uint32 {
	if d == outbound {
		seq -= n.shift
	}
	if n.edits != nil {
		seq = n.edits[d.index()].back(seq)
	}
	return seq
}

// acks gives a segment the numbers to acknowledge by which its receiver knows
// them.
func (n *numbering) acks(d direction, p *ip.Packet) {
	if p.TCPFlags()&ip.ACK != 0 {
		p.SetAck(n.backward(!d, p.Ack()))
	}
	p.MapSACK(func(v uint32) uint32 { return n.backward(!d, v) })
}

// quoted gives a segment in an ICMP error, that once passed in direction d, the
// numbers back that it had before. Its acknowledgement may be cut off.
func (n *numbering) quoted(d direction, q *ip.Packet) {
	q.SetSeq(n.backward(d, q.Seq()))
	if q.TCPFlags()&ip.ACK != 0 {
		q.SetAck(n.forward(!d, q.Ack()))
	}
}

func (d direction) index() int {
	if d == inbound {
		return 1
	}
	return 0
}
