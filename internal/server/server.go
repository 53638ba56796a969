package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// Server is the running rendezvous and relay server.
type Server struct {
	cfg     Config
	limits  Limits
	log     *slog.Logger
	sockets []socket
	routes  routes // guarded by mu
	state   *stateFile

	admission *admission
	pairing   pairing
	count     counters
	outboxes  sync.Pool // for goroutines that send now and then
	rearm     chan struct{}
	running   sync.WaitGroup

	mu       sync.Mutex
	machine  *rendezvous.Server
	jobs     []job
	newJob   sync.Cond // of mu
	conns    map[uint64]*conn
	lastConn uint64
	wake     time.Time // when the timer goroutine will look at the machine; zero: never
	closed   bool
}

// New makes a server of open sockets, and opens and locks the restart file.
// After an error the sockets are still the caller's. A server that is not going
// to Run must be closed.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg:       cfg,
		limits:    cfg.Limits.withDefaults(),
		log:       cfg.Log,
		admission: newAdmission(cfg.Limits.withDefaults()),
		rearm:     make(chan struct{}, 1),
		conns:     make(map[uint64]*conn),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, pc := range cfg.Packet {
		sock, err := newSocket(pc)
		if err != nil {
			return nil, fmt.Errorf("server: %v: %w", pc.LocalAddr(), err)
		}
		s.sockets = append(s.sockets, sock)
	}
	s.newJob.L = &s.mu
	s.routes = newRoutes(cfg.Packet)
	s.outboxes.New = func() any { return newOutbox(s.sockets) }
	mc := cfg.Rendezvous
	mc.Key = cfg.Key
	rand.Read(mc.Secret[:])
	s.machine = rendezvous.NewServer(mc)
	if cfg.StateFile != "" {
		f, err := openState(cfg.StateFile, cfg.Key.ID(), s.log)
		if err != nil {
			return nil, fmt.Errorf("server: restart file: %w", err)
		}
		s.state = f
	}
	return s, nil
}

// Close ends a server that was never run.
func (s *Server) Close() error {
	s.closeSockets()
	return s.state.close()
}

// Run serves until ctx is done, and then returns nil, or until a socket breaks.
// Everything that New was given is closed, and every goroutine gone, when it returns.
func (s *Server) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	spawn := func(what string, f func(context.Context) error) {
		s.running.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				fail(fmt.Errorf("server: %s: %w", what, err))
			}
		})
	}
	for i := range s.sockets {
		spawn("udp", func(context.Context) error { return s.serveUDP(i) })
	}
	for _, l := range s.cfg.Listeners {
		spawn("tcp", func(ctx context.Context) error { return s.accept(ctx, l) })
	}
	spawn("timers", s.runTimers)
	for range s.limits.KeyWorkers {
		s.running.Go(s.agree)
	}
	if s.state != nil {
		spawn("restart file", s.runState)
	}
	s.log.Info("serving", "id", s.cfg.Key.ID(), "udp", len(s.sockets), "tcp", len(s.cfg.Listeners))

	<-ctx.Done()
	s.closeSockets()
	s.mu.Lock()
	s.closed = true
	for _, c := range s.conns {
		c.nc.Close()
	}
	s.newJob.Broadcast()
	s.mu.Unlock()
	s.running.Wait()
	err := s.state.close()
	if cause := context.Cause(ctx); !errors.Is(cause, ctx.Err()) {
		return cause
	}
	return err
}

func (s *Server) closeSockets() {
	for _, pc := range s.cfg.Packet {
		pc.Close()
	}
	for _, l := range s.cfg.Listeners {
		l.Close()
	}
}

// handle gives the machine one message and collects what it wants sent. sock is
// the UDP socket that the message came in by, -1 for TCP. s.mu is held.
func (s *Server) handle(now time.Time, o *outbox, from rendezvous.Addr, sock int, b []byte) {
	s.machine.HandlePacket(now, from, b)
	for a, ok := s.machine.PollAgreement(); ok; a, ok = s.machine.PollAgreement() {
		s.jobs = append(s.jobs, job{a, from.Endpoint, sock})
		s.newJob.Signal()
	}
	s.drain(o, from.Endpoint, sock)
}

// drain collects what the machine wants sent and remembered. An answer to from
// leaves by the socket sock, where its NAT expects it. s.mu is held.
func (s *Server) drain(o *outbox, from netip.AddrPort, sock int) {
	for slot, ok := s.machine.PollSlot(); ok; slot, ok = s.machine.PollSlot() {
		by := s.routes.slot(slot, from, sock)
		s.state.put(slot, by)
	}
	for out, ok := s.machine.Poll(); ok; out, ok = s.machine.Poll() {
		if out.To.Conn != 0 {
			s.sendStream(out.To.Conn, out.Data)
			continue
		}
		by := sock
		if sock < 0 || out.To.Endpoint != from {
			by = s.routes.to(out.To.Endpoint)
		}
		if by >= 0 {
			o.addCopy(by, out.To.Endpoint, out.Data)
		}
	}
}

// sendStream sends a message to a TCP connection. s.mu is held.
func (s *Server) sendStream(id uint64, b []byte) {
	c := s.conns[id]
	if c == nil {
		return
	}
	if t, _, ok := wire.Header(b); ok && t == wire.TypeRegistered {
		s.prove(c)
	}
	c.send(b)
}

// armTimer sees to it that the machine's next timeout is met. s.mu is held.
func (s *Server) armTimer() {
	at, ok := s.machine.NextTimeout()
	if !ok || (!s.wake.IsZero() && !at.Before(s.wake)) {
		return
	}
	s.wake = at
	select {
	case s.rearm <- struct{}{}:
	default:
	}
}

const (
	timerSteps = 16 // of the machine's, in a row under the lock
	timerPause = time.Millisecond
)

func (s *Server) runTimers(ctx context.Context) error {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-s.rearm:
		}
		o := s.outboxes.Get().(*outbox)
		now := time.Now()
		s.mu.Lock()
		at, ok := s.machine.NextTimeout()
		for range timerSteps {
			if !ok || at.After(now) {
				break
			}
			s.machine.HandleTimeout(now)
			s.drain(o, netip.AddrPort{}, -1)
			at, ok = s.machine.NextTimeout()
		}
		s.wake = at
		if !ok {
			s.wake = time.Time{}
		}
		s.mu.Unlock()
		s.flush(o)
		s.outboxes.Put(o)
		if ok {
			t.Reset(max(at.Sub(now), timerPause))
		}
	}
}

func (s *Server) flush(o *outbox) {
	if n := o.flush(); n > 0 {
		s.count.packetsOut.Add(uint64(n))
	}
}
