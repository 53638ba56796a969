package punch

import (
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/wire/signal"
)

const (
	maxSignalled     = signal.MaxCandidates
	maxPeerReflexive = 8
)

// rank orders techniques; more is better.
func (t Technique) rank() int {
	switch t {
	case LAN:
		return 3
	case IPv6:
		return 2
	case Punch:
		return 1
	}
	return 0
}

// usable tells whether a check may go to ep at all.
func (m *Machine) usable(ep netip.AddrPort) bool {
	a := ep.Addr()
	switch {
	case !ep.IsValid(), ep.Port() == 0, a.Zone() != "",
		ep == m.cfg.Mapped, ep == m.cfg.Server,
		a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.IsLinkLocalUnicast():
		return false
	}
	if a.Is4() {
		b := a.As4()
		if b[0] == 0 || b[0] >= 240 { // this network; reserved and broadcast
			return false
		}
		// The broadcast address of nearly every private network there is. Its
		// prefix is not known here, and Go's sockets may send to it.
		if a.IsPrivate() && b[3] == 255 {
			return false
		}
	}
	s := m.cfg.Server.Addr()
	return !(s.IsPrivate() && sameNetwork(s, a) && !m.near(a))
}

// near tells whether one of our addresses is in a's network.
func (m *Machine) near(a netip.Addr) bool {
	for _, l := range m.cfg.Local {
		if sameNetwork(l, a) {
			return true
		}
	}
	return false
}

// sameNetwork guesses, from the usual lengths of a network's prefix.
func sameNetwork(a, b netip.Addr) bool {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	return err == nil && p.Contains(b)
}

var privateBlocks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("fc00::/7"),
}

// sharesBlock tells whether a and one of our addresses are of the same private
// block: an endpoint that a NAT between the two of us shows is rarely of the
// block that we are in ourselves.
func (m *Machine) sharesBlock(a netip.Addr) bool {
	for _, p := range privateBlocks {
		for _, l := range m.cfg.Local {
			if p.Contains(a) && p.Contains(l) {
				return true
			}
		}
	}
	return false
}

func (m *Machine) technique(kind signal.Kind, a netip.Addr) Technique {
	switch {
	case kind != signal.ServerReflexive && m.near(a),
		kind == signal.Host && a.IsPrivate(),
		kind == signal.PeerReflexive && m.sharesBlock(a):
		return LAN
	case a.Is6():
		return IPv6
	case a == m.cfg.Mapped.Addr():
		return Hairpin
	}
	return Punch
}

// add makes a pair for a new endpoint, nil when it may not be used or when
// there are too many.
func (m *Machine) add(kind signal.Kind, ep netip.AddrPort) *pair {
	count, limit := 0, maxSignalled
	learnt := kind == signal.PeerReflexive
	if learnt {
		limit = maxPeerReflexive
	}
	t := m.technique(kind, ep.Addr())
	nth := 0
	for _, p := range m.pairs {
		if p.learnt == learnt {
			count++
		}
		if p.technique == t {
			nth++
		}
	}
	if count >= limit || !m.usable(ep) || !m.wanted(t) {
		return nil
	}
	p := &pair{remote: ep, kind: kind, learnt: learnt, technique: t, nth: nth}
	m.pairs = append(m.pairs, p)
	return p
}

// wanted tells whether the technique is one to try.
func (m *Machine) wanted(t Technique) bool {
	return len(m.cfg.Techniques) == 0 || slices.Contains(m.cfg.Techniques, t)
}

func (m *Machine) find(ep netip.AddrPort) *pair {
	for _, p := range m.pairs {
		if p.remote == ep {
			return p
		}
	}
	return nil
}
