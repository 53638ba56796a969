package router

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

func tcp(src, dst string, flags uint8) []byte {
	return ip.AppendTCP(nil, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), 64, &ip.Segment{Flags: flags})
}

// sent is what became of a packet: where it went, and its endpoints.
func (w *world) tcp(from nat.Side, src, dst string, flags uint8) string {
	w.t.Helper()
	pkt := tcp(src, dst, flags)
	v := w.in(from, mac(9), pkt)
	if v.Action == nat.Drop {
		return v.Reason.String()
	}
	var p ip.Packet
	if err := p.Decode(pkt); err != nil || !p.ChecksumOK() {
		w.t.Fatalf("%v, or a wrong checksum", err)
	}
	return fmt.Sprint(p.Src, " ", p.Dst)
}

func TestTransparentProxy(t *testing.T) {
	cfg := Config{NAT: natConfig(), Redirect: []uint16{80, 443}, RedirectTo: 3129}
	// Nothing gets out but what the router itself sends.
	cfg.NAT.Rules = []nat.Rule{{Action: nat.Discard, From: 1 << nat.Inside, To: 1 << nat.Outside}}
	w := newWorld(t, cfg)
	for _, c := range []struct {
		from     nat.Side
		src, dst string
		flags    uint8
		want     string
	}{
		{nat.Inside, "192.168.1.50:4000", "203.0.113.9:80", ip.SYN, "192.168.1.50:4000 192.168.1.1:3129"},
		{nat.Local, "192.168.1.1:3129", "192.168.1.50:4000", ip.SYN | ip.ACK, "203.0.113.9:80 192.168.1.50:4000"},
		{nat.Inside, "192.168.1.50:4000", "203.0.113.9:80", ip.ACK, "192.168.1.50:4000 192.168.1.1:3129"},
		{nat.Inside, "192.168.1.50:4000", "203.0.113.9:443", ip.SYN, "192.168.1.50:1024 192.168.1.1:3129"},
		{nat.Inside, "192.168.1.50:4001", "203.0.113.9:22", ip.SYN, "rule"},
		{nat.Inside, "192.168.1.50:4002", "192.168.1.1:80", ip.SYN, "192.168.1.50:4002 192.168.1.1:80"},
		{nat.Inside, "192.168.1.50:4003", "198.51.100.1:80", ip.SYN, "no hairpinning"}, // its own address is not redirected
		{nat.Local, "198.51.100.1:5000", "203.0.113.9:80", ip.SYN, "198.51.100.1:5000 203.0.113.9:80"},
		{nat.Outside, "203.0.113.9:80", "198.51.100.1:5000", ip.SYN | ip.ACK, "203.0.113.9:80 198.51.100.1:5000"},
	} {
		if got := w.tcp(c.from, c.src, c.dst, c.flags); got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.src, c.dst, got, c.want)
		}
	}
	client, remote, ok := w.r.Intended(w.now, netip.MustParseAddrPort("192.168.1.50:1024"))
	if !ok || client.String() != "192.168.1.50:4000" || remote.String() != "203.0.113.9:443" {
		t.Errorf("intended: %v to %v", client, remote)
	}
	w.r.Reset(w.now)
	if _, _, ok := w.r.Intended(w.now, netip.MustParseAddrPort("192.168.1.50:1024")); ok {
		t.Error("intended before the reboot")
	}
	cfg.NAT.Inside = []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}
	if _, err := New(epoch, cfg); err == nil {
		t.Error("made without an address inside")
	}
}
