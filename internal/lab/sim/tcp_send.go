package sim

import (
	"cmp"
	"encoding/binary"
	"syscall"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// sender is the sending half of a connection: cumulative acknowledgement,
// go-back-N after a timeout, fast retransmit (RFC 6582 without SACK), and a
// Reno window so that a slow link is not swamped.
type sender struct {
	una uint32 // oldest unacknowledged
	nxt uint32 // next to send
	max uint32 // highest sent
	buf fifo   // from una on, SYN and FIN not counted
	fin bool   // after buf comes a FIN
	out bool   // and it was sent

	wnd   int // the peer's
	scale uint8
	mss   int

	cwnd, ssthresh int
	dups           int
	recovering     bool
	recover        uint32

	rto          time.Duration
	srtt, rttvar time.Duration // 0: not measured
	timedSeq     uint32        // whose acknowledgement is timed
	timedAt      int64         // never: none is
	tries        int           // timeouts in a row
}

func (s *sender) init(iss uint32, mss int) {
	*s = sender{
		una: iss, nxt: iss, max: iss, recover: iss,
		mss: mss, cwnd: initialCwnd * mss, ssthresh: bufferSize,
		rto: synTimeout, timedAt: never,
	}
}

// sendSYN sends SYN or SYN-ACK.
func (c *tcpConn) sendSYN(flags uint8) {
	s := &c.snd
	mss := c.h.mss(c.flow)
	opts := []byte{2, 4, byte(mss >> 8), byte(mss), 1, 3, 3, windowScale}
	if s.tries == 0 {
		s.timedSeq, s.timedAt = s.una, c.h.n.now
	} else {
		s.timedAt = never
	}
	c.transmit(&ip.Segment{Seq: s.una, Flags: flags, Window: 65535, Options: opts})
}

// synOptions are the peer's; a missing one has its default.
func (s *sender) synOptions(opts []byte) (scaled bool) {
	mss := defaultMSS
	for len(opts) > 0 && opts[0] != 0 {
		if opts[0] == 1 {
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
			break
		}
		switch {
		case opts[0] == 2 && opts[1] == 4:
			mss = int(binary.BigEndian.Uint16(opts[2:]))
		case opts[0] == 3 && opts[1] == 3:
			s.scale, scaled = min(opts[2], 14), true
		}
		opts = opts[opts[1]:]
	}
	s.mss = max(min(s.mss, mss), 64)
	s.cwnd = initialCwnd * s.mss
	return scaled
}

// transmit completes a segment with what every one has.
func (c *tcpConn) transmit(s *ip.Segment) {
	if s.Flags&ip.ACK != 0 {
		s.Ack = c.rcv.nxt
		c.rcv.ackNow = false
	}
	if s.Flags&ip.SYN == 0 {
		s.Window = c.rcv.advertise()
	}
	pkt := c.h.n.take()
	pkt.b = ip.AppendTCP(pkt.b, c.flow.local, c.flow.remote, c.ttl, s)
	c.h.output(pkt)
}

// sendACK uses max: with the sequence number of a retransmission, the ends
// could go on correcting each other for ever.
func (c *tcpConn) sendACK() { c.transmit(&ip.Segment{Seq: c.snd.max, Flags: ip.ACK}) }

// output sends what the windows allow.
func (c *tcpConn) output() {
	s := &c.snd
	switch c.state {
	case established, closeWait, finWait1, closing, lastAck:
	default:
		return
	}
	for {
		flight := int(s.nxt - s.una)
		if flight > s.buf.len() { // the FIN is out
			break
		}
		window := min(s.wnd, s.cwnd) - flight
		n := max(0, min(s.buf.len()-flight, s.mss, window))
		if n < s.mss && n < s.buf.len()-flight && flight > 0 {
			break // not worth a segment before an acknowledgement comes
		}
		fin := s.fin && flight+n == s.buf.len() && n < window
		if n == 0 && !fin {
			break
		}
		c.sendData(flight, n, fin)
	}
	if c.timeout == never && (s.nxt != s.una || s.buf.len() > 0 || s.fin) {
		c.startTimer(s.rto)
	}
}

// sendData sends n bytes that are offset behind una.
func (c *tcpConn) sendData(offset, n int, fin bool) {
	s := &c.snd
	seg := ip.Segment{Seq: s.una + uint32(offset), Flags: ip.ACK, Payload: s.buf.bytes()[offset : offset+n]}
	if n > 0 && offset+n == s.buf.len() {
		seg.Flags |= ip.PSH
	}
	if fin {
		seg.Flags |= ip.FIN
		s.out = true
	}
	end := seg.Seq + length(&seg)
	if before(s.nxt, end) {
		s.nxt = end
	}
	switch {
	case !before(seg.Seq, s.max):
		if s.timedAt == never {
			s.timedSeq, s.timedAt = seg.Seq, c.h.n.now
		}
	case !before(s.timedSeq, seg.Seq):
		s.timedAt = never // sent twice: Karn
	}
	if before(s.max, end) {
		s.max = end
	}
	c.transmit(&seg)
}

// resend repeats the oldest segment.
func (c *tcpConn) resend() {
	s := &c.snd
	n := min(s.buf.len(), s.mss)
	c.sendData(0, n, s.fin && n == s.buf.len())
}

// acknowledged handles the acknowledgement and window of an acceptable
// segment. False: it acknowledges what was never sent.
func (c *tcpConn) acknowledged(seg *ip.Segment) bool {
	s := &c.snd
	wnd := int(seg.Window)
	if seg.Flags&ip.SYN == 0 {
		wnd <<= s.scale
	}
	switch {
	case before(s.max, seg.Ack):
		return false
	case before(seg.Ack, s.una):
		return true
	case seg.Ack == s.una:
		same := wnd == s.wnd && length(seg) == 0 && s.nxt != s.una
		s.wnd = wnd
		if same {
			c.duplicate()
		} else if s.nxt == s.una {
			s.tries = 0 // the answer to a probe: the peer lives
		}
		return true
	}
	s.wnd = wnd
	acked := seg.Ack - s.una
	s.una = seg.Ack
	s.buf.drop(min(int(acked), s.buf.len()))
	if before(s.nxt, s.una) {
		s.nxt = s.una
	}
	s.measure(c.h.n.now)
	if s.tries > 0 {
		s.tries, s.rto = 0, s.base()
	}
	s.grow(int(acked))
	c.timeout = never
	if s.nxt != s.una {
		c.startTimer(s.rto)
	}
	if s.recovering && before(s.una, s.recover) {
		c.resend() // a partial acknowledgement: the next hole
	} else {
		s.recovering, s.dups = false, 0
	}
	c.cond.Broadcast()
	return true
}

func (s *sender) grow(acked int) {
	switch {
	case s.recovering:
		s.cwnd = s.ssthresh
	case s.cwnd < s.ssthresh:
		s.cwnd += min(acked, 2*s.mss)
	default:
		s.cwnd += max(1, s.mss*min(acked, s.mss)/s.cwnd)
	}
	s.cwnd = min(s.cwnd, 2*bufferSize)
}

func (s *sender) backOff() {
	s.ssthresh = max(int(s.max-s.una)/2, 2*s.mss)
	s.recover = s.max
}

// duplicate: three of them mean a loss; more mean that packets arrive.
func (c *tcpConn) duplicate() {
	s := &c.snd
	s.dups++
	switch {
	case s.dups == 3 && !s.recovering && !before(s.una, s.recover):
		s.backOff()
		s.recovering = true
		s.cwnd = s.ssthresh + 3*s.mss
		c.resend()
	case s.dups > 3 && s.recovering:
		s.cwnd += s.mss
	}
}

// measure updates the timeout (RFC 6298) when the timed segment is
// acknowledged.
func (s *sender) measure(now int64) {
	if s.timedAt == never || !before(s.timedSeq, s.una) {
		return
	}
	r := time.Duration(now - s.timedAt)
	s.timedAt = never
	if s.srtt == 0 {
		s.srtt, s.rttvar = r, r/2
	} else {
		s.rttvar = (3*s.rttvar + (s.srtt - r).Abs()) / 4
		s.srtt = (7*s.srtt + r) / 8
	}
	s.rto = s.base()
}

// base is the timeout without back-off.
func (s *sender) base() time.Duration {
	if s.srtt == 0 {
		return synTimeout
	}
	return min(max(s.srtt+4*s.rttvar, minRTO), maxRTO)
}

func (c *tcpConn) startTimer(d time.Duration) {
	c.timeout = c.h.n.now + int64(d)
	if c.timeout < c.pending {
		c.pending = c.timeout
		c.h.n.schedule(c.timeout, c, nil)
	}
}

// fire: the timer's event has come, maybe too early.
func (c *tcpConn) fire(*buffer) {
	now := c.h.n.now
	if now < c.pending {
		return
	}
	c.pending = never
	switch {
	case c.timeout == never:
	case now < c.timeout:
		c.pending = c.timeout
		c.h.n.schedule(c.timeout, c, nil)
	default:
		c.timeout = never
		c.expired()
	}
}

func (c *tcpConn) expired() {
	s := &c.snd
	most := dataRetries
	switch c.state {
	case closed:
		return
	case timeWait, finWait2:
		c.die(nil)
		return
	case synSent:
		most = synRetries
	case synReceived:
		most = synAckRetries
	}
	if s.tries++; s.tries > most {
		c.die(cmp.Or[error](c.softErr, syscall.ETIMEDOUT))
		return
	}
	s.rto = min(2*s.rto, maxRTO)
	c.startTimer(s.rto)
	switch c.state {
	case synSent:
		c.sendSYN(ip.SYN)
		return
	case synReceived:
		c.sendSYN(ip.SYN | ip.ACK)
		return
	}
	if s.nxt == s.una { // the peer's window is closed: make it answer
		c.transmit(&ip.Segment{Seq: s.una - 1, Flags: ip.ACK})
		return
	}
	if s.tries == 3 && s.mss > 1000 { // as if a smaller MTU were on the way
		s.mss = 1000
	}
	s.backOff()
	s.cwnd, s.dups, s.recovering = s.mss, 0, false
	s.nxt = s.una
	s.timedAt = never
	c.resend()
}
