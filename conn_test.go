package bodkin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/sim"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// TestNetConn holds the public connection against net's own rules, in real
// time: over the relay alone, over the direct path, and over the stream relay.
func TestNetConn(t *testing.T) {
	for name, top := range map[string]scenario.Topology{
		"direct":       lan(scenario.OneHome(scenario.PortRestricted)),
		"packet relay": lan(scenario.TwoHomes(scenario.Symmetric, scenario.Symmetric)),
		"stream relay": lan(scenario.TwoHomes(blocked, blocked)),
	} {
		t.Run(name, func(t *testing.T) {
			n, err := sim.New(top, sim.Options{Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			w := &world{t: t, net: n, key: testKey("server")}
			w.serve()
			defer w.stop()
			a, b := w.node("a"), w.node("b")
			defer a.Close()
			defer b.Close()
			ready(t, a, b)
			l, err := b.Listen()
			if err != nil {
				t.Fatal(err)
			}
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				accepted := make(chan net.Conn, 1)
				go func() {
					c, err := l.Accept()
					if err != nil {
						t.Error(err)
					}
					accepted <- c
				}()
				c1, err = a.Dial(context.Background(), b.ID())
				if err != nil {
					return nil, nil, nil, err
				}
				c2 = <-accepted
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

var blocked = func() (b nat.Behaviour) { b = scenario.PortRestricted; b.BlockUDP = true; return b }()

// lan takes the delays out of a topology: nettest counts in real time.
func lan(t scenario.Topology) scenario.Topology {
	for i := range t.Hosts {
		t.Hosts[i].Port.Link = scenario.Link{}
	}
	for i := range t.Gateways {
		t.Gateways[i].Inside.Link, t.Gateways[i].Outside.Link = scenario.Link{}, scenario.Link{}
	}
	return t
}

// pair is two connected nodes behind port-restricted NATs, in virtual time.
func pair(t *testing.T, top scenario.Topology, change func(*bodkin.Config), f func(t *testing.T, w *world, ca, cb *bodkin.Conn)) {
	t.Helper()
	virtual(t, top, 1, func(t *testing.T, w *world) {
		var changes []func(*bodkin.Config)
		if change != nil {
			changes = append(changes, change)
		}
		a, b := w.node("a", changes...), w.node("b")
		defer a.Close()
		defer b.Close()
		ready(t, a, b)
		ca, cb := connect(t, a, b)
		f(t, w, ca, cb)
	})
}

var twoHomes = scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted)

func TestHalfClose(t *testing.T) {
	pair(t, twoHomes, nil, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
		if _, err := ca.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		if err := ca.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(cb); err != nil || string(got) != "question" {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := ca.Write([]byte("more")); err == nil {
			t.Error("write after CloseWrite")
		}
		exchange(t, cb, ca, 1000)
		if err := cb.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := ca.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%d, %v; want EOF", n, err)
		}
		if err := cb.Flush(context.Background()); err != nil {
			t.Errorf("flush: %v", err)
		}
	})
}

// What was written before Close reaches the peer, and so does the end.
func TestCloseDelivers(t *testing.T) {
	virtual(t, twoHomes, 1, func(t *testing.T, w *world) {
		a, b := w.node("a"), w.node("b")
		defer b.Close()
		ready(t, a, b)
		ca, cb := connect(t, a, b)
		data := randomBytes(3, 300_000)
		if _, err := ca.Write(data); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- receiveAll(cb, data) }()
		if err := ca.Close(); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A peer that does not read stops the writer, at bounded memory.
func TestBackPressure(t *testing.T) {
	pair(t, twoHomes, nil, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
		ca.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := ca.Write(make([]byte, 64<<20))
		if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
			t.Fatalf("%d, %v", n, err)
		}
		if n > 17<<20 {
			t.Errorf("%d bytes were taken that nobody reads", n)
		}
		go io.Copy(io.Discard, cb)
		ca.SetWriteDeadline(time.Time{})
		if _, err := ca.Write(make([]byte, 1<<20)); err != nil {
			t.Errorf("after the peer began to read: %v", err)
		}
	})
}

func TestManyStreams(t *testing.T) {
	virtual(t, twoHomes, 1, func(t *testing.T, w *world) {
		a, b := w.node("a"), w.node("b")
		defer a.Close()
		defer b.Close()
		ready(t, a, b)
		l, err := b.Listen()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.AcceptConn(context.Background())
				if err != nil {
					return
				}
				go func() {
					io.Copy(c, c)
					c.Close()
				}()
			}
		}()
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				c, err := a.Dial(context.Background(), b.ID())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				data := randomBytes(uint64(i), 20_000)
				go func() {
					c.Write(data)
					c.CloseWrite()
				}()
				if err := receiveAll(c, data); err != nil {
					t.Errorf("stream %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		l.Close()
	})
}

func TestRelayOnly(t *testing.T) {
	pair(t, twoHomes, func(c *bodkin.Config) { c.RelayOnly = true }, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
		exchange(t, ca, cb, 100_000)
		time.Sleep(30 * time.Second)
		if p := ca.Path(); p.Kind != bodkin.Relay {
			t.Errorf("path %v", p)
		}
		for _, c := range []sim.Count{w.net.Counters("", scenario.GatewayAAddr, scenario.GatewayBAddr),
			w.net.Counters(scenario.Internet, scenario.GatewayAAddr, scenario.GatewayBAddr),
			w.net.Counters(scenario.Internet, scenario.GatewayBAddr, scenario.GatewayAAddr)} {
			if c.Packets > 0 {
				t.Errorf("%d packets went from peer to peer", c.Packets)
			}
		}
	})
}

func TestDirectOnly(t *testing.T) {
	pair(t, twoHomes, func(c *bodkin.Config) { c.DirectOnly = true }, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
		if p := ca.Path(); p.Kind != bodkin.Direct {
			t.Errorf("path %v", p)
		}
		exchange(t, ca, cb, 100_000)
		if c := w.net.Counters(scenario.Internet, scenario.GatewayAAddr, scenario.ServerAddr); c.Bytes > 20_000 {
			t.Errorf("%d bytes went to the server", c.Bytes)
		}
	})
}

// dialError dials b from a and returns the error and how long it took.
func dialError(t *testing.T, top scenario.Topology, change func(*bodkin.Config), prepare func(w *world, b *peer)) (took time.Duration, err error) {
	t.Helper()
	virtual(t, top, 1, func(t *testing.T, w *world) {
		b := w.node("b")
		defer b.Close()
		ready(t, b)
		if prepare != nil {
			prepare(w, b)
		}
		a := w.node("a", func(c *bodkin.Config) {
			if change != nil {
				change(c)
			}
		})
		defer a.Close()
		start := time.Now()
		c, e := a.Dial(context.Background(), b.ID())
		if e == nil {
			t.Errorf("connected: %v", c.Path())
			c.Close()
		}
		err, took = e, time.Since(start)
	})
	return took, err
}

func TestDialErrors(t *testing.T) {
	listen := func(allow ...bodkin.ID) func(*world, *peer) {
		return func(_ *world, b *peer) { b.Listen(allow...) }
	}
	for _, c := range []struct {
		name    string
		top     scenario.Topology
		change  func(*bodkin.Config)
		prepare func(*world, *peer)
		want    bodkin.Code
		within  time.Duration
	}{
		{"nobody listens", twoHomes, nil, nil, bodkin.PeerNotFound, 3 * time.Second},
		{"not allowed", twoHomes, nil, listen(testKey("somebody").ID()), bodkin.PeerRefused, 2 * time.Second},
		{"no direct path", scenario.TwoHomes(scenario.Symmetric, scenario.Symmetric), func(c *bodkin.Config) { c.DirectOnly = true }, listen(), bodkin.NoDirectPath, 15 * time.Second},
		{"wrong server", twoHomes, func(c *bodkin.Config) { c.Server = testKey("other").ID().String() + "@198.51.100.1" }, listen(), bodkin.WrongServer, 3 * time.Second},
		{"silent server", twoHomes, func(c *bodkin.Config) { c.Server = "198.51.100.77" }, listen(), bodkin.ServerUnreachable, 11 * time.Second},
		{"unknown host", twoHomes, func(c *bodkin.Config) { c.Server = "nowhere.invalid" }, listen(), bodkin.ServerUnreachable, 11 * time.Second},
		{"peer silent", twoHomes, nil, func(w *world, b *peer) {
			b.Listen()
			time.Sleep(time.Second)
			w.net.Cut(sim.Rule{A: scenario.GatewayBAddr})
		}, bodkin.NoAnswer, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			took, err := dialError(t, c.top, c.change, c.prepare)
			if !errors.Is(err, c.want) {
				t.Errorf("%v; want %s", err, c.want)
			}
			if took > c.within {
				t.Errorf("after %v; want within %v", took, c.within)
			}
			t.Logf("after %v: %v", took, err)
		})
	}
}

// The server dies after the direct path stands: data goes on. It comes back:
// peers register again in 5 s, and the relay is there to fall back on again.
func TestServerDiesAndComesBack(t *testing.T) {
	pair(t, twoHomes, nil, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
		waitPath(t, ca, bodkin.Direct)
		w.stop()
		exchange(t, ca, cb, 200_000)
		time.Sleep(40 * time.Second)
		exchange(t, cb, ca, 200_000)
		w.serve()
		time.Sleep(40 * time.Second)
		restore := w.net.Cut(sim.Rule{A: scenario.GatewayAAddr, B: scenario.GatewayBAddr})
		defer restore()
		exchange(t, ca, cb, 200_000)
		if p := ca.Path(); p.Kind != bodkin.Relay {
			t.Errorf("path %v after the direct one was cut", p)
		}
	})
}

// The peer vanishes without a word.
func TestPeerLost(t *testing.T) {
	for name, busy := range map[string]bool{"idle": false, "sending": true} {
		for _, relay := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				pair(t, twoHomes, func(c *bodkin.Config) { c.RelayOnly = relay }, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
					if !relay {
						waitPath(t, ca, bodkin.Direct)
					}
					time.Sleep(20 * time.Second)
					w.net.Cut(sim.Rule{A: scenario.GatewayBAddr})
					start := time.Now()
					if busy {
						go ca.Write(make([]byte, 1<<20))
					}
					_, err := ca.Read(make([]byte, 1))
					if took := time.Since(start); !errors.Is(err, bodkin.PeerLost) || took > 10*time.Second {
						t.Errorf("after %v: %v", took, err)
					} else {
						t.Logf("after %v: %v", took, err)
					}
					synctest.Wait()
				})
			})
		}
	}
}

// A NAT that forgets its mappings costs the direct path, not the connection.
func TestGatewayReboots(t *testing.T) {
	pair(t, twoHomes, nil, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
		waitPath(t, ca, bodkin.Direct)
		if err := w.net.RebootGateway("ga"); err != nil {
			t.Fatal(err)
		}
		exchange(t, cb, ca, 100_000)
		exchange(t, ca, cb, 100_000)
		time.Sleep(time.Minute)
		if p := ca.Path(); p.Kind != bodkin.Direct {
			t.Errorf("path %v a minute later", p)
		}
	})
}

// Closing a node takes a round trip or two, whichever end does it and whatever
// the other end is doing.
func TestCloseIsQuick(t *testing.T) {
	for name, first := range map[string]int{"dialler first": 0, "listener first": 1} {
		for _, eof := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, eof=%v", name, eof), func(t *testing.T) {
				virtual(t, twoHomes, 1, func(t *testing.T, w *world) {
					nodes := []*peer{w.node("a"), w.node("b")}
					ready(t, nodes...)
					ca, cb := connect(t, nodes[0], nodes[1])
					waitPath(t, ca, bodkin.Direct)
					exchange(t, ca, cb, 10_000)
					if eof {
						ca.CloseWrite()
						cb.CloseWrite()
						io.ReadAll(ca)
						io.ReadAll(cb)
					}
					start := time.Now()
					nodes[first].Close()
					one := time.Since(start)
					nodes[1-first].Close()
					t.Logf("closed after %v and %v", one, time.Since(start))
					if limit := 4 * oneWay; one > limit || time.Since(start) > 2*limit {
						t.Errorf("closed after %v and %v, want %v", one, time.Since(start), limit)
					}
				})
			})
		}
	}
}
