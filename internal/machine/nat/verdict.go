package nat

import (
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Action is what becomes of a packet.
type Action uint8

const (
	Drop    Action = iota
	Forward        // to the side that the verdict names
)

// Reason is why a packet was dropped, or that it was Kept.
type Reason uint8

const (
	None          Reason = iota
	Malformed            // not an IP packet, or a bad header
	Unsupported          // a fragment, or a protocol that is not followed
	Blocked              // by BlockUDP
	Expired              // its TTL
	BadAddress           // its source or destination is on the wrong side
	NoMapping            // nobody inside is at its destination, or it begins in the middle
	Filtered             // by the filtering policy
	NoHairpinning        // by the hairpin policy
	TableFull            // no memory or port for another mapping
	Ruled                // by a rule of the packet filter
	BadContent           // by the content filter
	OutOfWindow          // by TCP's state or window
	TooBig               // for the side it would leave by
	Kept                 // for now, or replaced: the rest comes by Poll
	reasons
)

func (r Reason) String() string {
	return [reasons]string{
		"", "malformed", "unsupported", "blocked", "TTL expired", "bad address",
		"no mapping", "filtered", "no hairpinning", "table full",
		"rule", "content", "out of window", "too big", "kept",
	}[r]
}

// Verdict is an action, with the side to forward to, or the reason of Drop. A
// packet to the side that it came from is a hairpin.
type Verdict struct {
	Action Action
	To     Side
	Reason Reason
}

func drop(r Reason) Verdict { return Verdict{Action: Drop, Reason: r} }

func forward(to Side) Verdict { return Verdict{Action: Forward, To: to} }

// Stats counts packets by verdict, and what is remembered now.
type Stats struct {
	Forwarded, Hairpinned uint64
	Dropped               [reasons]uint64 // by Reason
	Mappings, Sessions    int
}

func (g *Gateway) count(from Side, v Verdict) Verdict {
	switch {
	case v.Action == Drop:
		g.stats.Dropped[v.Reason]++
	case v.To == from:
		g.stats.Hairpinned++
	default:
		g.stats.Forwarded++
	}
	return v
}

// Stats are since New.
func (g *Gateway) Stats() Stats {
	s := g.stats
	s.Mappings, s.Sessions = g.mappings.used, g.sessionsUsed()
	return s
}

// Mapping is a mapping as it is drawn and tested.
type Mapping struct {
	Proto              ip.Proto
	Side               Side // of the internal endpoint
	Internal, External netip.AddrPort
	// Remote is what the mapping is for: invalid, an address with port 0, or
	// an endpoint.
	Remote netip.AddrPort
	// Explicit says that Map made it, and Until when, if not until Unmap. Then
	// Remotes may come in unasked; none stands for everyone.
	Explicit bool
	Until    time.Time
	Remotes  []Remotes
	// Sessions are what may come in, and until when.
	Sessions []Session
}

// Session is a remote that a mapping knows. Remote is invalid for anyone, and
// has port 0 for any port of its address. Without an Expires it lives while
// there are connections to that address.
type Session struct {
	Remote      netip.AddrPort
	Expires     time.Time
	Established bool // TCP
}

// Mappings lists what is remembered at now, in no particular order but always
// the same one.
func (g *Gateway) Mappings(now time.Time) []Mapping {
	g.advance(now)
	var all []Mapping
	for ref := uint32(1); ref < g.mappings.top; ref++ {
		if g.mapping(ref).key != 0 {
			all = append(all, g.describe(ref))
		}
	}
	return all
}

func (g *Gateway) describe(ref uint32) Mapping {
	m := g.mapping(ref)
	d := Mapping{
		Proto: m.proto, Side: m.side, Internal: g.internal(m), External: g.external(m), Remote: g.unpack(m.whom()),
		Explicit: m.flags&explicit != 0,
	}
	if gr := g.grants[ref]; gr != nil {
		d.Remotes = slices.Clone(gr.remotes)
	}
	add := func(s *session) {
		seen := Session{Remote: g.remote(s), Established: s.class == classEstablished}
		switch {
		case s.class == classMapped:
			if s.expires != never {
				d.Until = time.Unix(0, s.expires)
			}
			return
		case s.class != noClass:
			seen.Expires = time.Unix(0, s.expires)
		case g.shared(m):
			seen.Expires = time.Unix(0, m.first.expires)
		}
		d.Sessions = append(d.Sessions, seen)
	}
	if m.first.mapping != 0 {
		add(&m.first)
	}
	for ref := m.first.sibling; ref != 0; {
		s := g.sessions.at(ref)
		add(s)
		ref = s.sibling
	}
	return d
}
