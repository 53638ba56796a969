package bodkin_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/sim"
	"github.com/bodkin-net/bodkin/internal/server"
)

// world is a scenario in virtual time with a server on host s. Only inside a
// synctest bubble.
type world struct {
	t      testing.TB
	net    *sim.Network
	server string // the server string
	key    identity.Key
	stop   func()
}

// virtual runs f in a bubble of virtual time with the topology built in it.
func virtual(t *testing.T, top scenario.Topology, seed uint64, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n, err := sim.New(top, sim.Options{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}()
		w := &world{t: t, net: n, key: testKey("server")}
		w.serve()
		defer func() { w.stop() }()
		f(t, w)
	})
}

func testKey(name string) identity.Key {
	var seed [32]byte
	copy(seed[:], name)
	return identity.FromSeed(seed)
}

// serve starts the server; stop ends it.
func (w *world) serve() {
	w.t.Helper()
	host := w.net.Host("s")
	pc, err := host.ListenUDP(3478)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := host.ListenTCP(3478)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := server.Config{Key: w.key, Packet: []net.PacketConn{pc}, Listeners: []net.Listener{l}, Log: testLog("s")}
	s, err := server.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("server: %v", err)
		}
	})
	w.server = fmt.Sprintf("%v@%v", w.key.ID(), scenario.ServerAddr)
}

// testLog shows a node's log when BODKIN_TEST_LOG is set.
func testLog(name string) *slog.Logger {
	if os.Getenv("BODKIN_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}

// peer is a node on a host of the world, and what it told.
type peer struct {
	*bodkin.Node
	events chan bodkin.Event
}

// node starts a node on the host of the same name.
func (w *world) node(name string, change ...func(*bodkin.Config)) *peer {
	w.t.Helper()
	p := &peer{events: make(chan bodkin.Event, 1000)}
	cfg := bodkin.Config{Key: testKey(name), Server: w.server, Network: w.net.Host(name), Log: testLog(name),
		Observe: func(e bodkin.Event) {
			if l := testLog(name); l != nil {
				l.Info("event", "event", fmt.Sprintf("%+v", e))
			}
			select {
			case p.events <- e:
			default:
			}
		}}
	for _, f := range change {
		f(&cfg)
	}
	n, err := bodkin.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	p.Node = n
	return p
}

// ready waits until the nodes are registered.
func ready(t testing.TB, peers ...*peer) {
	t.Helper()
	for _, p := range peers {
		if err := p.Ready(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// connect dials from a to b and accepts there.
func connect(t testing.TB, a, b *peer) (ca, cb *bodkin.Conn) {
	t.Helper()
	l, err := b.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ready(t, b)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	accepted := make(chan *bodkin.Conn, 1)
	go func() {
		c, err := l.AcceptConn(ctx)
		if err != nil {
			t.Errorf("accept: %v", err)
		}
		accepted <- c
	}()
	ca, err = a.Dial(ctx, b.ID())
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	cb = <-accepted
	if cb == nil {
		t.FailNow()
	}
	return ca, cb
}

// exampleWorldT is a small world in real time for the examples.
type exampleWorldT struct {
	*sim.Network
	Server string
	stop   func()
}

func exampleWorld() *exampleWorldT {
	n, err := sim.New(scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted), sim.Options{Seed: 1})
	if err != nil {
		panic(err)
	}
	w := &world{t: panicTB{}, net: n, key: testKey("server")}
	w.serve()
	return &exampleWorldT{n, w.server, w.stop}
}

func (w *exampleWorldT) Close() {
	w.stop()
	w.Network.Close()
}

// panicTB is for helpers that run outside of a test.
type panicTB struct{ testing.TB }

func (panicTB) Helper()                      {}
func (panicTB) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (panicTB) Errorf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }
