package server

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/bodkin-net/bodkin/internal/identity"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	goleak.VerifyTestMain(m)
}

// seed makes the same key every time.
func seed(n byte) identity.Key { return identity.FromSeed([32]byte{n}) }

// open opens a loopback socket of each kind.
func open(t testing.TB, host string) Config {
	t.Helper()
	pc, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	return Config{Key: seed(1), Packet: []net.PacketConn{pc}, Listeners: []net.Listener{l}}
}

// running is a server that runs until the test ends, or stop is called.
type running struct {
	*Server
	udp, tcp netip.AddrPort
	stop     func()
}

func start(t testing.TB, cfg Config) *running {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Server: s}
	if len(cfg.Packet) > 0 {
		r.udp, _ = addrPort(cfg.Packet[0].LocalAddr())
	}
	if len(cfg.Listeners) > 0 {
		r.tcp, _ = addrPort(cfg.Listeners[0].Addr())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}
