package rendezvous

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"hash"

	"github.com/bodkin-net/bodkin/internal/identity"
)

// MACKey authenticates the messages between one client and one server. It is
// the key K in the form in which HMAC uses it: SHA-256's state after the inner
// and the outer padded key (RFC 2104 section 4), which halves the work for a
// short message.
type MACKey struct{ inner, outer [sha256.Size]byte }

const (
	// Of crypto/sha256's marshalled state: four bytes of magic, then the
	// eight words; the last byte of the length after one block is 64.
	statePos = 4
	stateEnd = statePos + sha256.Size
)

// NewMACKey derives the key from the X25519 secret of client and server.
func NewMACKey(shared []byte, client, server identity.ID) MACKey {
	info := "bodkin rendezvous v1" + string(client[:]) + string(server[:])
	k, err := hkdf.Key(sha256.New, shared, nil, info, 32)
	if err != nil {
		panic(err) // 32 bytes are never too many
	}
	return MACKeyOf([32]byte(k))
}

// MACKeyOf prepares a key for HMAC-SHA256.
func MACKeyOf(k [32]byte) (m MACKey) {
	var in, out [sha256.BlockSize]byte
	copy(in[:], k[:])
	copy(out[:], k[:])
	for i := range in {
		in[i] ^= 0x36
		out[i] ^= 0x5c
	}
	m.inner, m.outer = state(in[:]), state(out[:])
	return m
}

func marshalled(block []byte) []byte {
	h := sha256.New()
	h.Write(block)
	b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // crypto/sha256 never fails
	}
	return b
}

func state(block []byte) [sha256.Size]byte {
	return [sha256.Size]byte(marshalled(block)[statePos:stateEnd])
}

// A MAC computes and checks MACs, for one goroutine and without allocation.
type MAC struct {
	h     hash.Hash
	load  encoding.BinaryUnmarshaler
	state []byte
	sum   [sha256.Size]byte
}

// NewMAC returns a MAC for any number of keys.
func NewMAC() *MAC {
	h := sha256.New()
	return &MAC{h: h, load: h.(encoding.BinaryUnmarshaler), state: marshalled(make([]byte, sha256.BlockSize))}
}

func (m *MAC) round(from *[sha256.Size]byte, msg []byte) {
	copy(m.state[statePos:stateEnd], from[:])
	if err := m.load.UnmarshalBinary(m.state); err != nil {
		panic(err) // it was marshalled by the same package
	}
	m.h.Write(msg)
	m.h.Sum(m.sum[:0])
}

func (m *MAC) compute(k *MACKey, msg []byte) {
	m.round(&k.inner, msg)
	m.round(&k.outer, m.sum[:])
}

// Append appends the MAC of b[start:] to b.
func (m *MAC) Append(b []byte, start int, k *MACKey) []byte {
	m.compute(k, b[start:])
	return append(b, m.sum[:MACLen]...)
}

// Verify tells whether b ends in the MAC of what is before it.
func (m *MAC) Verify(b []byte, k *MACKey) bool {
	n := len(b) - MACLen
	if n < 0 {
		return false
	}
	m.compute(k, b[:n])
	return subtle.ConstantTimeCompare(m.sum[:MACLen], b[n:]) == 1
}
