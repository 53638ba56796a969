package rendezvous

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/identity"
)

// Connect asks for a peer: pass him the sealed signal, tell me his endpoint,
// relay between us two.
type Connect struct {
	Tx     uint64
	Handle Handle // zero: the registration just made from this endpoint
	Target identity.ID
	Relay  RelayID
	Kinds  Kinds
	Sealed []byte // at most MaxSealed
}

const connectLen = HeaderLen + 8 + 32 + 8 + 1 + 2 + MACLen

func (m Connect) Append(dst []byte) []byte {
	dst = append(appendHeader(dst, TypeConnect, m.Tx), m.Handle[:]...)
	dst = append(dst, m.Target[:]...)
	dst = append(dst, m.Relay[:]...)
	return appendSealed(append(dst, byte(m.Kinds)), m.Sealed)
}

// ParseConnect reads a Connect. Sealed aliases b, as it does in all messages.
func ParseConnect(b []byte) (Connect, error) {
	tx, body, signal, err := sealed(b, TypeConnect, connectLen)
	if err != nil {
		return Connect{}, err
	}
	m := Connect{tx, Handle(body[:8]), identity.ID(body[8:40]), RelayID(body[40:48]), Kinds(body[48]), signal}
	if m.Kinds&^allKinds != 0 {
		return Connect{}, ErrMalformed
	}
	return m, nil
}

// Connected answers a Connect.
type Connected struct {
	Tx     uint64
	Relay  RelayID
	Status Status
	Kinds  Kinds          // asked for, and possible with the target
	Peer   netip.AddrPort // zero unless Kinds has Direct
}

const connectedLen = HeaderLen + 8 + 1 + 1 + EndpointLen + MACLen

func (m Connected) Append(dst []byte) []byte {
	dst = append(appendHeader(dst, TypeConnected, m.Tx), m.Relay[:]...)
	return AppendEndpoint(append(dst, byte(m.Status), byte(m.Kinds)), m.Peer)
}

func ParseConnected(b []byte) (Connected, error) {
	tx, body, err := fixed(b, TypeConnected, connectedLen)
	if err != nil {
		return Connected{}, err
	}
	peer, err := ParseEndpoint(body[10:29])
	m := Connected{tx, RelayID(body[:8]), Status(body[8]), Kinds(body[9]), peer}
	if err != nil || m.Status > StatusFull || m.Kinds&^allKinds != 0 {
		return Connected{}, ErrMalformed
	}
	return m, nil
}

// Request passes a Connect on to its target.
type Request struct {
	Tx        uint64
	Relay     RelayID
	Requester identity.ID
	Peer      netip.AddrPort // the requester's; zero unless Kinds has Direct
	Kinds     Kinds
	Sealed    []byte
}

const requestLen = HeaderLen + 8 + 32 + EndpointLen + 1 + 2 + MACLen

func (m Request) Append(dst []byte) []byte {
	dst = append(appendHeader(dst, TypeRequest, m.Tx), m.Relay[:]...)
	dst = AppendEndpoint(append(dst, m.Requester[:]...), m.Peer)
	return appendSealed(append(dst, byte(m.Kinds)), m.Sealed)
}

func ParseRequest(b []byte) (Request, error) {
	tx, body, signal, err := sealed(b, TypeRequest, requestLen)
	if err != nil {
		return Request{}, err
	}
	peer, err := ParseEndpoint(body[40:59])
	m := Request{tx, RelayID(body[:8]), identity.ID(body[8:40]), peer, Kinds(body[59]), signal}
	if err != nil || m.Kinds&^allKinds != 0 {
		return Request{}, ErrMalformed
	}
	return m, nil
}

// Signal sends a sealed signal to the relay's other party.
type Signal struct {
	Tx     uint64
	Handle Handle // zero: the registration just made from this endpoint
	Relay  RelayID
	Sealed []byte
}

const signalLen = HeaderLen + 8 + 8 + 2 + MACLen

func (m Signal) Append(dst []byte) []byte {
	dst = append(appendHeader(dst, TypeSignal, m.Tx), m.Handle[:]...)
	return appendSealed(append(dst, m.Relay[:]...), m.Sealed)
}

func ParseSignal(b []byte) (Signal, error) {
	tx, body, signal, err := sealed(b, TypeSignal, signalLen)
	if err != nil {
		return Signal{}, err
	}
	return Signal{tx, Handle(body[:8]), RelayID(body[8:16]), signal}, nil
}

// Signalled passes a Signal on.
type Signalled struct {
	Tx     uint64
	Relay  RelayID
	Sealed []byte
}

const signalledLen = HeaderLen + 8 + 2 + MACLen

func (m Signalled) Append(dst []byte) []byte {
	return appendSealed(append(appendHeader(dst, TypeSignalled, m.Tx), m.Relay[:]...), m.Sealed)
}

func ParseSignalled(b []byte) (Signalled, error) {
	tx, body, signal, err := sealed(b, TypeSignalled, signalledLen)
	if err != nil {
		return Signalled{}, err
	}
	return Signalled{tx, RelayID(body[:8]), signal}, nil
}
