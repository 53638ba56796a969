package sim

import (
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// receiver is the receiving half of a connection.
type receiver struct {
	nxt    uint32 // next expected
	edge   uint32 // end of what was advertised
	scale  uint8
	buf    fifo    // for the user
	early  []piece // beyond nxt, by sequence number
	ackNow bool
	fin    bool // the FIN has been taken
}

// piece is a segment that came out of order.
type piece struct {
	seq  uint32
	data []byte
	fin  bool
}

func (r *receiver) advertise() uint16 {
	w := min(max(0, bufferSize-r.buf.len())>>r.scale, 65535)
	if edge := r.nxt + uint32(w)<<r.scale; before(r.edge, edge) {
		r.edge = edge
	}
	return uint16(w)
}

// acceptable is the test of RFC 9293 section 3.4, against all that was ever
// advertised.
func (r *receiver) acceptable(s *ip.Segment) bool {
	end := s.Seq + length(s)
	if end == s.Seq {
		return !before(s.Seq, r.nxt) && !before(r.edge, s.Seq)
	}
	return before(r.nxt, end) && before(s.Seq, r.edge)
}

// synchronize takes the peer's SYN.
func (c *tcpConn) synchronize(s *ip.Segment) {
	c.rcv.nxt = s.Seq + 1
	c.rcv.edge = c.rcv.nxt + 65535
	if c.snd.synOptions(s.Options) {
		c.rcv.scale = windowScale
	} else {
		c.snd.scale = 0
	}
	c.snd.wnd = int(s.Window)
}

// receive handles a segment (RFC 9293 section 3.10.7).
func (c *tcpConn) receive(s *ip.Segment) {
	if c.state == synSent {
		c.receiveSynSent(s)
		return
	}
	if c.state == synReceived && s.Flags&ip.SYN != 0 && s.Seq+1 == c.rcv.nxt {
		if s.Flags&ip.ACK == 0 { // again: our SYN-ACK was lost, or it crossed it
			c.sendSYN(ip.SYN | ip.ACK)
			return
		}
		s.Seq++ // the SYN-ACK of a simultaneous open
		s.Flags &^= ip.SYN
		s.Window = min(s.Window, 65535>>c.snd.scale)
	}
	if !c.rcv.acceptable(s) {
		if s.Flags&ip.RST == 0 {
			c.correct(s)
		}
		return
	}
	switch {
	case s.Flags&ip.RST != 0:
		c.receiveRST(s)
		return
	case s.Flags&ip.SYN != 0: // RFC 5961: make sure
		c.correct(s)
		return
	case s.Flags&ip.ACK == 0:
		return
	}
	if c.state == synReceived {
		if s.Ack != c.snd.max {
			c.h.reset(c.flow, ip.Segment{Seq: s.Ack, Flags: ip.RST})
			return
		}
		c.open()
	}
	if !c.acknowledged(s) {
		c.correct(s)
		return
	}
	c.advance()
	if c.state == closed {
		return
	}
	c.receiveText(s)
	if c.state == closed {
		return
	}
	c.output()
	if c.rcv.ackNow {
		c.sendACK()
	}
}

// correct tells the peer where we are. What carries no data is answered twice a
// second at most, as in Linux: else two ends that take each other for somebody
// else could go on for ever.
func (c *tcpConn) correct(s *ip.Segment) {
	if len(s.Payload) == 0 || s.Flags&ip.SYN != 0 {
		if c.h.n.now < c.corrects {
			return
		}
		c.corrects = c.h.n.now + int64(time.Second/2)
	}
	c.sendACK()
}

func (c *tcpConn) receiveSynSent(s *ip.Segment) {
	ack := s.Flags&ip.ACK != 0
	if ack && s.Ack != c.snd.nxt {
		if s.Flags&ip.RST == 0 {
			c.h.reset(c.flow, ip.Segment{Seq: s.Ack, Flags: ip.RST})
		}
		return
	}
	switch {
	case s.Flags&ip.RST != 0:
		if ack {
			c.die(os.NewSyscallError("connect", syscall.ECONNREFUSED))
		}
	case s.Flags&ip.SYN == 0:
	case ack:
		c.synchronize(s)
		c.acknowledged(s)
		c.open()
		c.sendACK()
	default: // simultaneous open
		c.synchronize(s)
		c.state = synReceived
		c.sendSYN(ip.SYN | ip.ACK)
	}
}

// open: the handshake is complete.
func (c *tcpConn) open() {
	c.state = established
	c.settled()
}

// receiveRST: only an exact one counts, others are asked about (RFC 5961).
func (c *tcpConn) receiveRST(s *ip.Segment) {
	switch {
	case s.Seq != c.rcv.nxt:
		c.correct(s)
	case c.state == timeWait:
		c.die(nil)
	case c.state == synReceived && c.waiting:
		c.die(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	default:
		c.die(syscall.ECONNRESET)
	}
}

// advance moves the state on when our FIN has been acknowledged.
func (c *tcpConn) advance() {
	s := &c.snd
	if !s.out || s.buf.len() > 0 || s.una != s.max || s.nxt != s.una {
		return
	}
	switch c.state {
	case finWait1:
		c.state = finWait2
		if c.detached {
			c.startTimer(orphanTimeout)
		}
	case closing:
		c.state = timeWait
		c.startTimer(lastState)
	case lastAck:
		c.die(nil)
	}
}

// receiveText takes the data and the FIN.
func (c *tcpConn) receiveText(s *ip.Segment) {
	r := &c.rcv
	if length(s) == 0 {
		return
	}
	r.ackNow = true
	if c.state != established && c.state != finWait1 && c.state != finWait2 {
		return // the peer's FIN is behind us
	}
	if c.detached && len(s.Payload) > 0 && before(r.nxt, s.Seq+uint32(len(s.Payload))) {
		c.abort(nil) // nobody will read it
		return
	}
	p := piece{s.Seq, s.Payload, s.Flags&ip.FIN != 0}
	if before(p.seq, r.nxt) {
		p.data = p.data[min(int(r.nxt-p.seq), len(p.data)):]
		p.seq = r.nxt
	}
	if room := int(r.edge - p.seq); len(p.data) > room {
		p.data, p.fin = p.data[:room], false
	}
	if p.seq != r.nxt {
		r.keep(p)
		return
	}
	r.take(p)
	for len(r.early) > 0 && !before(r.nxt, r.early[0].seq) {
		p := r.early[0]
		r.early = slices.Delete(r.early, 0, 1)
		p.data = p.data[min(int(r.nxt-p.seq), len(p.data)):]
		r.take(p)
	}
	if r.fin {
		c.receiveFIN()
	}
	c.cond.Broadcast()
}

func (r *receiver) take(p piece) {
	if r.fin {
		return
	}
	r.buf.push(p.data)
	r.nxt += uint32(len(p.data))
	if p.fin {
		r.nxt++
		r.fin = true
	}
}

// keep stores a piece for later; one that is there already is kept as it is.
func (r *receiver) keep(p piece) {
	i, found := slices.BinarySearchFunc(r.early, p.seq, func(q piece, seq uint32) int { return int(int32(q.seq - seq)) })
	if found && len(r.early[i].data) >= len(p.data) {
		return
	}
	p.data = slices.Clone(p.data)
	if found {
		r.early[i] = p
		return
	}
	r.early = slices.Insert(r.early, i, p)
}

func (c *tcpConn) receiveFIN() {
	switch c.state {
	case established:
		c.state = closeWait
	case finWait1:
		c.state = closing
	case finWait2:
		c.state = timeWait
		c.startTimer(lastState)
	}
	c.advance()
}
