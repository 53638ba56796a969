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

type direction bool

const (
	outbound direction = false
	inbound  direction = true
)

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
