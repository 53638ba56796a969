package sim

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// lease gets a host's IPv4 address by DHCP, and gives it up.
type lease struct {
	o      *outlet
	client *dhcp.Client
	fixed  []netip.Addr // the host's other addresses
	mtu    int          // that the server has told of; 0: none
	wake   wake
}

func (o *outlet) newLease(fixed []netip.Addr) (err error) {
	n := o.h.n
	l := &lease{o: o, fixed: fixed}
	l.wake = newWake(n, func() {
		l.client.HandleTimeout(n.time())
		l.drain()
	})
	l.client, err = dhcp.NewClient(n.time(), dhcp.ClientConfig{
		MAC: dhcp.MAC(o.p.mac), Rand: rand.NewPCG(n.opt.Seed, hash(o.h.name+" dhcp"))})
	if err != nil {
		return err
	}
	o.lease = l
	l.drain()
	return nil
}

// take is true when a packet was an answer to the client. It reads packets
// before any firewall does, as DHCP clients do.
func (l *lease) take(pkt *buffer) bool {
	b := pkt.b
	if len(b) < 28 || b[0]>>4 != 4 || b[9] != 17 {
		return false
	}
	var p ip.Packet
	if p.Decode(b) != nil || p.Dst.Port() != dhcp.ClientPort || !l.client.HandlePacket(l.o.h.n.time(), b) {
		return false
	}
	l.o.h.n.trace(Delivered, l.o.p, b, "")
	l.o.h.n.give(pkt)
	l.drain()
	return true
}

// drain does what the client wants done.
func (l *lease) drain() {
	n, o := l.o.h.n, l.o
	for more := true; more; {
		more = false
		for b, ok := l.client.Poll(); ok; b, ok = l.client.Poll() {
			pkt := n.take()
			pkt.b = append(pkt.b, b...)
			o.p.send(pkt)
		}
		for e, ok := l.client.Event(); ok; e, ok = l.client.Event() {
			l.heed(e)
			more = true
		}
	}
	l.wake.set(l.client.NextTimeout())
}

func (l *lease) heed(e dhcp.ClientEvent) {
	n, o := l.o.h.n, l.o
	a := e.Grant.Prefix.Addr()
	if e.Kind == dhcp.LostAddress {
		l.mtu = 0
		if slices.Contains(o.p.addrs, a) && !slices.Contains(l.fixed, a) {
			n.note(o.h.name, "has lost "+a.String()+": "+e.Why)
			o.setAddrs(l.fixed)
		}
		return
	}
	if g, ok := l.client.Grant(); !ok || g.Prefix.Addr() != a {
		return // lost again meanwhile
	}
	if slices.Contains(o.p.addrs, a) {
		l.mtu = e.Grant.MTU
		return
	}
	// Who has the address would answer an ARP probe (RFC 5227 section 2.1).
	if other := o.p.segment.owner(a); other != nil && other != o.p {
		n.note(o.h.name, "declines "+a.String()+": "+other.name+" has it")
		l.client.Conflict(n.time())
		return
	}
	l.mtu = e.Grant.MTU
	n.note(o.h.name, "has got "+e.Grant.Prefix.String()+" from "+e.Grant.Server.String())
	o.setAddrs(append([]netip.Addr{a}, l.fixed...))
}

// configured says that as many ports with DHCP have an address as can.
func (n *Network) configured() bool {
	waiting := map[string]int{}
	for _, g := range n.gateways {
		if _, ok := g.router.Outside(); g.data.Outside.DHCP && !ok {
			waiting[g.data.Outside.Network]++
		}
	}
	for _, h := range n.hosts {
		o := h.at.(*outlet)
		if o.lease == nil {
			continue
		}
		if g, ok := o.lease.client.Grant(); !ok || !slices.Contains(o.p.addrs, g.Prefix.Addr()) {
			waiting[o.p.segment.name]++
		}
	}
	for _, s := range n.short {
		waiting[s.Network] -= s.Wanted - s.Lends
	}
	for _, count := range waiting {
		if count > 0 {
			return false
		}
	}
	return true
}

// Ready waits until every port with DHCP has an address for which there is one.
func (n *Network) Ready(ctx context.Context) error {
	n.enter()
	defer n.leave()
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		n.readdressed.Broadcast()
		n.mu.Unlock()
	})
	defer stop()
	for {
		switch {
		case n.closed:
			return net.ErrClosed
		case ctx.Err() != nil:
			return ctx.Err()
		case n.configured():
			return nil
		}
		n.wait(&n.readdressed)
	}
}
