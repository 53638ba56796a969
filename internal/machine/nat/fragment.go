package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// fragment takes a part of a packet, in modes that look at ports.
func (g *Gateway) fragment(from Side, p *ip.Packet) Verdict { return drop(Unsupported) }

// fit makes a packet fit the side that it leaves by. Kept: it was emitted in
// pieces.
func (g *Gateway) fit(from, to Side, p *ip.Packet) Reason { return None }
