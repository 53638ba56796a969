package sim

import (
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Rule drops packets, silently.
type Rule struct {
	// At is the network that the packets are put on, or the gateway that they
	// go through, with the addresses that they have outside of it. Empty is
	// the internet.
	At string
	// A and B are the two ends; an invalid one stands for any.
	A, B netip.Addr
	// OneWay drops packets from A to B only.
	OneWay bool
	// Proto narrows the rule to a protocol; ip.Other is all of them.
	Proto ip.Proto
}

type rule struct{ Rule }

// Cut adds a rule. The function it returns takes it away again.
func (n *Network) Cut(r Rule) (restore func()) {
	n.enter()
	defer n.leave()
	if r.At == "" {
		r.At = scenario.Internet
	}
	added := &rule{r}
	n.rules = append(n.rules, added)
	return func() {
		n.enter()
		defer n.leave()
		n.rules = slices.DeleteFunc(n.rules, func(r *rule) bool { return r == added })
	}
}

func (r *rule) matches(src, dst netip.Addr) bool {
	return (!r.A.IsValid() || r.A == src) && (!r.B.IsValid() || r.B == dst)
}

func (n *Network) cut(at string, pkt []byte, src, dst netip.Addr) bool {
	for _, r := range n.rules {
		if r.At != at || !r.matches(src, dst) && (r.OneWay || !r.matches(dst, src)) {
			continue
		}
		if r.Proto == ip.Other {
			return true
		}
		var p ip.Packet
		if p.Decode(pkt) == nil && p.Proto == r.Proto {
			return true
		}
	}
	return false
}
