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
}

// edits are the latest in one stream. Earlier ones count as one before all of
// them: that is wrong for what is sent again from before them, which is not
// worth more memory.
type edits struct {
	before uint32 // what all earlier ones grew by
	count  uint8
	latest [4]edit
}

// add takes note of an edit, unless it is one already noted, whose text was
// sent again.
func (e *edits) add(end uint32, grew int) {
	all := e.latest[:e.count]
	for _, old := range all {
		if old.end == end {
			return
		}
	}
	if len(all) == len(e.latest) {
		if !after(end, all[0].end) {
			return
		}
		e.before += uint32(all[0].grew)
		copy(all, all[1:])
		e.count--
	}
	at := int(e.count)
	for at > 0 && after(e.latest[at-1].end, end) {
		e.latest[at] = e.latest[at-1]
		at--
	}
	e.latest[at] = edit{end, int32(grew)}
	e.count++
}

// forward makes the receiver's number of the sender's.
func (e *edits) forward(seq uint32) uint32 {
	shift := e.before
	for _, one := range e.latest[:e.count] {
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
func (e *edits) back(ack uint32) uint32 {
	shift := e.before
	for _, one := range e.latest[:e.count] {
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
