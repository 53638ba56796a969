package rendezvous

import (
	"encoding/binary"
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/identity"
)

// Every message is a struct. Append appends it, without its MAC where it has
// one; its ParseX reads it, and leaves the MAC to be checked.

// Hello asks for a cookie.
type Hello struct {
	Tx     uint64
	Client identity.ID
}

func (m Hello) Append(dst []byte) []byte {
	dst = append(appendHeader(dst, TypeHello, m.Tx), m.Client[:]...)
	return append(dst, make([]byte, HelloLen-HeaderLen-len(m.Client))...)
}

func ParseHello(b []byte) (Hello, error) {
	tx, body, err := fixed(b, TypeHello, HelloLen)
	if err != nil {
		return Hello{}, err
	}
	for _, c := range body[32:] {
		if c != 0 {
			return Hello{}, ErrMalformed
		}
	}
	return Hello{tx, identity.ID(body[:32])}, nil
}

// Cookie answers a Hello.
type Cookie struct {
	Tx     uint64
	Cookie CookieBytes
	Server identity.ID
	Mapped netip.AddrPort
}

const cookieMsgLen = HeaderLen + CookieLen + 32 + EndpointLen

func (m Cookie) Append(dst []byte) []byte {
	dst = append(appendHeader(dst, TypeCookie, m.Tx), m.Cookie[:]...)
	dst = append(dst, m.Server[:]...)
	return AppendEndpoint(dst, m.Mapped)
}

func ParseCookie(b []byte) (Cookie, error) {
	tx, body, err := fixed(b, TypeCookie, cookieMsgLen)
	if err != nil {
		return Cookie{}, err
	}
	mapped, err := ParseEndpoint(body[56:])
	return Cookie{tx, CookieBytes(body[:24]), identity.ID(body[24:56]), mapped}, err
}

// Register proves the key and the endpoint. Its txid is its sequence.
type Register struct {
	Client   identity.ID
	Cookie   CookieBytes
	Sequence uint64
	Lifetime uint16 // seconds; 0: the server's default
	Flags    Flags
}

const registerLen = HeaderLen + 32 + CookieLen + 8 + 2 + 1 + MACLen

func (m Register) Append(dst []byte) []byte {
	dst = append(appendHeader(dst, TypeRegister, m.Sequence), m.Client[:]...)
	dst = append(dst, m.Cookie[:]...)
	dst = binary.BigEndian.AppendUint64(dst, m.Sequence)
	dst = binary.BigEndian.AppendUint16(dst, m.Lifetime)
	return append(dst, byte(m.Flags))
}

func ParseRegister(b []byte) (Register, error) {
	tx, body, err := fixed(b, TypeRegister, registerLen)
	if err != nil {
		return Register{}, err
	}
	m := Register{
		Client:   identity.ID(body[:32]),
		Cookie:   CookieBytes(body[32:56]),
		Sequence: binary.BigEndian.Uint64(body[56:]),
		Lifetime: binary.BigEndian.Uint16(body[64:]),
		Flags:    Flags(body[66]),
	}
	if m.Sequence != tx || m.Flags&^allFlags != 0 || m.Flags&(Guest|Waiting) == Waiting {
		return Register{}, ErrMalformed
	}
	return m, nil
}

// Registered answers a Register.
type Registered struct {
	Tx        uint64
	Handle    Handle
	Mapped    netip.AddrPort
	Lifetime  uint16 // seconds, and so is KeepAlive
	KeepAlive uint16
}

const registeredLen = HeaderLen + 8 + EndpointLen + 2 + 2 + MACLen

func (m Registered) Append(dst []byte) []byte {
	dst = append(appendHeader(dst, TypeRegistered, m.Tx), m.Handle[:]...)
	dst = AppendEndpoint(dst, m.Mapped)
	dst = binary.BigEndian.AppendUint16(dst, m.Lifetime)
	return binary.BigEndian.AppendUint16(dst, m.KeepAlive)
}

func ParseRegistered(b []byte) (Registered, error) {
	tx, body, err := fixed(b, TypeRegistered, registeredLen)
	if err != nil {
		return Registered{}, err
	}
	mapped, err := ParseEndpoint(body[8:27])
	return Registered{tx, Handle(body[:8]), mapped,
		binary.BigEndian.Uint16(body[27:]), binary.BigEndian.Uint16(body[29:])}, err
}

// Refused answers a Register that is authentic and yet not accepted.
type Refused struct {
	Tx       uint64
	Reason   Reason
	Sequence uint64 // the next one must be larger
}

const refusedLen = HeaderLen + 1 + 8 + MACLen

func (m Refused) Append(dst []byte) []byte {
	dst = append(appendHeader(dst, TypeRefused, m.Tx), byte(m.Reason))
	return binary.BigEndian.AppendUint64(dst, m.Sequence)
}

func ParseRefused(b []byte) (Refused, error) {
	tx, body, err := fixed(b, TypeRefused, refusedLen)
	if err != nil {
		return Refused{}, err
	}
	m := Refused{tx, Reason(body[0]), binary.BigEndian.Uint64(body[1:])}
	if m.Reason != ReasonSequence && m.Reason != ReasonFull {
		return Refused{}, ErrMalformed
	}
	return m, nil
}

// Displaced tells who is not to be found, or not any more, which registration
// of its key is.
type Displaced struct {
	Tx       uint64
	Sequence uint64 // zero: none
}

const displacedLen = HeaderLen + 8 + MACLen

func (m Displaced) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(dst, TypeDisplaced, m.Tx), m.Sequence)
}

func ParseDisplaced(b []byte) (Displaced, error) {
	tx, body, err := fixed(b, TypeDisplaced, displacedLen)
	if err != nil {
		return Displaced{}, err
	}
	return Displaced{tx, binary.BigEndian.Uint64(body)}, nil
}

// KeepAlive keeps the registration, and the NAT's mapping.
type KeepAlive struct {
	Tx     uint64
	Handle Handle
}

const keepAliveLen = HeaderLen + 8 + MACLen

func (m KeepAlive) Append(dst []byte) []byte {
	return append(appendHeader(dst, TypeKeepAlive, m.Tx), m.Handle[:]...)
}

func ParseKeepAlive(b []byte) (KeepAlive, error) {
	tx, body, err := fixed(b, TypeKeepAlive, keepAliveLen)
	if err != nil {
		return KeepAlive{}, err
	}
	return KeepAlive{tx, Handle(body[:8])}, nil
}

// Alive answers a KeepAlive.
type Alive struct{ Tx uint64 }

const aliveLen = HeaderLen + MACLen

func (m Alive) Append(dst []byte) []byte { return appendHeader(dst, TypeAlive, m.Tx) }

func ParseAlive(b []byte) (Alive, error) {
	tx, _, err := fixed(b, TypeAlive, aliveLen)
	return Alive{tx}, err
}

// Who says that the server does not know the handle, or not from there.
type Who struct {
	Tx     uint64
	Handle Handle
}

// WhoLen is the length of a WHO. No message with a handle is shorter.
const WhoLen = HeaderLen + 8

func (m Who) Append(dst []byte) []byte {
	return append(appendHeader(dst, TypeWho, m.Tx), m.Handle[:]...)
}

func ParseWho(b []byte) (Who, error) {
	tx, body, err := fixed(b, TypeWho, WhoLen)
	if err != nil {
		return Who{}, err
	}
	return Who{tx, Handle(body)}, nil
}

// Bye ends the registration and its relays.
type Bye struct {
	Tx     uint64
	Handle Handle
}

const byeLen = HeaderLen + 8 + MACLen

func (m Bye) Append(dst []byte) []byte {
	return append(appendHeader(dst, TypeBye, m.Tx), m.Handle[:]...)
}

func ParseBye(b []byte) (Bye, error) {
	tx, body, err := fixed(b, TypeBye, byeLen)
	if err != nil {
		return Bye{}, err
	}
	return Bye{tx, Handle(body[:8])}, nil
}
