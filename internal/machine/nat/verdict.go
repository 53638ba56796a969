package nat

import (
	"net/netip"
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
	s.Mappings, s.Sessions = g.byInternal.used, g.bySession.used
	return s
}

// Mapping is a mapping as it is drawn and tested.
type Mapping struct {
	Proto              ip.Proto
	Internal, External netip.AddrPort
	// Remote is what the mapping is for: invalid, an address with port 0, or
	// an endpoint.
	Remote netip.AddrPort
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
	place := make(map[uint32]int)
	for ref := range g.mappings {
		m := &g.mappings[ref]
		if !m.internal.IsValid() {
			continue
		}
		place[uint32(ref)] = len(all)
		all = append(all, Mapping{Proto: m.proto, Internal: m.internal, External: g.external(m), Remote: m.remote})
	}
	for ref := range g.sessions {
		s := &g.sessions[ref]
		if s.mapping == 0 {
			continue
		}
		m := &all[place[s.mapping]]
		seen := Session{Remote: s.remote, Established: s.class == classEstablished}
		if s.class != noClass {
			seen.Expires = time.Unix(0, s.expires)
		}
		m.Sessions = append(m.Sessions, seen)
	}
	return all
}
