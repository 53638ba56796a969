package nat

import (
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// A guest is a remote that came in, unasked, by a mapping for another: the
// filtering policy depends on less of it than the mapping policy does, or a
// rule let it in. What goes back to it has to leave by the mapping that it came
// by, or it would not know whom it is from. So it is with connection tracking,
// where an answer belongs to the connection of what it answers.

// guest is an internal endpoint as in the keys of mappings, and a remote one.
type guest struct{ key, remote endpoint }

// lax reports whether a mapping can have guests by policy.
func (g *Gateway) lax(p *Policy) bool {
	return g.cfg.Mode == Translate && p.Filtering != AddressAndPortDependent && (p.Filtering < p.Mapping || g.cfg.SymmetricOnConflict)
}

// isFor reports whether packets to a remote endpoint use the mapping by policy.
func (m *mapping) isFor(remote endpoint) bool {
	whom := m.whom()
	return whom == 0 || whom == remote || whom == remote.address()
}

// What is known of a session that is not TCP's.
const (
	heard = synIn  // a packet came in
	said  = synOut // and one went out
)

// invites reports whether a mapping can have guests at all.
func (g *Gateway) invites() bool {
	if g.lax(&g.udpPolicy) || g.lax(&g.tcpPolicy) {
		return true
	}
	forAll := g.udpPolicy.Mapping == EndpointIndependent && g.tcpPolicy.Mapping == EndpointIndependent && !g.cfg.SymmetricOnConflict
	return g.cfg.Mode == Translate && !forAll && slices.ContainsFunc(g.rules, func(r compiledRule) bool { return r.says == accepted })
}

// welcome notes the session of a flow that came in, if it is a guest's. Of two
// ways in, the last is the one back.
func (g *Gateway) welcome(f *flow, remote endpoint) {
	m := g.mapping(f.mapping)
	if !g.guested || !g.exact[m.proto] {
		return
	}
	if m.proto != ip.TCP {
		g.session(f.session).tcp |= heard
	}
	if m.isFor(remote) {
		return
	}
	if g.guests == nil {
		g.guests = make(map[guest]uint32)
	}
	g.guests[guest{m.key, remote}] = f.session
}

// sendOff forgets a session that ends.
func (g *Gateway) sendOff(m *mapping, ref uint32, s *session) {
	k := guest{m.key, remoteOf(m, s.remote, s.port)}
	if g.guests[k] == ref {
		delete(g.guests, k)
	}
}

// back is the mapping that packets to a guest leave by; 0: it is none. own is
// the mapping that they use otherwise. What the remote has answered there goes
// on as it was, or one packet with a forged source could lead it elsewhere. What
// it has not is an attempt to reach it, which it may have filtered; and the
// first answer to the guest decides.
func (g *Gateway) back(key, remote endpoint, own uint32) uint32 {
	ref := g.guests[guest{key, remote}]
	if ref == 0 {
		return 0
	}
	s := g.session(ref)
	if at := g.knows(own, remote); at != 0 && s.tcp&synOut == 0 {
		if o := g.session(at).tcp; o&synIn != 0 && o&(finIn|finOut) != finIn|finOut {
			return 0
		}
	}
	return s.mapping
}

// afterGuest is the mapping that a packet to a guest uses: that of the guest,
// unless its connection is over and the packet begins one of the host's own.
func (g *Gateway) afterGuest(w *wish, at uint32, p *ip.Packet) uint32 {
	m := g.mapping(at)
	if p.Proto != ip.TCP || !opens(p) || !g.session(g.knows(at, w.remote)).tcp.closed() {
		return at
	}
	return g.mappingOf(m.key, g.whom(w))
}
