package sim

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// through dials to from host a, says something, and returns what comes back
// until the end, or until "hello" has come.
func through(t *testing.T, n *Network, to, say string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := n.Host("a").DialTCP(ctx, 0, netip.MustParseAddrPort(to))
	if err != nil {
		return "no connection"
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, say)
	var all []byte
	for buf := make([]byte, 1000); !strings.Contains(string(all), "hello"); {
		k, err := c.Read(buf)
		all = append(all, buf[:k]...)
		if err != nil {
			break
		}
	}
	return string(all)
}

// greeter answers whatever comes to a port of a host with who asked, and hello.
func greeter(t *testing.T, h *Host, port uint16) {
	t.Helper()
	l, err := h.ListenTCP(port)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				buf := make([]byte, 1000)
				k, _ := c.Read(buf)
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				io.WriteString(c, "HTTP/1.0 200 OK\r\nContent-Length: 10000\r\n\r\n"+host+" asked "+string(buf[:k])+" hello")
				c.Read(buf) // until the other end closes
			}()
		}
	}()
}

// A network whose gateway lets nothing out but what goes through its proxies,
// one of which nobody knows of.
func TestProxies(t *testing.T) {
	top := behind(portRestricted, portRestricted)
	top.Gateways[0].Proxy = scenario.Proxy{HTTP: 3128, SOCKS: 1080, Transparent: true, Only: true}
	inBubble(t, top, func(t *testing.T, n *Network) {
		for _, port := range []uint16{22, 80, 443} {
			greeter(t, n.Host("s"), port)
		}
		server := n.Host("s").at.addresses()[0].String()
		const tls = "\x16\x03\x01\x00\x05\x01 client"
		for _, c := range []struct{ to, say, want string }{
			{server + ":22", "x", "no connection"},
			{"10.0.0.1:3128", "CONNECT " + server + ":22 HTTP/1.1\r\nHost: x\r\n\r\nssh", "198.51.100.1 asked ssh hello"},
			{"10.0.0.1:3128", "CONNECT s:22 HTTP/1.1\r\nHost: x\r\n\r\nssh", "198.51.100.1 asked ssh hello"},
			{"10.0.0.1:3128", "GET http://s/page HTTP/1.1\r\nHost: s\r\n\r\n", "198.51.100.1 asked GET /page HTTP/1.1\r\nHost: s\r\n"},
			{"10.0.0.1:3128", "CONNECT 10.0.0.1:5000 HTTP/1.1\r\nHost: x\r\n\r\n", "403"},
			{"10.0.0.1:1080", "\x05\x01\x00\x05\x01\x00\x03\x01s\x00\x16ssh", "198.51.100.1 asked ssh hello"},
			{server + ":80", "GET /page HTTP/1.1\r\nHost: elsewhere\r\n\r\n", "198.51.100.1 asked GET /page HTTP/1.1\r\nHost: elsewhere\r\n"},
			{server + ":80", "SSH-2.0\r\n\r\n", "400 Bad Request"},
			{server + ":443", tls, "198.51.100.1 asked " + tls + " hello"},
			{server + ":443", "SSH-2.0\r\n", ""},
		} {
			if got := through(t, n, c.to, c.say); !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
				t.Errorf("%s, %q: %q, want %q", c.to, c.say, got, c.want)
			}
		}
		a, s := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("s"), 9)
		send(t, a, server+":9", "out")
		if msg, _ := receive(t, s); msg == "out" {
			t.Error("UDP gets out")
		}
	})
}

// UDP through the SOCKS proxy goes on as long as the client says something, and
// reaches nothing of the gateway's own.
func TestSOCKSUDP(t *testing.T) {
	top := behind(portRestricted, portRestricted)
	top.Gateways[0].Proxy = scenario.Proxy{SOCKS: 1080}
	inBubble(t, top, func(t *testing.T, n *Network) {
		c, err := n.Host("a").DialTCP(t.Context(), 0, netip.MustParseAddrPort("10.0.0.1:1080"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
		answer := make([]byte, 2+10)
		if _, err := io.ReadFull(c, answer); err != nil || answer[3] != 0 {
			t.Fatalf("%x, %v", answer, err)
		}
		relay := netip.AddrPortFrom(netip.AddrFrom4([4]byte(answer[6:10])), uint16(answer[10])<<8|uint16(answer[11])).String()
		a, s, own := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("s"), 9), listenUDP(t, n.Gateway("ga").Host(), 9)
		for range 3 {
			for _, to := range []netip.Addr{netip.MustParseAddr("10.0.0.1"), n.Host("s").at.addresses()[0]} {
				send(t, a, relay, "\x00\x00\x00\x01"+string(to.AsSlice())+"\x00\x09out")
			}
			if msg, _ := receive(t, s); msg != "out" {
				t.Fatalf("%q got out", msg)
			}
			time.Sleep(9 * time.Minute)
		}
		if msg, _ := receive(t, own); msg != "" {
			t.Errorf("%q reached the gateway", msg)
		}
		start := time.Now()
		if _, err := c.Read(answer); err == nil || time.Since(start) > time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
