package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// unsolicited answers a packet from outside that is let in for the reason
// given to nobody. The packet is as it came.
func (g *Gateway) unsolicited(from Side, p *ip.Packet, r Reason) Verdict { return drop(r) }

// refused answers a packet that a rule with Reject dropped.
func (g *Gateway) refused(from Side, p *ip.Packet) {}

// outlived answers a packet whose TTL is over.
func (g *Gateway) outlived(from Side, p *ip.Packet) {}

// ping answers an echo request to an address of the gateway's, if it is one.
func (g *Gateway) ping(from Side, p *ip.Packet) bool { return false }
