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

// delta is what the sum changes by when old is overwritten by new, for
// RFC 1624 equation 3.
func delta(old, new []byte) uint64 {
	var d uint64
	for i := 0; i+1 < len(old); i += 2 {
		d += uint64(^binary.BigEndian.Uint16(old[i:])) + uint64(binary.BigEndian.Uint16(new[i:]))
	}
	return d
}

// adjust applies a delta to the checksum in b[:2].
func adjust(b []byte, d uint64) {
	hc := binary.BigEndian.Uint16(b)
	binary.BigEndian.PutUint16(b, ^fold(uint64(^hc)+d))
}
