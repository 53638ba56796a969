package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// ruling is what the packet filter says.
type ruling uint8

const (
	undecided ruling = iota
	accepted         // also what the filtering policy would not let in
	discarded
	rejected
)

// rule asks the packet filter about the first packet of a session, or in mode
// Open about any packet. src and dst are its endpoints as seen inside.
func (g *Gateway) rule(from, to Side, p *ip.Packet, src, dst netip.AddrPort) ruling {
	return undecided
}
