package nat

import (
	"encoding/binary"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Expect is told what packets will be handled soon, and brings what they need
// from main memory into the caches, for all of them at once instead of one
// after the other. It changes nothing, and need not be called. With very many
// mappings it makes Handle several times as fast.
func (g *Gateway) Expect(from Side, pkts ...[]byte) {
	for len(pkts) > 0 {
		n := min(len(pkts), batch)
		g.expect(from, pkts[:n])
		pkts = pkts[n:]
	}
}

const batch = 64

// expect looks at each place for all packets before it goes on to the next,
// because the processor waits for several places at the same time as long as
// none depends on another. Where each place is it has worked out before: the less
// there is between two reads, the more of them are under way.
func (g *Gateway) expect(from Side, pkts [][]byte) {
	var hashes, refs [batch]uint32
	sink := uint64(0)
	if from == Outside {
		var pools [batch]*pool
		for i, b := range pkts {
			pools[i] = g.poolAt(b)
		}
		for i, p := range pools[:len(pkts)] {
			if p != nil {
				refs[i] = p.ref(binary.BigEndian.Uint16(pkts[i][22:]))
			}
		}
	} else {
		for i, b := range pkts {
			hashes[i] = g.expectedHash(b)
		}
		for i := range pkts {
			h := hashes[i]
			sink += uint64(g.byInternal.page(h).slots[h%pageSlots].hash)
		}
		for i := range pkts {
			if h := hashes[i]; h != 0 {
				refs[i], _ = g.byInternal.page(h).seek(h, 0)
			}
		}
	}
	for i := range pkts {
		if refs[i] != 0 {
			sink += uint64(g.mapping(refs[i]).key)
		}
	}
	g.sink = sink
}

// plainIPv4 reports whether b is long enough for ports where they are without
// options.
func plainIPv4(b []byte) bool { return len(b) >= 28 && b[0] == 0x45 }

// expectedHash is where the mapping of a packet from inside is listed; 0 is
// unknown.
func (g *Gateway) expectedHash(b []byte) uint32 {
	if !plainIPv4(b) {
		return 0
	}
	proto := ip.UDP
	switch b[9] {
	case 6:
		proto = ip.TCP
	case 17:
	default:
		return 0
	}
	ports := binary.BigEndian.Uint32(b[20:])
	whom := endpoint(0)
	if g.cfg.Mode == Translate {
		whom = g.policy(proto).Mapping.depends(at4(binary.BigEndian.Uint32(b[16:]), uint16(ports)))
	}
	return g.keyHash(keyOf(proto, Outside, at4(binary.BigEndian.Uint32(b[12:]), uint16(ports>>16))), whom)
}

// poolAt is the ports of a packet's destination; nil where it has none.
func (g *Gateway) poolAt(b []byte) *pool {
	if !plainIPv4(b) {
		return nil
	}
	proto := ip.UDP
	switch b[9] {
	case 6:
		proto = ip.TCP
	case 17:
	default:
		return nil
	}
	addr := g.roles4.of(at4(binary.BigEndian.Uint32(b[16:]), 0))
	if addr >= mine {
		return nil
	}
	return g.externals[addr].pools[proto]
}
