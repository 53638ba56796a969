package netns

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	build "github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// overhear is the next frame that a port of an idle wire gets; nil: none.
func overhear(t *testing.T, w *wire, port string) (next func() []byte) {
	t.Helper()
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fd[0])
		unix.Close(fd[1])
	})
	w.port(port).device.fd = fd[0]
	d := &device{fd: fd[1]}
	return func() []byte {
		w.flush()
		buf := make([]byte, largeBuffer)
		n, ok := d.read(buf)
		if !ok {
			return nil
		}
		return finished(buf[:n])
	}
}

// TestExpired: a router of the internet says that a packet is out of hops as the
// simulator's does, and as RFC 1812 section 4.3.2 wants it.
func TestExpired(t *testing.T) {
	w := idle(t, twoHosts(scenario.Link{}))
	next := overhear(t, w, "a")
	a, b := netip.MustParseAddrPort("203.0.113.1:1000"), netip.MustParseAddrPort("203.0.113.2:2000")
	a6, b6 := netip.MustParseAddrPort("[2001:db8::1]:1000"), netip.MustParseAddrPort("[2001:db8::2]:2000")
	payload := bytes.Repeat([]byte("x"), 1400)
	small := build.AppendUDP(nil, a, b, 1, payload[:16])
	edited := func(pkt []byte, edit func(b []byte)) []byte {
		pkt = bytes.Clone(pkt)
		edit(pkt)
		sumHeaderIPv4(pkt)
		return pkt
	}
	for name, tt := range map[string]struct {
		pkt    []byte
		router netip.Addr // invalid: nobody says anything
	}{
		"small":          {small, routerIPv4},
		"large":          {build.AppendUDP(nil, a, b, 1, payload), routerIPv4},
		"small IPv6":     {build.AppendUDP(nil, a6, b6, 1, payload[:16]), routerIPv6},
		"large IPv6":     {build.AppendUDP(nil, a6, b6, 1, payload), routerIPv6},
		"class":          {edited(small, func(b []byte) { b[1] = 0xb9 }), routerIPv4},
		"first part":     {edited(small, func(b []byte) { binary.BigEndian.PutUint16(b[6:], 0x2000) }), routerIPv4},
		"another part":   {edited(small, func(b []byte) { binary.BigEndian.PutUint16(b[6:], 100) }), netip.Addr{}},
		"ping":           {build.AppendEcho(nil, a.Addr(), b.Addr(), 1, build.EchoRequest, 1, 1, payload), routerIPv4},
		"answer":         {build.AppendEcho(nil, a.Addr(), b.Addr(), 1, build.EchoReply, 1, 1, payload), routerIPv4},
		"error":          {edited(build.AppendError(nil, a.Addr(), build.PortUnreachable, build.AppendUDP(nil, b, a, 9, nil)), func(b []byte) { b[8] = 1 }), netip.Addr{}},
		"from all hosts": {edited(small, func(b []byte) { copy(b[12:], []byte{224, 0, 0, 1}) }), netip.Addr{}},
	} {
		w.receive(w.port("a").device, w.now(), frame(w, "a", tt.pkt))
		w.deliver(w.now())
		var want []byte
		if tt.router.IsValid() {
			want = build.AppendError(nil, tt.router, build.TimeExceeded, tt.pkt)
		}
		if got := next(); !bytes.Equal(got, want) {
			t.Errorf("%s:\n%x, want\n%x", name, got, want)
		}
	}
}
