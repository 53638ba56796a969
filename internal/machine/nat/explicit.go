package nat

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Request is what Map is to do.
type Request struct {
	Proto    ip.Proto // UDP or TCP
	Internal netip.AddrPort
	// External is the endpoint wanted outside. An invalid address is the one
	// that the host is paired with, port 0 any port.
	External netip.AddrPort
	// Any takes another port where the one wanted is taken.
	Any bool
	// Replace takes the port wanted from another port of the same host, if Map
	// made that mapping. What went through it ends.
	Replace bool
	// Remotes may come in; none stands for everyone.
	Remotes []Remotes
	// Lifetime is how long, whatever happens; 0 is until Unmap.
	Lifetime time.Duration
}

// Remotes are remote endpoints; an invalid prefix is all addresses, port 0 all
// ports.
type Remotes struct {
	Prefix netip.Prefix `yaml:"prefix"`
	Port   uint16       `yaml:"port"`
}

func (r Remotes) has(remote netip.AddrPort) bool {
	return (!r.Prefix.IsValid() || r.Prefix.Contains(remote.Addr())) && (r.Port == 0 || r.Port == remote.Port())
}

var (
	// ErrTaken is Map's answer to a port that another has.
	ErrTaken = errors.New("nat: the external port is taken")
	// ErrFull is Map's answer when no port or no memory is left.
	ErrFull = errors.New("nat: no room for a mapping")
	// ErrNotInside is Map's answer for an endpoint that can have no mapping.
	ErrNotInside = errors.New("nat: not an endpoint behind the gateway")
)

func anyHas(all []Remotes, remote netip.AddrPort) bool {
	return slices.ContainsFunc(all, func(r Remotes) bool { return r.has(remote) })
}

// grant is what Map gave.
type grant struct {
	remotes []Remotes
	session uint32 // stands for it among the mapping's; it has the timer
}

// Map opens an external port for an internal endpoint, or changes the lifetime
// and the remotes of what it opened before for the same internal endpoint: at
// that port, or, for a request of any, at the port opened first. A mapping that
// came about by itself at that port, or where any will do at any, becomes an
// explicit one. Packets from the internal endpoint to new remotes leave by it,
// unless they have a mapping that came about by itself.
//
// Without translation it opens the internal endpoint itself.
func (g *Gateway) Map(now time.Time, want Request) (Mapping, error) {
	g.advance(now)
	side := g.sideOf(want.Internal.Addr())
	if want.Proto != ip.UDP && want.Proto != ip.TCP || want.Internal.Port() == 0 || side == Outside ||
		g.owner(want.Internal.Addr()) != Local || want.Lifetime < 0 || g.cfg.Mode == Open {
		return Mapping{}, ErrNotInside
	}
	if _, static := g.fixed[want.Internal.Addr()]; static {
		return Mapping{}, ErrNotInside
	}
	w := wish{
		proto: want.Proto, code: want.Proto, side: side, far: Outside, addr: want.Internal.Addr(),
		most: g.cfg.MaxMappings, wide: true, external: identity, port: want.External.Port(),
	}
	if g.translates(w.addr) {
		if want.External.Addr().IsValid() {
			if w.external = g.roles.of(want.External.Addr()).external; w.external == identity || g.externals[w.external].static() {
				return Mapping{}, ErrTaken
			}
		}
	} else {
		if want.External.IsValid() && want.External.Addr() != w.addr || w.port != 0 && w.port != want.Internal.Port() && !want.Any {
			return Mapping{}, ErrTaken
		}
		w.port = 0
	}
	var ok bool
	if w.internal, ok = g.hold(want.Internal); !ok {
		return Mapping{}, ErrFull
	}
	defer g.letGo(w.internal)
	if !g.hasRoom(g.maxSessions) {
		return Mapping{}, ErrFull
	}
	ref, err := g.grantee(&w, want.Any, want.Replace)
	if err != nil {
		return Mapping{}, err
	}
	gr := g.grants[ref]
	if gr == nil {
		gr = &grant{session: g.newSession(ref, 0, classMapped)}
		if gr.session == 0 {
			g.dropIfEmpty(ref, g.mapping(ref))
			return Mapping{}, ErrFull
		}
		g.grants[ref] = gr
	}
	gr.remotes = slices.Clone(want.Remotes)
	s := g.session(gr.session)
	g.unfile(s)
	if s.expires = never; want.Lifetime > 0 {
		s.expires = g.now + int64(min(want.Lifetime, longest))
		g.file(gr.session, s)
	}
	g.adopt(ref)
	return g.describe(ref), nil
}

// grantee finds or makes the mapping that a request is about.
func (g *Gateway) grantee(w *wish, any, replace bool) (uint32, error) {
	key := keyOf(w.proto, Outside, w.internal)
	make := func() (uint32, error) {
		if ref := g.newMapping(w); ref != 0 {
			return ref, nil
		}
		return 0, ErrFull
	}
	found, _ := g.wideOf(key, 0)
	if found == 0 {
		found = g.mappingOf(key, 0)
	}
	if found != 0 && (w.port == 0 || w.port == g.mapping(found).port) && (w.external == identity || w.external == g.mapping(found).addr) {
		return found, nil
	}
	if w.port == 0 {
		return make()
	}
	at := w.external
	if at == identity {
		if at = g.counterpart(w.internal.address()); at == identity {
			return 0, ErrFull
		}
		if !g.pairs() {
			w.external = at
		}
	}
	p := g.pool(w.proto, at)
	if p.isFree(w.port) {
		return make()
	}
	if ref := p.ref(w.port); ref != 0 && g.mapping(ref).side == w.side {
		m := g.mapping(ref)
		switch {
		case m.internal() == w.internal:
			return ref, nil
		case replace && m.flags&wide != 0 && m.internal().address() == w.internal.address():
			return g.rekey(ref, m, key)
		}
	}
	switch {
	case !any:
		return 0, ErrTaken
	case found != 0 && g.mapping(found).addr == at:
		return found, nil
	}
	w.port = 0
	return make()
}

// adopt makes a mapping explicit, however it came about.
func (g *Gateway) adopt(ref uint32) {
	m := g.mapping(ref)
	if m.flags&wide != 0 {
		m.flags |= explicit
		return
	}
	// What is remembered of remotes is another from now on.
	if m.proto != ip.TCP {
		g.dropRemotes(ref)
	} else if m.filtering() == AddressDependent {
		g.eraseAddresses(m)
	}
	g.unlist(ref, m)
	g.disown(m)
	if m.flags&symmetric != 0 {
		g.symmetrics--
	}
	g.letGo(m.whom())
	m.remote, m.rport = 0, 0
	m.flags = wide | explicit | mappingFlags(AddressAndPortDependent)*filterBit
	g.wides++
	if !g.list(ref, m) {
		g.seconds = append(g.seconds, ref)
		m.flags |= unlisted
	}
}

// rekey gives a mapping that Map made to another port of its host. The external
// port is never free in between, so it need not rest, and nobody else gets it.
func (g *Gateway) rekey(ref uint32, m *mapping, key endpoint) (uint32, error) {
	g.eraseRemotes(m, ref)
	g.unlist(ref, m)
	m.flags &^= unlisted
	m.key = key
	if !g.list(ref, m) {
		m.flags |= unlisted
		g.seconds = append(g.seconds, ref)
	}
	return ref, nil
}

// unmap ends what Map gave. What goes through the mapping goes on.
func (g *Gateway) unmap(ref uint32) {
	gr := g.grants[ref]
	delete(g.grants, ref)
	m := g.mapping(ref)
	m.flags &^= explicit
	g.erase(gr.session)
	g.dropIfEmpty(ref, m)
}

// Unmap ends what Map opened at an external endpoint. Connections that are
// open go on. It reports whether there was such a mapping.
func (g *Gateway) Unmap(now time.Time, proto ip.Proto, external netip.AddrPort) bool {
	g.advance(now)
	ref := uint32(0)
	if r := g.roles.of(external.Addr()); r.external != identity {
		if p := g.externals[r.external].pools[proto&3]; p != nil {
			ref = p.ref(external.Port())
		}
	} else {
		ref = g.mappingOf(keyOf(proto, Outside, g.lookup(external))|keyForMap, 0)
	}
	if ref == 0 || g.grants[ref] == nil || g.external(g.mapping(ref)) != external {
		return false
	}
	g.unmap(ref)
	return true
}

// forget drops a mapping with all that it has.
func (g *Gateway) forget(ref uint32) {
	m := g.mapping(ref)
	if gr := g.grants[ref]; gr != nil {
		delete(g.grants, ref)
		m.flags &^= explicit
		g.erase(gr.session)
	}
	if m.first.mapping == 0 && m.first.sibling == 0 {
		g.dropMapping(ref)
		return
	}
	g.dropRemotes(ref)
}

// admits reports whether a remote may come in.
func (gr *grant) admits(remote netip.AddrPort) bool {
	return len(gr.remotes) == 0 || anyHas(gr.remotes, remote)
}

// External is the address that an internal one has outside, or would get now;
// invalid where there is none.
func (g *Gateway) External(internal netip.Addr) netip.Addr {
	if !g.translates(internal) {
		return internal
	}
	if i, static := g.fixed[internal]; static {
		return g.externals[i].addr
	}
	i := g.counterpart(g.lookup(netip.AddrPortFrom(internal, 0)))
	if i == identity {
		return netip.Addr{}
	}
	return g.externals[i].addr
}
