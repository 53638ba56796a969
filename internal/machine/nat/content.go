package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// inspect asks the content filter about a packet of a session, before it is
// translated.
func (g *Gateway) inspect(f *flow, p *ip.Packet) Reason { return None }
