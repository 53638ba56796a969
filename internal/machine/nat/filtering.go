package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// session is what a mapping remembers of one remote: that packets from it are
// admitted, for how long, and for TCP how far the connection is.
//
// RFC 4787 section 5 words filtering by internal endpoint. Here it is by
// mapping, as in the gateways that are built: with an endpoint-dependent
// mapping, a remote is admitted only at the external endpoint that was used
// towards it.
type session struct {
	// remote is the remote endpoint (TCP), or what the filtering policy keeps
	// of it. TCP under address-dependent filtering has both: the connections,
	// and their address with port 0, which has no timer of its own and lives
	// while there are connections.
	remote  netip.AddrPort
	expires int64
	mapping uint32 // 0: a free element, and next is the next free one
	prev    uint32
	next    uint32
	conns   uint32 // the connections that an address stands for
	class   class
	tcp     tcpState
}

func (g *Gateway) sessionHash(m uint32, remote netip.AddrPort) uint32 {
	return g.seeds.sum(g.seeds.endpoint(uint64(m)<<16, remote))
}

func (g *Gateway) sessionOf(m uint32, remote netip.AddrPort) uint32 {
	last := g.mappings[m].last // it may be gone, or another mapping's by now
	if s := &g.sessions[last]; s.mapping == m && s.remote == remote {
		return last
	}
	hash := g.sessionHash(m, remote)
	for ref, at := g.bySession.seek(hash, 0); ref != 0; ref, at = g.bySession.seek(hash, at) {
		if s := &g.sessions[ref]; s.mapping == m && s.remote == remote {
			g.mappings[m].last = ref
			return ref
		}
	}
	return 0
}

// newSession is 0 when the table holds most already.
func (g *Gateway) newSession(m uint32, remote netip.AddrPort, most int) uint32 {
	if g.bySession.used >= most {
		return 0
	}
	s := session{remote: remote, mapping: m, class: classes}
	ref := g.freeSession
	if ref != 0 {
		g.freeSession = g.sessions[ref].next
		g.sessions[ref] = s
	} else {
		ref = uint32(len(g.sessions))
		g.sessions = append(g.sessions, s)
	}
	g.bySession.add(g.sessionHash(m, remote), ref)
	g.mappings[m].sessions++
	g.mappings[m].last = ref
	return ref
}

// dropSession forgets the remote, and the mapping with its last one.
func (g *Gateway) dropSession(ref uint32) {
	g.unlink(ref)
	s := &g.sessions[ref]
	at := s.mapping
	if g.mappings[at].proto == ip.TCP && g.cfg.Filtering == AddressDependent && s.remote.Port() != 0 {
		g.leave(at, s.remote)
	}
	g.bySession.remove(g.sessionHash(at, s.remote), ref)
	*s = session{next: g.freeSession}
	g.freeSession = ref

	m := &g.mappings[at]
	if m.sessions--; m.sessions == 0 {
		g.dropMapping(at)
	}
}

// permit records that m sent p to remote, and refreshes what that keeps alive
// (RFC 4787 REQ-6: outbound). False: the table is full.
func (g *Gateway) permit(m uint32, p *ip.Packet, remote netip.AddrPort) bool {
	switch p.Proto {
	case ip.UDP:
		return g.keep(m, g.cfg.Filtering.depends(remote), classUDP)
	case ip.ICMP:
		return g.keep(m, g.cfg.Filtering.depends(remote), classICMP)
	}
	return g.connection(m, p, remote, outbound, g.maxSessions)
}

// keep makes sure that m has the session.
func (g *Gateway) keep(m uint32, remote netip.AddrPort, c class) bool {
	ref := g.sessionOf(m, remote)
	if ref == 0 {
		if ref = g.newSession(m, remote, g.maxSessions); ref == 0 {
			return false
		}
	}
	g.touch(ref, c)
	return true
}

// connection keeps track of a TCP connection, maybe a new one. False: the
// table holds most already.
func (g *Gateway) connection(m uint32, p *ip.Packet, remote netip.AddrPort, d direction, most int) bool {
	ref := g.sessionOf(m, remote)
	if ref == 0 {
		if g.cfg.Filtering == AddressDependent && !g.join(m, remote, most-1) {
			return false
		}
		if ref = g.newSession(m, remote, most); ref == 0 {
			return false
		}
	}
	s := &g.sessions[ref]
	s.tcp = s.tcp.next(p.TCPFlags(), d)
	g.touch(ref, s.tcp.class())
	return true
}

// join counts a new connection to remote's address, and leave one less.
func (g *Gateway) join(m uint32, remote netip.AddrPort, most int) bool {
	remote = AddressDependent.depends(remote)
	ref := g.sessionOf(m, remote)
	if ref == 0 {
		if ref = g.newSession(m, remote, most); ref == 0 {
			return false
		}
	} else if g.bySession.used > most {
		return false
	}
	g.sessions[ref].conns++
	return true
}

func (g *Gateway) leave(m uint32, remote netip.AddrPort) {
	ref := g.sessionOf(m, AddressDependent.depends(remote))
	if g.sessions[ref].conns--; g.sessions[ref].conns == 0 {
		g.dropSession(ref)
	}
}

// admit decides about a packet that remote sent to m.
func (g *Gateway) admit(m uint32, p *ip.Packet, remote netip.AddrPort) Reason {
	if p.Proto != ip.TCP {
		if g.sessionOf(m, g.cfg.Filtering.depends(remote)) == 0 {
			return Filtered
		}
		return None
	}
	if g.sessionOf(m, remote) == 0 && (p.TCPFlags()&(ip.SYN|ip.ACK|ip.RST) != ip.SYN || !g.invited(m, remote)) {
		return Filtered
	}
	// Strangers may fill half of the table at most.
	if !g.connection(m, p, remote, inbound, g.maxSessions/2) {
		return TableFull
	}
	return None
}

// invited reports whether remote may open a TCP connection to m.
func (g *Gateway) invited(m uint32, remote netip.AddrPort) bool {
	switch g.cfg.Filtering {
	case EndpointIndependent:
		return true
	case AddressDependent:
		return g.sessionOf(m, AddressDependent.depends(remote)) != 0
	}
	return false
}

// quotable reports whether an ICMP error about a packet from m to remote can
// be genuine: whether m has sent there.
func (g *Gateway) quotable(m uint32, proto ip.Proto, remote netip.AddrPort) bool {
	if key := g.mappings[m].remote; key.IsValid() && g.cfg.Mapping.depends(remote) != key {
		return false
	}
	if proto != ip.TCP {
		remote = g.cfg.Filtering.depends(remote)
	}
	return g.sessionOf(m, remote) != 0
}
