package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// external is an address that mappings translate to.
type external struct {
	addr   netip.Addr
	packed endpoint // without a port
	// inner is the internal address that a static one stands for.
	inner  netip.Addr
	live   bool
	pools  [4]*pool // by protocol
	blocks []uint64 // those of its blocks of ports that hosts have
}

func (e *external) static() bool { return e.inner.IsValid() }

// role is what an address is to the gateway.
type role struct {
	side     Side  // where it is the gateway's own; Local: it is not
	external uint8 // the place in externals; identity: it is none
}

var stranger = role{Local, identity}

// roles finds the addresses that have one: open addressing, at most half full.
type roles struct {
	slots []roleSlot
	seeds *hasher
}

type roleSlot struct {
	addr netip.Addr
	role role
}

func (r *roles) place(a netip.Addr) int {
	var h uint32
	if a.Is4() {
		b := a.As4()
		h = r.seeds.sum(uint64(binary.BigEndian.Uint32(b[:])), 0)
	} else {
		b := a.As16()
		h = r.seeds.sum(binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]))
	}
	i := int(h) & (len(r.slots) - 1)
	for r.slots[i].addr.IsValid() && r.slots[i].addr != a {
		i = (i + 1) & (len(r.slots) - 1)
	}
	return i
}

func (r *roles) of(a netip.Addr) role {
	if s := &r.slots[r.place(a)]; s.addr.IsValid() {
		return s.role
	}
	return stranger
}

// rolesNow writes down what each address is.
func (g *Gateway) rolesNow() {
	n := 2*len(g.externals) + 2
	for _, own := range g.cfg.Own {
		n += 2 * len(own)
	}
	size := 4
	for size < n {
		size *= 2
	}
	g.roles = roles{make([]roleSlot, size), &g.seeds}
	for side := Side(0); side < Local; side++ {
		for _, a := range g.cfg.Own[side] {
			g.roles.slots[g.roles.place(a)] = roleSlot{a, role{side, identity}}
		}
	}
	g.dynamic = g.dynamic[:0]
	for i, e := range g.externals {
		if !e.live {
			continue
		}
		s := &g.roles.slots[g.roles.place(e.addr)]
		*s = roleSlot{e.addr, role{Outside, uint8(i)}}
		if !e.static() {
			g.dynamic = append(g.dynamic, uint8(i))
		}
	}
	g.roles4 = roles4{slots: make([]role4, size), mask: uint32(size - 1)}
	for _, s := range g.roles.slots {
		if s.addr.Is4() {
			b := s.addr.As4()
			g.roles4.add(role4{binary.BigEndian.Uint32(b[:]), min(s.role.external, mine)})
		}
	}
}

// maxExternals is how many there may be.
const maxExternals = mine

// statics begins the table of externals.
func (g *Gateway) statics() error {
	g.fixed = make(map[netip.Addr]uint8, len(g.cfg.Static))
	for _, s := range g.cfg.Static {
		switch _, twice := g.fixed[s.Internal]; {
		case !s.Internal.Is4() || !s.External.Is4():
			return fmt.Errorf("nat: static %v to %v: only IPv4 is translated", s.Internal, s.External)
		case g.cfg.Mode != Translate:
			return fmt.Errorf("nat: static %v to %v: nothing is translated here", s.Internal, s.External)
		case g.sideOf(s.Internal) == Outside || g.sideOf(s.External) != Outside:
			return fmt.Errorf("nat: static %v to %v: they are on the wrong sides", s.Internal, s.External)
		case twice || slices.ContainsFunc(g.externals, func(e external) bool { return e.addr == s.External }):
			return fmt.Errorf("nat: static %v to %v: one of them is in another pair", s.Internal, s.External)
		case len(g.externals) == maxExternals:
			return fmt.Errorf("nat: more than %d external addresses", maxExternals)
		}
		g.fixed[s.Internal] = uint8(len(g.externals))
		g.externals = append(g.externals, external{addr: s.External, packed: g.lookup(netip.AddrPortFrom(s.External, 0)), inner: s.Internal, live: true})
	}
	return nil
}

// claim makes an external of each outside IPv4 address that is none yet.
func (g *Gateway) claim() error {
	for _, a := range g.cfg.Own[Outside] {
		if !a.Is4() || g.cfg.Mode != Translate || slices.ContainsFunc(g.externals, func(e external) bool { return e.live && e.addr == a }) {
			continue
		}
		i := slices.IndexFunc(g.externals, func(e external) bool { return !e.live })
		if i < 0 {
			if i = len(g.externals); i == maxExternals {
				return fmt.Errorf("nat: more than %d external addresses", maxExternals)
			}
			g.externals = append(g.externals, external{})
		}
		g.externals[i] = external{addr: a, packed: g.lookup(netip.AddrPortFrom(a, 0)), live: true}
	}
	g.rolesNow()
	return nil
}

// SetOwn changes the gateway's addresses on a side, as a new lease does. What
// was mapped to an address that it no longer has is forgotten.
func (g *Gateway) SetOwn(now time.Time, side Side, addrs []netip.Addr) error {
	if side >= Local {
		return fmt.Errorf("nat: no addresses on side %v", side)
	}
	g.advance(now)
	gone := slices.DeleteFunc(slices.Clone(g.cfg.Own[side]), func(a netip.Addr) bool { return slices.Contains(addrs, a) })
	g.cfg.Own[side] = slices.Clone(addrs)
	if side == Outside {
		g.abandon(gone)
	}
	return g.claim()
}

// abandon forgets what has to do with external addresses.
func (g *Gateway) abandon(gone []netip.Addr) {
	var dead [256]bool
	for i := range g.externals {
		if e := &g.externals[i]; e.live && !e.static() && slices.Contains(gone, e.addr) {
			dead[i] = true
			e.live = false
		}
	}
	for ref := uint32(1); ref < g.mappings.top; ref++ {
		m := g.mapping(ref)
		if m.key != 0 && (m.addr != identity && dead[m.addr] || m.side == Local && slices.Contains(gone, g.internal(m).Addr())) {
			g.forget(ref)
		}
	}
	var left resting
	for _, r := range g.held {
		if !dead[r.addr] {
			left.push(r)
		} else if r.host != 0 {
			g.hosts.slab.at(r.host).resting--
			g.leaveHost(r.host)
		}
	}
	g.held = left
	for ref := uint32(1); ref < g.hosts.slab.top; ref++ {
		if h := g.hosts.slab.at(ref); h.addr != 0 && h.external != identity && dead[h.external] {
			h.external, h.blocked = identity, false
		}
	}
	for i := range g.externals {
		if dead[i] {
			g.externals[i] = external{}
		}
	}
	g.late.abandon(gone)
	for side := range g.cut {
		g.cut[side].abandon(gone)
	}
}

// roles4 is roles for express: the place in externals of an IPv4 address; mine
// for another of the gateway's own, identity for others.
type roles4 struct {
	slots []role4
	mask  uint32
}

type role4 struct {
	addr     uint32 // 0: an empty slot
	external uint8
}

const mine = identity - 1

func (r *roles4) add(new role4) {
	i := spread(new.addr) & r.mask
	for r.slots[i].addr != 0 {
		i = (i + 1) & r.mask
	}
	r.slots[i] = new
}

func (r *roles4) of(e endpoint) uint8 {
	addr := e.number()
	for i := spread(addr) & r.mask; ; i = (i + 1) & r.mask {
		switch s := r.slots[i]; s.addr {
		case addr:
			return s.external
		case 0:
			return identity
		}
	}
}

// spread is no hash against attackers: who has which address is not theirs to
// choose.
func spread(addr uint32) uint32 { return addr * 0x9e3779b1 >> 16 }

// side4 is sideOf for a packed IPv4 endpoint.
func (g *Gateway) side4(e endpoint) Side {
	for i := range g.zones {
		if z := &g.zones[i]; e.number()&z.mask == z.addr {
			return z.side
		}
	}
	return Outside
}

// martian reports whether no packet can come from an address outside (RFC 1812
// section 5.3.7).
func martian(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		return martian4(b[0])
	}
	return a.IsUnspecified() || a.IsLoopback() || a.IsMulticast()
}

func martian4(first byte) bool { return first == 0 || first == 127 || first >= 224 }

// zone is a prefix of IPv4 addresses on a side.
type zone struct {
	addr, mask uint32
	side       Side
}

func (g *Gateway) zonesNow() {
	for _, z := range []struct {
		side     Side
		prefixes []netip.Prefix
	}{{Inside, g.cfg.Inside}, {DMZ, g.cfg.DMZ}} {
		for _, p := range z.prefixes {
			if !p.Addr().Is4() {
				g.zones6 = append(g.zones6, zone6{p, z.side})
				continue
			}
			b := p.Masked().Addr().As4()
			g.zones = append(g.zones, zone{binary.BigEndian.Uint32(b[:]), ^uint32(0) << (32 - p.Bits()), z.side})
		}
	}
}

type zone6 struct {
	prefix netip.Prefix
	side   Side
}

// sideOf is the side on which an address is.
func (g *Gateway) sideOf(a netip.Addr) Side {
	if a.Is4() {
		b := a.As4()
		u := binary.BigEndian.Uint32(b[:])
		for i := range g.zones {
			if z := &g.zones[i]; u&z.mask == z.addr {
				return z.side
			}
		}
		return Outside
	}
	for i := range g.zones6 {
		if z := &g.zones6[i]; z.prefix.Contains(a) {
			return z.side
		}
	}
	return Outside
}

// routable reports whether an address can be one end of a session.
func routable(a netip.Addr) bool {
	return a.IsGlobalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) &&
		!(a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240))
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
