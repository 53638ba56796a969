package bodkin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/sim"
)

// A context that ends takes back a Dial at any moment, and leaves nothing.
func TestDialCancelled(t *testing.T) {
	for at := time.Duration(0); at < 400*time.Millisecond; at += 30 * time.Millisecond {
		virtual(t, twoHomes, 1, func(t *testing.T, w *world) {
			a, b := w.node("a"), w.node("b")
			defer a.Close()
			defer b.Close()
			b.Listen()
			ready(t, b)
			ctx, cancel := context.WithTimeout(context.Background(), at)
			defer cancel()
			c, err := a.Dial(ctx, b.ID())
			if err == nil {
				c.Close()
			} else if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("cancelled after %v: %v", at, err)
			}
			c, err = a.Dial(context.Background(), b.ID())
			if err != nil {
				t.Fatalf("the next Dial: %v", err)
			}
			c.Close()
		})
	}
}

// A node that closes ends its Dial and Accept at any moment.
func TestCloseWhileBusy(t *testing.T) {
	for at := time.Duration(0); at < 400*time.Millisecond; at += 30 * time.Millisecond {
		virtual(t, twoHomes, 1, func(t *testing.T, w *world) {
			a, b := w.node("a"), w.node("b")
			l, err := b.Listen()
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 2)
			go func() {
				c, err := a.Dial(context.Background(), b.ID())
				if err == nil {
					_, err = io.ReadAll(c)
				}
				ended <- err
			}()
			go func() {
				for {
					if _, err := l.AcceptConn(context.Background()); err != nil {
						ended <- err
						return
					}
				}
			}()
			time.Sleep(at)
			a.Close()
			b.Close()
			for range 2 {
				if err := <-ended; err == nil {
					t.Errorf("closed after %v: no error", at)
				}
			}
			if _, err := a.Dial(context.Background(), b.ID()); !errors.Is(err, bodkin.Closed) {
				t.Errorf("Dial on a closed node: %v", err)
			}
			if _, err := b.Listen(); !errors.Is(err, bodkin.Closed) {
				t.Errorf("Listen on a closed node: %v", err)
			}
		})
	}
}

// Both ends dial each other at the same moment.
func TestDialEachOther(t *testing.T) {
	virtual(t, twoHomes, 1, func(t *testing.T, w *world) {
		nodes := []*peer{w.node("a"), w.node("b")}
		for _, n := range nodes {
			defer n.Close()
			l, err := n.Listen()
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					c, err := l.AcceptConn(context.Background())
					if err != nil {
						return
					}
					go func() { io.Copy(c, c); c.Close() }()
				}
			}()
		}
		ready(t, nodes...)
		done := make(chan error, 2)
		for i, n := range nodes {
			go func() {
				c, err := n.Dial(context.Background(), nodes[1-i].ID())
				if err != nil {
					done <- err
					return
				}
				defer c.Close()
				data := randomBytes(uint64(i), 50_000)
				go func() { c.Write(data); c.CloseWrite() }()
				done <- receiveAll(c, data)
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// One key is used by a process that listens and by others that dial.
func TestGuestsBesideListener(t *testing.T) {
	virtual(t, scenario.OneHome(scenario.PortRestricted), 1, func(t *testing.T, w *world) {
		sameKey := func(c *bodkin.Config) { c.Key = testKey("a") }
		listener, other, dialler := w.node("a"), w.node("b"), w.node("a", sameKey)
		defer listener.Close()
		defer other.Close()
		defer dialler.Close()
		ready(t, listener, other, dialler)
		there, back := connect(t, dialler, other)
		exchange(t, there, back, 10_000)
		time.Sleep(time.Minute) // of keep-alives
		ca, cb := connect(t, other, listener)
		exchange(t, ca, cb, 10_000)
		exchange(t, back, there, 10_000)
		synctest.Wait()
	})
}

func TestDialSelf(t *testing.T) {
	virtual(t, twoHomes, 1, func(t *testing.T, w *world) {
		a := w.node("a")
		defer a.Close()
		if _, err := a.Dial(context.Background(), a.ID()); !errors.Is(err, bodkin.BadConfig) {
			t.Errorf("dialled itself: %v", err)
		}
	})
}

// A network that is gone for some seconds costs time, not the connection.
func TestShortOutage(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, 3 * time.Second, 5 * time.Second} {
		for name, who := range map[string]netip.Addr{"dialler": scenario.GatewayAAddr, "listener": scenario.GatewayBAddr} {
			t.Run(fmt.Sprintf("%s away for %v", name, outage), func(t *testing.T) {
				pair(t, twoHomes, nil, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
					waitPath(t, ca, bodkin.Direct)
					data := randomBytes(9, 400_000)
					sent, got := make(chan error, 1), make(chan error, 1)
					go func() { sent <- sendPaced(ca, data, 20*time.Millisecond) }()
					go func() { got <- receiveAll(cb, data) }()
					time.Sleep(time.Second)
					restore := w.net.Cut(sim.Rule{A: who})
					time.Sleep(outage)
					restore()
					if err := <-sent; err != nil {
						t.Error(err)
					}
					if err := <-got; err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}
