package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"

	"filippo.io/edwards25519"
)

// Key is a peer's private key. The zero value is not usable; use Generate,
// FromSeed or Load.
//
// The same key signs (Ed25519) and, converted to its Montgomery form (RFC 7748
// section 4.1), agrees on secrets (X25519), so that a peer's id is all one
// needs to seal something for it. Safe for concurrent use.
type Key struct {
	signer ed25519.PrivateKey
	dh     *ecdh.PrivateKey
}

// Generate makes a new key.
func Generate() Key {
	var seed [ed25519.SeedSize]byte
	rand.Read(seed[:]) // never fails since Go 1.24
	return FromSeed(seed)
}

// FromSeed derives the key from its Ed25519 seed (RFC 8032 section 5.1.5).
func FromSeed(seed [ed25519.SeedSize]byte) Key {
	h := sha512.Sum512(seed[:])
	dh, err := ecdh.X25519().NewPrivateKey(h[:32]) // clamped on use, as Ed25519 clamps it
	if err != nil {
		panic(err) // 32 bytes are always a key
	}
	return Key{signer: ed25519.NewKeyFromSeed(seed[:]), dh: dh}
}

// Valid tells whether the key was made by one of the constructors.
func (k Key) Valid() bool { return k.dh != nil }

// ID returns the public half.
func (k Key) ID() ID { return ID(k.signer.Public().(ed25519.PublicKey)) }

// Signer returns the key for TLS.
func (k Key) Signer() ed25519.PrivateKey { return k.signer }

// Sign signs msg with Ed25519.
func (k Key) Sign(msg []byte) []byte { return ed25519.Sign(k.signer, msg) }

// Verify tells whether sig is id's signature of msg.
func (id ID) Verify(msg, sig []byte) bool { return ed25519.Verify(id[:], msg, sig) }

// Shared is the X25519 secret that only k and the owner of peer can compute.
// It fails for an id that is no point of the curve or of small order.
func (k Key) Shared(peer ID) ([]byte, error) {
	pub, err := peer.montgomery()
	if err != nil {
		return nil, err
	}
	return k.dh.ECDH(pub)
}

func (id ID) montgomery() (*ecdh.PublicKey, error) {
	p, err := new(edwards25519.Point).SetBytes(id[:])
	if err != nil {
		return nil, fmt.Errorf("%w: no point of the curve", ErrID)
	}
	return ecdh.X25519().NewPublicKey(p.BytesMontgomery())
}

// ErrSealed is returned by Open for anything that was not sealed for this key
// with this info.
var ErrSealed = errors.New("sealed message cannot be opened")

// Seal encrypts msg so that only the owner of id can read it: HPKE base mode
// (RFC 9180), X25519, HKDF-SHA256, ChaCha20-Poly1305. It does not say who sealed.
func Seal(to ID, info, msg []byte) ([]byte, error) {
	pub, err := to.montgomery()
	if err != nil {
		return nil, err
	}
	pk, err := hpke.NewDHKEMPublicKey(pub)
	if err != nil {
		return nil, err
	}
	return hpke.Seal(pk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, msg)
}

// Open decrypts what Seal made.
func (k Key) Open(info, sealed []byte) ([]byte, error) {
	sk, err := hpke.NewDHKEMPrivateKey(k.dh)
	if err != nil {
		return nil, err
	}
	msg, err := hpke.Open(sk, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, sealed)
	if err != nil {
		return nil, ErrSealed
	}
	return msg, nil
}
