package server

import (
	"errors"
	"log/slog"
	"net"
	"runtime"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
)

// Config configures a Server. Key and at least one socket are required.
type Config struct {
	Key identity.Key

	// Packet are the UDP sockets: *net.UDPConn, the fast path, or anything else
	// with IP endpoints. Listeners must not be MPTCP (net.ListenConfig's
	// SetMultipathTCP(false)), which the kernel cannot splice. A Server that
	// runs closes all of them at the end.
	Packet    []net.PacketConn
	Listeners []net.Listener

	// StateFile remembers where peers are registered, so that a restarted
	// server can ask them to register again. Empty: none.
	StateFile string

	Log *slog.Logger // nil: silence

	Limits Limits
	// Rendezvous sets the machine's limits; its Key and Secret are ignored.
	Rendezvous rendezvous.ServerConfig
}

// Limits of the shell. Zero fields have the defaults of withDefaults.
type Limits struct {
	// KeyWorkers is how many processors first registrations may keep busy.
	KeyWorkers int

	// Of the TCP side.
	Conns              int // TCP connections in all
	ConnsPerAddress    int // from one address (IPv6: one /64)
	HalfOpen           int // of them, those that have proved nothing yet
	HalfOpenPerAddress int

	FirstByte  time.Duration // from the connection to its first byte
	Proof      time.Duration // from the connection to its proof; also for one message
	Idle       time.Duration // of a proved connection, without a message
	RelayWait  time.Duration // for the other side of a stream relay
	RelayIdle  time.Duration // of a stream relay, without a byte either way
	WriteStall time.Duration // of a connection that does not read its messages
	WriteQueue int           // bytes that wait for it or are being written
}

func (l Limits) withDefaults() Limits {
	ints := []struct {
		p *int
		d int
	}{
		{&l.KeyWorkers, max(runtime.GOMAXPROCS(0)/2, 1)},
		{&l.Conns, 1 << 18},
		{&l.ConnsPerAddress, 4096},
		{&l.HalfOpen, 4096},
		{&l.HalfOpenPerAddress, 128},
		{&l.WriteQueue, 64 << 10},
	}
	for _, i := range ints {
		if *i.p <= 0 {
			*i.p = i.d
		}
	}
	durations := []struct {
		p *time.Duration
		d time.Duration
	}{
		{&l.FirstByte, 5 * time.Second},
		{&l.Proof, 10 * time.Second},
		{&l.Idle, 2 * time.Minute},
		{&l.RelayWait, 15 * time.Second},
		{&l.RelayIdle, 2 * time.Minute},
		{&l.WriteStall, 10 * time.Second},
	}
	for _, d := range durations {
		if *d.p <= 0 {
			*d.p = d.d
		}
	}
	return l
}

func (c Config) check() error {
	switch {
	case !c.Key.Valid():
		return errors.New("server: no key")
	case len(c.Packet)+len(c.Listeners) == 0:
		return errors.New("server: no socket to serve on")
	case len(c.Packet) > 1<<8:
		return errors.New("server: more than 256 UDP sockets")
	}
	return nil
}
