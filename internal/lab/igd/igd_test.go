package igd_test

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/bodkin-net/bodkin/internal/lab/igd"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/sim"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The machine gets the request as it is, but for what it would refuse to read,
// and its answer waits as long as it says. Who says nothing is let go.
func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := sim.New(scenario.OneHome(nat.Behaviour{}), sim.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		l, err := n.Gateway("g").Host().ListenTCP(5000)
		if err != nil {
			t.Fatal(err)
		}
		var got portmap.HTTPRequest
		s := igd.Serve(l, func(r portmap.HTTPRequest) portmap.Response {
			got = r
			return portmap.Response{Status: 418, Type: "text/plain", Body: []byte("short and stout"), After: time.Minute}
		})
		defer s.Close()
		dial := func() net.Conn {
			c, err := n.Host("a").DialTCP(t.Context(), 7, netip.MustParseAddrPort("10.1.0.1:5000"))
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		c := dial()
		start := time.Now()
		body := strings.Repeat("x", 2*portmap.MaxBody)
		r, _ := http.NewRequest("POST", "http://10.1.0.1:5000/control?x", strings.NewReader(body))
		r.Header.Set("SOAPAction", "act")
		r.Close = true
		if err := r.Write(c); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(c) // the rest of the body makes it end in a reset
		c.Close()
		if !strings.HasPrefix(string(answer), "HTTP/1.1 418") || !strings.HasSuffix(string(answer), "short and stout") || time.Since(start) != time.Minute {
			t.Errorf("%q after %v", answer, time.Since(start))
		}
		want := portmap.HTTPRequest{From: netip.MustParseAddrPort("10.1.0.2:7"), Method: "POST", Path: "/control", Host: "10.1.0.1:5000", SOAPAction: "act"}
		if len(got.Body) != portmap.MaxBody+1 {
			t.Errorf("%d bytes of the body", len(got.Body))
		}
		if got.Body = nil; got.From != want.From || got.Method != want.Method || got.Path != want.Path || got.Host != want.Host || got.SOAPAction != want.SOAPAction {
			t.Errorf("%+v, want %+v", got, want)
		}

		time.Sleep(2 * time.Minute) // the port is free again
		c = dial()
		start = time.Now()
		if b, _ := io.ReadAll(c); len(b) != 0 || time.Since(start) > time.Minute {
			t.Errorf("%q after %v of saying nothing", b, time.Since(start))
		}
		c.Close()
	})
}

// one is a listener for connections of the test.
type one chan net.Conn

func (o one) Accept() (net.Conn, error) {
	if c, ok := <-o; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (o one) Close() error   { close(o); return nil }
func (o one) Addr() net.Addr { return &net.TCPAddr{} }

// from is a connection from a host.
type from struct {
	net.Conn
	host byte
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 1, 0, f.host), Port: 7} }

// Who asks and does not read the answer is let go too, however long the answer
// was held back.
func TestUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, after := range []time.Duration{0, time.Minute} {
			l := make(one)
			s := igd.Serve(l, func(portmap.HTTPRequest) portmap.Response {
				return portmap.Response{Status: 200, Type: "text/plain", Body: []byte("hello"), After: after}
			})
			client, inside := net.Pipe()
			l <- from{inside, 2}
			io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			time.Sleep(after + 9*time.Second)
			start := make([]byte, 15)
			if _, err := io.ReadFull(client, start); err != nil || string(start) != "HTTP/1.1 200 OK" {
				t.Errorf("%v: %q, %v", after, start, err)
			}
			time.Sleep(2 * time.Second)
			if b, err := io.ReadAll(client); len(b) != 0 || err != nil {
				t.Errorf("%v: %q was still there, %v", after, b, err)
			}
			s.Close()
		}
	})
}

// One host that takes all connections that it can get does not have others wait.
func TestGreedyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := make(one)
		s := igd.Serve(l, func(portmap.HTTPRequest) portmap.Response {
			return portmap.Response{Status: 200, Type: "text/plain", Body: []byte("hello")}
		})
		start := time.Now()
		var taken []net.Conn
		for range 100 {
			client, inside := net.Pipe()
			l <- from{inside, 2}
			taken = append(taken, client)
		}
		client, inside := net.Pipe()
		l <- from{inside, 3}
		io.WriteString(client, "GET / HTTP/1.0\r\n\r\n")
		answer, err := io.ReadAll(client)
		if waited := time.Since(start); err != nil || !strings.HasSuffix(string(answer), "hello") || waited != 0 {
			t.Errorf("%q, %v after %v", answer, err, waited)
		}
		s.Close()
		for _, c := range taken {
			c.Close()
		}
	})
}
