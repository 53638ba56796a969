package sim

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

func prefixes(s ...string) (all []netip.Prefix) {
	for _, p := range s {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func move(t *testing.T, n *Network, host, network string, addrs ...string) {
	t.Helper()
	if err := n.Move(host, network, prefixes(addrs...)); err != nil {
		t.Fatal(err)
	}
}

// A host that moves keeps its sockets. Those on all addresses go on with the
// new ones, as Linux has it; what is bound to an old address goes on when it is
// back.
func TestMove(t *testing.T) {
	inBubble(t, behind(portRestricted, portRestricted), func(t *testing.T, n *Network) {
		a, s := n.Host("a"), listenUDP(t, n.Host("s"), 1)
		u := listenUDP(t, a, 7)
		bound, err := a.ListenUDPAt(end("10.0.0.2:8"))
		if err != nil {
			t.Fatal(err)
		}
		dialed := dialUDP(t, a, "192.0.2.1:1")
		l, _ := n.Host("s").ListenTCP(80)
		c, err := a.DialTCP(context.Background(), 0, end("192.0.2.1:80"))
		if err != nil {
			t.Fatal(err)
		}
		d, _ := l.Accept()
		send(t, u, "192.0.2.1:1", "at home")
		expect(t, s, "at home", "198.51.100.1:7")

		send(t, s, "198.51.100.1:7", "too late") // on its way when the host goes
		time.Sleep(7 * time.Millisecond)
		move(t, n, "a", "home-b", "10.0.1.7/24")
		expect(t, u, "", "")
		if got, _ := a.Addrs(); len(got) != 1 || got[0] != addr("10.0.1.7") {
			t.Errorf("addresses %v", got)
		}
		send(t, u, "192.0.2.1:1", "away")
		expect(t, s, "away", "203.0.113.1:7")
		send(t, s, "203.0.113.1:7", "answer")
		expect(t, u, "answer", "192.0.2.1:1")
		if _, err := bound.WriteTo(nil, udp("192.0.2.1:1")); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("bound to the old address: %v", err)
		}
		if _, err := dialed.Write(nil); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("connected from the old address: %v", err)
		}
		if _, err := u.WriteTo(nil, udp("[2001:db8:1::1]:1")); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("without an IPv6 address: %v", err)
		}
		io.WriteString(c, "from the old address")
		if got, err := readFor(t, d, 10*time.Second); got != "" {
			t.Errorf("read %q, %v", got, err)
		}
		e, err := a.DialTCP(context.Background(), 0, end("192.0.2.1:80"))
		if err != nil {
			t.Fatal(err)
		}
		f, _ := l.Accept()
		if got := f.RemoteAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Addr(); got != addr("203.0.113.1") {
			t.Errorf("a new connection comes from %v", got)
		}
		e.Close()
		f.Close()

		move(t, n, "a", "home-a", "10.0.0.2/24")
		if got, err := readFor(t, d, time.Minute); got != "from the old address" {
			t.Errorf("back home: read %q, %v", got, err)
		}
		for _, c := range []io.Closer{c, d, l} {
			c.Close()
		}
	})
}

func TestMoveRefused(t *testing.T) {
	inBubble(t, behind(fullCone, fullCone), func(t *testing.T, n *Network) {
		for _, c := range []struct{ host, network, addr, want string }{
			{"x", "home-a", "10.0.0.5/24", "none"},
			{"ga", "home-a", "10.0.0.5/24", "none"},
			{"a", "home-x", "10.0.0.5/24", "no network"},
			{"a", "home-b", "10.0.0.2/24", "is not in"},
			{"a", "home-b", "10.0.1.2/16", "is not in"},
			{"a", "internet", "127.0.0.1/8", "not an address"},
		} {
			if err := n.Move(c.host, c.network, prefixes(c.addr)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v", c, err)
			}
		}
		if got, _ := n.Host("a").Addrs(); len(got) != 2 {
			t.Errorf("a has %v", got)
		}
	})
}

// Who takes a foreign address gets what is sent there, until he gives it up.
func TestAddressIsTaken(t *testing.T) {
	inBubble(t, home(portRestricted), func(t *testing.T, n *Network) {
		a, b, s := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("b"), 7), listenUDP(t, n.Host("s"), 1)
		send(t, a, "192.0.2.1:1", "hello")
		expect(t, s, "hello", "198.51.100.1:7")
		move(t, n, "b", "home-a", "10.0.0.2/24")
		send(t, s, "198.51.100.1:7", "for a")
		expect(t, a, "", "")
		expect(t, b, "for a", "192.0.2.1:1")
		move(t, n, "b", "home-a", "10.0.0.3/24")
		send(t, s, "198.51.100.1:7", "for a")
		expect(t, a, "for a", "192.0.2.1:1")
	})
}

// A host's own firewall lets in answers only, and moves with the host.
func TestHostFirewall(t *testing.T) {
	top := public(delay)
	top.Hosts[0].Firewall = &nat.Behaviour{Mode: nat.Firewall, Filtering: nat.AddressAndPortDependent}
	inBubble(t, top, func(t *testing.T, n *Network) {
		a, b := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("b"), 9)
		l, _ := n.Host("a").ListenTCP(80)
		defer l.Close()
		try := func(at, from string) {
			t.Helper()
			send(t, b, at+":7", "unasked")
			expect(t, a, "", "")
			send(t, a, "198.51.100.1:9", "question")
			expect(t, b, "question", from)
			send(t, b, at+":7", "answer")
			expect(t, a, "answer", "198.51.100.1:9")
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if _, err := n.Host("b").DialTCP(ctx, 0, end(at+":80")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("dialing in: %v", err)
			}
		}
		try("192.0.2.1", "192.0.2.1:7")
		move(t, n, "a", scenario.Internet, "192.0.2.77/24")
		try("192.0.2.77", "192.0.2.77:7")
	})
}

// What runs on a gateway is reached from inside and not from outside, and
// reaches both.
func TestGatewayHost(t *testing.T) {
	inBubble(t, behind(portRestricted, portRestricted), func(t *testing.T, n *Network) {
		g := n.Gateway("ga").Host()
		u, a, s := listenUDP(t, g, 5351), listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("s"), 1)
		send(t, a, "10.0.0.1:5351", "from inside")
		expect(t, u, "from inside", "10.0.0.2:7")
		send(t, u, "10.0.0.2:7", "to inside")
		expect(t, a, "to inside", "10.0.0.1:5351")
		send(t, s, "198.51.100.1:5351", "from outside")
		expect(t, u, "", "")
		send(t, u, "192.0.2.1:1", "to outside")
		expect(t, s, "to outside", "198.51.100.1:5351")
		send(t, s, "198.51.100.1:5351", "an answer")
		expect(t, u, "an answer", "192.0.2.1:1")

		l, err := g.ListenTCP(80)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		far, _ := n.Host("s").ListenTCP(80)
		defer far.Close()
		in, err := n.Host("a").DialTCP(context.Background(), 0, end("10.0.0.1:80"))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := l.Accept()
		out, err := g.DialTCP(context.Background(), 0, end("192.0.2.1:80"))
		if err != nil {
			t.Fatal(err)
		}
		end, _ := far.Accept()
		go func() { // a proxy
			io.Copy(out, got)
			out.Close()
		}()
		io.WriteString(in, strings.Repeat("x", 50_000))
		in.Close()
		if b, err := io.ReadAll(end); len(b) != 50_000 || err != nil {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		got.Close()
		end.Close()
		if took, err := g.Ping(context.Background(), addr("192.0.2.1"), 56); err != nil || took != 20*time.Millisecond {
			t.Errorf("ping: %v, %v", took, err)
		}
	})
}

// A gateway, and a host's firewall, say which MTU their link has now.
func TestSetLinkChangesTheMTU(t *testing.T) {
	top := behind(nat.Behaviour{}, nat.Behaviour{})
	top.Hosts[1].Firewall = &nat.Behaviour{Mode: nat.Firewall}
	inBubble(t, top, func(t *testing.T, n *Network) {
		for _, c := range []struct{ host, port string }{{"a", "ga/outside"}, {"b", "b"}} {
			u, err := n.Host(c.host).ListenUDP(0)
			if err != nil {
				t.Fatal(err)
			}
			whole := u.(*udpConn)
			whole.SetDontFragment(true)
			send := func() error {
				_, err := whole.WriteTo(make([]byte, 1372), udp("192.0.2.1:9"))
				time.Sleep(time.Second)
				return err
			}
			if err := errors.Join(send(), send()); err != nil {
				t.Fatalf("%s: before: %v", c.host, err)
			}
			if err := n.SetLink(c.port, scenario.Link{Delay: delay.Delay, MTU: 1300}); err != nil {
				t.Fatal(err)
			}
			send()
			if err := send(); !errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("%s: with a narrow link: %v", c.host, err)
			}
			whole.SetDontFragment(false)
			s := listenUDP(t, n.Host("s"), 9)
			send()
			if got, _ := receive(t, s); len(got) != 1372 {
				t.Errorf("%s: %d bytes of a packet that may be cut", c.host, len(got))
			}
			s.Close()
			if err := n.SetLink(c.port, scenario.Link{Delay: delay.Delay}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(pathMTUTime)
			whole.SetDontFragment(true)
			if err := errors.Join(send(), send()); err != nil {
				t.Errorf("%s: when it is as before: %v", c.host, err)
			}
		}
	})
}

// TestMovedAway: what is on its way to a host stays on the network that the host
// has left.
func TestMovedAway(t *testing.T) {
	inBubble(t, home(fullCone), func(t *testing.T, n *Network) {
		if err := n.SetLink("b", delay); err != nil {
			t.Fatal(err)
		}
		send(t, listenUDP(t, n.Host("a"), 1), ipv4(n, "b").String()+":9", "on its way")
		move(t, n, "b", scenario.Internet, "192.0.2.77/24")
		time.Sleep(time.Second)
		for _, h := range n.Status().Hosts {
			if got := h.Port.Received; h.Name == "b" && (got.Packets != 1 || got.DroppedPackets != 1) {
				t.Errorf("received %+v", got)
			}
		}
	})
}
