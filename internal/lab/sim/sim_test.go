package sim

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addr(s string) netip.Addr    { return netip.MustParseAddr(s) }
func end(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
func udp(s string) *net.UDPAddr   { return net.UDPAddrFromAddrPort(end(s)) }
func at(network string, l scenario.Link, addrs ...string) scenario.Port {
	p := scenario.Port{Network: network, Link: l}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, netip.MustParsePrefix(a))
	}
	return p
}

var delay = scenario.Link{Delay: 5 * time.Millisecond}

// public is two hosts on the internet.
func public(l scenario.Link) scenario.Topology {
	return scenario.Topology{Hosts: []scenario.Host{
		{Name: "a", Port: at(scenario.Internet, l, "192.0.2.1/24", "2001:db8:1::1/64")},
		{Name: "b", Port: at(scenario.Internet, l, "198.51.100.1/24", "2001:db8:2::1/64")},
	}}
}

// behind is a and b behind a gateway each, and s on the internet. Every path
// between two of them takes 15 ms (a or b to s) or 20 ms.
func behind(a, b nat.Behaviour) scenario.Topology {
	return scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: at("home-a", scenario.Link{}, "10.0.0.2/24", "2001:db8:a::2/64")},
			{Name: "b", Port: at("home-b", scenario.Link{}, "10.0.1.2/24", "2001:db8:b::2/64")},
			{Name: "s", Port: at(scenario.Internet, delay, "192.0.2.1/24", "2001:db8:1::1/64")},
		},
		Gateways: []scenario.Gateway{
			{Name: "ga", NAT: a, Inside: at("home-a", scenario.Link{}, "10.0.0.1/24", "2001:db8:a::1/64"),
				Outside: at(scenario.Internet, delay, "198.51.100.1/24", "2001:db8:ff::a/64")},
			{Name: "gb", NAT: b, Inside: at("home-b", scenario.Link{}, "10.0.1.1/24", "2001:db8:b::1/64"),
				Outside: at(scenario.Internet, delay, "203.0.113.1/24", "2001:db8:ff::b/64")},
		},
	}
}

// inBubble runs f with the network in virtual time.
func inBubble(t *testing.T, top scenario.Topology, f func(t *testing.T, n *Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n, err := New(top, Options{Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		f(t, n)
	})
}

func listenUDP(t *testing.T, h *Host, port uint16) net.PacketConn {
	t.Helper()
	c, err := h.ListenUDP(port)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t *testing.T, c net.PacketConn, to, msg string) {
	t.Helper()
	if _, err := c.WriteTo([]byte(msg), udp(to)); err != nil {
		t.Fatal(err)
	}
}

// receive is the next datagram within a second, and where it came from; or ""
// and "".
func receive(t *testing.T, c net.PacketConn) (msg, from string) {
	t.Helper()
	b := make([]byte, 2048)
	c.SetReadDeadline(time.Now().Add(time.Second))
	n, addr, err := c.ReadFrom(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "", ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), addr.String()
}

func expect(t *testing.T, c net.PacketConn, msg, from string) {
	t.Helper()
	if m, f := receive(t, c); m != msg || f != from {
		t.Fatalf("received %q from %q, want %q from %q", m, f, msg, from)
	}
}

func TestDelayIsExact(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		for _, c := range []struct{ to, from string }{{"198.51.100.1:9", "192.0.2.1:7"}, {"[2001:db8:2::1]:9", "[2001:db8:1::1]:7"}} {
			a, b := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("b"), 9)
			start := time.Now()
			send(t, a, c.to, "hello")
			expect(t, b, "hello", c.from)
			if took := time.Since(start); took != 10*time.Millisecond {
				t.Errorf("took %v", took)
			}
			a.Close()
			b.Close()
		}
	})
}

func TestTCPThroughNAT(t *testing.T) {
	inBubble(t, behind(nat.Behaviour{}, nat.Behaviour{}), func(t *testing.T, n *Network) {
		l, err := n.Host("s").ListenTCP(80)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		c, err := n.Host("a").DialTCP(context.Background(), 1234, end("192.0.2.1:80"))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 20*time.Millisecond {
			t.Errorf("dialing took %v", took)
		}
		d, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := d.RemoteAddr().String(); got != "198.51.100.1:1234" {
			t.Errorf("server sees %s", got)
		}
		go func() {
			c.Write(make([]byte, 1<<20))
			c.(interface{ CloseWrite() error }).CloseWrite()
		}()
		got, err := io.Copy(io.Discard, d)
		if got != 1<<20 || err != nil {
			t.Errorf("received %d bytes, %v", got, err)
		}
		if _, err := d.Write([]byte("bye")); err != nil {
			t.Error(err)
		}
		d.Close()
		if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		c.Close()
		l.Close()
	})
}

func TestTCPRefused(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		start := time.Now()
		_, err := n.Host("a").DialTCP(context.Background(), 0, end("198.51.100.1:80"))
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) != 20*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
