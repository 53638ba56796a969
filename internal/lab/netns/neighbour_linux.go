package netns

import (
	"net/netip"
)

// Who has an address is answered by the wire itself, at once and over any link,
// so that no packet waits for it. It knows the addresses that it gave out and
// those that it saw. What it does not know on a link it leaves to the hosts
// there, as on any Ethernet; beyond the links it is the router for everything.
// A host that wants to know whether an address is free is answered by who has
// it.

// holder is the hardware address that stands for an address; ok is false for
// one that the network cannot tell.
func (n *network) holder(a netip.Addr) (p *wirePort, hw mac, ok bool) {
	if s, known := n.stations[a]; known {
		return s.port, s.hw, true
	}
	if n.upstream != nil && n.isOnLink(a) || a.IsLinkLocalUnicast() {
		return nil, mac{}, false
	}
	return nil, wireMAC, true
}

// resolve handles an ARP frame.
func (w *wire) resolve(p *wirePort, now int64, buf []byte) {
	m, ok := parseARP(buf)
	if !ok {
		return
	}
	n := p.network
	n.learn(p, m.sender, m.senderHW, true)
	w.captureFrame(p, buf)
	if isGroup(etherDst(buf)) && !m.sender.IsUnspecified() {
		w.overhear(n, now, m)
	}
	if m.reply {
		w.relay(p, buf)
		return
	}
	holder, hw, known := n.holder(m.target)
	switch {
	case m.isProbe() && (holder == nil || holder.gateway == nil):
		w.relay(p, buf)
	case !known:
		w.relay(p, buf)
	case holder != p:
		w.tell(p, appendARP(w.scratch[:0], m.senderHW, true, hw, m.target, m.senderHW, m.sender))
	}
}

// overhear has the gateways of a network hear what is said to everyone on it.
// One who takes an address by hand and talks to neighbours alone, or takes the
// gateway's own, sends the gateway no packet.
func (w *wire) overhear(n *network, now int64, m arp) {
	for _, q := range n.ports {
		if g := q.gateway; g != nil {
			g.router.Heard(w.clock(now), q.side, m.sender.As4(), m.senderHW)
			w.touch(&g.driven)
		}
	}
}

// advertise handles a neighbour solicitation that came as v, or leaves it to
// the hosts.
func (w *wire) advertise(p *wirePort, v *view, target netip.Addr) (handled bool) {
	n := p.network
	if !v.src.IsUnspecified() {
		n.learn(p, v.src, etherSrc(v.buf), true)
	}
	holder, hw, known := n.holder(target)
	if v.src.IsUnspecified() && (holder == nil || holder.gateway == nil) || !known {
		return false
	}
	w.captureFrame(p, v.buf)
	if holder != p {
		w.tell(p, appendAdvertisement(w.scratch[:0], target, hw, v.src, etherSrc(v.buf)))
	}
	return true
}

// tell sends a frame of the wire's own to a port.
func (w *wire) tell(p *wirePort, buf []byte) {
	w.captureFrame(p, buf)
	w.put(p.device, buf)
}

// relay passes on an ARP frame as a switch does.
func (w *wire) relay(p *wirePort, buf []byte) {
	hw := etherDst(buf)
	for _, q := range p.network.ports {
		if q != p && q.device != nil && (isGroup(hw) || q.hw == hw) {
			w.put(q.device, buf)
		}
	}
}

// announce tells the hosts of a network that a port has an address now (RFC
// 5227 section 2.3, RFC 4861 section 7.2.6), whatever they believed before.
func (w *wire) announce(p *wirePort, a netip.Addr) {
	var buf []byte
	if a.Is4() {
		buf = appendARP(w.scratch[:0], everyone, false, p.hw, a, mac{}, a)
	} else {
		buf = appendAdvertisement(w.scratch[:0], a, p.hw, netip.IPv6Unspecified(), mac{})
	}
	w.captureFrame(p, buf)
	for _, q := range p.network.ports {
		if q != p && q.device != nil {
			w.put(q.device, buf)
		}
	}
}

func (w *wire) captureFrame(p *wirePort, buf []byte) {
	if c := p.network.capture; c != nil {
		c.addFrame(p, buf)
	}
}
