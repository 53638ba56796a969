package rendezvous

import (
	"encoding/binary"
	"errors"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

const (
	First   = 0x04 // first byte of every message
	Version = 0x01

	HeaderLen = 12
	MACLen    = 16
	CookieLen = 24
	HelloLen  = 128
	MaxSealed = 1000

	// MaxLen is the length of the longest message, a REQUEST.
	MaxLen = 90 + MaxSealed
	// MinMACed is the length of the shortest message with a MAC, an ALIVE.
	MinMACed = HeaderLen + MACLen
)

// Type is the third byte of a message.
type Type uint8

const (
	TypeHello Type = iota + 1
	TypeCookie
	TypeRegister
	TypeRegistered
	TypeKeepAlive
	TypeAlive
	TypeWho
	TypeConnect
	TypeConnected
	TypeRequest
	TypeSignal
	TypeSignalled
	TypeBye
	TypeRefused
	TypeDisplaced

	// Types is how many values a Type can have, zero included.
	Types = int(TypeDisplaced) + 1
)

var typeNames = [Types]string{"", "HELLO", "COOKIE", "REGISTER", "REGISTERED", "KEEPALIVE", "ALIVE", "WHO", "CONNECT",
	"CONNECTED", "REQUEST", "SIGNAL", "SIGNALLED", "BYE", "REFUSED", "DISPLACED"}

func (t Type) String() string {
	if t == 0 || int(t) >= Types {
		return "unknown"
	}
	return typeNames[t]
}

type (
	// RelayID names a relay between two peers.
	RelayID = relay.ID
	// Handle names a registration, as long as it lasts.
	Handle [8]byte
	// CookieBytes prove that their holder receives what is sent to his endpoint.
	CookieBytes [CookieLen]byte
)

// ErrMalformed is returned by every decoder for bytes that are not a message
// of its type.
var ErrMalformed = errors.New("malformed rendezvous message")

// Kinds is the set of ways in which two peers can exchange bytes.
type Kinds uint8

const (
	PacketRelay Kinds = 1 << iota
	StreamRelay
	Direct

	allKinds = PacketRelay | StreamRelay | Direct
)

// Flags go with a registration.
type Flags uint8

const (
	// RelayOnly keeps the peer's endpoint from everybody: no connection with it
	// is ever Direct.
	RelayOnly Flags = 1 << iota
	// Guest asks for peers and is not to be found by any: it leaves the key's
	// other registrations alone, of which one from every endpoint may be a
	// guest's, and only one, at one endpoint, is not.
	Guest
	// Waiting goes with Guest: this one is to be found as soon as no other
	// registration of the key is.
	Waiting

	allFlags = RelayOnly | Guest | Waiting
)

// Status is the server's answer to a CONNECT.
type Status uint8

const (
	StatusOK Status = iota
	StatusNotRegistered
	StatusRateLimited
	StatusBadRelay
	StatusFull
)

func (s Status) String() string {
	switch s {
	case StatusOK:
		return "ok"
	case StatusNotRegistered:
		return "target not registered"
	case StatusRateLimited:
		return "rate limited"
	case StatusBadRelay:
		return "bad relay id"
	case StatusFull:
		return "server full"
	}
	return "unknown status"
}

// Reason is why a registration was refused.
type Reason uint8

const (
	ReasonSequence Reason = iota + 1
	ReasonFull
)

func (r Reason) String() string {
	switch r {
	case ReasonSequence:
		return "another registration of this key is newer"
	case ReasonFull:
		return "server full"
	}
	return "unknown reason"
}

// Header reads what all messages start with.
func Header(b []byte) (t Type, tx uint64, ok bool) {
	if len(b) < HeaderLen || b[0] != First || b[1] != Version || b[3] != 0 || b[2] == 0 || int(b[2]) >= Types {
		return 0, 0, false
	}
	return Type(b[2]), binary.BigEndian.Uint64(b[4:HeaderLen]), true
}

func appendHeader(dst []byte, t Type, tx uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, First, Version, byte(t), 0), tx)
}

// fixed reads the header of a message of exactly n bytes.
func fixed(b []byte, t Type, n int) (tx uint64, body []byte, err error) {
	got, tx, ok := Header(b)
	if !ok || got != t || len(b) != n {
		return 0, nil, ErrMalformed
	}
	return tx, b[HeaderLen:], nil
}

// sealed reads the header of a message of n bytes and a sealed signal, whose
// length stands at b[n-MACLen-2:].
func sealed(b []byte, t Type, n int) (tx uint64, body, signal []byte, err error) {
	got, tx, ok := Header(b)
	if !ok || got != t || len(b) < n {
		return 0, nil, nil, ErrMalformed
	}
	at := n - MACLen
	size := int(binary.BigEndian.Uint16(b[at-2 : at]))
	if size > MaxSealed || len(b) != n+size {
		return 0, nil, nil, ErrMalformed
	}
	return tx, b[HeaderLen:], b[at : at+size : at+size], nil
}

func appendSealed(dst, signal []byte) []byte {
	if len(signal) > MaxSealed {
		panic("rendezvous: sealed signal too long")
	}
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(signal))), signal...)
}
