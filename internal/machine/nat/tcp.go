package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// tcpState is which segments a connection has shown, in either direction. It
// is transitory until both ends have sent a SYN and an ACK, in whichever segments,
// and again from the second FIN or the first RST on (RFC 5382 section 5, RFC 7857
// section 2). An RST may be
// forged: a connection that goes on after it is what it was (RFC 7857 section
// 2.2, after RFC 6146 section 3.5.2.2).
type tcpState uint8

const (
	synOut tcpState = 1 << iota
	synIn
	finOut
	finIn
	ackOut
	ackIn
	reset
	errored // an ICMP error came in since the last SYN out
)

// sameClass leaves a session's timer alone.
const sameClass class = 0xff

// opens reports whether p may be the first segment of a connection.
func opens(p *ip.Packet) bool {
	return p.Proto != ip.TCP || p.TCPFlags()&(ip.SYN|ip.ACK|ip.RST) == ip.SYN
}

// picksUp reports whether an outbound p is taken for the middle of a
// connection that was forgotten, as conntrack does.
func (g *Gateway) picksUp(p *ip.Packet) bool {
	flags := p.TCPFlags()
	return g.cfg.TCP.CheckWindow && soundFlags(flags) && kindOf(flags) == kindACK
}

// follow follows a connection by the next of its segments, before it is
// translated. It says how long the connection is remembered from now on;
// noClass: it is over with this segment; sameClass: as before. A segment with a
// reason is dropped and changes nothing.
func (g *Gateway) follow(f *flow, p *ip.Packet) (class, Reason) {
	s := g.session(f.session)
	flags := p.TCPFlags()
	if g.cfg.TCP.refuses(s.tcp, flags, f.d) {
		return noClass, OutOfWindow
	}
	if g.late.queue != nil && flags&ip.SYN != 0 {
		g.wanted(f, p)
	}
	j := good
	if g.tracking {
		var r Reason
		if j, r = g.track(f, s, p); r != None {
			return noClass, r
		}
	}
	switch {
	case j == ignored:
		return sameClass, None
	case j == last, flags&ip.RST != 0 && f.d == inbound && g.cfg.TCP.RSTCloses:
		return noClass, None
	}
	s.tcp = s.tcp.next(flags, f.d)
	c := s.tcp.class()
	if flags&ip.RST != 0 && f.d == outbound && g.now+g.timeouts[c] >= s.expires {
		return sameClass, None // RFC 7857 section 7.1: it keeps nothing alive
	}
	return c, None
}

// wanted withdraws what was to be answered to a SYN: now there is a connection.
func (g *Gateway) wanted(f *flow, p *ip.Packet) {
	if f.d == outbound {
		g.late.withdraw(pair{g.external(g.mapping(f.mapping)), p.Dst})
	} else {
		g.late.withdraw(pair{p.Dst, p.Src})
	}
}

// refuses says which segments of a handshake a gateway does not let pass.
func (c *TCP) refuses(s tcpState, flags uint8, d direction) bool {
	switch flags & (ip.SYN | ip.ACK | ip.RST) {
	case ip.SYN:
		return c.RefuseSYN && d == inbound && s&synOut != 0
	case ip.SYN | ip.ACK:
		if d == inbound {
			return c.RefuseSYNACK && s&errored != 0 && !s.open()
		}
		return c.RefuseSYNACKOut && s&(synOut|synIn) == synOut
	}
	return false
}

func (s tcpState) next(flags uint8, d direction) tcpState {
	syn, fin, ack := synOut, finOut, ackOut
	if d == inbound {
		syn, fin, ack = synIn, finIn, ackIn
	}
	if flags&ip.RST != 0 {
		return s | reset
	}
	if flags&ip.ACK != 0 {
		s |= ack
	}
	if flags&ip.SYN != 0 {
		if flags&ip.ACK == 0 && s.closed() {
			return syn
		}
		if d == outbound {
			s &^= errored
		}
		return s | syn
	}
	s &^= reset
	if flags&ip.FIN != 0 {
		s |= fin
	}
	return s
}

// open reports whether the handshake is complete.
func (s tcpState) open() bool {
	const all = synOut | synIn | ackOut | ackIn
	return s&all == all
}

func (s tcpState) closed() bool {
	return s&reset != 0 || s&(finOut|finIn) == finOut|finIn
}

func (s tcpState) class() class {
	switch {
	case s&reset != 0:
		return classAfterRST
	case s.closed():
		return classAfterFIN
	case s.open():
		return classEstablished
	}
	return classTransitory
}
