package redirect

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	proxy = ep("192.168.1.1:3129")
)

func ep(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func newRedirect(t *testing.T, max int) *Redirect {
	t.Helper()
	r, err := New(Config{
		Proxy: proxy, Ports: []uint16{80, 443}, Except: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}, Max: max,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pass has a packet pass, and says what it became.
func pass(t *testing.T, now time.Time, f func(time.Time, *ip.Packet) bool, src, dst string, flags uint8) (string, bool) {
	t.Helper()
	var p ip.Packet
	if err := p.Decode(ip.AppendTCP(nil, ep(src), ep(dst), 64, &ip.Segment{Flags: flags, Payload: []byte("odd")})); err != nil {
		t.Fatal(err)
	}
	ok := f(now, &p)
	if !p.ChecksumOK() {
		t.Error("a wrong checksum")
	}
	return fmt.Sprintf("%v %v", p.Src, p.Dst), ok
}

func (r *Redirect) in(t *testing.T, now time.Time, src, dst string, flags uint8) string {
	t.Helper()
	got, ok := pass(t, now, r.FromInside, src, dst, flags)
	if !ok {
		return "full"
	}
	return got
}

func (r *Redirect) out(t *testing.T, now time.Time, src, dst string, flags uint8) string {
	t.Helper()
	got, _ := pass(t, now, func(now time.Time, p *ip.Packet) bool { r.FromProxy(now, p); return true }, src, dst, flags)
	return got
}

func TestRedirect(t *testing.T) {
	r := newRedirect(t, 0)
	for _, c := range []struct {
		out           bool
		src, dst, got string
	}{
		{false, "192.168.1.20:5000", "203.0.113.9:80", "192.168.1.20:5000 192.168.1.1:3129"},
		{true, "192.168.1.1:3129", "192.168.1.20:5000", "203.0.113.9:80 192.168.1.20:5000"},
		// The same port of the client, to someone else.
		{false, "192.168.1.20:5000", "203.0.113.9:443", "192.168.1.20:1024 192.168.1.1:3129"},
		{true, "192.168.1.1:3129", "192.168.1.20:1024", "203.0.113.9:443 192.168.1.20:5000"},
		{false, "192.168.1.20:5000", "203.0.113.9:443", "192.168.1.20:1024 192.168.1.1:3129"},
		// Another client that has the port that was taken.
		{false, "192.168.1.20:1024", "203.0.113.9:80", "192.168.1.20:1025 192.168.1.1:3129"},
		{false, "192.168.1.21:1024", "203.0.113.9:80", "192.168.1.21:1024 192.168.1.1:3129"},
		// What is none of its business.
		{false, "192.168.1.20:5000", "203.0.113.9:22", "192.168.1.20:5000 203.0.113.9:22"},
		{false, "192.168.1.20:5000", "192.168.1.1:80", "192.168.1.20:5000 192.168.1.1:80"},
		{true, "192.168.1.1:3128", "192.168.1.20:5000", "192.168.1.1:3128 192.168.1.20:5000"},
		{true, "192.168.1.1:3129", "192.168.1.20:7000", "192.168.1.1:3129 192.168.1.20:7000"},
	} {
		got := ""
		if c.out {
			got = r.out(t, start, c.src, c.dst, ip.SYN|ip.ACK)
		} else {
			got = r.in(t, start, c.src, c.dst, ip.SYN)
		}
		if got != c.got {
			t.Errorf("%s to %s became %s, want %s", c.src, c.dst, got, c.got)
		}
	}
	client, remote, ok := r.Original(start, ep("192.168.1.20:1025"))
	if !ok || client != ep("192.168.1.20:1024") || remote != ep("203.0.113.9:80") {
		t.Errorf("the original is %v to %v, %v", client, remote, ok)
	}
	if _, _, ok := r.Original(start, ep("192.168.1.20:7000")); ok {
		t.Error("an original of nothing")
	}
	r.Reset()
	if r.Len() != 0 {
		t.Error("a reboot forgets nothing")
	}
}

func TestLifetimes(t *testing.T) {
	const client, server, seen = "192.168.1.20:5000", "203.0.113.9:80", "192.168.1.20:5000"
	proxied := proxy.String()
	for _, c := range []struct {
		name string
		do   func(r *Redirect)
		want time.Duration
	}{
		{"a SYN alone", func(r *Redirect) {}, transitory},
		{"answered alone", func(r *Redirect) { r.out(t, start, proxied, seen, ip.SYN|ip.ACK) }, transitory},
		{"established", func(r *Redirect) { r.in(t, start, client, server, ip.ACK) }, established},
		{"half closed", func(r *Redirect) {
			r.in(t, start, client, server, ip.ACK)
			r.in(t, start, client, server, ip.FIN|ip.ACK)
			r.out(t, start, proxied, seen, ip.ACK)
		}, established},
		{"closed", func(r *Redirect) {
			r.in(t, start, client, server, ip.ACK)
			r.in(t, start, client, server, ip.FIN|ip.ACK)
			r.out(t, start, proxied, seen, ip.FIN|ip.ACK)
			r.in(t, start, client, server, ip.ACK)
		}, transitory},
		{"closed, and the port used anew", func(r *Redirect) {
			r.in(t, start, client, server, ip.ACK)
			r.in(t, start, client, server, ip.FIN|ip.ACK)
			r.out(t, start, proxied, seen, ip.FIN|ip.ACK)
			r.in(t, start, client, server, ip.SYN)
			r.in(t, start, client, server, ip.ACK)
		}, established},
		{"closed by the proxy alone", func(r *Redirect) {
			r.in(t, start, client, server, ip.ACK)
			r.out(t, start, proxied, seen, ip.FIN|ip.ACK)
			r.in(t, start, client, server, ip.ACK)
		}, transitory},
		{"closed by the proxy alone, and the port used anew", func(r *Redirect) {
			r.in(t, start, client, server, ip.ACK)
			r.out(t, start, proxied, seen, ip.FIN|ip.ACK)
			r.in(t, start, client, server, ip.SYN)
			r.in(t, start, client, server, ip.ACK)
		}, established},
		{"reset", func(r *Redirect) {
			r.in(t, start, client, server, ip.ACK)
			r.out(t, start, proxied, seen, ip.RST)
		}, transitory},
	} {
		r := newRedirect(t, 0)
		r.in(t, start, client, server, ip.SYN)
		c.do(r)
		if _, _, ok := r.Original(start.Add(c.want-1), ep(seen)); !ok {
			t.Errorf("%s: forgotten too early", c.name)
		}
		if _, _, ok := r.Original(start.Add(c.want), ep(seen)); ok || r.Len() != 0 {
			t.Errorf("%s: not forgotten", c.name)
		}
	}
}

// A table that is full lets nothing new pass, least of all past the proxy.
func TestFull(t *testing.T) {
	r := newRedirect(t, 3)
	for i := range 3 {
		r.in(t, start, fmt.Sprintf("192.168.1.20:%d", 5000+i), "203.0.113.9:80", ip.SYN)
		r.in(t, start, fmt.Sprintf("192.168.1.20:%d", 5000+i), "203.0.113.9:80", ip.ACK)
	}
	if got := r.in(t, start, "192.168.1.20:6000", "203.0.113.9:80", ip.SYN); got != "full" {
		t.Errorf("the fourth became %s", got)
	}
	if got := r.in(t, start, "192.168.1.20:5000", "203.0.113.9:80", ip.ACK); got == "full" {
		t.Error("the first is refused")
	}
	if got := r.in(t, start.Add(established), "192.168.1.20:6000", "203.0.113.9:80", ip.SYN); got == "full" {
		t.Error("refused after the others are gone")
	}
}

// Connections that nobody goes on with make room for new ones, and what begins
// in the middle takes none.
func TestHalfOpenMakeRoom(t *testing.T) {
	r := newRedirect(t, 3)
	for i := range 10 {
		r.in(t, start, fmt.Sprintf("192.168.1.20:%d", 5000+i), "203.0.113.9:80", ip.RST)
	}
	if r.Len() != 0 {
		t.Errorf("%d connections begun by an RST", r.Len())
	}
	for i := range 10 {
		r.in(t, start, fmt.Sprintf("192.168.1.20:%d", 5000+i), "203.0.113.9:80", ip.SYN)
	}
	if got := r.in(t, start, "192.168.1.21:6000", "203.0.113.9:80", ip.SYN); got == "full" {
		t.Error("an honest one is refused")
	}
	if r.Len() != 3 {
		t.Errorf("%d connections of 3", r.Len())
	}
}

// Nor do those that the proxy is done with, though their clients keep them.
func TestHalfClosedMakeRoom(t *testing.T) {
	r := newRedirect(t, 3)
	for i := range 3 {
		src := fmt.Sprintf("192.168.1.20:%d", 5000+i)
		r.in(t, start, src, "203.0.113.9:80", ip.SYN)
		r.in(t, start, src, "203.0.113.9:80", ip.ACK)
		r.out(t, start, proxy.String(), src, ip.FIN|ip.ACK)
		r.in(t, start, src, "203.0.113.9:80", ip.ACK)
	}
	if got := r.in(t, start, "192.168.1.21:6000", "203.0.113.9:80", ip.SYN); got == "full" {
		t.Error("an honest one is refused")
	}
}

// A random walk beside an obvious model: two maps.
func TestWalk(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	r := newRedirect(t, 0)
	now := start
	there, back := map[string]string{}, map[string]string{}
	for range 4000 {
		now = now.Add(time.Duration(rnd.IntN(100)) * time.Millisecond)
		src := fmt.Sprintf("192.168.1.%d:%d", 20+rnd.IntN(2), 1024+rnd.IntN(8))
		dst := fmt.Sprintf("203.0.113.%d:%d", rnd.IntN(4), []int{80, 443}[rnd.IntN(2)])
		flags := uint8(ip.ACK)
		if there[src+dst] == "" {
			flags = ip.SYN
		}
		got := r.in(t, now, src, dst, flags)
		if was, ok := there[src+dst]; ok && was != got {
			t.Fatalf("%s to %s became %s, and was %s", src, dst, got, was)
		}
		there[src+dst] = got
		var proxied, to string
		fmt.Sscan(got, &proxied, &to)
		if was, ok := back[proxied]; ok && was != src+dst {
			t.Fatalf("two connections at %s", proxied)
		}
		back[proxied] = src + dst
		if answer := r.out(t, now, proxy.String(), proxied, ip.ACK); answer != dst+" "+src {
			t.Fatalf("the answer to %s became %s", src, answer)
		}
	}
}

func TestImpossible(t *testing.T) {
	for _, c := range []Config{
		{}, {Proxy: proxy}, {Proxy: ep("[2001:db8::1]:80"), Ports: []uint16{80}}, {Proxy: ep("192.168.1.1:0"), Ports: []uint16{80}},
		{Proxy: proxy, Ports: []uint16{0}}, {Proxy: proxy, Ports: []uint16{80}, Max: -1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v: accepted", c)
		}
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(ip.AppendTCP(nil, ep("192.168.1.20:5000"), ep("203.0.113.9:80"), 64, &ip.Segment{Flags: ip.SYN}), true)
	f.Fuzz(func(t *testing.T, b []byte, inside bool) {
		r, err := New(Config{Proxy: proxy, Ports: []uint16{80}})
		if err != nil {
			t.Fatal(err)
		}
		var p ip.Packet
		if p.Decode(b) != nil {
			return
		}
		right := p.ChecksumOK()
		if inside {
			r.FromInside(start, &p)
		} else {
			r.FromProxy(start, &p)
		}
		if p.ChecksumOK() != right {
			t.Fatal("the checksum became another")
		}
	})
}
