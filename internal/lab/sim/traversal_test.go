package sim

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

var (
	fullCone       = nat.Behaviour{}
	restricted     = nat.Behaviour{Filtering: nat.AddressDependent}
	portRestricted = nat.Behaviour{Filtering: nat.AddressAndPortDependent}
	symmetric      = nat.Behaviour{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent, Ports: nat.Ports{Allocation: nat.Random}}
)

// punch does what two peers do: each learns the other's endpoint from s, and
// sends there three times. It reports who got something.
func punch(t *testing.T, n *Network) (a, b bool) {
	t.Helper()
	s := listenUDP(t, n.Host("s"), 3478)
	pa, pb := listenUDP(t, n.Host("a"), 1111), listenUDP(t, n.Host("b"), 2222)
	send(t, pa, "192.0.2.1:3478", "who am I")
	_, atA := receive(t, s)
	send(t, pb, "192.0.2.1:3478", "who am I")
	_, atB := receive(t, s)
	// Answer to wherever packets come from, as real peers do.
	for range 3 {
		send(t, pa, atB, "punch")
		send(t, pb, atA, "punch")
		if _, from := receive(t, pa); from != "" {
			a, atB = true, from
		}
		if _, from := receive(t, pb); from != "" {
			b, atA = true, from
		}
	}
	return a, b
}

func TestUDPHolePunching(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b nat.Behaviour
		want bool
	}{
		{"full cone, full cone", fullCone, fullCone, true},
		{"restricted, restricted", restricted, restricted, true},
		{"port restricted, port restricted", portRestricted, portRestricted, true},
		{"full cone, symmetric", fullCone, symmetric, true},
		{"restricted, symmetric", restricted, symmetric, true},
		{"port restricted, symmetric", portRestricted, symmetric, false},
		{"symmetric, symmetric", symmetric, symmetric, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, behind(c.a, c.b), func(t *testing.T, n *Network) {
				if a, b := punch(t, n); a != c.want || b != c.want {
					t.Errorf("a got something: %v, b: %v; want %v", a, b, c.want)
				}
			})
		})
	}
}

func TestBlockedUDP(t *testing.T) {
	inBubble(t, behind(nat.Behaviour{BlockUDP: true}, fullCone), func(t *testing.T, n *Network) {
		s, a := listenUDP(t, n.Host("s"), 3478), listenUDP(t, n.Host("a"), 0)
		send(t, a, "192.0.2.1:3478", "hello")
		expect(t, s, "", "")
	})
}

// home is a and b behind one gateway.
func home(b nat.Behaviour) scenario.Topology {
	top := behind(b, nat.Behaviour{})
	top.Hosts[1].Port = at("home-a", scenario.Link{}, "10.0.0.3/24")
	top.Gateways = top.Gateways[:1]
	return top
}

func TestHairpin(t *testing.T) {
	for hairpin, from := range map[nat.Hairpin]string{
		nat.NoHairpin:             "",
		nat.HairpinInternalSource: "10.0.0.2:1111",
		nat.HairpinExternalSource: "198.51.100.1:1111",
	} {
		inBubble(t, home(nat.Behaviour{Hairpin: hairpin}), func(t *testing.T, n *Network) {
			a, b, s := listenUDP(t, n.Host("a"), 1111), listenUDP(t, n.Host("b"), 2222), listenUDP(t, n.Host("s"), 1)
			send(t, b, "192.0.2.1:1", "where am I")
			expect(t, s, "where am I", "198.51.100.1:2222")
			send(t, a, "198.51.100.1:2222", "hello")
			msg, got := receive(t, b)
			if got != from {
				t.Errorf("hairpin %d: %q from %q, want from %q", hairpin, msg, got, from)
			}
			send(t, a, "10.0.0.3:2222", "hello")
			expect(t, b, "hello", "10.0.0.2:1111") // on the LAN
		})
	}
}

// a is behind its own gateway and that one behind the provider's, as is b.
func nested(inner, outer nat.Behaviour) scenario.Topology {
	top := behind(inner, inner)
	for i, g := range top.Gateways {
		g.Outside = at("isp", delay, []string{"100.64.0.2/10", "100.64.0.3/10"}[i])
		top.Gateways[i] = g
	}
	for i := range top.Hosts[:2] { // IPv4 only
		top.Hosts[i].Port.Addrs = top.Hosts[i].Port.Addrs[:1]
		top.Gateways[i].Inside.Addrs = top.Gateways[i].Inside.Addrs[:1]
	}
	top.Gateways = append(top.Gateways, scenario.Gateway{
		Name: "carrier", NAT: outer, Inside: at("isp", scenario.Link{}, "100.64.0.1/10"),
		Outside: at(scenario.Internet, delay, "203.0.113.50/24"),
	})
	return top
}

func TestNested(t *testing.T) {
	for _, hairpin := range []nat.Hairpin{nat.NoHairpin, nat.HairpinExternalSource} {
		inBubble(t, nested(portRestricted, nat.Behaviour{Filtering: nat.AddressAndPortDependent, Hairpin: hairpin}), func(t *testing.T, n *Network) {
			s, a := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7)
			start := time.Now()
			send(t, a, "192.0.2.1:1", "hello")
			expect(t, s, "hello", "203.0.113.50:7")
			if took := time.Since(start); took != 15*time.Millisecond {
				t.Errorf("took %v", took)
			}
			send(t, s, "203.0.113.50:7", "answer")
			expect(t, a, "answer", "192.0.2.1:1")
			s.Close()
			a.Close()
			want := hairpin != nat.NoHairpin // the only way between the two
			if a, b := punch(t, n); a != want || b != want {
				t.Errorf("hairpin %d: a got something: %v, b: %v", hairpin, a, b)
			}
		})
	}
}

// A plain router and a firewall inside of a gateway translate nothing.
func TestNestedRouter(t *testing.T) {
	for _, inner := range []nat.Behaviour{{Mode: nat.Open}, {Mode: nat.Firewall}} {
		inBubble(t, nested(inner, fullCone), func(t *testing.T, n *Network) {
			s, a, b := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("b"), 8)
			send(t, a, "192.0.2.1:1", "hello")
			expect(t, s, "hello", "203.0.113.50:7")
			send(t, s, "203.0.113.50:7", "answer")
			expect(t, a, "answer", "192.0.2.1:1")
			send(t, b, "10.0.0.2:7", "neighbour") // through both routers
			expect(t, a, "neighbour", "10.0.1.2:8")
		})
	}
}

func TestIPv6Firewall(t *testing.T) {
	inBubble(t, behind(portRestricted, portRestricted), func(t *testing.T, n *Network) {
		a, b := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("b"), 9)
		send(t, a, "[2001:db8:b::2]:9", "first")
		expect(t, b, "", "")
		send(t, b, "[2001:db8:a::2]:7", "second")
		expect(t, a, "second", "[2001:db8:b::2]:9")
		send(t, a, "[2001:db8:b::2]:9", "third")
		expect(t, b, "third", "[2001:db8:a::2]:7")
	})
}

// P2PNAT: both dial at once from the ports that the server has seen; SYNs
// cross, and each end gets its connection.
func TestTCPHolePunching(t *testing.T) {
	for _, c := range []struct {
		b    nat.Behaviour
		want bool
	}{{portRestricted, true}, {fullCone, true}, {symmetric, false}} {
		inBubble(t, behind(c.b, c.b), func(t *testing.T, n *Network) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			got := make(chan string, 2)
			peer := func(name string, port uint16, to string) {
				conn, err := n.Host(name).DialTCP(ctx, port, end(to))
				if err != nil {
					got <- ""
					return
				}
				io.WriteString(conn, "I am "+name)
				conn.(*tcpConn).CloseWrite()
				msg, _ := io.ReadAll(conn)
				got <- string(msg)
				conn.Close()
			}
			go peer("a", 1111, "203.0.113.1:2222")
			go peer("b", 2222, "198.51.100.1:1111")
			for range 2 {
				if msg := <-got; strings.HasPrefix(msg, "I am ") != c.want {
					t.Errorf("%+v: %q", c.b, msg)
				}
			}
		})
	}
}

func TestRebootGateway(t *testing.T) {
	inBubble(t, behind(fullCone, fullCone), func(t *testing.T, n *Network) {
		s, a := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7)
		send(t, a, "192.0.2.1:1", "hello")
		expect(t, s, "hello", "198.51.100.1:7")
		if m := n.Gateway("ga").Mappings(); len(m) != 1 || m[0].Internal != end("10.0.0.2:7") || m[0].External != end("198.51.100.1:7") {
			t.Errorf("mappings %+v", m)
		}
		if err := n.RebootGateway("ga"); err != nil {
			t.Fatal(err)
		}
		send(t, s, "198.51.100.1:7", "answer")
		expect(t, a, "", "")
		if err := n.RebootGateway("gx"); err == nil {
			t.Error("there is a gateway gx")
		}
	})
}

func TestCut(t *testing.T) {
	inBubble(t, behind(fullCone, fullCone), func(t *testing.T, n *Network) {
		s, a := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7)
		l, _ := n.Host("s").ListenTCP(1)
		defer l.Close()
		try := func(what string, out, in, tcp bool) {
			t.Helper()
			send(t, a, "192.0.2.1:1", "out")
			if msg, _ := receive(t, s); (msg == "out") != out {
				t.Errorf("%s: out arrived: %v", what, !out)
			}
			send(t, s, "198.51.100.1:7", "in")
			if msg, _ := receive(t, a); (msg == "in") != in {
				t.Errorf("%s: in arrived: %v", what, !in)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second/2)
			defer cancel()
			c, err := n.Host("a").DialTCP(ctx, 0, end("192.0.2.1:1"))
			if (err == nil) != tcp {
				t.Errorf("%s: TCP: %v", what, err)
			}
			if err == nil {
				c.Close()
			}
		}
		outside, server := addr("198.51.100.1"), addr("192.0.2.1")
		try("nothing", true, true, true)
		for _, c := range []struct {
			what         string
			rule         Rule
			out, in, tcp bool
		}{
			{"a pair", Rule{A: server, B: outside}, false, false, false},
			{"a pair at the gateway", Rule{At: "ga", A: server, B: outside}, false, false, false},
			{"all of an address", Rule{A: outside}, false, false, false},
			{"UDP", Rule{A: outside, B: server, Proto: ip.UDP}, false, false, true},
			{"TCP at the gateway", Rule{At: "ga", Proto: ip.TCP}, true, true, false},
			{"one way", Rule{A: server, B: outside, OneWay: true, Proto: ip.UDP}, true, false, true},
			{"another pair", Rule{A: addr("203.0.113.1"), B: server}, true, true, true},
			{"another gateway", Rule{At: "gb"}, true, true, true},
		} {
			restore := n.Cut(c.rule)
			try(c.what, c.out, c.in, c.tcp)
			restore()
			try(c.what+" restored", true, true, true)
		}
	})
}

func TestCounters(t *testing.T) {
	inBubble(t, behind(fullCone, fullCone), func(t *testing.T, n *Network) {
		s, a := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7)
		for range 3 {
			send(t, a, "192.0.2.1:1", "hello")
			expect(t, s, "hello", "198.51.100.1:7")
		}
		send(t, s, "198.51.100.1:7", "")
		expect(t, a, "", "192.0.2.1:1")
		inside, outside, server := addr("10.0.0.2"), addr("198.51.100.1"), addr("192.0.2.1")
		for _, c := range []struct {
			network  string
			src, dst netip.Addr
			want     Count
		}{
			{scenario.Internet, outside, server, Count{3, 3 * 33}},
			{scenario.Internet, server, outside, Count{1, 28}},
			{scenario.Internet, netip.Addr{}, server, Count{3, 3 * 33}},
			{scenario.Internet, netip.Addr{}, netip.Addr{}, Count{4, 3*33 + 28}},
			{scenario.Internet, inside, server, Count{}},
			{"home-a", inside, server, Count{3, 3 * 33}},
			{"home-a", server, inside, Count{1, 28}},
			{"home-x", inside, server, Count{}},
		} {
			if got := n.Counters(c.network, c.src, c.dst); got != c.want {
				t.Errorf("%s, %v > %v: %+v, want %+v", c.network, c.src, c.dst, got, c.want)
			}
		}
	})
}
