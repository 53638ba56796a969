package bodkin_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/server"
)

var benchBytes = flag.Int64("bench-bytes", 256<<20, "bytes of each round of BenchmarkThroughput")

// hostNetwork is the operating system's network inside a namespace.
type hostNetwork struct{ h *netns.Host }

func inside[T any](h *netns.Host, f func() (T, error)) (v T, err error) {
	e := h.Do(func() error { v, err = f(); return nil })
	return v, errors.Join(err, e)
}

func (n hostNetwork) ListenUDP(port uint16) (net.PacketConn, error) {
	return inside(n.h, func() (net.PacketConn, error) { return netio.OS{}.ListenUDP(port) })
}

func (n hostNetwork) DialTCP(ctx context.Context, port uint16, to netip.AddrPort) (net.Conn, error) {
	return inside(n.h, func() (net.Conn, error) { return netio.OS{}.DialTCP(ctx, port, to) })
}

func (n hostNetwork) Addrs() ([]netip.Addr, error) { return inside(n.h, netio.OS{}.Addrs) }

func (n hostNetwork) LookupIP(_ context.Context, host string) ([]netip.Addr, error) {
	a, err := netip.ParseAddr(host)
	return []netip.Addr{a}, err
}

// wireLab is hosts a, b and s on one kernel network, with a server on s.
type wireLab struct {
	lab    *netns.Lab
	a, b   hostNetwork
	s      *netns.Host
	locate string
}

func newWireLab(b *testing.B) *wireLab {
	b.Helper()
	netns.Need(b)
	at := func(name, addr string) scenario.Host {
		return scenario.Host{Name: name, Port: scenario.Port{Network: scenario.Internet, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}}
	}
	lab, err := netns.New(scenario.Topology{Hosts: []scenario.Host{
		at("s", "198.51.100.1/24"), at("a", "198.51.100.11/24"), at("b", "198.51.100.12/24")}}, netns.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { lab.Close() })
	w := &wireLab{lab: lab, a: hostNetwork{lab.Host("a")}, b: hostNetwork{lab.Host("b")}, s: lab.Host("s")}
	pc, err := inside(w.s, func() (net.PacketConn, error) { return netio.OS{}.ListenUDP(3478) })
	if err != nil {
		b.Fatal(err)
	}
	l := w.listen(b, w.s, 3478)
	key := testKey("server")
	srv, err := server.New(server.Config{Key: key, Packet: []net.PacketConn{pc}, Listeners: []net.Listener{l}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	w.locate = fmt.Sprintf("%v@198.51.100.1", key.ID())
	return w
}

func (w *wireLab) listen(b *testing.B, h *netns.Host, port int) net.Listener {
	b.Helper()
	l, err := inside(h, func() (net.Listener, error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		return lc.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
	})
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// stream is two ends of something that carries bytes.
type stream struct {
	w io.Writer
	r io.Reader
}

// BenchmarkThroughput moves bytes from one namespace to another: through a
// Conn, and the bare way on the same path, in turn. It prints both and the
// median of the ratios of neighbours.
//
//	go test -run '^$' -bench Throughput -benchtime 5x -bench-bytes 1000000000 .
func BenchmarkThroughput(b *testing.B) {
	for _, c := range []struct {
		name string
		ours func(*testing.B, *wireLab) stream
		bare func(*testing.B, *wireLab) stream
	}{
		{"direct-beside-quic", connStream(func(c *bodkin.Config) { c.DirectOnly = true }, false), bareQUIC},
		{"stream-relay-beside-tls", connStream(func(c *bodkin.Config) { c.RelayOnly = true }, true), bareTLS},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWireLab(b)
			ours, bare := c.ours(b, w), c.bare(b, w)
			carry(b, ours, *benchBytes/16) // windows and buffers grow
			carry(b, bare, *benchBytes/16)
			var ratios, mine, theirs []float64
			b.ResetTimer()
			for range b.N {
				x, y := moved(b, ours, *benchBytes), moved(b, bare, *benchBytes)
				mine, theirs, ratios = append(mine, x), append(theirs, y), append(ratios, x/y)
			}
			b.ReportMetric(median(mine), "bodkin-Gbit/s")
			b.ReportMetric(median(theirs), "bare-Gbit/s")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func moved(b *testing.B, s stream, n int64) (gbit float64) {
	start := time.Now()
	carry(b, s, n)
	return float64(n) * 8 / 1e9 / time.Since(start).Seconds()
}

func carry(b *testing.B, s stream, n int64) {
	b.Helper()
	sent := make(chan error, 1)
	go func() {
		buf := make([]byte, 64<<10)
		for left := n; left > 0; {
			k, err := s.w.Write(buf[:min(left, int64(len(buf)))])
			if left -= int64(k); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	buf := make([]byte, 64<<10)
	for left := n; left > 0; {
		k, err := s.r.Read(buf[:min(left, int64(len(buf)))])
		if left -= int64(k); err != nil {
			b.Fatalf("read: %v", err)
		}
	}
	if err := <-sent; err != nil {
		b.Fatalf("write: %v", err)
	}
}

// connStream is two nodes, connected. onlyTCP blocks UDP to the server.
func connStream(change func(*bodkin.Config), onlyTCP bool) func(*testing.B, *wireLab) stream {
	return func(b *testing.B, w *wireLab) stream {
		node := func(name string, network bodkin.Network) *peer {
			cfg := bodkin.Config{Key: testKey(name), Server: w.locate, Network: network}
			if onlyTCP {
				cfg.Server = fmt.Sprintf("%v@tcp:198.51.100.1", testKey("server").ID())
			}
			change(&cfg)
			n, err := bodkin.New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { n.Close() })
			return &peer{Node: n}
		}
		from, to := node("a", w.a), node("b", w.b)
		ready(b, from, to)
		ca, cb := connect(b, from, to)
		b.Logf("path: %v", ca.Path())
		return stream{ca, cb}
	}
}

func bareQUIC(b *testing.B, w *wireLab) stream {
	cert := testCertificate(b)
	transport := func(n hostNetwork) *quic.Transport {
		pc, err := n.ListenUDP(0)
		if err != nil {
			b.Fatal(err)
		}
		tr := &quic.Transport{Conn: pc}
		b.Cleanup(func() { tr.Close(); pc.Close() })
		return tr
	}
	l, err := transport(w.b).Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"x"}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	to := &net.UDPAddr{IP: net.ParseIP("198.51.100.12"), Port: l.Addr().(*net.UDPAddr).Port}
	c, err := transport(w.a).Dial(context.Background(), to, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"x"}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.OpenUniStream()
	if err != nil {
		b.Fatal(err)
	}
	out.Write([]byte{0})
	other, err := l.Accept(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	in, err := other.AcceptUniStream(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	io.ReadFull(in, make([]byte, 1))
	return stream{out, in}
}

// bareTLS is crypto/tls through a splicing forwarder on s.
func bareTLS(b *testing.B, w *wireLab) stream {
	cert := testCertificate(b)
	target := w.listen(b, w.lab.Host("b"), 9000)
	forwarder := w.listen(b, w.s, 9000)
	b.Cleanup(func() { target.Close(); forwarder.Close() })
	go func() {
		in, err := forwarder.Accept()
		if err != nil {
			return
		}
		out, err := hostNetwork{w.s}.DialTCP(context.Background(), 0, netip.MustParseAddrPort("198.51.100.12:9000"))
		if err != nil {
			in.Close()
			return
		}
		go io.Copy(in, out)
		io.Copy(out, in)
	}()
	type result struct {
		c   net.Conn
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		c, err := target.Accept()
		if err != nil {
			accepted <- result{nil, err}
			return
		}
		t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		accepted <- result{t, t.Handshake()}
	}()
	c, err := w.a.DialTCP(context.Background(), 0, netip.MustParseAddrPort("198.51.100.1:9000"))
	if err != nil {
		b.Fatal(err)
	}
	t := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	if err := t.Handshake(); err != nil {
		b.Fatal(err)
	}
	r := <-accepted
	if r.err != nil {
		b.Fatal(r.err)
	}
	b.Cleanup(func() { t.Close(); r.c.Close() })
	return stream{t, r.c}
}

func testCertificate(b *testing.B) tls.Certificate {
	b.Helper()
	key := testKey("bare").Signer()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
