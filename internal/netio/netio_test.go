//go:build unix

package netio

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/ipv4"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type packet struct {
	from netip.AddrPort
	data []byte
}

// collector is a Handler that keeps what it gets.
type collector chan packet

func (c collector) HandlePacket(from netip.AddrPort, b []byte) {
	c <- packet{from, bytes.Clone(b)}
}

func loopback(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadBuffer(1 << 20); err != nil { // for all that a test sends before it reads
		t.Fatal(err)
	}
	return c
}

func addrOf(c net.PacketConn) netip.AddrPort {
	return unmap(c.LocalAddr().(*net.UDPAddr).AddrPort())
}

// noUDP hides that a connection is a *net.UDPConn.
type noUDP struct{ net.PacketConn }

type readFunc func(t *testing.T, s *Socket) []packet

func readFrom(t *testing.T, s *Socket) []packet {
	b := make([]byte, 2000)
	n, from, err := s.QUIC().ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	ap, _ := addrPort(from)
	return []packet{{ap, b[:n]}}
}

func readMsg(t *testing.T, s *Socket) []packet {
	b := make([]byte, 2000)
	n, _, _, from, err := s.QUIC().(*udpConn).ReadMsgUDP(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return []packet{{unmap(from.AddrPort()), b[:n]}}
}

func readBatch(t *testing.T, s *Socket) []packet {
	ms := make([]ipv4.Message, 8)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, 2000)}
	}
	n, err := s.QUIC().(interface {
		ReadBatch([]ipv4.Message, int) (int, error)
	}).ReadBatch(ms, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ps []packet
	for _, m := range ms[:n] {
		if m.N > 0 {
			ap, _ := addrPort(m.Addr)
			ps = append(ps, packet{ap, m.Buffers[0][:m.N]})
		}
	}
	return ps
}

func TestSocketDemultiplexes(t *testing.T) {
	for _, tt := range []struct {
		name string
		hide bool
		read readFunc
	}{
		{"batch", false, readBatch}, {"message", false, readMsg},
		{"packet", false, readFrom}, {"other connection", true, readFrom},
	} {
		t.Run(tt.name, func(t *testing.T) {
			us, them := loopback(t), loopback(t)
			got := make(collector, 300)
			var pc net.PacketConn = us
			if tt.hide {
				pc = noUDP{us}
			}
			s := NewSocket(pc, got)
			relayed := s.AddRelay([8]byte{7}, addrOf(them))

			var wantHandler, wantQUIC []byte
			for first := range 256 {
				b := append([]byte{byte(first), 1, 7, 0, 0, 0, 0, 0, 0, 0}, "payload"...)
				if _, err := them.WriteTo(b, us.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				switch {
				case first <= 4:
					wantHandler = append(wantHandler, byte(first))
				case first >= 0x40:
					wantQUIC = append(wantQUIC, byte(first))
				}
			}
			if _, err := them.WriteTo(nil, us.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			if _, err := them.WriteTo([]byte{0xff, 1}, us.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			wantQUIC = append(wantQUIC, 0xff)

			var quic []byte
			for len(quic) < len(wantQUIC) {
				for _, p := range tt.read(t, s) {
					if p.from != addrOf(them) {
						t.Fatalf("from %v", p.from)
					}
					quic = append(quic, p.data[0])
				}
			}
			if !bytes.Equal(quic, wantQUIC) {
				t.Errorf("QUIC got % x", quic)
			}
			var handler []byte
			for len(handler) < len(wantHandler) {
				p := <-got
				if p.from != addrOf(them) || len(p.data) != 17 {
					t.Fatalf("handler got %v", p)
				}
				handler = append(handler, p.data[0])
			}
			if !bytes.Equal(handler, wantHandler) || len(got) > 0 {
				t.Errorf("handler got % x and %d more", handler, len(got))
			}
			b := make([]byte, 100)
			n, from, err := s.Relay().ReadFrom(b)
			if err != nil || string(b[:n]) != "payload" || from != relayed {
				t.Errorf("relay got %q from %v, %v", b[:n], from, err)
			}
			// 0x06-0x3f, and the empty one.
			if want := uint64(0x40 - 6 + 1); s.Dropped() != want {
				t.Errorf("dropped %d, want %d", s.Dropped(), want)
			}
		})
	}
}

func TestSocketSends(t *testing.T) {
	for _, hide := range []bool{false, true} {
		us, them := loopback(t), loopback(t)
		var pc net.PacketConn = us
		if hide {
			pc = noUDP{us}
		}
		s := NewSocket(pc, make(collector))
		mapped := netip.AddrPortFrom(netip.AddrFrom16(addrOf(them).Addr().As16()), addrOf(them).Port())
		for _, send := range []func() error{
			func() error { return s.Send(addrOf(them), []byte("hello")) },
			func() error { return s.Send(mapped, []byte("hello")) },
			func() error { _, err := s.QUIC().WriteTo([]byte("hello"), them.LocalAddr()); return err },
		} {
			if err := send(); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			n, from, err := them.ReadFromUDPAddrPort(b)
			if err != nil || string(b[:n]) != "hello" || from != addrOf(us) {
				t.Errorf("got %q from %v, %v", b[:n], from, err)
			}
		}
	}
}

// failing is a connection that cannot send.
type failing struct {
	net.PacketConn
	err error
}

func (f failing) WriteTo([]byte, net.Addr) (int, error) {
	return 0, &net.OpError{Op: "write", Err: os.NewSyscallError("sendto", f.err)}
}

func TestNoRouteIsLoss(t *testing.T) {
	server := netip.MustParseAddrPort("192.0.2.1:3478")
	for err, lost := range map[error]bool{
		syscall.ENETUNREACH: true, syscall.EHOSTUNREACH: true, syscall.ENETDOWN: true,
		syscall.ECONNREFUSED: true, syscall.EADDRNOTAVAIL: true,
		syscall.EMSGSIZE: false, syscall.EIO: false, net.ErrClosed: false,
	} {
		s := NewSocket(failing{loopback(t), err}, make(collector))
		relayed := s.AddRelay([8]byte{1}, server)
		for conn, to := range map[net.PacketConn]net.Addr{s.QUIC(): net.UDPAddrFromAddrPort(server), s.Relay(): relayed} {
			switch n, got := conn.WriteTo([]byte("x"), to); {
			case lost && (n != 1 || got != nil):
				t.Errorf("%v: WriteTo returned %d, %v", err, n, got)
			case !lost && !errors.Is(got, err):
				t.Errorf("%v: WriteTo returned %d, %v", err, n, got)
			}
		}
		if got := s.Send(server, []byte("x")); !errors.Is(got, err) {
			t.Errorf("%v: Send returned %v", err, got)
		}
	}
}

func TestSocketShowsIPv4AsIPv4(t *testing.T) {
	pc, err := OS{}.ListenUDP(0)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	them := loopback(t)
	got := make(collector, 1)
	s := NewSocket(pc, got)
	port := pc.LocalAddr().(*net.UDPAddr).Port
	for _, b := range []string{"\x00stun", "\x40quic"} {
		if _, err := them.WriteTo([]byte(b), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}); err != nil {
			t.Fatal(err)
		}
	}
	readFrom(t, s)
	if p := <-got; p.from != addrOf(them) || !p.from.Addr().Is4() {
		t.Errorf("from %v, want %v", p.from, addrOf(them))
	}
}

func TestRelay(t *testing.T) {
	us, server, stranger := loopback(t), loopback(t), loopback(t)
	s := NewSocket(us, make(collector))
	r := s.Relay()
	a := s.AddRelay([8]byte{1}, addrOf(server))
	b := s.AddRelay([8]byte{2}, addrOf(server))

	if n, err := r.WriteTo([]byte("ping"), b); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	buf := make([]byte, 100)
	n, _, err := server.ReadFromUDPAddrPort(buf)
	if want := "\x05\x01\x02\x00\x00\x00\x00\x00\x00\x00ping"; err != nil || string(buf[:n]) != want {
		t.Fatalf("server got %q, %v", buf[:n], err)
	}

	header := func(id byte, rest string) []byte {
		return append([]byte{5, 1, id, 0, 0, 0, 0, 0, 0, 0}, rest...)
	}
	for _, p := range []struct {
		c    *net.UDPConn
		data []byte
	}{
		{stranger, header(1, "injected")},
		{server, header(3, "unknown relay")},
		{server, header(1, "")},
		{server, header(1, "")[:9]},
		{server, append([]byte{5, 2}, header(1, "other version")[2:]...)},
		{server, header(2, "two")},
		{server, header(1, "one")},
		{server, []byte{0x40}},
	} {
		if _, err := p.c.WriteTo(p.data, us.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for len(readBatch(t, s)) == 0 {
	}
	for _, want := range []struct {
		from net.Addr
		data string
	}{{b, "two"}, {a, "one"}} {
		n, from, err := r.ReadFrom(buf)
		if err != nil || from != want.from || string(buf[:n]) != want.data {
			t.Errorf("got %q from %v, %v; want %q", buf[:n], from, err, want.data)
		}
	}
	if s.Dropped() != 5 {
		t.Errorf("dropped %d, want 5", s.Dropped())
	}

	s.RemoveRelay([8]byte{1})
	if n, err := r.WriteTo([]byte("gone"), a); n != 4 || err != nil {
		t.Errorf("to a removed relay: %d, %v", n, err)
	}
	if s.relays.deliver(addrOf(server), header(1, "late")) {
		t.Error("took a packet of a removed relay")
	}
	if _, err := r.WriteTo(make([]byte, 1491), b); !errors.Is(err, errTooLong) {
		t.Errorf("too long: %v", err)
	}
	if _, err := r.WriteTo(nil, us.LocalAddr()); err == nil {
		t.Error("took an address that is no relay's")
	}

	for i := range relayQueueLen + 10 {
		if got, want := s.relays.deliver(addrOf(server), header(2, "flood")), i < relayQueueLen; got != want {
			t.Fatalf("packet %d: taken is %v", i, got)
		}
	}
	r.Close()
	if _, _, err := r.ReadFrom(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestRelayDeadline(t *testing.T) {
	us := loopback(t)
	synctest.Test(t, func(t *testing.T) {
		s := NewSocket(noUDP{us}, make(collector))
		r := s.Relay()
		start := time.Now()
		read := func() time.Duration {
			if _, _, err := r.ReadFrom(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("ReadFrom: %v", err)
			}
			return time.Since(start)
		}
		r.SetReadDeadline(start.Add(time.Second))
		if got := read(); got != time.Second {
			t.Errorf("timed out after %v", got)
		}
		r.SetReadDeadline(start.Add(time.Hour))
		time.AfterFunc(time.Second, func() { r.SetReadDeadline(time.Now()) })
		if got := read(); got != 2*time.Second {
			t.Errorf("woken after %v", got)
		}
		r.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Minute, func() { r.Close() })
		if _, _, err := r.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadFrom: %v", err)
		}
	})
}

func TestDialTCPSharesThePort(t *testing.T) {
	listen := func() (net.Listener, netip.AddrPort) {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return ln, ln.Addr().(*net.TCPAddr).AddrPort()
	}
	_, one := listen()
	_, two := listen()
	c1, err := OS{}.DialTCP(t.Context(), 0, one)
	if err != nil {
		t.Fatal(err)
	}
	defer c1.Close()
	port := uint16(c1.LocalAddr().(*net.TCPAddr).Port)
	c2, err := OS{}.DialTCP(t.Context(), port, two)
	if err != nil {
		t.Fatalf("second connection from port %d: %v", port, err)
	}
	defer c2.Close()
	if got := c2.LocalAddr().(*net.TCPAddr).Port; got != int(port) {
		t.Errorf("second connection comes from port %d, want %d", got, port)
	}
	if mp, err := c2.(*net.TCPConn).MultipathTCP(); mp || err != nil {
		t.Errorf("multipath TCP: %v, %v", mp, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (OS{}).DialTCP(ctx, 0, one); err == nil {
		t.Error("dialed with a dead context")
	}
}

func TestListenUDPTellsThatThePortIsTaken(t *testing.T) {
	pc, err := OS{}.ListenUDP(0)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if second, err := (OS{}).ListenUDP(uint16(pc.LocalAddr().(*net.UDPAddr).Port)); err == nil {
		second.Close()
		t.Error("two sockets on one port")
	}
}

func TestAddrs(t *testing.T) {
	addrs, err := OS{}.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
			t.Errorf("lists %v", a)
		}
	}
	if !slices.IsSortedFunc(addrs, netip.Addr.Compare) {
		t.Errorf("not sorted: %v", addrs)
	}
}

func TestLookupIP(t *testing.T) {
	for _, host := range []string{"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"} {
		got, err := OS{}.LookupIP(t.Context(), host)
		if want := netip.MustParseAddr(host).Unmap(); err != nil || !slices.Equal(got, []netip.Addr{want}) {
			t.Errorf("%s: %v, %v", host, got, err)
		}
	}
}
