package stun

import (
	"crypto/hmac"
	"encoding/binary"
	"hash"
	"net/netip"
)

// Builder appends one message to a buffer. Its header is right after each
// call, so that Bytes can be taken at any time.
type Builder struct {
	b     []byte
	start int
}

// Begin starts a message behind b.
func Begin(b []byte, t Type, id TransactionID) Builder {
	w := Builder{b: b, start: len(b)}
	w.b = binary.BigEndian.AppendUint16(w.b, uint16(t))
	w.b = append(w.b, 0, 0, 0x21, 0x12, 0xa4, 0x42)
	w.b = append(w.b, id[:]...)
	return w
}

// Bytes returns the buffer given to Begin with the message behind it.
func (w *Builder) Bytes() []byte { return w.b }

// Len is the length of the message so far.
func (w *Builder) Len() int { return len(w.b) - w.start }

// Add appends an attribute.
func (w *Builder) Add(t AttrType, v []byte) {
	w.header(t, len(v))
	w.b = append(w.b, v...)
	w.end()
}

func (w *Builder) header(t AttrType, n int) {
	w.b = binary.BigEndian.AppendUint16(w.b, uint16(t))
	w.b = binary.BigEndian.AppendUint16(w.b, uint16(n))
}

func (w *Builder) end() {
	for w.Len()%4 != 0 {
		w.b = append(w.b, 0)
	}
	w.setLength(w.Len())
}

func (w *Builder) setLength(total int) {
	binary.BigEndian.PutUint16(w.b[w.start+2:], uint16(total-HeaderLen))
}

// AddMapped appends XOR-MAPPED-ADDRESS.
func (w *Builder) AddMapped(ep netip.AddrPort) {
	addr := ep.Addr().Unmap()
	family, n := byte(1), 4
	a := addr.As16()
	raw := a[12:]
	if addr.Is6() {
		family, n, raw = 2, 16, a[:]
	}
	w.header(XORMappedAddress, 4+n)
	w.b = append(w.b, 0, family)
	w.b = binary.BigEndian.AppendUint16(w.b, ep.Port()^cookie>>16)
	for i, x := range raw {
		w.b = append(w.b, x^w.b[w.start+4+i])
	}
	w.end()
}

// PadTo appends PADDING such that the message, with the integrity and the
// fingerprint that come next, has total bytes. It does nothing when there is
// no room for the attribute.
func (w *Builder) PadTo(total int) {
	n := total - w.Len() - trailerLen - attrHeaderLen
	if n < 0 || total%4 != 0 {
		return
	}
	w.header(Padding, n)
	for range n {
		w.b = append(w.b, 0)
	}
	w.end()
}

// AddIntegrity appends MESSAGE-INTEGRITY-SHA256 (RFC 8489 section 14.6). mac is
// HMAC-SHA256 under the shared key.
func (w *Builder) AddIntegrity(mac hash.Hash) {
	w.setLength(w.Len() + attrHeaderLen + sha256Len)
	mac.Reset()
	mac.Write(w.b[w.start:])
	w.header(MessageIntegritySHA256, sha256Len)
	w.b = mac.Sum(w.b)
}

// AddFingerprint appends FINGERPRINT (RFC 8489 section 14.7). Nothing may follow.
func (w *Builder) AddFingerprint() {
	w.setLength(w.Len() + attrHeaderLen + fingerprintLen)
	sum := checksum(w.b[w.start:])
	w.header(Fingerprint, fingerprintLen)
	w.b = binary.BigEndian.AppendUint32(w.b, sum)
}

// Verify tells whether the message has a MESSAGE-INTEGRITY-SHA256 made with the
// same key as mac. One that was cut short is refused: we never send such.
func (m Message) Verify(mac hash.Hash) bool {
	if !m.protected {
		return false
	}
	_, got, _ := attribute(m.raw, m.integrity)
	if len(got) != sha256Len {
		return false
	}
	var length [2]byte
	binary.BigEndian.PutUint16(length[:], uint16(m.integrity-HeaderLen+attrHeaderLen+sha256Len))
	mac.Reset()
	mac.Write(m.raw[:2])
	mac.Write(length[:])
	mac.Write(m.raw[4:m.integrity])
	var sum [sha256Len]byte
	return hmac.Equal(mac.Sum(sum[:0]), got)
}
