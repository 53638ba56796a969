package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// connected is a connection from a, port 1000, to b, port 80.
func connected(t *testing.T, n *Network) (a, b *tcpConn) {
	t.Helper()
	l, err := n.Host("b").ListenTCP(80)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := n.Host("a").DialTCP(context.Background(), 1000, end("198.51.100.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*tcpConn), d.(*tcpConn)
}

// connections counts those that the host remembers.
func connections(h *Host) int {
	h.n.enter()
	defer h.n.leave()
	return len(h.tcp)
}

// What is written arrives, both ways at once, over any link.
func TestTCPDelivers(t *testing.T) {
	for _, link := range []scenario.Link{
		{},
		{Delay: 20 * time.Millisecond},
		{Delay: 20 * time.Millisecond, Loss: 0.01},
		{Delay: 10 * time.Millisecond, Loss: 0.1},
		{Delay: 10 * time.Millisecond, Jitter: 20 * time.Millisecond, Reorder: 0.1},
		{Delay: 10 * time.Millisecond, Rate: 10e6},
		{Delay: 10 * time.Millisecond, Rate: 1e6, Loss: 0.02, Jitter: time.Millisecond},
		{Delay: 10 * time.Millisecond, MTU: 576},
	} {
		for seed := range uint64(5) {
			synctest.Test(t, func(t *testing.T) {
				n, err := New(public(link), Options{Seed: seed})
				if err != nil {
					t.Fatal(err)
				}
				defer n.Close()
				a, b := connected(t, n)
				r := rand.New(rand.NewPCG(seed, 0))
				start := time.Now()
				done := make(chan error, 4)
				for _, pair := range [][2]*tcpConn{{a, b}, {b, a}} {
					want := make([]byte, 300_000)
					for i := range want {
						want[i] = byte(r.Uint32())
					}
					go func() {
						if _, err := pair[0].Write(want); err != nil {
							done <- err
							return
						}
						done <- pair[0].CloseWrite()
					}()
					go func() {
						got, err := io.ReadAll(pair[1])
						if err == nil && !bytes.Equal(got, want) {
							err = fmt.Errorf("%d bytes, not those written", len(got))
						}
						done <- err
					}()
				}
				for range 4 {
					if err := <-done; err != nil {
						t.Fatalf("%+v, seed %d: %v", link, seed, err)
					}
				}
				if took := time.Since(start); took > 2*time.Minute {
					t.Errorf("%+v, seed %d: took %v", link, seed, took)
				}
				a.Close()
				b.Close()
				time.Sleep(2 * time.Minute)
				if left := connections(n.Host("a")) + connections(n.Host("b")); left != 0 {
					t.Errorf("%+v, seed %d: %d connections are left", link, seed, left)
				}
			})
		}
	}
}

// A path whose MTU is smaller than the ends know, without a word from it.
func TestTCPThroughSmallMTU(t *testing.T) {
	top := behind(nat.Behaviour{}, nat.Behaviour{})
	top.Gateways[0].Outside.Link.MTU = 1280
	inBubble(t, top, func(t *testing.T, n *Network) {
		l, _ := n.Host("s").ListenTCP(80)
		c, err := n.Host("a").DialTCP(context.Background(), 0, end("192.0.2.1:80"))
		if err != nil {
			t.Fatal(err)
		}
		d, _ := l.Accept()
		go func() {
			c.Write(make([]byte, 100_000))
			c.Close()
		}()
		if got, err := io.Copy(io.Discard, d); got != 100_000 || err != nil {
			t.Errorf("%d bytes, %v", got, err)
		}
		d.Close()
		l.Close()
	})
}

// The writer stalls when nobody reads, for hours if need be, and goes on.
func TestTCPZeroWindow(t *testing.T) {
	for _, link := range []scenario.Link{delay, {Delay: 5 * time.Millisecond, Loss: 0.2}} {
		inBubble(t, public(link), func(t *testing.T, n *Network) {
			a, b := connected(t, n)
			done := make(chan error)
			go func() {
				_, err := a.Write(make([]byte, 2<<20))
				a.Close()
				done <- err
			}()
			time.Sleep(3 * time.Hour)
			select {
			case err := <-done:
				t.Fatalf("everything was written: %v", err)
			default:
			}
			start := time.Now()
			if got, err := io.Copy(io.Discard, b); got != 2<<20 || err != nil {
				t.Errorf("%d bytes, %v", got, err)
			}
			if took := time.Since(start); link.Loss == 0 && took > time.Second {
				t.Errorf("going on took %v", took)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			b.Close()
		})
	}
}

func TestTCPDialErrors(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		a := n.Host("a")
		dial := func(ctx context.Context, port uint16, to string) (time.Duration, error) {
			start := time.Now()
			_, err := a.DialTCP(ctx, port, end(to))
			return time.Since(start), err
		}
		bg := context.Background()
		if took, err := dial(bg, 0, "203.0.113.99:80"); !errors.Is(err, syscall.ETIMEDOUT) || took != 127*time.Second {
			t.Errorf("nobody there: %v after %v", err, took)
		}
		ctx, cancel := context.WithTimeout(bg, 3*time.Second)
		defer cancel()
		if took, err := dial(ctx, 0, "203.0.113.99:80"); !errors.Is(err, context.DeadlineExceeded) || took != 3*time.Second {
			t.Errorf("no patience: %v after %v", err, took)
		}
		var timeout net.Error
		if _, err := dial(ctx, 0, "203.0.113.99:80"); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("is no timeout: %v", err)
		}
		if left := connections(a); left != 0 {
			t.Errorf("%d connections are left", left)
		}
		if _, err := dial(bg, 0, "198.51.100.1:0"); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("port 0: %v", err)
		}
	})
	top := public(delay)
	top.Hosts[0].Port.Addrs = top.Hosts[0].Port.Addrs[:1]
	inBubble(t, top, func(t *testing.T, n *Network) {
		if _, err := n.Host("a").DialTCP(context.Background(), 0, end("[2001:db8:2::1]:80")); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("without IPv6: %v", err)
		}
		c := listenUDP(t, n.Host("a"), 0)
		if _, err := c.WriteTo(nil, udp("[2001:db8:2::1]:80")); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("UDP without IPv6: %v", err)
		}
	})
}

// Several connections and a listener share a port, but no two a flow.
func TestTCPSharedPort(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		a, b := n.Host("a"), n.Host("b")
		for _, port := range []uint16{80, 81} {
			l, err := b.ListenTCP(port)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
		}
		own, err := a.ListenTCP(1000)
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		if _, err := a.ListenTCP(1000); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second listener: %v", err)
		}
		ctx := context.Background()
		for _, to := range []string{"198.51.100.1:80", "198.51.100.1:81", "[2001:db8:2::1]:80"} {
			c, err := a.DialTCP(ctx, 1000, end(to))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		if _, err := a.DialTCP(ctx, 1000, end("198.51.100.1:80")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("the same flow again: %v", err)
		}
		if c, err := b.DialTCP(ctx, 5, end("192.0.2.1:1000")); err != nil {
			t.Errorf("to the listener: %v", err)
		} else {
			c.Close()
		}
	})
}

func TestTCPToItself(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		a := n.Host("a")
		l, _ := a.ListenTCP(80)
		defer l.Close()
		u := listenUDP(t, a, 80)
		for _, host := range []string{"192.0.2.1", "127.0.0.1", "[2001:db8:1::1]", "[::1]"} {
			start := time.Now()
			c, err := a.DialTCP(context.Background(), 0, end(host+":80"))
			if err != nil {
				t.Fatal(err)
			}
			d, _ := l.Accept()
			io.WriteString(d, "hello")
			d.Close()
			if msg, err := io.ReadAll(c); string(msg) != "hello" || err != nil {
				t.Errorf("%s: %q, %v", host, msg, err)
			}
			c.Close()
			send(t, u, host+":80", "self")
			expect(t, u, "self", host+":80")
			if time.Since(start) != 0 {
				t.Errorf("%s: took %v", host, time.Since(start))
			}
		}
	})
}

// Closing with something unread, or SetLinger(0), resets the connection.
func TestTCPReset(t *testing.T) {
	for _, linger := range []bool{false, true} {
		inBubble(t, public(delay), func(t *testing.T, n *Network) {
			a, b := connected(t, n)
			if linger {
				b.SetLinger(0)
			} else {
				io.WriteString(a, "nobody reads this")
			}
			time.Sleep(time.Second)
			b.Close()
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v", err)
			}
			if _, err := a.Write(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("write: %v", err)
			}
			a.Close()
		})
	}
}

// A RST that is not exact, and any ICMP error, leave the connection alone.
func TestTCPForgeries(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		n.enter()
		ack, seq, next := a.rcv.nxt, a.snd.una, a.snd.max
		n.leave()
		forge := func(pkt []byte) {
			n.enter()
			defer n.leave()
			n.Host("a").receive(n.Host("a").port, &buffer{b: pkt})
		}
		forge(ip.AppendTCP(nil, a.flow.remote, a.flow.local, 64, &ip.Segment{Seq: ack + 100, Flags: ip.RST}))
		forge(ip.AppendTCP(nil, a.flow.remote, a.flow.local, 64, &ip.Segment{Seq: ack + 100, Flags: ip.SYN}))
		forge(ip.AppendTCP(nil, a.flow.remote, a.flow.local, 64, &ip.Segment{Seq: ack, Ack: next + 1000, Flags: ip.ACK}))
		ours := ip.AppendTCP(nil, a.flow.local, a.flow.remote, 64, &ip.Segment{Seq: seq, Flags: ip.ACK})
		forge(ip.AppendError(nil, a.flow.remote.Addr(), ip.PortUnreachable, ours))
		go io.WriteString(a, "alive")
		got := make([]byte, 5)
		if _, err := io.ReadFull(b, got); string(got) != "alive" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		a.Close()
		b.Close()
	})
}

// With the path gone, a write is given up after about a quarter of an hour.
func TestTCPGivesUp(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		n.Cut(Rule{})
		io.WriteString(a, "into the void")
		start := time.Now()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Error(err)
		}
		if took := time.Since(start); took < 10*time.Minute || took > 20*time.Minute {
			t.Errorf("took %v", took)
		}
		a.Close()
		b.Close()
	})
}

func TestTCPHalfClose(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		a.CloseWrite()
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
		time.Sleep(10 * time.Hour) // neither end has closed it
		io.WriteString(b, "still")
		b.Close()
		if got, err := io.ReadAll(a); string(got) != "still" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		a.Close()
		// From now on a's port is in TIME-WAIT for a minute.
		if _, err := n.Host("a").DialTCP(context.Background(), 1000, end("198.51.100.1:80")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if _, err := n.Host("a").DialTCP(context.Background(), 1000, end("198.51.100.1:80")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
}

func TestListener(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		l, err := n.Host("b").ListenTCP(0)
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		l.(*listener).SetDeadline(time.Now().Add(time.Second))
		if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		to := end(fmt.Sprintf("198.51.100.1:%d", port))
		c, err := n.Host("a").DialTCP(context.Background(), 0, to)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		c.Close()
		if _, err := n.Host("a").DialTCP(context.Background(), 0, to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
}
