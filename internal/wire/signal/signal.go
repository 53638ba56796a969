// Package signal is what two peers tell each other, through a server that must
// not read it, before they have a path: their candidates, and the key of the
// checks that will prove a path.
//
// The plaintext; all integers are big endian:
//
//	version u8 = 1 | type u8 (1 offer, 2 answer) | flags u8 (1 relay-only, 2 direct-only, 4 refused) |
//	from id[32] | attempt id[8] | session id[16] | check key[32] (zero in an answer) |
//	count u8 (at most 16) | count x { kind u8 | transport u8 | endpoint[19] } | signature[64]
//
//	endpoint:  family u8 (4, 6) | port u16 | address[16] (an IPv4 address in the first 4, the rest zero)
//	signature: Ed25519 by from, over "bodkin signal v1" | to id | everything before it
//
// It travels sealed by HPKE in base mode (RFC 9180; X25519, HKDF-SHA256,
// ChaCha20-Poly1305) with info "bodkin signal v1" | to id:
//
//	encapsulated key[32] | ciphertext, 16 bytes longer than the plaintext
//
// So only the recipient reads it, knows who wrote it, and cannot pass it on as
// written to somebody else. It does not say when it was written: an answer is
// fresh because it repeats the attempt id of the offer, and an offer because it
// does nothing that its repetition would do again.
package signal

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// Type tells an offer from an answer.
type Type uint8

const (
	Offer  Type = 1
	Answer Type = 2
)

// Flags are what the sender insists on.
type Flags uint8

const (
	RelayOnly  Flags = 1
	DirectOnly Flags = 2
	Refused    Flags = 4 // in an answer: the sender does not accept the offerer
)

// Kind is how a candidate came to be known (RFC 8445 section 5.1.1).
type Kind uint8

const (
	Host            Kind = 1
	ServerReflexive Kind = 2
	PeerReflexive   Kind = 3 // never signalled: learnt from a check
	PortMapped      Kind = 4
)

func (k Kind) String() string {
	switch k {
	case Host:
		return "host"
	case ServerReflexive:
		return "server-reflexive"
	case PeerReflexive:
		return "peer-reflexive"
	case PortMapped:
		return "port-mapped"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Transport is the protocol a candidate speaks.
type Transport uint8

const (
	UDP Transport = 1
	TCP Transport = 2
)

// Candidate is an endpoint at which the sender may be reached.
type Candidate struct {
	Kind      Kind
	Transport Transport
	Endpoint  netip.AddrPort
}

// Signal is an offer or an answer.
type Signal struct {
	Type    Type
	Flags   Flags
	From    identity.ID // set by Seal, verified by Open
	Attempt [8]byte
	Session [16]byte
	Key     [32]byte // of the checks; in an offer only
	// Candidates, best first. Open leaves out the ones of a kind or transport
	// that it does not know, so that later versions can have more of them.
	Candidates []Candidate
}

const (
	// MaxCandidates is how many candidates a signal has at most.
	MaxCandidates = 16
	// MaxSealed is how long a sealed signal is at most.
	MaxSealed = 32 + headLen + MaxCandidates*candidateLen + sigLen + 16

	infoPrefix   = "bodkin signal v1"
	version      = 1
	headLen      = 3 + 32 + 8 + 16 + 32 + 1
	candidateLen = 2 + rendezvous.EndpointLen
	sigLen       = 64
)

// ErrSignal is wrapped by every error of Open: the bytes are not a signal, or
// not for this key, or not signed by who they say.
var ErrSignal = errors.New("not a signal for this peer")

func info(to identity.ID) []byte { return append([]byte(infoPrefix), to[:]...) }

// Seal signs s with key and seals it for to.
func Seal(key identity.Key, to identity.ID, s Signal) ([]byte, error) {
	s.From = key.ID()
	plain, err := s.append(nil)
	if err != nil {
		return nil, err
	}
	plain = append(plain, key.Sign(append(info(to), plain...))...)
	return identity.Seal(to, info(to), plain)
}

// Open unseals a signal for key's owner and verifies who wrote it.
func Open(key identity.Key, sealed []byte) (Signal, error) {
	if len(sealed) > MaxSealed {
		return Signal{}, fmt.Errorf("%w: %d bytes", ErrSignal, len(sealed))
	}
	self := key.ID()
	plain, err := key.Open(info(self), sealed)
	if err != nil {
		return Signal{}, fmt.Errorf("%w: %w", ErrSignal, err)
	}
	if len(plain) < headLen+sigLen {
		return Signal{}, fmt.Errorf("%w: too short", ErrSignal)
	}
	body, sig := plain[:len(plain)-sigLen], plain[len(plain)-sigLen:]
	s, err := parse(body)
	if err != nil {
		return Signal{}, err
	}
	if !s.From.Verify(append(info(self), body...), sig) {
		return Signal{}, fmt.Errorf("%w: its signature is wrong", ErrSignal)
	}
	return s, nil
}

func (s Signal) append(b []byte) ([]byte, error) {
	switch {
	case s.Type != Offer && s.Type != Answer:
		return nil, fmt.Errorf("signal of type %d", s.Type)
	case s.Type == Answer && s.Key != [32]byte{}:
		return nil, errors.New("answer with a check key")
	case len(s.Candidates) > MaxCandidates:
		return nil, fmt.Errorf("%d candidates, a signal has at most %d", len(s.Candidates), MaxCandidates)
	}
	b = append(b, version, byte(s.Type), byte(s.Flags))
	b = append(b, s.From[:]...)
	b = append(b, s.Attempt[:]...)
	b = append(b, s.Session[:]...)
	b = append(b, s.Key[:]...)
	b = append(b, byte(len(s.Candidates)))
	for _, c := range s.Candidates {
		if !c.Endpoint.IsValid() || c.Endpoint.Port() == 0 || c.Endpoint.Addr().IsUnspecified() || c.Endpoint.Addr().Zone() != "" {
			return nil, fmt.Errorf("candidate %v is no endpoint others can reach", c.Endpoint)
		}
		b = append(b, byte(c.Kind), byte(c.Transport))
		b = rendezvous.AppendEndpoint(b, c.Endpoint)
	}
	return b, nil
}

func parse(b []byte) (Signal, error) {
	refuse := func(why string) (Signal, error) { return Signal{}, fmt.Errorf("%w: %s", ErrSignal, why) }
	var s Signal
	if len(b) < headLen {
		return refuse("too short")
	}
	s.Type, s.Flags = Type(b[1]), Flags(b[2])
	head := b[3:headLen]
	head = head[copy(s.From[:], head):]
	head = head[copy(s.Attempt[:], head):]
	head = head[copy(s.Session[:], head):]
	head = head[copy(s.Key[:], head):]
	count := int(head[0])
	switch {
	case b[0] != version:
		return refuse(fmt.Sprintf("version %d", b[0]))
	case s.Type != Offer && s.Type != Answer:
		return refuse(fmt.Sprintf("type %d", s.Type))
	case s.Type == Answer && s.Key != [32]byte{}:
		return refuse("answer with a check key")
	case count > MaxCandidates || len(b) != headLen+count*candidateLen:
		return refuse("its length does not match its candidates")
	}
	for at := headLen; at < len(b); at += candidateLen {
		c := Candidate{Kind: Kind(b[at]), Transport: Transport(b[at+1])}
		ep, err := rendezvous.ParseEndpoint(b[at+2 : at+candidateLen])
		if err != nil || !ep.IsValid() {
			return refuse("a candidate is no endpoint")
		}
		c.Endpoint = ep
		if c.known() {
			s.Candidates = append(s.Candidates, c)
		}
	}
	return s, nil
}

func (c Candidate) known() bool {
	switch c.Kind {
	case Host, ServerReflexive, PortMapped:
		return c.Transport == UDP || c.Transport == TCP
	}
	return false
}
