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
	track   uint32 // what follow keeps elsewhere; 0 at first
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
	s := session{remote: remote, mapping: m, class: noClass}
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
	g.unfollow(s)
	at := s.mapping
	if g.mappings[at].proto == ip.TCP && g.tcpPolicy.Filtering == AddressDependent && s.remote.Port() != 0 {
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

// permit records that the flow's internal end sends to remote, and refreshes
// what that keeps alive (RFC 4787 REQ-6: outbound). False: the table is full.
func (g *Gateway) permit(f *flow, p *ip.Packet, remote netip.AddrPort) bool {
	c := noClass
	switch p.Proto {
	case ip.TCP:
		return g.connection(f, remote, g.maxSessions)
	case ip.UDP:
		c = classUDP
	case ip.ICMP:
		c = classICMP
	}
	remote = g.policy(p.Proto).Filtering.depends(remote)
	if f.session = g.sessionOf(f.mapping, remote); f.session == 0 {
		if f.session = g.newSession(f.mapping, remote, g.maxSessions); f.session == 0 {
			return false
		}
		f.fresh = true
	}
	g.touch(f.session, c)
	return true
}

// connection finds or makes the session of a TCP connection. False: the table
// holds most already.
func (g *Gateway) connection(f *flow, remote netip.AddrPort, most int) bool {
	if f.session = g.sessionOf(f.mapping, remote); f.session != 0 {
		return true
	}
	if g.tcpPolicy.Filtering == AddressDependent && !g.join(f.mapping, remote, most-1) {
		return false
	}
	if f.session = g.newSession(f.mapping, remote, most); f.session == 0 {
		return false
	}
	f.fresh = true
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

// admit decides whether a packet from outside may come to the mapping at its
// destination.
func (g *Gateway) admit(f *flow, p *ip.Packet) Reason {
	if p.Proto != ip.TCP {
		f.session = g.sessionOf(f.mapping, g.udpPolicy.Filtering.depends(p.Src))
		if f.session == 0 {
			return Filtered
		}
		return None
	}
	if g.sessionOf(f.mapping, p.Src) == 0 && (!opens(p) || !g.invited(f.mapping, p.Src)) {
		return Filtered
	}
	// Strangers may fill half of the table at most.
	if !g.connection(f, p.Src, g.maxSessions/2) {
		return TableFull
	}
	return None
}

// invited reports whether remote may open a TCP connection to m.
func (g *Gateway) invited(m uint32, remote netip.AddrPort) bool {
	switch g.tcpPolicy.Filtering {
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
	if key := g.mappings[m].remote; key.IsValid() && g.policy(proto).Mapping.depends(remote) != key {
		return false
	}
	if proto != ip.TCP {
		remote = g.policy(proto).Filtering.depends(remote)
	}
	return g.sessionOf(m, remote) != 0
}
