package sim

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// A probe with a small TTL dies at the router that it says, which tells.
func TestTimeExceeded(t *testing.T) {
	inBubble(t, behind(portRestricted, portRestricted), func(t *testing.T, n *Network) {
		for _, c := range []struct {
			to   string
			ttl  int
			err  error
			took time.Duration
		}{
			{"192.0.2.1:80", 1, syscall.EHOSTUNREACH, 0},                             // at ga
			{"192.0.2.1:80", 2, syscall.EHOSTUNREACH, 10 * time.Millisecond},         // on the internet
			{"192.0.2.1:80", 3, syscall.ECONNREFUSED, 20 * time.Millisecond},         // at s
			{"[2001:db8:1::1]:80", 1, syscall.EHOSTUNREACH, 0},                       //
			{"[2001:db8:1::1]:80", 2, syscall.EHOSTUNREACH, 10 * time.Millisecond},   //
			{"[2001:db8:1::1]:80", 3, syscall.ECONNREFUSED, 20 * time.Millisecond},   //
			{"[2001:db8:1::1]:80", 255, syscall.ECONNREFUSED, 20 * time.Millisecond}, //
		} {
			start := time.Now()
			d, err := n.Host("a").StartTCP(0, end(c.to), TCPOptions{TTL: c.ttl})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Wait(context.Background()); !errors.Is(err, c.err) || time.Since(start) != c.took {
				t.Errorf("%s with TTL %d: %v after %v", c.to, c.ttl, err, time.Since(start))
			}
		}
		// An unconnected UDP socket is told nothing.
		u, s := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("s"), 9)
		for ttl, want := range map[int]string{2: "", 3: "hello"} {
			if err := u.(*udpConn).SetTTL(ttl); err != nil {
				t.Fatal(err)
			}
			send(t, u, "192.0.2.1:9", "hello")
			if msg, _ := receive(t, s); msg != want {
				t.Errorf("TTL %d: %q", ttl, msg)
			}
		}
		if err := u.(*udpConn).SetTTL(0); !errors.Is(err, syscall.EINVAL) {
			t.Error(err)
		}
	})
}

func TestPing(t *testing.T) {
	top := behind(portRestricted, portRestricted)
	inBubble(t, top, func(t *testing.T, n *Network) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		a := n.Host("a")
		for _, c := range []struct {
			to   string
			size int
			took time.Duration
		}{
			{"192.0.2.1", 56, 20 * time.Millisecond},
			{"2001:db8:1::1", 56, 20 * time.Millisecond},
			{"192.0.2.1", 4000, 20 * time.Millisecond}, // in parts
			{"2001:db8:1::1", 4000, 20 * time.Millisecond},
			{"10.0.0.1", 0, 0},    // the gateway
			{"127.0.0.1", 100, 0}, // itself
		} {
			if took, err := a.Ping(ctx, addr(c.to), c.size); took != c.took || err != nil {
				t.Errorf("%s, %d bytes: %v, %v", c.to, c.size, took, err)
			}
		}
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := a.Ping(short, addr("203.0.113.99"), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody: %v", err)
		}
		if _, err := n.Host("s").Ping(ctx, addr("2001:db8:dead::1"), -1); !errors.Is(err, syscall.EMSGSIZE) {
			t.Error(err)
		}
	})
}

// A router whose way on is narrow says so, and hosts keep to it: TCP at once,
// UDP by cutting, or, where that is forbidden, by refusing.
func TestPathMTU(t *testing.T) {
	top := behind(nat.Behaviour{}, nat.Behaviour{})
	top.Gateways[0].Outside.Link.MTU = 1400
	inBubble(t, top, func(t *testing.T, n *Network) {
		for _, to := range []string{"192.0.2.1:9", "[2001:db8:1::1]:9"} {
			s := listenUDP(t, n.Host("s"), 9)
			u, err := n.Host("a").ListenUDP(0)
			if err != nil {
				t.Fatal(err)
			}
			msg := make([]byte, 1440)
			whole := u.(*udpConn)
			whole.SetDontFragment(true)
			for i, want := range []error{nil, syscall.EMSGSIZE} {
				if _, err := whole.WriteTo(msg, udp(to)); !errors.Is(err, want) {
					t.Errorf("%s, write %d: %v, want %v", to, i, err, want)
				}
				time.Sleep(time.Second)
			}
			whole.SetDontFragment(false)
			if _, err := whole.WriteTo(msg, udp(to)); err != nil {
				t.Error(err)
			}
			if got, _ := receive(t, s); len(got) != len(msg) {
				t.Errorf("%s: %d bytes", to, len(got))
			}
			time.Sleep(pathMTUTime)
			whole.SetDontFragment(true)
			if _, err := whole.WriteTo(msg, udp(to)); err != nil {
				t.Errorf("%s: after ten minutes: %v", to, err)
			}
			time.Sleep(pathMTUTime + time.Minute)
			s.Close()

			l, _ := n.Host("s").ListenTCP(9)
			got := make(chan int)
			go func() {
				c, err := l.Accept()
				if err != nil {
					t.Error(err)
					close(got)
					return
				}
				b := make([]byte, 100_000)
				sum := 0
				for {
					k, err := c.Read(b)
					if sum += k; err != nil {
						break
					}
				}
				c.Close()
				got <- sum
			}()
			start := time.Now()
			c, err := n.Host("a").DialTCP(context.Background(), 0, end(to))
			if err != nil {
				t.Fatal(err)
			}
			c.Write(make([]byte, 100_000))
			c.Close()
			if k := <-got; k != 100_000 || time.Since(start) > 150*time.Millisecond {
				t.Errorf("%s: %d bytes after %v", to, k, time.Since(start))
			}
			l.Close()
		}
	})
}
