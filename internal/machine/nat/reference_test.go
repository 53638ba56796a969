package nat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// reference is the gateway again, as slow and plain as possible: lists that are
// looked through from one end to the other for each packet, connections that
// are replayed from their first segment, and no table, timer or packed key. It
// shares nothing with the gateway but the words of its configuration.
//
// Where chance decides, it learns from the gateway what was drawn, and checks
// that it could be.
type reference struct {
	cfg      Config
	now      time.Time
	mappings []*refMapping // in the order in which they were made
	resting  []refRest
	last     map[any]uint16                     // by pool, or by host where hosts have blocks: Sequential
	external map[netip.Addr]netip.Addr          // whom a host is paired with
	block    map[netip.Addr]uint16              // the first port of a host's block
	learn    func(m *refMapping) netip.AddrPort // where the gateway put a new mapping; invalid is nowhere
	granted  int
	guests   map[refGuest]*refSession // of remotes that came in by another's mapping, the last
}

type refGuest struct {
	proto            ip.Proto
	internal, remote netip.AddrPort
}

type refMapping struct {
	proto              ip.Proto
	served             bool // of queries from outside
	side, far          Side
	internal, external netip.AddrPort
	whom               netip.AddrPort // its remote: none, an address with port 0, or an endpoint
	symmetric, static  bool
	retired            bool
	isn                uint32
	grant              *refGrant
	wide               int       // when Map made it or took it over; 0: it did not
	kept               time.Time // UDP timed as a whole: when it was last refreshed
	answered           bool      // and whether anything came in
	sessions           []*refSession
}

type refGrant struct {
	until   time.Time // zero is for ever
	remotes []Remotes
}

// refSession is a remote, as far as it is remembered.
type refSession struct {
	remote   netip.AddrPort
	kept     time.Time    // UDP and ICMP: last refreshed
	answered bool         // UDP: something came in
	heard    bool         // something came in, whatever the timers
	said     bool         // something went out
	history  []refSegment // TCP
}

type refSegment struct {
	out   bool
	flags uint8
	at    time.Time
}

type refRest struct {
	proto    ip.Proto
	external netip.AddrPort
	host     netip.Addr
	until    time.Time
}

type refPacket struct {
	from     Side
	proto    ip.Proto
	kind     ip.Kind
	src, dst netip.AddrPort
	flags    uint8
	seq      uint32
	ttl      uint8
}

// refOutcome is a verdict, and the packet as it goes on.
type refOutcome struct {
	reason   Reason
	to       Side
	src, dst netip.AddrPort
}

func timeOr(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// refConnection is what a session's segments have come to: what each end, the
// inside one being 1, has sent, and whether an RST ended it.
type refConnection struct {
	syn, ack, fin [2]bool
	dead          bool
}

func (c *refConnection) over() bool { return c.dead || c.fin[0] && c.fin[1] }

func (c *refConnection) take(seg refSegment) {
	i := 0
	if seg.out {
		i = 1
	}
	switch {
	case seg.flags&ip.RST != 0:
		c.dead = true
	case seg.flags&(ip.SYN|ip.ACK) == ip.SYN && c.over():
		*c = refConnection{}
		c.syn[i] = true
	case seg.flags&ip.SYN != 0:
		c.syn[i] = true
		c.ack[i] = c.ack[i] || seg.flags&ip.ACK != 0
	default:
		c.dead = false // that RST was not the end
		c.ack[i] = c.ack[i] || seg.flags&ip.ACK != 0
		c.fin[i] = c.fin[i] || seg.flags&ip.FIN != 0
	}
}

// replay is until when a connection is remembered, and what it has come to.
func (r *reference) replay(s *refSession) (until time.Time, established, over bool) {
	t := &r.cfg.Timers
	var c refConnection
	for _, seg := range s.history {
		c.take(seg)
		over = c.over()
		established = c.syn[0] && c.syn[1] && c.ack[0] && c.ack[1] && !over
		var timeout time.Duration
		switch {
		case c.dead:
			timeout = timeOr(t.AfterRST, 4*time.Minute)
		case over:
			timeout = timeOr(t.AfterFIN, 4*time.Minute)
		case established:
			timeout = timeOr(t.Established, 124*time.Minute)
		default:
			timeout = timeOr(t.Transitory, 4*time.Minute)
		}
		// An RST from inside keeps nothing alive.
		if end := seg.at.Add(timeout); seg.flags&ip.RST == 0 || !seg.out || end.Before(until) {
			until = end
		}
	}
	return until, established, over
}

func (r *reference) fine() bool { return len(r.cfg.Rules) > 0 }

// exact reports whether each remote endpoint is remembered.
func (r *reference) exact(proto ip.Proto) bool {
	p := r.policy(proto)
	lax := r.cfg.Mode == Translate && p.Filtering != AddressAndPortDependent && (p.Filtering < p.Mapping || r.cfg.SymmetricOnConflict)
	return proto == ip.TCP || r.fine() || proto == ip.UDP && lax
}

// asOne reports whether a mapping is timed as a whole.
func (r *reference) asOne(m *refMapping) bool {
	return m.proto == ip.UDP && m.wide == 0 && !r.exact(ip.UDP) && !r.cfg.Timers.PerSession
}

// ends is when a session is forgotten.
func (r *reference) ends(m *refMapping, s *refSession) time.Time {
	switch {
	case m.proto == ip.TCP:
		until, _, _ := r.replay(s)
		return until
	case m.proto == ip.ICMP:
		return s.kept.Add(timeOr(r.cfg.Timers.ICMP, time.Minute))
	case r.asOne(m):
		return m.kept.Add(r.udp(m.answered))
	}
	return s.kept.Add(r.udp(s.answered))
}

func (r *reference) udp(answered bool) time.Duration {
	if !answered && r.cfg.Timers.UDPUnanswered > 0 {
		return r.cfg.Timers.UDPUnanswered
	}
	return timeOr(r.cfg.Timers.UDP, 5*time.Minute)
}

// forget drops what has expired.
func (r *reference) forget(now time.Time) {
	r.now = now
	for _, m := range slices.Clone(r.mappings) {
		var died time.Time
		m.sessions = slices.DeleteFunc(m.sessions, func(s *refSession) bool {
			end := r.ends(m, s)
			if now.Before(end) {
				return false
			}
			if end.After(died) {
				died = end
			}
			return true
		})
		if g := m.grant; g != nil && !g.until.IsZero() && !now.Before(g.until) {
			if m.grant = nil; g.until.After(died) {
				died = g.until
			}
		}
		r.dropIfEmpty(m, died)
	}
	r.resting = slices.DeleteFunc(r.resting, func(f refRest) bool { return !now.Before(f.until) })
	r.leave()
}

// next is when the first of what is remembered ends.
func (r *reference) next() (end time.Time, ends bool) {
	sooner := func(t time.Time) {
		if !ends || t.Before(end) {
			end, ends = t, true
		}
	}
	for _, m := range r.mappings {
		for _, s := range m.sessions {
			sooner(r.ends(m, s))
		}
		if m.grant != nil && !m.grant.until.IsZero() {
			sooner(m.grant.until)
		}
	}
	return end, ends
}

func (r *reference) dropIfEmpty(m *refMapping, died time.Time) {
	if len(m.sessions) > 0 || m.grant != nil {
		return
	}
	r.mappings = slices.DeleteFunc(r.mappings, func(o *refMapping) bool { return o == m })
	if r.cfg.Ports.HoldDown > 0 && r.dynamic(m) {
		host := m.internal.Addr()
		if m.side == Local {
			host = netip.Addr{}
		}
		r.resting = append(r.resting, refRest{m.proto, m.external, host, died.Add(r.cfg.Ports.HoldDown)})
	}
}

// leave forgets hosts that have nothing left.
func (r *reference) leave() {
	for host := range r.external {
		rests := slices.ContainsFunc(r.resting, func(f refRest) bool { return f.host == host })
		if !rests && r.mappingsOf(host) == 0 {
			delete(r.external, host)
			delete(r.block, host)
			delete(r.last, host)
		}
	}
}

// mappingsOf counts the mappings of a host that are somebody's account.
func (r *reference) mappingsOf(host netip.Addr) (n int) {
	for _, m := range r.mappings {
		if m.side != Local && m.internal.Addr() == host && (r.dynamic(m) || r.cfg.Ports.PerHost > 0 || r.cfg.Ports.Rate > 0) {
			n++
		}
	}
	return n
}

// dynamic reports whether the external port of a mapping was allocated.
func (r *reference) dynamic(m *refMapping) bool {
	return m.far == Outside && r.translates(m.internal.Addr()) && !m.static
}

func (r *reference) translates(a netip.Addr) bool { return a.Is4() && r.cfg.Mode == Translate }

func (r *reference) policy(proto ip.Proto) Policy {
	if proto == ip.TCP && r.cfg.TCPPolicy != nil {
		return *r.cfg.TCPPolicy
	}
	return Policy{r.cfg.Mapping, r.cfg.Filtering, r.cfg.Hairpin}
}

func keep(d Dependence, remote netip.AddrPort) netip.AddrPort {
	switch d {
	case EndpointIndependent:
		return netip.AddrPort{}
	case AddressDependent:
		return netip.AddrPortFrom(remote.Addr(), 0)
	}
	return remote
}

// filtering is what governs who may come to a mapping.
func (r *reference) filtering(m *refMapping) Dependence {
	switch {
	case m.wide != 0 || m.far == DMZ || m.served:
		return AddressAndPortDependent
	case m.static:
		return EndpointIndependent
	}
	return r.policy(m.proto).Filtering
}

// scope is what a mapping remembers of a remote.
func (r *reference) scope(m *refMapping, remote netip.AddrPort) netip.AddrPort {
	if r.exact(m.proto) {
		return remote
	}
	return keep(r.filtering(m), remote)
}

func (r *reference) session(m *refMapping, remote netip.AddrPort) *refSession {
	for _, s := range m.sessions {
		if s.remote == r.scope(m, remote) {
			return s
		}
	}
	return nil
}

// used counts sessions as the gateway's limit does: with what counts them by
// address, and what stands for explicit mappings.
func (r *reference) used() (n int) {
	for _, m := range r.mappings {
		n += len(m.sessions)
		if m.grant != nil {
			n++
		}
		if r.filtering(m) == AddressDependent && r.exact(m.proto) {
			addrs := make(map[netip.Addr]bool)
			for _, s := range m.sessions {
				if s.remote.Port() != 0 {
					addrs[s.remote.Addr()] = true
				}
			}
			n += len(addrs)
		}
	}
	return n
}

func (r *reference) static(internal netip.Addr) (external netip.Addr, ok bool) {
	for _, s := range r.cfg.Static {
		if s.Internal == internal {
			return s.External, true
		}
	}
	return netip.Addr{}, false
}

func (r *reference) staticAt(external netip.Addr) (internal netip.Addr, ok bool) {
	for _, s := range r.cfg.Static {
		if s.External == external {
			return s.Internal, true
		}
	}
	return netip.Addr{}, false
}

func (r *reference) sideOf(a netip.Addr) Side {
	for _, p := range r.cfg.Inside {
		if p.Contains(a) {
			return Inside
		}
	}
	for _, p := range r.cfg.DMZ {
		if p.Contains(a) {
			return DMZ
		}
	}
	return Outside
}

// ownOn is the side on which an address is the gateway's, or that of a static
// pair; Local is none.
func (r *reference) ownOn(a netip.Addr) Side {
	for side, addrs := range r.cfg.Own {
		if slices.Contains(addrs, a) {
			return Side(side)
		}
	}
	if _, ok := r.staticAt(a); ok {
		return Outside
	}
	return Local
}

func (r *reference) isExternal(a netip.Addr) bool {
	return r.translates(a) && r.ownOn(a) == Outside
}

// ruled asks the rules; decided is false where none matches.
func (r *reference) ruled(from, to Side, proto ip.Proto, src, dst netip.AddrPort) (pass, decided bool) {
	for _, rule := range r.cfg.Rules {
		if rule.From != 0 && rule.From&SidesOf(from) == 0 || rule.To != 0 && rule.To&SidesOf(to) == 0 ||
			rule.Protocol != ip.Other && rule.Protocol != proto {
			continue
		}
		if len(rule.Src) > 0 && !rule.Src[0].Contains(src.Addr()) {
			continue
		}
		if len(rule.DstPorts) > 0 && (dst.Port() < rule.DstPorts[0].First || dst.Port() > rule.DstPorts[0].Last) {
			continue
		}
		return rule.Action == Accept, true
	}
	return false, false
}

// list is what the gateway should list, one line for each mapping.
func (r *reference) list() (all []string) {
	for _, m := range r.mappings {
		d := Mapping{Proto: m.proto, Side: m.side, Internal: m.internal, External: m.external, Remote: m.whom, Explicit: m.grant != nil}
		if m.grant != nil {
			d.Until = m.grant.until
		}
		counted := r.filtering(m) == AddressDependent && r.exact(m.proto)
		for _, s := range m.sessions {
			seen := Session{Remote: s.remote, Expires: r.ends(m, s)}
			if m.proto == ip.TCP {
				_, seen.Established, _ = r.replay(s)
			}
			d.Sessions = append(d.Sessions, seen)
			if addr := (Session{Remote: netip.AddrPortFrom(s.remote.Addr(), 0)}); counted && s.remote.Port() != 0 && !slices.Contains(d.Sessions, addr) {
				d.Sessions = append(d.Sessions, addr)
			}
		}
		all = append(all, line(d))
	}
	slices.Sort(all)
	return all
}

func line(m Mapping) string {
	var sessions []string
	for _, s := range m.Sessions {
		sessions = append(sessions, fmt.Sprint(s.Remote, " until ", s.Expires.UnixNano(), " ", s.Established))
	}
	slices.Sort(sessions)
	return fmt.Sprint(m.Proto, " ", m.Side, " ", m.Internal, " = ", m.External, " for ", m.Remote, " explicit ", m.Explicit, " ", m.Until.UnixNano(), " ", sessions)
}
