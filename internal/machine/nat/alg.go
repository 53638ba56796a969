package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// rewrite changes the payload of a packet that has been translated, when the
// behaviour says ALG. Kept: a longer packet was emitted in its place.
func (g *Gateway) rewrite(f *flow, p *ip.Packet) Reason { return None }
