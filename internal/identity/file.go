package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	pemType    = "PRIVATE KEY" // PKCS #8 (RFC 5958), as openssl reads and writes it
	maxKeyFile = 16 << 10
)

// ErrKeyFile is wrapped by every error about a key file's content.
var ErrKeyFile = errors.New("not a usable key file")

// ErrKeyExposed is wrapped by the error for a key file that other users of the
// machine can read or write.
var ErrKeyExposed = errors.New("others can read this key file")

// LoadOrCreate reads the key in the file, and makes the file, with mode 0600,
// and its folder, with mode 0700, when it is not there. Processes that do so at
// the same time all get the same key.
func LoadOrCreate(file string) (Key, error) {
	key, err := Load(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return Key{}, err
	}
	if err := create(file, Generate()); err != nil && !errors.Is(err, fs.ErrExist) {
		return Key{}, err
	}
	return Load(file) // whoever was first
}

// Load reads the key in the file.
func Load(file string) (Key, error) {
	f, err := os.Open(file)
	if err != nil {
		return Key{}, err
	}
	defer f.Close()
	if err := private(f); err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return Key{}, err
	}
	key, err := parsePEM(text)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

func parsePEM(text []byte) (Key, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return Key{}, fmt.Errorf("%w: it holds no PEM block %q", ErrKeyFile, pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("%w: its PEM block is damaged", ErrKeyFile) // never the content
	}
	signer, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("%w: its key is not Ed25519", ErrKeyFile)
	}
	return FromSeed([ed25519.SeedSize]byte(signer.Seed())), nil
}

// create writes the whole file under another name and links it, so that no
// reader ever sees a part of it and only the first of several writers wins.
func create(file string, key Key) error {
	der, err := x509.MarshalPKCS8PrivateKey(key.signer)
	if err != nil {
		return err
	}
	var suffix [8]byte
	rand.Read(suffix[:])
	tmp := file + ".new-" + hex.EncodeToString(suffix[:])
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	err = errors.Join(pem.Encode(f, &pem.Block{Type: pemType, Bytes: der}), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Link(tmp, file)
}
