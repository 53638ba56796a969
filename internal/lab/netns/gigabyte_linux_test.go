package netns

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

const gigabyte = 1_000_000_000

// TestGigabyteThroughEveryPreset lets two Linux hosts send each other bytes over
// one TCP connection through a gateway of each preset: 1 GB to the host inside,
// and a tenth of that the other way at the same time. What was sent and what
// came has the same hash.
func TestGigabyteThroughEveryPreset(t *testing.T) {
	Need(t)
	for _, p := range nat.Presets() {
		t.Run(p.Name, func(t *testing.T) { gigabyteThrough(t, p) })
	}
}

func gigabyteThrough(t *testing.T, p nat.Preset) {
	gate := netip.MustParseAddrPort("10.1.0.1:3128") // the proxy
	port := func(network, addr string) scenario.Port {
		return scenario.Port{Network: network, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}
	}
	lab, err := New(scenario.Topology{
		Hosts: []scenario.Host{{Name: "a", Port: port("home", "10.1.0.2/24")}, {Name: "s", Port: port(scenario.Internet, "198.51.100.1/24")}},
		Gateways: []scenario.Gateway{{Name: "g", NAT: p.Behaviour, Proxy: scenario.Proxy{HTTP: gate.Port()},
			Inside: port("home", "10.1.0.1/24"), Outside: port(scenario.Internet, "198.51.100.11/24")}},
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	}()
	inside, outside := throughGateway(t, lab, p, gate, netip.MustParseAddrPort("198.51.100.1:443"))
	defer inside.Close()
	defer outside.Close()

	begun := time.Now()
	var ends sync.WaitGroup
	var sums [4]string // sent to the inside and received there, and the other way
	for i, end := range []func(h io.Writer) (int64, error){
		func(h io.Writer) (int64, error) { return send(outside, h, 1, gigabyte) },
		func(h io.Writer) (int64, error) { return io.Copy(h, inside) },
		func(h io.Writer) (int64, error) { return send(inside, h, 2, gigabyte/10) },
		func(h io.Writer) (int64, error) { return io.Copy(h, outside) },
	} {
		ends.Go(func() {
			h := sha256.New()
			n, err := end(h)
			if err != nil {
				t.Errorf("%s after %d bytes: %v", [...]string{"sent to the inside", "received there", "sent to the outside", "received there"}[i], n, err)
			}
			sums[i] = fmt.Sprintf("%d bytes %x", n, h.Sum(nil))
		})
	}
	ends.Wait()
	if sums[0] != sums[1] || sums[2] != sums[3] {
		t.Errorf("sent %s and received %s; the other way %s and %s", sums[0], sums[1], sums[2], sums[3])
	}
	t.Logf("1.1 GB in %v, hashes included", time.Since(begun).Round(time.Millisecond))
}

// send sends n random bytes, and their end.
func send(c conn, h io.Writer, seed byte, n int64) (int64, error) {
	from := rand.NewChaCha8([32]byte{seed})
	buf := make([]byte, 256<<10)
	for done := int64(0); done < n; {
		b := buf[:min(int64(len(buf)), n-done)]
		from.Read(b)
		h.Write(b)
		k, err := c.Write(b)
		if done += int64(k); err != nil {
			return done, err
		}
	}
	return n, c.CloseWrite()
}

// conn is what TCP and TLS connections have in common.
type conn interface {
	net.Conn
	CloseWrite() error
}

// throughGateway is a connection from host a to host s: through the gateway's proxy
// where nothing else gets out, and TLS where the content is looked at.
func throughGateway(t *testing.T, lab *Lab, p nat.Preset, gate, server netip.AddrPort) (inside, outside conn) {
	t.Helper()
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var l *net.TCPListener
	fatal(lab.Host("s").Do(func() (err error) {
		l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(server))
		return err
	}))
	defer l.Close()
	to := server
	if p.Name == "proxy-only" {
		to = gate
	}
	var c *net.TCPConn
	fatal(lab.Host("a").Do(func() (err error) {
		c, err = net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(to))
		return err
	}))
	deadline := time.Now().Add(3 * time.Minute)
	fatal(c.SetDeadline(deadline))
	if to == gate {
		fmt.Fprintf(c, "CONNECT %v HTTP/1.1\r\nHost: %v\r\n\r\n", server, server)
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		fatal(err)
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("the proxy says %s", answer.Status)
		}
	}
	fatal(l.SetDeadline(deadline))
	s, err := l.AcceptTCP()
	fatal(err)
	fatal(s.SetDeadline(deadline))
	if !p.Behaviour.Content.WebOnly {
		return c, s
	}
	client, srv := tls.Client(c, &tls.Config{InsecureSkipVerify: true}), tls.Server(s, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	done := make(chan error, 1)
	go func() { done <- srv.Handshake() }()
	fatal(client.Handshake())
	fatal(<-done)
	return client, srv
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
