package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// flow is where the packet at hand belongs. A hairpinned packet belongs to two
// flows, one after the other.
type flow struct {
	from, to Side
	d        direction
	mapping  uint32
	session  uint32
	// fresh says that this is the first packet of its session.
	fresh bool
}

type direction bool

const (
	outbound direction = false // from the mapping's internal endpoint
	inbound  direction = true
)

// far is the side that a mapping's key has for a flow's remote end. Who is
// reached without translation counts to the DMZ.
func (g *Gateway) far(f *flow, remote netip.AddrPort) Side {
	if f.from == DMZ && f.d == inbound || f.to == DMZ && f.d == outbound || g.untranslated(remote) {
		return DMZ
	}
	return Outside
}

// untranslated reports whether hosts reach a remote endpoint outside with
// their own addresses.
func (g *Gateway) untranslated(remote netip.AddrPort) bool {
	return len(g.cfg.Untranslated) > 0 && remote.Addr().Is4() && anyHas(g.cfg.Untranslated, remote) &&
		g.owner(remote.Addr()) == Local
}

// policy is what governs a protocol.
func (g *Gateway) policy(proto ip.Proto) *Policy {
	if proto == ip.TCP {
		return &g.tcpPolicy
	}
	return &g.udpPolicy
}

// emit makes Poll give out a packet, which is the gateway's from now on. When
// too many wait already, it is lost, as any packet can be.
func (g *Gateway) emit(to Side, pkt []byte) {
	if len(g.queue) < maxQueue {
		g.queue = append(g.queue, Out{to, pkt})
	}
}

// maxQueue bounds what waits for Poll.
const maxQueue = 1024

// Out is a packet that the gateway makes itself: an answer, an ICMP error, or
// another in the place of one that it kept.
type Out struct {
	To     Side
	Packet []byte // the caller's from now on
}

// Poll takes the next packet that is due. Ask until there is none, after each
// Handle and each HandleTimeout.
func (g *Gateway) Poll() (Out, bool) {
	if len(g.queue) == 0 {
		return Out{}, false
	}
	out := g.queue[0]
	g.queue[0] = Out{}
	if g.queue = g.queue[1:]; len(g.queue) == 0 {
		g.queue = nil
	}
	return out, true
}
