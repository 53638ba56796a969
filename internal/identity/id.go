// Package identity holds who a peer is: an Ed25519 key pair, and the id that
// people copy to one another.
//
// An id is the public key with a checksum, in lower-case base32 (RFC 4648
// section 6, no padding) after the prefix "bk":
//
//	bk | base32( public key [32] | checksum [3] )   = 58 characters
//	checksum = SHA-256( "bodkin id v1" | public key )[:3]
package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
)

// ID is a peer's Ed25519 public key.
type ID [32]byte

const (
	prefix      = "bk"
	checksumLen = 3
)

var (
	encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	textLen  = len(prefix) + encoding.EncodedLen(len(ID{})+checksumLen)
)

// ErrID is wrapped by every error of Parse.
var ErrID = errors.New("not a peer id")

// ErrTypo is wrapped by Parse's error for text of the right form whose
// checksum is wrong: it was an id until somebody mistyped or cut it.
var ErrTypo = fmt.Errorf("%w: a character is wrong", ErrID)

func checksum(id ID) []byte {
	sum := sha256.Sum256(append([]byte("bodkin id v1"), id[:]...))
	return sum[:checksumLen]
}

// String returns the id as people see it.
func (id ID) String() string {
	return prefix + encoding.EncodeToString(append(id[:], checksum(id)...))
}

// Short is the start of the id, for logs.
func (id ID) Short() string { return id.String()[:10] }

// MarshalText and UnmarshalText make an ID fit flags and JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = Parse(string(b))
	return err
}

// Parse reads an id, in either case and with white space around it.
func Parse(text string) (ID, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	body, ok := strings.CutPrefix(s, prefix)
	switch {
	case s == "":
		return ID{}, fmt.Errorf("%w: it is empty", ErrID)
	case !ok:
		return ID{}, fmt.Errorf("%w: ids start with %q", ErrID, prefix)
	case len(s) != textLen:
		return ID{}, fmt.Errorf("%w: it has %d characters, ids have %d", ErrID, len(s), textLen)
	}
	if i := strings.IndexFunc(body, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz234567", r) }); i >= 0 {
		return ID{}, fmt.Errorf("%w: character %d (%q) is never part of an id", ErrTypo, len(prefix)+i+1, body[i])
	}
	raw, err := encoding.DecodeString(body)
	if err != nil {
		return ID{}, fmt.Errorf("%w: %v", ErrID, err)
	}
	id := ID(raw[:len(ID{})])
	if !bytes.Equal(raw[len(id):], checksum(id)) {
		return ID{}, fmt.Errorf("%w: its checksum does not match", ErrTypo)
	}
	return id, nil
}
