package nat

import "github.com/bodkin-net/bodkin/internal/machine/nat/ip"

// session is what a mapping remembers of one remote: that packets from it are
// admitted, for how long, and for TCP how far the connection is.
//
// RFC 4787 section 5 words filtering by internal endpoint. Here it is by
// mapping, as in the gateways that are built: with an endpoint-dependent
// mapping, a remote is admitted only at the external endpoint that was used
// towards it.
//
// What is remembered of a remote is its endpoint for TCP, else what the
// filtering policy keeps of it. Under address-dependent filtering a mapping
// has, beside sessions with endpoints, one for each address that these are of:
// with port 0, without a timer, and counting them. Where there are rules, UDP
// and ICMP are as TCP here, so that each first packet is judged; UDP also where
// strangers can come to the mapping of another remote (guest.go).
//
// A UDP mapping that is not timed by session, and that Map did not make, has
// its timer in its first session, the one that lies in the mapping; the others
// have none, and end with it.
type session struct {
	expires int64
	remote  uint32 // its address, and
	port    uint16 // its port
	tcp     tcpState
	class   class
	prev    uint32 // in the wheel; 0: it is not there
	next    uint32
	mapping uint32 // 0: a free element
	sibling uint32 // the next of the mapping's sessions; of the first, the second
	before  uint32 // the one before, 0 if that is the first
	track   uint32 // what follow keeps elsewhere; of an address, its sessions
}

func (s *session) link() *uint32 { return &s.sibling }

// inMapping tells the number of a mapping's first session from others.
const inMapping = 1 << 31

func (g *Gateway) sessionHash(mapping uint32, remote endpoint) uint32 {
	return g.seeds.sum(uint64(mapping)<<16, uint64(remote))
}

// scope is what a mapping remembers of a remote endpoint.
func (g *Gateway) scope(m *mapping, remote endpoint) endpoint {
	if g.exact[m.proto] {
		return remote
	}
	return m.filtering().depends(remote)
}

// sessionOf finds what the mapping remembers by this scope.
func (g *Gateway) sessionOf(at uint32, m *mapping, remote endpoint) uint32 {
	if s := &m.first; s.mapping != 0 && s.remote == remote.number() && s.port == remote.port() {
		return at | inMapping
	}
	if m.first.sibling == 0 {
		return 0
	}
	hash := g.sessionHash(at, remote)
	p := g.bySession.page(hash)
	ref, pos := p.seek(hash, 0)
	for ref != 0 {
		if s := g.sessions.at(ref); s.mapping == at && s.remote == remote.number() && s.port == remote.port() {
			break
		}
		ref, pos = p.seek(hash, pos)
	}
	return ref
}

// sessionsUsed counts all, those in mappings too.
func (g *Gateway) sessionsUsed() int { return g.sessions.used + g.firsts }

// newSession is 0 when there is no memory for it. There must be room; remote
// must be held.
func (g *Gateway) newSession(at uint32, remote endpoint, c class) uint32 {
	m := g.mapping(at)
	var ref uint32
	var s *session
	if m.first.mapping == 0 && c < classes {
		ref, s = at|inMapping, &m.first
		g.firsts++
	} else {
		ref, s = g.sessions.take()
		if c != classMapped && !g.bySession.add(g.sessionHash(at, remote), ref) {
			g.sessions.give(ref)
			return 0
		}
		s.sibling = m.first.sibling
		if s.sibling != 0 {
			g.sessions.at(s.sibling).before = ref
		}
		m.first.sibling = ref
	}
	s.mapping, s.remote, s.port, s.class = at, remote.number(), remote.port(), c
	if remote&isIPv6 != 0 {
		g.six.slab.at(remote.number()).uses++
	}
	return ref
}

// connect makes a session with a remote and, where filtering needs it, that of
// its address.
func (g *Gateway) connect(at uint32, remote endpoint, c class) uint32 {
	m := g.mapping(at)
	remote = g.scope(m, remote)
	if g.shared(m) && m.first.mapping != 0 {
		c = noClass
	}
	ref := g.newSession(at, remote, c)
	if ref == 0 || !g.counted(m, remote.port()) {
		return ref
	}
	address := g.sessionOf(at, m, remote.address())
	if address == 0 {
		if address = g.newSession(at, remote.address(), noClass); address == 0 {
			g.erase(ref)
			return 0
		}
	}
	g.session(address).track++
	return ref
}

// counted reports whether sessions with this port are counted by address.
func (g *Gateway) counted(m *mapping, port uint16) bool {
	return port != 0 && m.filtering() == AddressDependent && g.exact[m.proto]
}

// dropSession forgets the remote, and the mapping with its last one.
func (g *Gateway) dropSession(ref uint32) {
	s := g.session(ref)
	at := s.mapping
	m := g.mapping(at)
	if g.counted(m, s.port) {
		address := g.sessionOf(at, m, remoteOf(m, s.remote, 0))
		a := g.session(address)
		if a.track--; a.track == 0 {
			g.erase(address)
		}
	}
	g.erase(ref)
	g.dropIfEmpty(at, m)
}

// erase takes a session out of the tables and does nothing else.
func (g *Gateway) erase(ref uint32) {
	s := g.session(ref)
	m := g.mapping(s.mapping)
	g.unfile(s)
	if len(g.guests) > 0 {
		g.sendOff(m, ref, s)
	}
	if m.proto == ip.TCP && s.class < classes {
		g.unfollow(s)
	}
	remote := remoteOf(m, s.remote, s.port)
	if ref&inMapping != 0 {
		*s = session{sibling: s.sibling}
		g.firsts--
		g.letGo(remote)
		return
	}
	if s.class != classMapped {
		g.bySession.remove(g.sessionHash(s.mapping, remote), ref)
	}
	if s.before != 0 {
		g.sessions.at(s.before).sibling = s.sibling
	} else {
		m.first.sibling = s.sibling
	}
	if s.sibling != 0 {
		g.sessions.at(s.sibling).before = s.before
	}
	g.letGo(remote)
	g.sessions.give(ref)
}

func (g *Gateway) dropIfEmpty(at uint32, m *mapping) {
	if m.first.mapping == 0 && m.first.sibling == 0 {
		g.dropMapping(at)
	}
}

// dropRemotes forgets all that a mapping knows of remotes. It is gone itself
// unless Map made it.
func (g *Gateway) dropRemotes(at uint32) {
	m := g.mapping(at)
	g.eraseRemotes(m, at)
	g.dropIfEmpty(at, m)
}

func (g *Gateway) eraseRemotes(m *mapping, at uint32) {
	if m.first.mapping != 0 {
		g.erase(at | inMapping)
	}
	for ref := m.first.sibling; ref != 0; {
		next := g.sessions.at(ref).sibling
		if g.sessions.at(ref).class != classMapped {
			g.erase(ref)
		}
		ref = next
	}
}

// eraseAddresses forgets what counts a mapping's sessions by address.
func (g *Gateway) eraseAddresses(m *mapping) {
	for ref := m.first.sibling; ref != 0; {
		next := g.sessions.at(ref).sibling
		if g.sessions.at(ref).class == noClass {
			g.erase(ref)
		}
		ref = next
	}
}

// outlive ends a session whose time is over.
func (g *Gateway) outlive(ref uint32, s *session) {
	g.freed = s.expires
	switch {
	case s.class == classMapped:
		g.unmap(s.mapping)
	case g.shared(g.mapping(s.mapping)):
		g.dropRemotes(s.mapping)
	default:
		g.dropSession(ref)
	}
	g.freed = 0
}

// shared reports whether the first session's timer is that of all.
func (g *Gateway) shared(m *mapping) bool {
	return m.proto == ip.UDP && !g.exact[ip.UDP] && !g.cfg.Timers.PerSession && m.flags&wide == 0
}

// refresh puts off the end of what a UDP or ICMP packet keeps alive (RFC 4787
// REQ-6).
func (g *Gateway) refresh(f *flow, p *ip.Packet) {
	ref, c := f.session, classICMP
	if g.guested && p.Proto != ip.TCP {
		if f.d == inbound {
			g.session(ref).tcp |= heard
		} else {
			g.session(ref).tcp |= said
		}
	}
	switch {
	case p.Proto == ip.TCP:
		return
	case p.Proto == ip.UDP:
		c = classUDP
		if g.shared(g.mapping(f.mapping)) {
			ref = f.mapping | inMapping
		}
		if g.session(ref).class == classUnanswered {
			if f.d == inbound {
				g.touch(ref, classUDP)
				return
			}
			c = classUnanswered
		}
		if f.d == outbound && !g.refreshOut || f.d == inbound && !g.refreshIn {
			return
		}
	case p.Kind != ip.EchoRequest:
		return
	}
	if s := g.session(ref); s.mapping != 0 && s.class == c {
		g.touch(ref, c)
	}
}

// unanswered is the class of a UDP session that begins with a packet from
// inside: that of the mapping where it has the timer of all.
func (g *Gateway) unanswered(at uint32) class {
	if m := g.mapping(at); g.shared(m) && m.first.mapping != 0 && m.first.class < classes {
		return m.first.class
	}
	return classUnanswered
}
