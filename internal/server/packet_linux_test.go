package server

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"
)

// A message that the kernel refuses takes nothing with it, not even when it
// was a segmented one.
func TestRefusedDatagramsAreSkipped(t *testing.T) {
	sender := open(t, "127.0.0.1").Packet[0].(*net.UDPConn)
	defer sender.Close()
	receiver := open(t, "127.0.0.1").Packet[0].(*net.UDPConn)
	defer receiver.Close()
	s, err := newSocket(sender)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := addrPort(receiver.LocalAddr())
	bad := netip.MustParseAddrPort("[2001:db8::1]:1") // on an IPv4 socket
	var out []datagram
	for i := range 300 {
		to := good
		if i%10 < 4 {
			to = bad
		}
		out = append(out, datagram{to, bytes.Repeat([]byte{byte(i)}, 100+i%3)})
	}
	if n := s.writer().write(out); n != 180 {
		t.Errorf("%d datagrams sent, want 180", n)
	}
	receiver.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 2000)
	for i, d := range out {
		if d.addr == bad {
			continue
		}
		n, err := receiver.Read(buf)
		if err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
		if !bytes.Equal(buf[:n], d.b) {
			t.Fatalf("datagram %d: %d bytes of %d", i, n, buf[0])
		}
	}
}

func TestRunLength(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2")
	run := func(to netip.AddrPort, sizes ...int) (out []datagram) {
		for _, n := range sizes {
			out = append(out, datagram{to, make([]byte, n)})
		}
		return out
	}
	for i, c := range []struct {
		out  []datagram
		want int
	}{
		{run(a, 100), 1},
		{run(a, 100, 100, 100), 3},
		{run(a, 100, 100, 50, 50), 3},
		{run(a, 100, 101), 1},
		{append(run(a, 100), run(b, 100)...), 1},
		{run(a, 0, 0), 1},
		{run(a, 100, 0), 1},
		{run(a, 30000, 30000, 30000), 2},
		{run(a, repeated(100, 200)...), maxSegments},
	} {
		if got := runLength(c.out); got != c.want {
			t.Errorf("case %d: %d, want %d", i, got, c.want)
		}
	}
}

func repeated(size, n int) (out []int) {
	for range n {
		out = append(out, size)
	}
	return out
}
