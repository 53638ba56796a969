package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// web serves HTTP on port 80 and HTTPS on 443 of host s: who asks, how, and for
// what.
func (b *box) web() {
	b.Helper()
	for _, port := range []string{":80", ":443"} {
		var l net.Listener
		err := b.Host("s").Do(func() (err error) {
			l, err = net.Listen("tcp4", homeServer+port)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			from, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprintf(w, "%s asks %s for %s via %s.", from, r.Host, r.URL, r.Header.Get("Via"))
		}))
		s.Listener.Close()
		if s.Listener = l; port == ":443" {
			s.TLS = &tls.Config{}
			s.StartTLS()
		} else {
			s.Start()
		}
		b.Cleanup(s.Close)
	}
}

// TestProxies: a gateway that lets nothing out but what its proxies relay,
// with curl.
func TestProxies(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	b := newBox(t, func(g *scenario.Gateway) {
		g.Proxy = scenario.Proxy{HTTP: 3128, SOCKS: 1080, Transparent: true, Only: true}
	})
	b.web()
	b.listen("s", homeServer+":22", "ssh")
	const http, socks = "-x http://" + homeInside + ":3128 ", "-x socks5h://" + homeInside + ":1080 "
	const plain, secret = "http://" + homeServer + "/page", "https://" + homeServer + "/page"
	for _, c := range []struct{ how, args, want string }{
		{"HTTP proxy", http + plain, "asks 198.51.100.1 for /page via 1.1 gateway."},
		{"HTTP proxy, by name", http + "http://s/page", "asks s for /page via 1.1 gateway."},
		{"HTTP proxy, tunnel", http + "-p " + plain, "asks 198.51.100.1 for /page via ."},
		{"HTTP proxy, HTTPS", http + secret, "asks 198.51.100.1 for /page via ."},
		{"SOCKS5", socks + plain, "asks 198.51.100.1 for /page via ."},
		{"SOCKS5, by name", socks + "http://s/page", "asks s for /page via ."},
		{"SOCKS5, HTTPS", socks + secret, "asks 198.51.100.1 for /page via ."},
		{"transparent", plain, "asks 198.51.100.1 for /page via 1.1 gateway."},
		{"transparent, another name", "-H Host:elsewhere " + plain, "asks elsewhere for /page via 1.1 gateway."},
		{"transparent, HTTPS", secret, "asks 198.51.100.1 for /page via ."},
	} {
		out, err := b.run("a", curl, append(strings.Fields(c.args), "-sSk", "--noproxy", "", "--max-time", "15")...)
		if want := homeOutside + " " + c.want; err != nil || out != want {
			t.Errorf("%s: %v, %q, want %q", c.how, err, out, want)
		}
	}
	// Whoever asks the gateway for itself is sent away.
	if out, _ := b.run("a", curl, "-sS", "-x", "http://"+homeInside+":3128", "http://"+homeOutside+":5000/"); !strings.Contains(out, "nobody may go there") {
		t.Errorf("the proxy goes to its own gateway: %q", out)
	}
	if got := b.answers("a", homeServer+":22"); got != "" {
		t.Errorf("a connection gets out past the proxies: %q", got)
	}
	if got := b.answers("s", homeOutside+":3128"); got != "" {
		t.Error("the proxy serves strangers")
	}
	b.udp("a", false)
}

// udp sends a datagram from a host to the server, which must or must not come.
func (b *box) udp(host string, want bool) {
	b.Helper()
	out, in := b.packets(host, ":0"), b.packets("s", homeServer+":9")
	out.WriteTo([]byte("out"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(homeServer+":9")))
	wait := 300 * time.Millisecond
	if want {
		wait = patience
	}
	in.SetReadDeadline(time.Now().Add(wait))
	if _, _, err := in.ReadFrom(make([]byte, 10)); (err == nil) != want {
		b.Errorf("UDP from %s: %v", host, err)
	}
	in.Close()
}

func (b *box) packets(host, at string) (c net.PacketConn) {
	b.Helper()
	if err := b.Host(host).Do(func() (err error) { c, err = net.ListenPacket("udp4", at); return err }); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// TestSOCKSAssociate: UDP that gets out by SOCKS5 alone, there and back.
func TestSOCKSAssociate(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(g *scenario.Gateway) { g.Proxy = scenario.Proxy{SOCKS: 1080, Only: true} })
	b.udp("a", false)
	server := b.packets("s", homeServer+":3478")
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(fmt.Appendf(nil, "%v said %s", from.(*net.UDPAddr).IP, buf[:n]), from)
		}
	}()
	var c net.Conn
	if err := b.Host("a").Do(func() (err error) { c, err = net.Dial("tcp4", homeInside+":1080"); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	answer := make([]byte, 12)
	if _, err := io.ReadFull(c, answer); err != nil || answer[3] != 0 {
		t.Fatalf("%x, %v", answer, err)
	}
	relay := netip.AddrPortFrom(netip.AddrFrom4([4]byte(answer[6:])), uint16(answer[10])<<8|uint16(answer[11]))
	u := b.packets("a", ":0")
	u.WriteTo([]byte("\x00\x00\x00\x01\xc6\x33\x64\x01\x0d\x96hello"), net.UDPAddrFromAddrPort(relay))
	u.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	n, from, err := u.ReadFrom(buf)
	if want := "\x00\x00\x00\x01\xc6\x33\x64\x01\x0d\x96" + homeOutside + " said hello"; err != nil || string(buf[:n]) != want {
		t.Errorf("from %v: %q, %v, want %q", from, buf[:n], err, want)
	}
}
