package sim

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// outlet attaches an ordinary host: one port, with an address by DHCP if it is
// so, and a firewall in front of it if it has one.
type outlet struct {
	h        *Host
	p        *port
	lease    *lease // nil: its addresses are fixed
	rules    *nat.Behaviour
	firewall *nat.Gateway // nil: it has none
	wake     wake
}

func (n *Network) newOutlet(h *Host, p *port, rules *nat.Behaviour) error {
	o := &outlet{h: h, p: p, rules: rules}
	o.wake = newWake(n, func() {
		if o.firewall != nil {
			o.firewall.HandleTimeout(n.time())
			o.drain()
		}
	})
	h.at, h.port, p.node = o, p, o
	return o.protect()
}

// protect makes a firewall for the addresses that the host has now. What the
// one before knew is forgotten: it was about other addresses.
func (o *outlet) protect() (err error) {
	if o.firewall = nil; o.rules == nil {
		return nil
	}
	n := o.h.n
	cfg := nat.Config{Behaviour: *o.rules, Rand: rand.NewPCG(n.opt.Seed, hash(o.h.name+" firewall"))}
	cfg.KeepTTL = true
	for _, a := range o.p.addrs {
		cfg.Inside = append(cfg.Inside, netip.PrefixFrom(a, a.BitLen()))
	}
	cfg.MTU = [nat.Local]int{nat.Inside: o.p.mtu(), nat.Outside: o.p.mtu()}
	o.firewall, err = nat.New(cfg)
	return err
}

func (o *outlet) setAddrs(addrs []netip.Addr) {
	if slices.Equal(addrs, o.p.addrs) {
		return
	}
	o.p.setAddrs(addrs)
	if err := o.protect(); err != nil {
		panic(err) // its behaviour was good before
	}
	o.h.n.readdressed.Broadcast()
}

// receive: a packet has come in. What is for everyone is no business of the
// firewall's.
func (o *outlet) receive(p *port, pkt *buffer) {
	if o.lease != nil && o.lease.take(pkt) {
		return
	}
	_, dst := addresses(pkt.b)
	if o.firewall != nil && !p.segment.forAll(dst) {
		o.pass(nat.Outside, pkt)
		return
	}
	o.h.receive(p, pkt)
}

func (o *outlet) transmit(pkt *buffer) {
	_, dst := addresses(pkt.b)
	if o.firewall != nil && !o.p.segment.forAll(dst) {
		o.pass(nat.Inside, pkt)
		return
	}
	o.p.send(pkt)
}

// pass lets the firewall decide.
func (o *outlet) pass(from nat.Side, pkt *buffer) {
	n := o.h.n
	v := o.firewall.Handle(n.time(), from, pkt.b, nat.Offload{})
	switch {
	case v.Action == nat.Forward:
		o.forward(v.To, pkt)
	case v.Reason == nat.Kept:
		n.give(pkt)
	default:
		n.drop(o.p, pkt, "firewall: "+v.Reason.String())
	}
	o.drain()
}

func (o *outlet) forward(to nat.Side, pkt *buffer) {
	if to == nat.Inside {
		o.h.receive(o.p, pkt)
		return
	}
	o.p.send(pkt)
}

func (o *outlet) drain() {
	if o.firewall == nil {
		return
	}
	for out, ok := o.firewall.Poll(); ok; out, ok = o.firewall.Poll() {
		pkt := o.h.n.take()
		pkt.b = append(pkt.b, out.Packet...)
		o.forward(out.To, pkt)
	}
	o.wake.set(o.firewall.NextTimeout())
}

func (o *outlet) addresses() []netip.Addr          { return o.p.addrs }
func (o *outlet) source(dst netip.Addr) netip.Addr { return o.p.addr(dst.Is4()) }

// mtu is that of the link, or what DHCP has told of if it is less. IPv6 always
// has its least.
func (o *outlet) mtu(dst netip.Addr) int {
	if o.lease == nil || o.lease.mtu == 0 {
		return o.p.mtu()
	}
	told := o.lease.mtu
	if dst.Is6() {
		told = max(told, minPathMTU6)
	}
	return min(told, o.p.mtu())
}

// neighbourTime is how long Linux asks for a neighbour: three times a second
// apart.
const neighbourTime = 3 * time.Second

// noNeighbour tells the host, after that, that nobody on its network has the
// address that it has sent to.
func (o *outlet) noNeighbour(pkt *buffer) {
	n := o.h.n
	src, _ := addresses(pkt.b)
	answer := n.take()
	if answer.b = ip.AppendError(answer.b, src, ip.HostUnreachable, pkt.b); len(answer.b) == 0 {
		n.give(answer)
		return
	}
	n.schedule(n.now+int64(neighbourTime), loopback{o.h}, answer)
}
