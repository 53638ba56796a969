package link

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// meet makes both ends shake hands over either transport. It returns what Dial
// or Client said, what was accepted within a moment, and, over TLS only, what
// Server said.
func meet(t *testing.T, transport string, ia, ib *Identity, peer identity.ID) (a Link, errA error, b Link, errB error) {
	t.Helper()
	if transport == "tls" {
		ca, cb := tcpPair(t)
		var wg sync.WaitGroup
		wg.Go(func() { b, errB = ib.Server(t.Context(), cb) })
		a, errA = ia.Client(t.Context(), ca, peer)
		if errA == nil {
			t.Cleanup(func() { a.Close("") })
		}
		wg.Wait()
		if errB == nil {
			t.Cleanup(func() { b.Close("") })
		}
		return a, errA, b, errB
	}
	pa, pb := listenUDP(t), listenUDP(t)
	qa, qb := newQUIC(t, ia, pa), newQUIC(t, ib, pb)
	a, errA = qa.Dial(t.Context(), pb.LocalAddr(), peer)
	if errA != nil {
		return a, errA, nil, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // nothing will come once the client has ended
		select {
		case <-a.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	b, _ = qb.Accept(ctx)
	return a, errA, b, nil
}

func TestWrongServerIsRefused(t *testing.T) {
	for _, transport := range []string{"quic", "tls"} {
		t.Run(transport, func(t *testing.T) {
			ia, ib, wanted := newIdentity(t), newIdentity(t), newIdentity(t)
			_, err, b, _ := meet(t, transport, ia, ib, wanted.ID())
			wrong, ok := errors.AsType[*WrongPeerError](err)
			if !ok || !errors.Is(err, ErrWrongPeer) || wrong.Got != ib.ID() || wrong.Want != wanted.ID() {
				t.Errorf("got %v", err)
			}
			if b != nil {
				t.Error("the server has a link")
			}
		})
	}
}

func TestWrongClientIsRefused(t *testing.T) {
	for _, transport := range []string{"quic", "tls"} {
		t.Run(transport, func(t *testing.T) {
			ia, ib, wanted := newIdentity(t), newIdentity(t), newIdentity(t)
			ib.Config.Admit = func(id identity.ID) bool { return id == wanted.ID() }
			a, err, b, errB := meet(t, transport, ia, ib, ib.ID())
			if b != nil {
				t.Error("the server has a link")
			}
			if transport == "tls" && !errors.Is(errB, ErrWrongPeer) {
				t.Errorf("Server: %v", errB)
			}
			if err == nil { // TLS 1.3 refuses clients after their Finished
				err = a.Receive(func(frame.Frame) error { return nil })
			}
			if end, ok := errors.AsType[*EndError](err); !ok || end.Cause != CauseRemote {
				t.Errorf("the client got %v", err)
			}
			if _, err, b, _ := meet(t, transport, wanted, ib, ib.ID()); err != nil || b == nil || b.Peer() != wanted.ID() {
				t.Errorf("who is admitted got %v, %v", err, b)
			}
		})
	}
}

func selfSigned(t *testing.T, key crypto.Signer, notAfter time.Time) tls.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestOtherCertificatesAreRefused(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forever := time.Now().Add(time.Hour)
	good := selfSigned(t, edKey, forever)
	two := good
	two.Certificate = [][]byte{good.Certificate[0], good.Certificate[0]}

	// A certificate for our key that somebody else has signed.
	issuer := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: forever}
	der, err := x509.CreateCertificate(rand.Reader, issuer, issuer, edKey.Public(), rsaKey)
	if err != nil {
		t.Fatal(err)
	}

	for name, cert := range map[string]tls.Certificate{
		"RSA":             selfSigned(t, rsaKey, forever),
		"ECDSA":           selfSigned(t, ecKey, forever),
		"expired":         selfSigned(t, edKey, time.Now().Add(-time.Hour)),
		"two":             two,
		"signed by other": {Certificate: [][]byte{der}, PrivateKey: edKey},
	} {
		for _, transport := range []string{"quic", "tls"} {
			t.Run(name+"/"+transport, func(t *testing.T) {
				us, stranger := newIdentity(t), newIdentity(t)
				stranger.id, stranger.cert = identity.ID(edKey.Public().(ed25519.PublicKey)), cert
				if _, err, _, _ := meet(t, transport, us, stranger, stranger.ID()); !errors.Is(err, ErrCertificate) {
					t.Errorf("as a server: %v", err)
				}
				_, _, b, errB := meet(t, transport, stranger, us, us.ID())
				if b != nil {
					t.Error("as a client: has a link")
				}
				if transport == "tls" && !errors.Is(errB, ErrCertificate) {
					t.Errorf("as a client: %v", errB)
				}
			})
		}
	}
	stranger := newIdentity(t)
	stranger.id, stranger.cert = identity.ID(edKey.Public().(ed25519.PublicKey)), good
	if _, err, b, _ := meet(t, "quic", newIdentity(t), stranger, stranger.ID()); err != nil || b == nil {
		t.Errorf("the certificate from which the others differ is refused: %v", err)
	}
}

func TestNoCertificateOrProtocolIsRefused(t *testing.T) {
	for name, config := range map[string]*tls.Config{
		"no certificate": {InsecureSkipVerify: true, NextProtos: []string{ALPN}},
		"TLS 1.2":        {InsecureSkipVerify: true, NextProtos: []string{ALPN}, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{newIdentity(t).cert}},
		"no ALPN":        {InsecureSkipVerify: true, Certificates: []tls.Certificate{newIdentity(t).cert}},
		"other ALPN":     {InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{newIdentity(t).cert}},
	} {
		t.Run(name, func(t *testing.T) {
			ca, cb := tcpPair(t)
			go tls.Client(ca, config).Handshake()
			if _, err := newIdentity(t).Server(t.Context(), cb); err == nil {
				t.Error("accepted")
			}
			ca.Close()
		})
	}
}

func TestGarbageIsIgnoredByQUIC(t *testing.T) {
	ia, ib := newIdentity(t), newIdentity(t)
	pa, pb := listenUDP(t), listenUDP(t)
	qa, qb := newQUIC(t, ia, pa), newQUIC(t, ib, pb)
	a, b := dialQUIC(t, qa, qb, pb.LocalAddr(), ib.ID())
	in := receive(b, map[uint64]int{1: 1})
	go a.Receive(func(frame.Frame) error { return nil })
	stranger, err := net.Dial("udp", pb.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	junk := make([]byte, 1400)
	for i := range 500 {
		rand.Read(junk)
		junk[0] |= 0x40
		if i%2 == 0 {
			junk[0] |= 0xc0
			copy(junk[1:], []byte{0, 0, 0, 1, 8}) // an Initial, on the face of it
		}
		stranger.Write(junk[:20+i*2])
	}
	send(t, a, hello, frame.Frame{Type: frame.DATA, Stream: 1, Data: []byte("x")})
	<-in.full
	dialQUIC(t, qa, qb, pb.LocalAddr(), ib.ID())
}

func TestGarbageIsRefusedByTLS(t *testing.T) {
	for _, junk := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\xff\xff\xff\xff\xff\xff\xff\xff", "\x00\x00\x00\x00\x00"} {
		for _, server := range []bool{true, false} {
			ca, cb := tcpPair(t)
			ca.Write([]byte(junk))
			ca.(*net.TCPConn).CloseWrite()
			var err error
			if i := newIdentity(t); server {
				_, err = i.Server(t.Context(), cb)
			} else {
				_, err = i.Client(t.Context(), cb, i.ID())
			}
			if end, ok := errors.AsType[*EndError](err); !ok || end.Cause == CauseLocal {
				t.Errorf("%q: %v", junk, err)
			}
			if _, err := cb.Write([]byte{0}); err == nil {
				t.Errorf("%q: the connection is still open", junk)
			}
		}
	}
}

func TestDialWantsItsOwnKindOfAddress(t *testing.T) {
	ia := newIdentity(t)
	q := newQUIC(t, ia, listenUDP(t))
	if _, err := q.Dial(t.Context(), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, ia.ID()); err == nil {
		t.Error("dialed a TCP address over UDP")
	}
}

func TestGate(t *testing.T) {
	g := newGate(16)
	addr := func(s string) net.Addr { return &net.UDPAddr{IP: net.ParseIP(s), Port: 1} }
	enter := func(from net.Addr) (context.Context, context.CancelFunc, bool) {
		ctx, cancel := context.WithCancel(t.Context())
		entered, err := g.enter(ctx, from)
		if err != nil && !errors.Is(err, errBusy) {
			t.Error(err)
		}
		return entered, cancel, err == nil
	}
	one, cancel1, ok1 := enter(addr("2001:db8::1"))
	_, cancel2, ok2 := enter(addr("2001:db8::2"))
	_, _, ok3 := enter(addr("2001:db8::3"))
	if !ok1 || !ok2 || ok3 {
		t.Errorf("one /64 got in %v, %v, %v; want two of its three", ok1, ok2, ok3)
	}
	g.leave(one)
	g.leave(one)
	if _, _, ok := enter(addr("2001:db8::3")); !ok {
		t.Error("no place after one has left")
	}
	if g.crowded() {
		t.Error("crowded with 2 of 16")
	}
	for i := range 14 {
		if _, _, ok := enter(addr(net.IPv4(192, 0, 2, byte(i)).String())); !ok {
			t.Errorf("newcomer %d stays out", i)
		}
	}
	if _, _, ok := enter(addr("198.51.100.1")); ok || !g.crowded() {
		t.Error("more than 16 are in")
	}
	cancel1()
	cancel2()
}

func TestHandshakesAreBounded(t *testing.T) {
	ia, ib := newIdentity(t), newIdentity(t)
	ib.Config.MaxHandshakes = 16
	pa, pb := listenUDP(t), listenUDP(t)
	qa, qb := newQUIC(t, ia, pa), newQUIC(t, ib, pb)

	// Clients that start and never go on: they cannot read the answers.
	stranger := &quic.Transport{Conn: deaf{listenUDP(t)}}
	defer stranger.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			var refused error
			stranger.Dial(ctx, pb.LocalAddr(), newIdentity(t).expect(ib.ID(), &refused), &quic.Config{})
		})
	}
	for in := 0; in == 0; {
		qb.gate.mu.Lock()
		in = qb.gate.total
		qb.gate.mu.Unlock()
	}
	// All strangers here share one address with the honest client, so that it
	// may find no place; but it must never hang.
	if a, err := qa.Dial(t.Context(), pb.LocalAddr(), ib.ID()); err == nil {
		a.Close("")
	} else if end, ok := errors.AsType[*EndError](err); !ok || end.Cause != CauseRemote {
		t.Errorf("Dial: %v", err)
	}
	qb.gate.mu.Lock()
	if qb.gate.total > 2 {
		t.Errorf("%d handshakes of one address are under way, want at most 2", qb.gate.total)
	}
	qb.gate.mu.Unlock()
	cancel()
	wg.Wait()
}

// deaf is a packet connection that hears nothing.
type deaf struct{ net.PacketConn }

func (d deaf) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		if n, from, err := d.PacketConn.ReadFrom(b); err != nil {
			return n, from, err
		}
	}
}
