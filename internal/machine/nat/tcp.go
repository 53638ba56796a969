package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// tcpState is which segments a connection has shown, in either direction. It
// is transitory until the handshake is complete and again from the second FIN
// or the first RST on (RFC 5382 REQ-5, RFC 7857 section 2).
type tcpState uint8

const (
	synOut tcpState = 1 << iota
	synIn
	finOut
	finIn
	acked // a segment after both SYNs
	reset
)

// opens reports whether p may be the first segment of a connection.
func opens(p *ip.Packet) bool {
	return p.Proto != ip.TCP || p.TCPFlags()&(ip.SYN|ip.ACK|ip.RST) == ip.SYN
}

// follow follows a connection by the next of its segments, before it is
// translated. It says how long the connection is remembered from now on;
// noClass: it is over with this segment. A segment with a reason is dropped
// and changes nothing.
func (g *Gateway) follow(f *flow, p *ip.Packet) (class, Reason) {
	s := g.session(f.session)
	s.tcp = s.tcp.next(p.TCPFlags(), f.d)
	return s.tcp.class(), None
}

// unfollow gives back what follow keeps elsewhere about a session that ends.
func (g *Gateway) unfollow(s *session) {}

func (s tcpState) next(flags uint8, d direction) tcpState {
	syn, fin := synOut, finOut
	if d == inbound {
		syn, fin = synIn, finIn
	}
	if flags&ip.RST != 0 {
		return s | reset
	}
	if flags&ip.SYN != 0 {
		if flags&ip.ACK == 0 && s.closed() {
			return syn
		}
		return s | syn
	}
	if s&(synOut|synIn) == synOut|synIn {
		s |= acked
	}
	if flags&ip.FIN != 0 {
		s |= fin
	}
	return s
}

func (s tcpState) closed() bool {
	return s&reset != 0 || s&(finOut|finIn) == finOut|finIn
}

func (s tcpState) class() class {
	if s&acked != 0 && !s.closed() {
		return classEstablished
	}
	return classTransitory
}
