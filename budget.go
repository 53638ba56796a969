package bodkin

import (
	"hash/maphash"
	"net/netip"
	"time"
)

// maxUnproved is how many packets a minute go to an address that has not
// answered, for all attempts together. Each attempt has its own, smaller budget;
// but peers that agree could have many attempts aim at one victim.
const maxUnproved = 1000

// budget counts packets to addresses that nobody may have asked from there. It
// takes no more room than this: addresses that share a place share what it has.
type budget struct {
	seed  maphash.Seed
	until time.Time
	sent  [4096]uint16
}

// take tells whether another packet may go to an address: one of IPv4, or one
// of the 2^64 of an IPv6 network.
func (b *budget) take(now time.Time, to netip.Addr) bool {
	if now.After(b.until) {
		*b = budget{seed: maphash.MakeSeed(), until: now.Add(time.Minute)}
	}
	bits := to.BitLen()
	if to.Is6() {
		bits = 64
	}
	n := &b.sent[maphash.Comparable(b.seed, netip.PrefixFrom(to.WithZone(""), bits).Masked())%uint64(len(b.sent))]
	if *n >= maxUnproved {
		return false
	}
	*n++
	return true
}
