// Package stun is what bodkin needs of STUN (RFC 8489): Binding requests and
// responses, over UDP and TCP, and the attributes that path checks carry.
//
// A message is a header and attributes; all integers are big endian:
//
//	type u16 | length u16 (of what follows the header) | cookie 0x2112A442 | transaction id[12]
//	attribute: type u16 | length u16 | value | 0 to 3 bytes up to a multiple of four
//
// The codec is ours because the answer of a public server must cost no
// allocation and depend on no state; github.com/pion/stun, which has no
// MESSAGE-INTEGRITY-SHA256, is the tests' second opinion.
package stun

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
)

// Type is a message's method and class.
type Type uint16

// The Binding method (RFC 8489 section 18.2) in its four classes.
const (
	BindingRequest    Type = 0x0001
	BindingIndication Type = 0x0011
	BindingSuccess    Type = 0x0101
	BindingError      Type = 0x0111
)

// AttrType names an attribute.
type AttrType uint16

const (
	Username               AttrType = 0x0006
	MessageIntegrity       AttrType = 0x0008
	ErrorCode              AttrType = 0x0009
	UnknownAttributes      AttrType = 0x000a
	Realm                  AttrType = 0x0014
	Nonce                  AttrType = 0x0015
	MessageIntegritySHA256 AttrType = 0x001c
	PasswordAlgorithm      AttrType = 0x001d
	Userhash               AttrType = 0x001e
	XORMappedAddress       AttrType = 0x0020
	UseCandidate           AttrType = 0x0025 // RFC 8445 section 7.1.2
	Padding                AttrType = 0x0026 // RFC 5780 section 7.6
	PasswordAlgorithms     AttrType = 0x8002
	Fingerprint            AttrType = 0x8028
	Nomination             AttrType = 0xc001 // draft-thatcher-ice-renomination-01
)

// Required tells whether who does not know the attribute must not act on the
// message (RFC 8489 section 14).
func (t AttrType) Required() bool { return t < 0x8000 }

// Sizes in bytes.
const (
	HeaderLen      = 20
	attrHeaderLen  = 4
	sha256Len      = 32
	fingerprintLen = 4

	// trailerLen is what integrity and fingerprint add to a message.
	trailerLen = attrHeaderLen + sha256Len + attrHeaderLen + fingerprintLen
)

const (
	cookie         = 0x2112a442
	fingerprintXOR = 0x5354554e
)

// TransactionID pairs a response with its request.
type TransactionID [12]byte

// ErrMessage is returned for bytes that are no STUN message.
var ErrMessage = errors.New("not a STUN message")

// Size tells, from the first HeaderLen bytes of a stream, how long the message
// is that starts there (RFC 8489 section 6.2.2: over TCP the header frames it).
func Size(header []byte) (int, bool) {
	if len(header) < HeaderLen || header[0]&0xc0 != 0 || header[3]&3 != 0 ||
		binary.BigEndian.Uint32(header[4:]) != cookie {
		return 0, false
	}
	return HeaderLen + int(binary.BigEndian.Uint16(header[2:])), true
}

// Message is a parsed message. It points into the bytes it was parsed from.
type Message struct {
	Type Type
	ID   TransactionID

	raw []byte
	// integrity is where MESSAGE-INTEGRITY-SHA256 starts; what follows is not
	// protected by it. Without one it is the end of the attributes that count.
	integrity   int
	protected   bool
	fingerprint bool
}

// Parse reads a message that fills b. Its attributes are known to lie within
// it; if it has a FINGERPRINT, that is right and comes last.
func Parse(b []byte) (Message, error) {
	n, ok := Size(b)
	if !ok || n != len(b) {
		return Message{}, ErrMessage
	}
	m := Message{
		Type:      Type(binary.BigEndian.Uint16(b)),
		ID:        TransactionID(b[8:HeaderLen]),
		raw:       b,
		integrity: len(b),
	}
	for at := HeaderLen; at < len(b); {
		t, v, next := attribute(b, at)
		switch {
		case next == 0 || m.fingerprint:
			return Message{}, ErrMessage
		case t == MessageIntegritySHA256 && !m.protected:
			m.integrity, m.protected = at, true
		case t == Fingerprint:
			if len(v) != fingerprintLen || binary.BigEndian.Uint32(v) != checksum(b[:at]) {
				return Message{}, ErrMessage
			}
			m.fingerprint = true
			if !m.protected {
				m.integrity = at
			}
		}
		at = next
	}
	return m, nil
}

// attribute returns the attribute at b[at:] and where the next one starts,
// zero when it does not fit.
func attribute(b []byte, at int) (t AttrType, v []byte, next int) {
	if len(b)-at < attrHeaderLen {
		return 0, nil, 0
	}
	t = AttrType(binary.BigEndian.Uint16(b[at:]))
	n := int(binary.BigEndian.Uint16(b[at+2:]))
	at += attrHeaderLen
	next = at + (n+3)&^3
	if next > len(b) {
		return 0, nil, 0
	}
	return t, b[at : at+n], next
}

func checksum(b []byte) uint32 { return crc32.ChecksumIEEE(b) ^ fingerprintXOR }

// Get returns the value of the first attribute of type t. What follows
// MESSAGE-INTEGRITY-SHA256 does not count (RFC 8489 section 14.6).
func (m Message) Get(t AttrType) ([]byte, bool) {
	for at := HeaderLen; at < m.integrity; {
		got, v, next := attribute(m.raw, at)
		if got == t {
			return v, true
		}
		at = next
	}
	return nil, false
}

// Has tells whether there is an attribute of type t.
func (m Message) Has(t AttrType) bool {
	_, ok := m.Get(t)
	return ok
}

// HasFingerprint tells whether the message ends in a FINGERPRINT. A wrong one
// is never parsed.
func (m Message) HasFingerprint() bool { return m.fingerprint }

// Len is the length of the whole message.
func (m Message) Len() int { return len(m.raw) }

// Unknown returns the first attribute that must be understood and is not among
// known, which need not name MESSAGE-INTEGRITY-SHA256.
func (m Message) Unknown(known ...AttrType) (AttrType, bool) {
	for at := HeaderLen; at < m.integrity; {
		t, _, next := attribute(m.raw, at)
		if t.Required() && !contains(known, t) {
			return t, true
		}
		at = next
	}
	return 0, false
}

func contains(list []AttrType, t AttrType) bool {
	for _, k := range list {
		if k == t {
			return true
		}
	}
	return false
}

// Mapped returns the endpoint in XOR-MAPPED-ADDRESS (RFC 8489 section 14.2).
func (m Message) Mapped() (netip.AddrPort, bool) {
	v, ok := m.Get(XORMappedAddress)
	if !ok || len(v) < 4 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(v[2:]) ^ cookie>>16
	var a [16]byte
	n := copy(a[:], v[4:])
	for i := range n {
		a[i] ^= m.raw[4+i] // the cookie and the transaction id
	}
	switch {
	case v[1] == 1 && len(v) == 8:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[:4])), port), true
	case v[1] == 2 && len(v) == 20:
		return netip.AddrPortFrom(netip.AddrFrom16(a), port), true
	}
	return netip.AddrPort{}, false
}
