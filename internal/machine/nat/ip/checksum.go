package ip

import (
	"encoding/binary"
	"math/bits"
)

// add adds b to a ones' complement sum kept in 64 bits. An odd last byte is
// padded, so only the last part of a sum may be odd.
func add(sum uint64, b []byte) uint64 {
	var c uint64
	for len(b) >= 32 {
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(b), 0)
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(b[8:]), c)
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(b[16:]), c)
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(b[24:]), c)
		sum += c
		b = b[32:]
	}
	for len(b) >= 8 {
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(b), 0)
		sum += c
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		sum, c = bits.Add64(sum, binary.BigEndian.Uint64(last[:]), 0)
		sum += c
	}
	return sum
}

func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum)
}

// pseudo is the sum of the pseudo-header of a transport segment of n bytes.
// addrs is the source and destination address as they stand in the IP header.
func pseudo(addrs []byte, proto uint8, n int) uint64 {
	return add(uint64(proto)+uint64(n), addrs)
}

// A delta is what a sum changes by when words are overwritten: the new ones
// less the old ones (RFC 1624 equation 3). It is a ones' complement sum too, in
// 32 bits; 2^16 is 1 in this arithmetic, so words of 32 bits do as well as
// those of 16.
type delta uint32

func delta16(old, new uint16) delta { return delta(^old) + delta(new) }
func delta32(old, new uint32) delta { return delta(^old).and(delta(new)) }

// and adds deltas.
func (d delta) and(other delta) delta {
	sum, carry := bits.Add32(uint32(d), uint32(other), 0)
	return delta(sum + carry)
}

// fold is d in 16 bits: the upper half of its sum with its halves exchanged
// has the carry of the lower one.
func (d delta) fold() uint16 {
	return uint16((uint32(d) + bits.RotateLeft32(uint32(d), 16)) >> 16)
}

// adjust applies a delta to the checksum in b[:2].
func adjust(b []byte, d delta) {
	binary.BigEndian.PutUint16(b, ^d.and(delta(^binary.BigEndian.Uint16(b))).fold())
}
