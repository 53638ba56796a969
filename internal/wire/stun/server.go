package stun

import (
	"encoding/binary"
	"net/netip"
)

// A server that asks for no credentials understands these in a request and
// leaves them alone (RFC 8489 section 6.3.1).
func understood(t AttrType) bool {
	switch t {
	case Username, MessageIntegrity, MessageIntegritySHA256, Realm, Nonce, PasswordAlgorithm, Userhash:
		return true
	}
	return false
}

// maxUnknown is how many attributes an error names at most; with it the error
// has no more than 44 bytes, as many as the largest answer without FINGERPRINT.
const maxUnknown = 6

// AppendBindingResponse appends the answer of a server without state to a
// Binding request that came from mapped, over UDP or TCP. It is false, and b is
// returned as it was, when none is owed: request is anything else.
//
// An answer has 32 bytes for IPv4 and 44 for IPv6, and 8 more when the request
// had a FINGERPRINT; an error has at most 44. The smallest request has 20: an
// answer is at most 24 bytes larger than its question, and no STUN client could
// be served with less. It allocates nothing when b has room.
func AppendBindingResponse(b, request []byte, mapped netip.AddrPort) ([]byte, bool) {
	m, err := Parse(request)
	if err != nil || m.Type != BindingRequest {
		return b, false
	}
	var unknown [2 * maxUnknown]byte
	n := 0
	for at := HeaderLen; at < len(request) && n < maxUnknown; {
		t, _, next := attribute(request, at)
		if t.Required() && !understood(t) {
			binary.BigEndian.PutUint16(unknown[2*n:], uint16(t))
			n++
		}
		at = next
	}
	t := BindingSuccess
	if n > 0 {
		t = BindingError
	}
	w := Begin(b, t, m.ID)
	if n > 0 {
		// 420 Unknown Attribute, with an empty reason phrase.
		w.Add(ErrorCode, []byte{0, 0, 4, 20})
		w.Add(UnknownAttributes, unknown[:2*n])
	} else {
		w.AddMapped(mapped)
	}
	if m.fingerprint {
		w.AddFingerprint()
	}
	return w.Bytes(), true
}
