package sim

import (
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// tcpState is a state of RFC 9293 section 3.3.2; LISTEN is a listener.
type tcpState uint8

const (
	closed      tcpState = iota // not in the host's table any more
	synSent                     // dialing: SYN sent. Left by SYN-ACK, SYN (simultaneous open), RST, time
	synReceived                 // both SYNs known, ours not acknowledged
	established                 // left by either FIN
	closeWait                   // the peer's FIN is in, ours not out
	finWait1                    // our FIN is out and not acknowledged
	finWait2                    // ... acknowledged
	closing                     // both FINs are out, ours not acknowledged
	lastAck                     // as closing, but the peer's FIN was first
	timeWait                    // both FINs acknowledged; left after a minute
)

// Limits and times, as Linux has them where it matters.
const (
	bufferSize    = 256 << 10 // each way
	windowScale   = 7
	defaultMSS    = 536
	initialCwnd   = 10 // segments
	synTimeout    = time.Second
	minRTO        = 200 * time.Millisecond
	maxRTO        = 120 * time.Second
	synRetries    = 6
	synAckRetries = 5
	dataRetries   = 15
	orphanTimeout = time.Minute // in finWait2, with nobody reading
	lastState     = time.Minute // timeWait
)

// tcpConn is one end of a connection.
type tcpConn struct {
	h     *Host
	flow  flow
	state tcpState
	err   error // why it is closed; nil while it is not, or at a clean end

	listener *listener     // that will accept it; nil once it has, and for dialed ones
	opened   chan struct{} // closed when a dial has ended
	waiting  bool          // opened is not closed yet
	detached bool          // the user has closed it
	linger   bool          // false: SetLinger(0) was called
	cond     sync.Cond
	read     deadline
	write    deadline

	ttl     uint8
	minTTL  uint8 // what comes with less is not for us
	softErr error // what ICMP last said

	corrects int64 // when the peer may be corrected again

	snd sender
	rcv receiver

	// One timer does everything; an event may be pending for an earlier time
	// than is wanted.
	timeout int64 // never
	pending int64 // never
}

func (h *Host) newConn(f flow) *tcpConn {
	c := &tcpConn{h: h, flow: f, timeout: never, pending: never, linger: true, ttl: ip.DefaultTTL}
	c.cond.L = &h.n.mu
	c.read, c.write = newDeadline(h.n, &c.cond), newDeadline(h.n, &c.cond)
	c.snd.init(h.rnd.Uint32(), h.mss(f))
	h.tcp[f] = c
	return c
}

func (h *Host) mss(f flow) int {
	return h.mtu(f.remote.Addr()) - ip.HeaderLen(f.remote.Addr()) - 20
}

// settled tells the dialer, or the listener, that the handshake is over.
func (c *tcpConn) settled() {
	if c.waiting {
		c.waiting = false
		close(c.opened)
	}
	if l := c.listener; l != nil {
		c.listener = nil
		l.settled(c)
	}
}

// die ends the connection at once and without a word.
func (c *tcpConn) die(err error) {
	if c.state == closed {
		return
	}
	c.state = closed
	c.err = err
	c.timeout = never
	c.snd.buf = fifo{}
	c.rcv.early = nil
	delete(c.h.tcp, c.flow)
	c.settled()
	c.cond.Broadcast()
}

// abort ends the connection with a RST to the peer.
func (c *tcpConn) abort(err error) {
	if c.state != synSent && c.state != closed && c.state != timeWait {
		c.h.reset(c.flow, ip.Segment{Seq: c.snd.nxt, Ack: c.rcv.nxt, Flags: ip.RST | ip.ACK})
	}
	c.die(err)
}

// receiveTCP finds out who a segment is for.
func (h *Host) receiveTCP(p *ip.Packet) {
	var s ip.Segment
	p.Segment(&s)
	f := flow{p.Dst, p.Src}
	if c := h.tcp[f]; c != nil {
		if h.ttl < c.minTTL {
			return
		}
		if c.state != timeWait || !c.reused(&s) {
			c.receive(&s)
			return
		}
		c.die(nil)
	}
	if l := h.listeners[f.local.Port()]; l != nil && s.Flags&(ip.SYN|ip.ACK|ip.RST) == ip.SYN {
		l.receive(f, &s)
		return
	}
	if s.Flags&ip.RST != 0 {
		return
	}
	answer := ip.Segment{Seq: s.Ack, Flags: ip.RST}
	if s.Flags&ip.ACK == 0 {
		answer = ip.Segment{Ack: s.Seq + length(&s), Flags: ip.RST | ip.ACK}
	}
	h.reset(f, answer)
}

func (h *Host) reset(f flow, s ip.Segment) {
	pkt := h.n.take()
	pkt.b = ip.AppendTCP(pkt.b, f.local, f.remote, ip.DefaultTTL, &s)
	h.output(pkt)
}

// length is how much of the sequence space a segment takes.
func length(s *ip.Segment) uint32 {
	n := uint32(len(s.Payload))
	if s.Flags&ip.SYN != 0 {
		n++
	}
	if s.Flags&ip.FIN != 0 {
		n++
	}
	return n
}

// before compares sequence numbers.
func before(a, b uint32) bool { return int32(a-b) < 0 }

// reused: a SYN may start a new connection in place of one in timeWait
// (RFC 9293 section 3.10.7.4).
func (c *tcpConn) reused(s *ip.Segment) bool {
	return s.Flags&(ip.SYN|ip.ACK|ip.RST) == ip.SYN && before(c.rcv.nxt, s.Seq) &&
		c.h.listeners[c.flow.local.Port()] != nil
}

// trouble is an ICMP error about the segment that begins at seq. It ends a dial
// at once, as Linux has it; of what is open it proves nothing (RFC 5927), and
// is only remembered.
func (c *tcpConn) trouble(t trouble, seq uint32) {
	s := &c.snd
	if before(seq, s.una) || before(s.max, seq) {
		return
	}
	if t.mtu != 0 {
		c.smallerPath()
		return
	}
	switch {
	case c.waiting:
		c.die(os.NewSyscallError("connect", t.errno))
	case c.listener != nil:
		if t.sure {
			c.die(t.errno)
		}
	case t.errno != syscall.EMSGSIZE:
		c.softErr = t.errno
	}
}

// smallerPath cuts smaller segments from now on, and sends anew what may have
// been too large.
func (c *tcpConn) smallerPath() {
	s := &c.snd
	if mss := c.h.mss(c.flow); mss < s.mss {
		s.mss = mss
		switch c.state {
		case established, closeWait, finWait1, closing, lastAck:
			s.nxt = s.una
			c.output()
		}
	}
}
