package netns

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// firewall is that of a host: the gateway machine between its port and the
// network, which filters and translates nothing and takes no hop.
type firewall struct {
	driven
	*nat.Gateway
	cfg nat.Config
}

func (w *wire) addFirewall(p *wirePort, seed uint64) error {
	b := *p.owner.firewall
	b.KeepTTL = true
	const any = 65535 // the link drops what is too large for it
	f := &firewall{cfg: nat.Config{Behaviour: b, MTU: [nat.Local]int{nat.Inside: any, nat.Outside: any}, Rand: rand.NewPCG(seed, hash(p.name()))}}
	if err := f.protect(p.hosts()); err != nil {
		return fmt.Errorf("netns: firewall of %s: %w", p.name(), err)
	}
	f.next = func() (time.Time, bool) { return f.NextTimeout() }
	f.ring = func(now int64) {
		f.HandleTimeout(w.clock(now))
		w.pollFirewall(p, now)
	}
	p.firewall = f
	w.machines = append(w.machines, &f.driven)
	w.touch(&f.driven)
	return nil
}

// hosts are the addresses of a port, and the one that it makes for itself.
func (p *wirePort) hosts() []netip.Prefix {
	own := linkLocal(p.hw)
	hosts := []netip.Prefix{netip.PrefixFrom(own, own.BitLen())}
	for _, a := range p.Addrs {
		hosts = append(hosts, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
	}
	return hosts
}

// protect makes a firewall for other addresses. It knows no sessions.
func (f *firewall) protect(hosts []netip.Prefix) (err error) {
	f.cfg.Inside = hosts
	g, err := nat.New(f.cfg)
	if err == nil {
		f.Gateway = g
	}
	return err
}

// letOut says whether a packet of a host gets to its network.
func (w *wire) letOut(p *wirePort, now int64, v *view) bool {
	if p.isOfLink(v) {
		return true
	}
	f := p.firewall
	if !slices.ContainsFunc(f.cfg.Inside, func(q netip.Prefix) bool { return q.Addr() == v.src }) && p.left {
		// An address that a program in the host got for it.
		f.protect(append(p.hosts(), netip.PrefixFrom(v.src, v.src.BitLen())))
	}
	verdict := f.Handle(w.clock(now), nat.Inside, v.buf[room:], offload(v.buf))
	return verdict.Action == nat.Forward && verdict.To == nat.Outside
}

// letIn says whether a packet from the network gets to the host.
func (w *wire) letIn(p *wirePort, now int64, buf []byte) bool {
	v, ok := parse(buf)
	if !ok || p.isOfLink(&v) {
		return ok
	}
	verdict := p.firewall.Handle(w.clock(now), nat.Outside, v.buf[room:], offload(v.buf))
	return verdict.Action == nat.Forward && verdict.To == nat.Inside
}

// pollFirewall sends what the firewall makes itself, and what it has kept until
// now. That comes behind the packet at hand.
func (w *wire) pollFirewall(p *wirePort, now int64) {
	for {
		out, ok := p.firewall.Poll()
		if !ok {
			break
		}
		c := w.wrap(out.Packet)
		if v, ok := parse(c.buf); ok && out.To == nat.Inside {
			setEther(c.buf, p.hw, wireMAC, etherTypeOf(v.ip))
			w.put(p.device, c.buf)
		} else if ok {
			setEther(c.buf, mac{}, p.hw, etherTypeOf(v.ip))
			w.carry(p, now, &v)
		}
		w.recycle(c)
	}
	w.touch(&p.firewall.driven)
}

// isOfLink says that a packet is of the link's own affairs, which no
// firewall decides about: broadcast and multicast, neighbour discovery, DHCP.
func (p *wirePort) isOfLink(v *view) bool {
	return isEveryone(v.dst) || v.src.IsUnspecified() || p.network.hops == 0 && p.broadcasts(v.dst) ||
		v.proto == ICMPv6 && len(v.ip) > v.transit && v.ip[v.transit] >= 133 && v.ip[v.transit] <= 137 ||
		v.isTo(dhcp.ClientPort)
}

// broadcasts says that an address is for everyone in a network of the port.
func (p *wirePort) broadcasts(to netip.Addr) bool {
	return slices.ContainsFunc(p.Addrs, func(a netip.Prefix) bool { return to.Is4() && to == broadcastIn(a) })
}

// broadcastIn is the broadcast address of a prefix; invalid where there is none.
func broadcastIn(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	a := p.Masked().Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|(1<<(32-p.Bits())-1))
	return netip.AddrFrom4(a)
}
