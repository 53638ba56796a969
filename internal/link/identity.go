package link

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
)

// ALPN names the protocol in both ends' handshakes.
const ALPN = "bodkin/1"

// Config bounds the links of an Identity. The zero value works.
type Config struct {
	// HandshakeTimeout is how long a handshake may take in all. Default 10 s.
	HandshakeTimeout time.Duration
	// IdleTimeout is how long a QUIC link survives without hearing anything.
	// Nothing here keeps links alive, the session does. Default 30 s.
	IdleTimeout time.Duration
	// MaxStreams is how many data streams the peer may have open on one QUIC
	// link at a time. Default 1024.
	MaxStreams int
	// MaxHandshakes is how many strangers' QUIC handshakes may be under way on
	// one packet connection at a time. Default 64.
	MaxHandshakes int
	// Admit tells whether a peer may connect to this end; nil admits all. It is
	// asked inside the handshake and must not block.
	Admit func(identity.ID) bool
}

func (c Config) withDefaults() Config {
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = 10 * time.Second
	}
	if c.IdleTimeout <= 0 {
		c.IdleTimeout = 30 * time.Second
	}
	if c.MaxStreams <= 0 {
		c.MaxStreams = 1024
	}
	if c.MaxHandshakes <= 0 {
		c.MaxHandshakes = 64
	}
	return c
}

// Identity makes links in the name of one key.
type Identity struct {
	// Config may be set before the first link is made.
	Config Config

	id   identity.ID
	cert tls.Certificate
}

// NewIdentity makes the key's certificate.
func NewIdentity(key identity.Key) (*Identity, error) {
	cert, err := certificate(key.Signer())
	if err != nil {
		return nil, err
	}
	return &Identity{id: key.ID(), cert: cert}, nil
}

// ID is the identity that the links prove.
func (i *Identity) ID() identity.ID { return i.id }

// certificate wraps a key in the least that TLS accepts. It has no name and no
// end, and starts before any clock, right or wrong, could stand.
func certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("link: making the certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("link: making the certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// peerOf reads who the other end is out of its certificate. TLS has checked
// that it owns the certificate's key.
func peerOf(state tls.ConnectionState) (identity.ID, error) {
	certs := state.PeerCertificates
	if len(certs) != 1 {
		return identity.ID{}, fmt.Errorf("%w: there are %d, want one", ErrCertificate, len(certs))
	}
	cert := certs[0]
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return identity.ID{}, fmt.Errorf("%w: its key is %v, want Ed25519", ErrCertificate, cert.PublicKeyAlgorithm)
	}
	if now := time.Now(); now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return identity.ID{}, fmt.Errorf("%w: it is not valid now", ErrCertificate)
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return identity.ID{}, fmt.Errorf("%w: it is not signed by its own key", ErrCertificate)
	}
	return identity.ID(key), nil
}

// tlsConfig is for one handshake or one listener. verify gets the peer's
// proven identity.
func (i *Identity) tlsConfig(verify func(identity.ID, error) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{ALPN},
		Certificates:           []tls.Certificate{i.cert},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // no authority to ask: VerifyConnection checks the key itself
		SessionTicketsDisabled: true,
		// Frames are flushed one by one anyhow; small records would only cost.
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != ALPN {
				return verify(identity.ID{}, fmt.Errorf("%w: it does not speak %s", ErrProtocol, ALPN))
			}
			return verify(peerOf(state))
		},
	}
}

// expect verifies that the other end is peer, and keeps the error for the
// caller, since QUIC and TLS both wrap it beyond recognition.
func (i *Identity) expect(peer identity.ID, result *error) *tls.Config {
	return i.tlsConfig(func(got identity.ID, err error) error {
		if err == nil && got != peer {
			err = &WrongPeerError{Want: peer, Got: got}
		}
		*result = err
		return err
	})
}

// admit verifies that the other end may connect here.
func (i *Identity) admit(result *error) *tls.Config {
	return i.tlsConfig(func(got identity.ID, err error) error {
		if err == nil && i.Config.Admit != nil && !i.Config.Admit(got) {
			err = &WrongPeerError{Got: got}
		}
		if result != nil {
			*result = err
		}
		return err
	})
}
