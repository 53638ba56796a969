package dhcp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// HandlePacket takes an IP packet to the client's port. It is false when the
// packet is no answer to what this client has asked.
func (c *Client) HandlePacket(now time.Time, pkt []byte) bool {
	c.HandleTimeout(now)
	var p ip.Packet
	if p.Decode(pkt) != nil || !p.Is4() || p.Fragment || p.Proto != ip.UDP || !p.ChecksumOK() ||
		p.Src.Port() != ServerPort || p.Dst.Port() != ClientPort {
		return false
	}
	m, err := parseMessage(p.Payload())
	if err != nil || !m.reply || m.xid != c.xid || m.hw != c.cfg.MAC || !m.server.IsValid() {
		return false
	}
	switch c.state {
	case Selecting:
		if _, ok := grantOf(m); m.kind != offer || !ok {
			return false
		}
		c.offered = m
		c.enter(now, Requesting) // the first that will do
	case Requesting:
		if m.server != c.offered.server {
			return false
		}
		return c.concluded(now, m, c.offered.yours)
	case Rebooting:
		return c.concluded(now, m, c.last)
	case Renewing:
		if m.server != c.grant.Server {
			return false
		}
		return c.concluded(now, m, c.grant.Prefix.Addr())
	case Rebinding:
		return c.concluded(now, m, c.grant.Prefix.Addr())
	default:
		return false
	}
	return true
}

// concluded takes the answer to a REQUEST for an address.
func (c *Client) concluded(now time.Time, m *message, asked netip.Addr) bool {
	switch m.kind {
	case nak:
		c.lose("the server refuses it")
		c.last = netip.Addr{}
		// A server that offers what it then refuses is not asked in a circle.
		d := time.Duration(0)
		if c.refusals > 0 {
			d = min(time.Second<<min(c.refusals-1, 8), lastRetry)
		}
		c.refusals++
		c.wait(now, d)
		c.HandleTimeout(now)
		return true
	case ack:
		g, ok := grantOf(m)
		if !ok || g.Prefix.Addr() != asked {
			return false
		}
		c.bind(now, g, m)
		return true
	}
	return false
}

// bind begins or prolongs the use of an address. The lease counts from when it
// was asked for (RFC 2131 section 4.4.5). Of several tries the answered one is
// not known, so the first counts.
func (c *Client) bind(now time.Time, g Grant, m *message) {
	kind := GotAddress
	if c.have && c.grant.Prefix == g.Prefix {
		kind = KeptAddress
	} else {
		c.lose("its network has changed")
	}
	t1, t2 := g.Lease/2, g.Lease/8*7
	if m.t1 != 0 && m.t1 < m.t2 && m.t2 < g.Lease {
		t1, t2 = m.t1, m.t2
	}
	c.t1, c.t2, c.to = c.asked.Add(t1), c.asked.Add(t2), c.asked.Add(g.Lease)
	if g.Lease == Forever {
		c.t1, c.t2, c.to = time.Time{}, time.Time{}, time.Time{}
	}
	c.grant, c.have, c.last, c.refusals, c.offered = g, true, g.Prefix.Addr(), 0, nil
	c.events = enqueue(c.events, ClientEvent{Kind: kind, Grant: g})
	c.enter(now, Bound)
	c.HandleTimeout(now)
}

// grantOf reads what a server grants. What no host can be configured with is
// not taken.
func grantOf(m *message) (g Grant, ok bool) {
	g = Grant{Prefix: netip.PrefixFrom(m.yours, m.bits), Server: m.server, DNS: m.dns, MTU: int(m.mtu), Lease: m.lease}
	if !unicast(m.yours) || !unicast(m.server) || m.bits < 8 || m.lease < time.Second {
		return g, false
	}
	if host := number(m.yours) << m.bits; m.bits <= 30 && (host == 0 || host == 0xffffffff<<m.bits) {
		return g, false // the network itself, or everyone on it
	}
	near := func(a netip.Addr) bool { return unicast(a) && g.Prefix.Contains(a) && a != m.yours }
	if i := slices.IndexFunc(m.routers, near); i >= 0 {
		g.Router = m.routers[i]
	}
	if m.routes != nil {
		g.Router, g.Routes = waysOf(m.routes, near)
	}
	if g.MTU < 576 { // RFC 2132 section 5.1 has 68; no IPv4 host must live with less than this
		g.MTU = 0
	}
	return g, true
}

// waysOf reads the routes of a message, which stand in the place of its routers
// (RFC 3442). Those that lead nowhere are not taken.
func waysOf(all []Route, near func(netip.Addr) bool) (router netip.Addr, routes []Route) {
	for _, r := range all {
		switch {
		case r.Via.IsValid() && !near(r.Via), r.To.Addr().IsLoopback(), r.To.Addr().IsMulticast():
		case r.To.Bits() > 0 || !r.Via.IsValid():
			routes = append(routes, r)
		case !router.IsValid():
			router = r.Via
		}
	}
	return router, routes
}

func unicast(a netip.Addr) bool {
	return a.IsGlobalUnicast() || a.IsLinkLocalUnicast()
}
