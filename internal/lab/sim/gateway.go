package sim

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Gateway is a gateway of the topology.
type Gateway struct {
	n         *Network
	name      string
	behaviour nat.Behaviour
	nat       *nat.Gateway
	inside    *port
	outside   *port
}

func (g *Gateway) translates() bool { return g.behaviour.Mode == nat.Translate }

// start makes the machine; all routes must be known.
func (g *Gateway) start() (err error) {
	s := g.inside.segment
	inside := slices.Clone(s.onLink)
	for _, r := range s.routes {
		inside = append(inside, r.prefix)
	}
	g.nat, err = nat.New(nat.Config{
		Behaviour: g.behaviour,
		Inside:    inside,
		Own:       [nat.Local][]netip.Addr{nat.Inside: g.inside.addrs, nat.Outside: g.outside.addrs},
		Rand:      rand.NewPCG(g.n.opt.Seed, hash(g.name)),
	})
	return err
}

// Mappings are the gateway's, as of now.
func (g *Gateway) Mappings() []nat.Mapping {
	g.n.enter()
	defer g.n.leave()
	return g.nat.Mappings(g.n.time())
}

// Stats are the gateway's.
func (g *Gateway) Stats() nat.Stats {
	g.n.enter()
	defer g.n.leave()
	return g.nat.Stats()
}

// External are the gateway's outside addresses.
func (g *Gateway) External() []netip.Addr { return g.outside.addrs }

func (g *Gateway) receive(p *port, pkt *buffer) {
	n := g.n
	src, dst := addresses(pkt.b)
	to := g.inside
	var v nat.Verdict
	if p == g.inside {
		to = g.outside
		v = g.nat.Handle(n.time(), nat.Inside, pkt.b, nat.Offload{})
		if v.To == nat.Inside && v.Action == nat.Forward {
			to = g.inside
		}
	} else {
		if n.cut(g.name, pkt.b, src, dst) {
			n.drop(p, pkt, "cut")
			return
		}
		v = g.nat.Handle(n.time(), nat.Outside, pkt.b, nat.Offload{})
	}
	if v.Action == nat.Drop {
		if v.Reason == nat.Expired {
			g.expired(p, pkt)
		}
		n.drop(p, pkt, v.Reason.String())
		return
	}
	if to == g.outside {
		if s, d := addresses(pkt.b); n.cut(g.name, pkt.b, s, d) {
			n.drop(to, pkt, "cut")
			return
		}
	}
	n.trace(Forwarded, to, pkt.b, "")
	to.send(pkt)
}

// expired tells the sender that its packet has come no further.
func (g *Gateway) expired(p *port, pkt *buffer) {
	from := p.addr(pkt.b[0]>>4 == 4)
	if !from.IsValid() {
		return
	}
	answer := g.n.take()
	if answer.b = ip.AppendError(answer.b, from, ip.TimeExceeded, pkt.b); len(answer.b) == 0 {
		g.n.give(answer)
		return
	}
	p.send(answer)
}
