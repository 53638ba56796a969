package rendezvous

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"
)

// limit is a token bucket in the form of the generic cell rate algorithm: all
// it keeps for each bucket is one time, when the bucket will be full again.
type limit struct {
	perSecond int64
	burst     int64 // nanoseconds that the whole bucket takes to fill
}

func newLimit(r Rate) limit {
	l := limit{perSecond: int64(r.PerSecond)}
	l.burst = l.time(r.Burst)
	return l
}

func (l limit) time(tokens int) int64 { return int64(tokens) * int64(time.Second) / l.perSecond }

// take takes n tokens out of the bucket, if they are there.
func (l limit) take(full *int64, now int64, n int) bool {
	t := max(*full, now) + l.time(n)
	if t-now > l.burst {
		return false
	}
	*full = t
	return true
}

const (
	rateSets = 1 << 14
	rateWays = 4
)

// rateTable holds the buckets of those who have no other place for them. It
// has room for 65,536, always. When a set is full, the bucket that is nearest
// to full gives way: forgetting it grants the least, and who floods stays.
type rateTable struct {
	limit
	buckets []bucket
}

type bucket struct {
	key  uint64
	full int64
}

func newRateTable(r Rate) rateTable {
	return rateTable{newLimit(r), make([]bucket, rateSets*rateWays)}
}

func (t *rateTable) take(key uint64, now int64) bool {
	at := key % rateSets * rateWays
	set := t.buckets[at : at+rateWays]
	least := 0
	for i := range set {
		if set[i].key == key {
			return t.limit.take(&set[i].full, now, 1)
		}
		if set[i].full < set[least].full {
			least = i
		}
	}
	set[least] = bucket{key: key}
	return t.limit.take(&set[least].full, now, 1)
}

// hasher hashes under a secret, so that nobody can choose what collides.
type hasher [3]uint64

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func (h *hasher) words(a, b, c, d uint64) uint64 {
	x := mix(a^h[0], b^h[1])
	y := mix(c^h[1], d^h[2])
	return mix(x^h[2], y^h[0])
}

func (h *hasher) id(b *[32]byte) uint64 {
	le := binary.LittleEndian
	return h.words(le.Uint64(b[0:]), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:]))
}

func (h *hasher) relay(id *RelayID) uint64 {
	return mix(mix(binary.LittleEndian.Uint64(id[:])^h[0], h[1])^h[2], h[0])
}

// address is for limits: an IPv4 address, or the /64 that a host or a home has
// for itself.
func (h *hasher) address(a netip.Addr) uint64 {
	b := a.As16()
	upper, lower := binary.LittleEndian.Uint64(b[:]), uint64(0)
	if a = a.Unmap(); a.Is4() {
		lower = binary.LittleEndian.Uint64(b[8:])
	}
	return h.words(upper, lower, 1, 0)
}
