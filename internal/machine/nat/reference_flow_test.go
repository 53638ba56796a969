package nat

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// How the reference decides about packets.

func dropped(r Reason) refOutcome { return refOutcome{reason: r} }

func (r *reference) handle(p refPacket) (refOutcome, error) {
	out := refOutcome{src: p.src, dst: p.dst}
	own, to := r.ownOn(p.dst.Addr()), r.sideOf(p.dst.Addr())
	if p.from == Local {
		switch {
		case own != Local:
			return dropped(BadAddress), nil
		case to != Outside:
			out.to = to
			return out, nil
		}
		return r.outward(p, Outside)
	}
	if r.sideOf(p.src.Addr()) != p.from || r.ownOn(p.src.Addr()) != Local {
		return dropped(BadAddress), nil
	}
	switch own {
	case Local:
	case Outside, p.from:
		if _, static := r.staticAt(p.dst.Addr()); p.kind == ip.EchoRequest && !static {
			if pass, decided := r.ruled(p.from, Local, p.proto, p.src, p.dst); decided && !pass {
				return dropped(Ruled), nil
			}
			return dropped(Kept), nil
		}
		if own != Outside {
			if pass, decided := r.ruled(p.from, Local, p.proto, p.src, p.dst); decided && !pass {
				return dropped(Ruled), nil
			}
			out.to = Local
			return out, nil
		}
		to = Outside
	default:
		return dropped(BadAddress), nil
	}
	if p.ttl <= 1 {
		_, static := r.staticAt(p.dst.Addr())
		m := r.at(p)
		if p.from != Outside || own != Outside || static || m != nil && m.side != Local {
			return dropped(Expired), nil
		}
	}
	switch {
	case p.from == Outside || p.from == DMZ && to == Inside:
		return r.inward(p)
	case p.from == to:
		return dropped(BadAddress), nil
	}
	return r.outward(p, to)
}

func (r *reference) outward(p refPacket, to Side) (refOutcome, error) {
	hairpin := r.ownOn(p.dst.Addr()) == Outside
	if hairpin && (r.policy(p.proto).Hairpin == NoHairpin || !r.isExternal(p.dst.Addr())) {
		return dropped(NoHairpinning), nil
	}
	m, reason, err := r.open(p, to)
	if reason != None || err != nil {
		return dropped(reason), err
	}
	out := refOutcome{to: to, src: m.external, dst: p.dst}
	if m.served {
		out.src = netip.AddrPortFrom(m.external.Addr(), p.src.Port())
	}
	if !hairpin {
		return out, nil
	}
	internal := p.src
	p.src = out.src
	out, err = r.inward(p)
	if err == nil && out.reason == None && r.policy(p.proto).Hairpin == HairpinInternalSource {
		out.src = internal
	}
	return out, err
}

// note takes a packet into the memory of a session.
func (r *reference) note(m *refMapping, s *refSession, p refPacket, out, fresh bool) {
	s.heard, s.said = s.heard || !out, s.said || out && !fresh
	switch m.proto {
	case ip.TCP:
		s.history = append(s.history, refSegment{out, p.flags, r.now})
		if r.cfg.TCP.RSTCloses && !out && p.flags&ip.RST != 0 {
			m.sessions = slices.DeleteFunc(m.sessions, func(o *refSession) bool { return o == s })
			r.dropIfEmpty(m, r.now)
			r.leave()
		}
	case ip.ICMP:
		if fresh || p.kind == ip.EchoRequest {
			s.kept = r.now
		}
	default:
		how := r.cfg.Timers.UDPRefresh
		if fresh || out && how != RefreshInbound || !out && how != RefreshOutbound {
			s.kept = r.now
		}
		first := fresh && len(m.sessions) == 1
		if fresh {
			s.answered = !out
		}
		if first {
			m.answered = !out
		}
		limited := r.cfg.Timers.UDPUnanswered > 0
		if limited && !out && !s.answered {
			s.answered, s.kept = true, r.now
		}
		if limited && !out && !m.answered {
			m.answered, m.kept = true, r.now
		}
		if first || out && how != RefreshInbound || !out && how != RefreshOutbound || fresh && !out {
			m.kept = r.now
		}
	}
}

func opening(p refPacket) bool {
	return p.kind != ip.EchoReply && (p.proto != ip.TCP || p.flags&(ip.SYN|ip.ACK|ip.RST) == ip.SYN)
}

// open finds or makes what a packet on its way out needs.
func (r *reference) open(p refPacket, to Side) (*refMapping, Reason, error) {
	src := p.src
	external, static := r.static(src.Addr())
	dynamic := to == Outside && r.translates(src.Addr()) && !static
	whom := netip.AddrPort{}
	if dynamic && p.from != Local {
		whom = keep(r.policy(p.proto).Mapping, p.dst)
	}
	fits := func(m *refMapping) bool {
		return m.proto == p.proto && m.served == (p.kind == ip.EchoReply) && m.internal == src && m.far == to && !m.retired
	}
	var symmetric, been, usual, wide *refMapping
	for _, m := range r.byWide() {
		switch {
		case !fits(m):
		case m.symmetric:
			if m.whom == p.dst {
				symmetric = m
			}
		case m.wide != 0:
			if been == nil && r.session(m, p.dst) != nil {
				been = m
			}
			if wide == nil && m.grant != nil {
				wide = m
			}
		case m.whom == whom:
			usual = m
		}
	}
	guest := r.host(p.proto, src, p.dst)
	if guest != nil {
		_, said := r.exchanged(guest, r.session(guest, p.dst))
		if usual != nil && !said {
			if heard, _ := r.exchanged(usual, r.session(usual, p.dst)); heard {
				guest = nil
			}
		}
	}
	m := cmp.Or(symmetric, been, guest, usual, wide)
	if m != nil && m == guest {
		if _, _, over := r.replay(r.session(m, p.dst)); p.proto == ip.TCP && opening(p) && over {
			m = usual
		}
	}
	isGuest := m != nil && m == guest
	perConnection := dynamic && p.from != Local && p.proto == ip.TCP && r.policy(ip.TCP).Mapping == PerConnection && m != nil && m.wide == 0
	if m != nil {
		if s := r.session(m, p.dst); s != nil {
			again := false
			if perConnection && opening(p) && !isGuest {
				_, _, over := r.replay(s)
				again = over || m.isn != p.seq
			}
			if !again {
				r.note(m, s, p, true, false)
				return m, None, nil
			}
		}
	}
	if !opening(p) {
		return nil, NoMapping, nil
	}
	if pass, decided := r.ruled(p.from, to, p.proto, p.src, p.dst); decided && !pass {
		return nil, Ruled, nil
	}
	if r.used()+2 > 4*r.cfg.MaxMappings {
		return nil, TableFull, nil
	}
	// Where others share its port towards this remote, the packet needs another.
	if m != nil && m.wide != 0 && slices.ContainsFunc(r.mappings, func(o *refMapping) bool {
		return r.dynamic(o) && !r.alone(o) && o.proto == m.proto && o.external == m.external && o.whom == keep(r.policy(o.proto).Mapping, p.dst)
	}) {
		m = nil
	}
	if m == nil || perConnection {
		old := m
		m = &refMapping{proto: p.proto, side: p.from, far: to, internal: src, external: src, whom: whom, isn: p.seq}
		if to == Outside && r.translates(src.Addr()) && static {
			m.external, m.static = netip.AddrPortFrom(external, src.Port()), true
		}
		if ok, err := r.make(m, p.dst, r.cfg.MaxMappings, netip.AddrPort{}); !ok {
			return nil, TableFull, err
		}
		if old != nil {
			old.retired = true
		}
	}
	r.begin(m, p, p.dst, true)
	return m, None, nil
}

// byWide has the mappings that Map made in the order in which it did.
func (r *reference) byWide() []*refMapping {
	if !slices.ContainsFunc(r.mappings, func(m *refMapping) bool { return m.wide != 0 }) {
		return r.mappings
	}
	all := slices.Clone(r.mappings)
	slices.SortStableFunc(all, func(a, b *refMapping) int { return a.wide - b.wide })
	return all
}

// make puts a new mapping on the list, if there is room.
func (r *reference) make(m *refMapping, remote netip.AddrPort, most int, want netip.AddrPort) (bool, error) {
	if len(r.mappings) >= most {
		return false, nil
	}
	n := r.cfg.Ports.PerHost
	if most < r.cfg.MaxMappings { // for a stranger
		n = (n + 1) / 2
	}
	if n > 0 && m.side != Local && r.mappingsOf(m.internal.Addr()) >= n {
		return false, nil
	}
	if r.dynamic(m) {
		if r.cfg.SymmetricOnConflict && m.side != Local && m.wide == 0 && m.whom != remote && slices.ContainsFunc(r.mappings, func(o *refMapping) bool {
			return o.proto == m.proto && r.dynamic(o) && o.side != Local && !o.symmetric && o.wide == 0 &&
				o.internal.Port() == m.internal.Port() && o.internal.Addr() != m.internal.Addr()
		}) {
			m.symmetric, m.whom = true, remote
		}
		if ok, err := r.allocate(m, want); !ok {
			return false, err
		}
	}
	r.mappings = append(r.mappings, m)
	return true, nil
}

// host is the mapping by which a remote came in last, and has a session of.
func (r *reference) host(proto ip.Proto, internal, remote netip.AddrPort) *refMapping {
	s := r.guests[refGuest{proto, internal, remote}]
	for _, m := range r.mappings {
		if s != nil && slices.Contains(m.sessions, s) {
			return m
		}
	}
	return nil
}

// exchanged is whether a session's remote has sent something, and whether its
// host has; of TCP, in the last connection, if that is not over on both sides.
func (r *reference) exchanged(m *refMapping, s *refSession) (heard, said bool) {
	if s == nil || m.proto != ip.TCP {
		return s != nil && s.heard, s != nil && s.said
	}
	var c refConnection
	for _, seg := range s.history {
		c.take(seg)
	}
	return c.syn[0] && !(c.fin[0] && c.fin[1]), c.syn[1]
}

func (r *reference) begin(m *refMapping, p refPacket, remote netip.AddrPort, out bool) {
	s := &refSession{remote: r.scope(m, remote)}
	m.sessions = append(m.sessions, s)
	r.note(m, s, p, out, true)
}

// at is the mapping that a packet from outside, or a hairpinned one, comes to.
func (r *reference) at(p refPacket) (m *refMapping) {
	served := p.kind == ip.EchoRequest
	internal := p.dst
	inner, static := r.staticAt(p.dst.Addr())
	dynamic := r.isExternal(p.dst.Addr()) && !static
	if static {
		internal = netip.AddrPortFrom(inner, p.dst.Port())
	}
	far := Outside
	if p.from == DMZ && !static && !dynamic {
		far = DMZ
	}
	for _, c := range r.byWide() {
		if c.proto != p.proto || c.served != served {
			continue
		}
		switch {
		case dynamic:
			if !r.dynamic(c) || c.external != p.dst {
				continue
			}
			// Of those that share a port, the one for this remote.
			if whom := keep(r.policy(c.proto).Mapping, p.src); r.alone(c) && m == nil || !r.alone(c) && c.whom == whom {
				m = c
			}
		case static:
			if c.static && c.internal == internal {
				m = c
			}
		default:
			if !r.dynamic(c) && !c.static && c.internal == p.dst && c.far == far && m == nil {
				m = c
			}
		}
	}
	return m
}

// inward decides about a packet from outside, or that is hairpinned.
func (r *reference) inward(p refPacket) (refOutcome, error) {
	served := p.kind == ip.EchoRequest
	internal, open := p.dst, false
	inner, static := r.staticAt(p.dst.Addr())
	dynamic := r.isExternal(p.dst.Addr()) && !static
	if static {
		internal, open = netip.AddrPortFrom(inner, p.dst.Port()), true
	}
	far := Outside
	if p.from == DMZ && !static && !dynamic {
		far = DMZ
	}
	m := r.at(p)
	reason := NoMapping
	out := refOutcome{src: p.src}
	if m != nil {
		internal = m.internal
		out.to, out.dst = m.side, internal
		if s := r.session(m, p.src); s != nil {
			r.note(m, s, p, false, false)
			return out, nil
		}
		reason = Filtered
		open = m.static || m.grant != nil && m.grant.admits(p.src)
		switch r.filtering(m) {
		case EndpointIndependent:
			open = true
		case AddressDependent:
			open = open || slices.ContainsFunc(m.sessions, func(s *refSession) bool { return s.remote.Addr() == p.src.Addr() })
		}
	} else {
		if served {
			reason = Filtered
		}
		switch {
		case static:
		case r.ownOn(p.dst.Addr()) == Local && r.sideOf(p.dst.Addr()) == Outside:
			return dropped(BadAddress), nil
		case dynamic, r.ownOn(p.dst.Addr()) != Local, far == Outside && r.translates(p.dst.Addr()):
			return dropped(reason), nil
		}
		out.to, out.dst = r.sideOf(internal.Addr()), internal
		if out.to == Outside || out.to == p.from && !static {
			return dropped(BadAddress), nil
		}
		if static {
			reason = NoMapping
		}
	}
	if !opening(p) {
		return dropped(reason), nil
	}
	pass, decided := r.ruled(p.from, out.to, p.proto, p.src, internal)
	switch {
	case decided && !pass:
		return dropped(Ruled), nil
	case !decided && !open:
		return dropped(reason), nil
	}
	if r.used()+2 > 4*r.cfg.MaxMappings/2 {
		return dropped(TableFull), nil
	}
	if m == nil {
		m = &refMapping{proto: p.proto, served: served, side: out.to, far: far, internal: internal, external: internal, static: static}
		if static {
			m.external = p.dst
		}
		if ok, err := r.make(m, p.src, r.cfg.MaxMappings/2, netip.AddrPort{}); !ok {
			return dropped(TableFull), err
		}
	}
	r.begin(m, p, p.src, false)
	if m.whom.IsValid() && m.whom != p.src && m.whom != netip.AddrPortFrom(p.src.Addr(), 0) {
		r.guests[refGuest{p.proto, internal, p.src}] = m.sessions[len(m.sessions)-1]
	}
	return out, nil
}

func (g *refGrant) admits(remote netip.AddrPort) bool {
	for _, f := range g.remotes {
		if f.Prefix.Contains(remote.Addr()) && (f.Port == 0 || f.Port == remote.Port()) {
			return true
		}
	}
	return len(g.remotes) == 0
}

// mapPort is Map; it reports whether that succeeds.
func (r *reference) mapPort(want Request, counterpart netip.Addr) (*refMapping, bool, error) {
	side := r.sideOf(want.Internal.Addr())
	if _, static := r.static(want.Internal.Addr()); static || side == Outside {
		return nil, false, nil
	}
	if r.used()+2 > 4*r.cfg.MaxMappings {
		return nil, false, nil
	}
	var m *refMapping
	fits := func(c *refMapping) bool {
		return c.proto == want.Proto && c.internal == want.Internal && c.far == Outside && !c.retired
	}
	for _, c := range r.byWide() {
		if fits(c) && c.whom == (netip.AddrPort{}) && (m == nil || m.wide == 0 && c.wide != 0) {
			m = c
		}
	}
	found := m
	translated := r.translates(want.Internal.Addr())
	port := want.External.Port()
	create := func(wish netip.AddrPort) (bool, error) {
		r.granted++
		m = &refMapping{proto: want.Proto, side: side, far: Outside, internal: want.Internal, external: want.Internal, wide: r.granted}
		return r.make(m, netip.AddrPort{}, r.cfg.MaxMappings, wish)
	}
	var ok bool
	var err error
	switch {
	case !translated:
		if port != 0 && port != want.Internal.Port() && !want.Any {
			return nil, false, nil
		}
		if m == nil {
			if ok, err = create(netip.AddrPort{}); !ok {
				return nil, false, err
			}
		}
	case m != nil && (port == 0 || m.external.Port() == port):
	case port == 0:
		if ok, err = create(netip.AddrPort{}); !ok {
			return nil, false, err
		}
	default:
		if !counterpart.IsValid() {
			return nil, false, nil
		}
		at := netip.AddrPortFrom(counterpart, port)
		if r.free(&refMapping{proto: want.Proto, wide: 1}, at) {
			if ok, err = create(at); !ok {
				return nil, false, err
			}
			break
		}
		holder := slices.IndexFunc(r.mappings, func(c *refMapping) bool {
			return c.proto == want.Proto && r.dynamic(c) && r.alone(c) && c.external == at && c.side == side && (c.internal == want.Internal ||
				want.Replace && c.wide != 0 && c.internal.Addr() == want.Internal.Addr())
		})
		switch {
		case holder >= 0 && r.mappings[holder].internal != want.Internal:
			r.granted++
			m = r.mappings[holder]
			m.internal, m.sessions, m.wide = want.Internal, nil, r.granted
		case holder >= 0:
			m = r.mappings[holder]
		case !want.Any:
			return nil, false, nil
		case found != nil && found.external.Addr() == counterpart:
			m = found
		default:
			wish := netip.AddrPort{}
			if r.cfg.Pooling == Arbitrary && r.cfg.Ports.Block == 0 {
				wish = netip.AddrPortFrom(counterpart, 0)
			}
			if ok, err = create(wish); !ok {
				return nil, false, err
			}
		}
	}
	if m.wide == 0 { // it came about by itself
		r.granted++
		if m.proto != ip.TCP {
			m.sessions = nil
		}
		m.wide, m.whom, m.symmetric, m.retired = r.granted, netip.AddrPort{}, false, false
	}
	m.grant = &refGrant{remotes: want.Remotes}
	if want.Lifetime > 0 {
		m.grant.until = r.now.Add(want.Lifetime)
	}
	return m, true, nil
}

func (r *reference) unmap(proto ip.Proto, external netip.AddrPort) bool {
	for _, m := range r.mappings {
		if m.proto == proto && m.external == external && m.grant != nil {
			m.grant = nil
			r.dropIfEmpty(m, r.now)
			r.leave()
			return true
		}
	}
	return false
}

// setOwn changes the external addresses.
func (r *reference) setOwn(addrs []netip.Addr) {
	gone := func(a netip.Addr) bool { return slices.Contains(r.cfg.Own[Outside], a) && !slices.Contains(addrs, a) }
	r.mappings = slices.DeleteFunc(r.mappings, func(m *refMapping) bool {
		return r.dynamic(m) && gone(m.external.Addr()) || m.side == Local && gone(m.internal.Addr())
	})
	r.resting = slices.DeleteFunc(r.resting, func(f refRest) bool { return gone(f.external.Addr()) })
	for host, a := range r.external {
		if gone(a) {
			delete(r.external, host)
			delete(r.block, host)
			delete(r.last, host)
		}
	}
	for key := range r.last {
		if pool, ok := key.(refPool); ok && gone(pool.addr) {
			delete(r.last, key)
		}
	}
	r.cfg.Own[Outside] = addrs
	r.leave()
}
