package e2e

import (
	"bufio"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

const gigabyte = 1_000_000_000

// TestGigabyteThroughEveryPreset lets two Linux hosts send each other bytes over
// one TCP connection through a gateway of each preset: 1 GB to the host inside,
// and a tenth of that the other way at the same time. What was sent and what
// came has the same hash.
func TestGigabyteThroughEveryPreset(t *testing.T) {
	netns.Need(t)
	for _, p := range nat.Presets() {
		t.Run(p.Name, func(t *testing.T) { gigabyteThrough(t, p) })
	}
}

func gigabyteThrough(t *testing.T, p nat.Preset) {
	gate := netip.MustParseAddrPort("10.1.0.1:3128") // the proxy
	port := func(network, addr string) scenario.Port {
		return scenario.Port{Network: network, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}
	}
	lab, err := netns.New(scenario.Topology{
		Hosts: []scenario.Host{{Name: "a", Port: port("home", "10.1.0.2/24")}, {Name: "s", Port: port(scenario.Internet, "198.51.100.1/24")}},
		Gateways: []scenario.Gateway{{Name: "g", NAT: p.Behaviour, Proxy: scenario.Proxy{HTTP: gate.Port()},
			Inside: port("home", "10.1.0.1/24"), Outside: port(scenario.Internet, "198.51.100.11/24")}},
	}, netns.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	}()
	inside, outside := joined(t, lab, p, gate, netip.MustParseAddrPort("198.51.100.1:443"))
	defer inside.Close()
	defer outside.Close()

	begun := time.Now()
	down, up := hashOf(inside), hashOf(outside)
	sentDown, sentUp := feed(half{outside}, 1, gigabyte), feed(half{inside}, 2, gigabyte/10)
	for _, way := range []struct {
		what      string
		sent, got <-chan digest
		want      int64
	}{{"in", sentDown, down, gigabyte}, {"out", sentUp, up, gigabyte / 10}} {
		sent, got := <-way.sent, <-way.got
		if sent.err != nil || got.err != nil || got.bytes != way.want || sent.sum != got.sum {
			t.Errorf("%s: sent %d bytes %s (%v), received %d bytes %s (%v)", way.what,
				sent.bytes, sent.sum, sent.err, got.bytes, got.sum, got.err)
		}
	}
	t.Logf("1.1 GB in %v, hashes included", time.Since(begun).Round(time.Millisecond))
}

// conn is what TCP and TLS connections have in common.
type conn interface {
	net.Conn
	CloseWrite() error
}

// half closes one direction of a connection.
type half struct{ conn }

func (h half) Close() error { return h.CloseWrite() }

// joined is a connection from host a to host s: through the gateway's proxy
// where nothing else gets out, and TLS where the content is looked at.
func joined(t *testing.T, lab *netns.Lab, p nat.Preset, gate, server netip.AddrPort) (inside, outside conn) {
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
	deadline := time.Now().Add(transferLimit)
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
