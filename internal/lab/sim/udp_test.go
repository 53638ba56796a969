package sim

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

func TestUDPSocket(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		a, b := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("b"), 9)
		if _, err := n.Host("a").ListenUDP(7); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("the port again: %v", err)
		}
		if c := listenUDP(t, n.Host("a"), 0); c.LocalAddr().(*net.UDPAddr).Port < ephemeralFirst {
			t.Errorf("any port: %v", c.LocalAddr())
		}
		if _, err := a.WriteTo(make([]byte, 65508), udp("198.51.100.1:9")); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("too long: %v", err)
		}
		if _, err := a.WriteTo(nil, udp("198.51.100.1:0")); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("port 0: %v", err)
		}
		if _, err := a.WriteTo(nil, &net.UDPAddr{IP: net.ParseIP("::ffff:198.51.100.1"), Port: 9}); err != nil {
			t.Errorf("mapped address: %v", err)
		}
		expect(t, b, "", "192.0.2.1:7")

		// A short read cuts, and the rest is gone.
		send(t, a, "198.51.100.1:9", "long")
		send(t, a, "198.51.100.1:9", "next")
		time.Sleep(time.Second)
		short := make([]byte, 2)
		b.SetReadDeadline(time.Time{})
		if k, _, err := b.ReadFrom(short); k != 2 || err != nil || string(short) != "lo" {
			t.Errorf("%q, %v", short[:k], err)
		}
		expect(t, b, "next", "192.0.2.1:7")

		done := make(chan error)
		b.SetReadDeadline(time.Time{})
		go func() {
			_, _, err := b.ReadFrom(short)
			done <- err
		}()
		synctest.Wait()
		b.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed while reading: %v", err)
		}
		if _, err := b.WriteTo(nil, udp("192.0.2.1:7")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
		if err := b.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed again: %v", err)
		}
		listenUDP(t, n.Host("b"), 9)
	})
}

func TestUDPQueueIsBounded(t *testing.T) {
	inBubble(t, public(scenario.Link{}), func(t *testing.T, n *Network) {
		a, b := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("b"), 9)
		for range 1000 {
			send(t, a, "198.51.100.1:9", strings.Repeat("x", 1000))
		}
		got := 0
		for {
			msg, _ := receive(t, b)
			if msg == "" {
				break
			}
			got++
		}
		if want := defaultReadBuffer / (1000 + packetOverhead); got != want {
			t.Errorf("%d were kept, want %d", got, want)
		}
	})
}

// A closed port answers by ICMP, which the gateway lets pass and the socket
// never hears of.
func TestPortUnreachable(t *testing.T) {
	top := behind(portRestricted, portRestricted)
	var seen []TraceEvent
	synctest.Test(t, func(t *testing.T) {
		n, err := New(top, Options{Trace: func(e TraceEvent) {
			if e.ICMP == ip.Error {
				seen = append(seen, e)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		a := listenUDP(t, n.Host("a"), 7)
		send(t, a, "192.0.2.1:9", "anybody there?")
		expect(t, a, "", "")
		send(t, a, "192.0.2.1:9", "really not?")
	})
	var steps []string
	for _, e := range seen[:4] {
		steps = append(steps, e.Kind.String()+" "+e.Port+" > "+e.Dst.Addr().String())
	}
	want := []string{"sent s > 198.51.100.1", "forwarded ga/inside > 10.0.0.2", "sent ga/inside > 10.0.0.2", "delivered a > 10.0.0.2"}
	if !slices.Equal(steps, want) {
		t.Errorf("%q, want %q", steps, want)
	}
}

func TestNames(t *testing.T) {
	inBubble(t, behind(fullCone, fullCone), func(t *testing.T, n *Network) {
		a := n.Host("a")
		ctx := context.Background()
		for host, want := range map[string][]netip.Addr{
			"s":         {addr("192.0.2.1"), addr("2001:db8:1::1")},
			"192.0.2.7": {addr("192.0.2.7")},
			"::1":       {addr("::1")},
		} {
			if got, err := a.LookupIP(ctx, host); !slices.Equal(got, want) || err != nil {
				t.Errorf("%s: %v, %v", host, got, err)
			}
		}
		var dns *net.DNSError
		if _, err := a.LookupIP(ctx, "nowhere.example"); !errors.As(err, &dns) || !dns.IsNotFound {
			t.Errorf("%v", err)
		}
		if got, _ := a.Addrs(); !slices.Equal(got, []netip.Addr{addr("10.0.0.2"), addr("2001:db8:a::2")}) {
			t.Errorf("%v", got)
		}
		if n.Host("x") != nil || n.Gateway("a") != nil {
			t.Error("there are hosts and gateways that there are not")
		}
	})
}

// Close ends whatever waits, and nothing is left: TestMain looks for goroutines.
func TestCloseEndsAll(t *testing.T) {
	run := func(t *testing.T) {
		n, err := New(public(delay), Options{})
		if err != nil {
			t.Fatal(err)
		}
		a, _ := connected(t, n)
		l, _ := n.Host("b").ListenTCP(81)
		u := listenUDP(t, n.Host("a"), 0)
		ends := make(chan error)
		go func() { _, err := a.Read(make([]byte, 1)); ends <- err }()
		go func() { _, err := a.Write(make([]byte, 1<<20)); ends <- err }()
		go func() { _, err := l.Accept(); ends <- err }()
		go func() { _, _, err := u.ReadFrom(make([]byte, 1)); ends <- err }()
		go func() {
			_, err := n.Host("a").DialTCP(context.Background(), 0, end("203.0.113.99:1"))
			ends <- err
		}()
		time.Sleep(time.Second / 10)
		n.Close()
		for range 5 {
			if err := <-ends; !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		if _, err := n.Host("a").ListenUDP(0); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := n.Host("a").DialTCP(context.Background(), 0, end("198.51.100.1:1")); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := io.WriteString(a, "x"); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		n.Close()
	}
	t.Run("virtual time", func(t *testing.T) { synctest.Test(t, run) })
	t.Run("real time", run)
}

func TestImpossibleTopologies(t *testing.T) {
	top := public(delay)
	top.Hosts[1].Port.Addrs = top.Hosts[0].Port.Addrs
	if n, err := New(top, Options{}); err == nil || !strings.Contains(err.Error(), "hosts.b.address: 192.0.2.1 is taken by hosts.a") {
		t.Errorf("%v, %v", n, err)
	}
}
