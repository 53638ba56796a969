package netns

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

const (
	ei  = nat.EndpointIndependent
	ad  = nat.AddressDependent
	apd = nat.AddressAndPortDependent
)

// TestBehaviour looks at each NAT as its host and strangers see it.
func TestBehaviour(t *testing.T) {
	type want struct {
		preserved   bool // the external port is the internal one
		mapping     nat.Dependence
		filtering   nat.Dependence
		consecutive bool // ports of new mappings follow one another
	}
	for _, tt := range []struct {
		name string
		nat  nat.Behaviour
		want want
	}{
		{"plain conntrack", nat.Behaviour{Filtering: apd}, want{preserved: true, mapping: ei, filtering: apd}},
		{"conntrack fully random", nat.Behaviour{Mapping: apd, Filtering: apd, Ports: nat.Ports{Allocation: nat.Random}}, want{mapping: apd, filtering: apd}},
		{"open to all", nat.Behaviour{}, want{preserved: true, mapping: ei, filtering: ei}},
		{"open to addresses", nat.Behaviour{Filtering: ad}, want{preserved: true, mapping: ei, filtering: ad}},
		{"random, mapped once", nat.Behaviour{Filtering: apd, Ports: nat.Ports{Allocation: nat.Random}}, want{mapping: ei, filtering: apd}},
		{"random, open to all", nat.Behaviour{Ports: nat.Ports{Allocation: nat.Random}}, want{mapping: ei, filtering: ei}},
		{"by address", nat.Behaviour{Mapping: ad, Filtering: ad, Ports: nat.Ports{Allocation: nat.Random}}, want{mapping: ad, filtering: ad}},
		{"by address and port, open to all", nat.Behaviour{Mapping: apd, Ports: nat.Ports{Allocation: nat.Random}}, want{mapping: apd, filtering: ei}},
		{"sequential", nat.Behaviour{Mapping: apd, Filtering: apd, Ports: nat.Ports{Allocation: nat.Sequential}}, want{mapping: apd, filtering: apd, consecutive: true}},
		{"preserving once", nat.Behaviour{Mapping: apd, Filtering: apd}, want{preserved: true, mapping: apd, filtering: apd}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			over(t, func(t *testing.T, opt Options) {
				top := twoNATs(tt.nat, linux, scenario.Link{})
				top.Hosts = append(top.Hosts, scenario.Host{Name: "x", Port: on(scenario.Internet, scenario.Link{}, xAddr)})
				l := newLab(t, top, opt)
				a := udp(t, l.Host("a"), 4000)
				s := [2]socket{udp(t, l.Host("s"), 1000), udp(t, l.Host("s"), 2000)}
				other := udp(t, l.Host("x"), 1000)
				first := mapped(a, s[0], ip(sAddr))
				if first.Addr() != ip(gaOut) || (first.Port() == 4000) != tt.want.preserved {
					t.Errorf("mapped to %v", first)
				}

				// Strangers first: later this host sends to them.
				filtering := ei
				other.send(first, "stranger")
				if _, _, ok := a.receive(200 * time.Millisecond); !ok {
					filtering = ad
					s[1].send(first, "other port")
					if _, _, ok := a.receive(200 * time.Millisecond); !ok {
						filtering = apd
					}
				}
				s[0].send(first, "answer")
				a.mustReceive("answer")
				if filtering != tt.want.filtering {
					t.Errorf("filtering %v, want %v", filtering, tt.want.filtering)
				}

				otherPort := mapped(a, s[1], ip(sAddr))
				otherAddr := mapped(a, other, ip(xAddr))
				mapping := ei
				switch {
				case otherPort != first:
					mapping = apd
				case otherAddr != first:
					mapping = ad
				}
				if mapping != tt.want.mapping {
					t.Errorf("mapped to %v, %v by port, %v by address", first, otherPort, otherAddr)
				}
				if again := mapped(a, s[0], ip(sAddr)); again != first {
					t.Errorf("mapped to %v, then to %v", first, again)
				}
				if tt.want.consecutive && (otherPort.Port() != first.Port()+1 || otherAddr.Port() != first.Port()+2) {
					t.Errorf("ports %d, %d, %d are not consecutive", first.Port(), otherPort.Port(), otherAddr.Port())
				}
			})
		})
	}
}

func TestPortTaken(t *testing.T) { over(t, testPortTaken) }

func testPortTaken(t *testing.T, opt Options) {
	b := nat.Behaviour{Filtering: ei}
	top := twoNATs(b, linux, scenario.Link{})
	top.Hosts = append(top.Hosts, scenario.Host{Name: "c", Port: on("lan-a", scenario.Link{}, "192.168.1.3/24")})
	l := newLab(t, top, opt)
	a, c, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("c"), 4000), udp(t, l.Host("s"), 3478)
	aOut, cOut := mapped(a, s, ip(sAddr)), mapped(c, s, ip(sAddr))
	if aOut.Port() != 4000 || cOut.Port() == 4000 {
		t.Fatalf("mapped to %v and %v", aOut, cOut)
	}
	s.send(cOut, "to c")
	c.mustReceive("to c")
	s.send(aOut, "to a")
	a.mustReceive("to a")
}

func TestPunch(t *testing.T) {
	random := nat.Behaviour{Mapping: apd, Filtering: apd, Ports: nat.Ports{Allocation: nat.Random}}
	for _, tt := range []struct {
		name string
		a, b nat.Behaviour
		want bool
	}{
		{"both preserve", linux, linux, true},
		{"both random", random, random, false},
		{"random to preserving", random, linux, false},
		{"random to open", random, nat.Behaviour{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			over(t, func(t *testing.T, opt Options) {
				l := newLab(t, twoNATs(tt.a, tt.b, scenario.Link{Delay: 5 * time.Millisecond}), opt)
				a, b, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("b"), 5000), udp(t, l.Host("s"), 3478)
				aOut, bOut := mapped(a, s, ip(sAddr)), mapped(b, s, ip(sAddr))
				got := false
				for range 5 {
					a.send(bOut, "a")
					b.send(aOut, "b")
					_, _, aGot := a.receive(50 * time.Millisecond)
					_, _, bGot := b.receive(50 * time.Millisecond)
					got = got || aGot || bGot
				}
				if got != tt.want {
					t.Errorf("something came through: %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestHairpin(t *testing.T) {
	for _, tt := range []struct {
		name    string
		hairpin nat.Hairpin
		from    string
	}{
		{"none", nat.NoHairpin, ""},
		{"internal source", nat.HairpinInternalSource, "192.168.1.3"},
		{"external source", nat.HairpinExternalSource, "203.0.113.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			over(t, func(t *testing.T, opt Options) {
				top := twoNATs(nat.Behaviour{Hairpin: tt.hairpin}, linux, scenario.Link{})
				top.Hosts = append(top.Hosts, scenario.Host{Name: "c", Port: on("lan-a", scenario.Link{}, "192.168.1.3/24")})
				l := newLab(t, top, opt)
				a, c, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("c"), 4001), udp(t, l.Host("s"), 3478)
				aOut := mapped(a, s, ip(sAddr))
				c.send(aOut, "turn")
				if tt.from == "" {
					a.mustNotReceive()
					return
				}
				want := netip.AddrPortFrom(netip.MustParseAddr(tt.from), 4001)
				if from := a.mustReceive("turn"); from != want {
					t.Errorf("from %v, want %v", from, want)
				}
				a.send(want, "back")
				from := c.mustReceive("back")
				if tt.hairpin == nat.HairpinExternalSource && from != aOut {
					t.Errorf("answer from %v, want %v", from, aOut)
				}
			})
		})
	}
}

func TestNested(t *testing.T) { over(t, testNested) }

func testNested(t *testing.T, opt Options) {
	none, delay := scenario.Link{}, scenario.Link{Delay: time.Millisecond}
	top := twoNATs(linux, linux, none)
	// a's gateway stands behind a carrier's.
	top.Gateways[0].Outside = on("carrier", none, "100.64.0.2/24")
	top.Gateways = append(top.Gateways, scenario.Gateway{Name: "carrier", NAT: linux,
		Inside: on("carrier", none, "100.64.0.1/24"), Outside: on(scenario.Internet, delay, gaOut)})
	l := newLab(t, top, opt)
	a, b := punched(t, l)
	if b.peer.Addr() != ip(gaOut) {
		t.Errorf("a is mapped to %v", b.peer)
	}
	a.send(a.peer, "through three")
	if from := b.mustReceive("through three"); from != b.peer {
		t.Errorf("from %v, want %v", from, b.peer)
	}
}

func TestTimeout(t *testing.T) { over(t, testTimeout) }

func testTimeout(t *testing.T, opt Options) {
	b := nat.Behaviour{Filtering: apd, Timers: nat.Timers{UDP: time.Second}}
	l := newLab(t, twoNATs(b, linux, scenario.Link{}), opt)
	a, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("s"), 3478)
	aOut := mapped(a, s, ip(sAddr))
	s.send(aOut, "in time")
	a.mustReceive("in time")
	a.mustNotReceive()
	for range 5 { // the wait, as receives that come to nothing
		a.mustNotReceive()
	}
	s.send(aOut, "late")
	a.mustNotReceive()
}

func TestUnsupported(t *testing.T) {
	Need(t)
	for _, tt := range []struct {
		nat  nat.Behaviour
		want string
	}{
		{nat.Behaviour{Timers: nat.Timers{UDP: 1500 * time.Millisecond}}, "timers.udp: the kernel's nftables cannot do that: conntrack counts whole seconds, and 1.5s is none"},
		{nat.Behaviour{KeepTTL: true}, "keep-ttl: the kernel's nftables cannot do that"},
		{nat.Behaviour{Ports: nat.Ports{Parity: true}}, "ports.parity: the kernel's nftables cannot do that"},
		{nat.Behaviour{Unsolicited: nat.Unsolicited{After: time.Second}}, "unsolicited.after: the kernel's nftables cannot do that"},
	} {
		_, err := New(twoNATs(tt.nat, linux, scenario.Link{}), Options{Kernel: true})
		if want := "netns: gateways.ga.nat." + tt.want; !isUnsupported(err) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		top := twoNATs(tt.nat, linux, scenario.Link{})
		top.Gateways[0].Kernel = true
		if _, err := New(top, Options{}); !isUnsupported(err) {
			t.Errorf("for one alone: %v", err)
		}
		newLab(t, twoNATs(tt.nat, linux, scenario.Link{}), Options{})
	}
}

func TestIPv6Firewall(t *testing.T) {
	const a6, ga6, gaOut6, s6 = "2001:db8:a::2/64", "2001:db8:a::1/64", "2001:db8::1/64", "2001:db8::9/64"
	for _, tt := range []struct {
		name string
		nat  nat.Behaviour
		// Who gets in after a has sent to s: another port, another address.
		port, addr bool
	}{
		{"by address and port", nat.Behaviour{Filtering: apd}, false, false},
		{"by address", nat.Behaviour{Filtering: ad}, true, false},
		{"to all", nat.Behaviour{Filtering: ei}, true, true},
		{"firewall", nat.Behaviour{Mode: nat.Firewall, Filtering: apd}, false, false},
		{"open", nat.Behaviour{Mode: nat.Open}, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			over(t, func(t *testing.T, opt Options) {
				none := scenario.Link{}
				l := newLab(t, scenario.Topology{
					Hosts: []scenario.Host{
						{Name: "a", Port: on("lan", none, a6)},
						{Name: "s", Port: on(scenario.Internet, none, s6)},
						{Name: "x", Port: on(scenario.Internet, none, "2001:db8::10/64")},
					},
					Gateways: []scenario.Gateway{{Name: "g", NAT: tt.nat,
						Inside: on("lan", none, ga6), Outside: on(scenario.Internet, none, gaOut6)}},
				}, opt)
				a, s, s2, x := udp(t, l.Host("a"), 4000), udp(t, l.Host("s"), 1000), udp(t, l.Host("s"), 2000), udp(t, l.Host("x"), 1000)
				to := netip.AddrPortFrom(ip(a6), 4000)
				if tt.nat.Mode != nat.Open {
					s.send(to, "unsolicited")
					a.mustNotReceive()
				}
				if from := mapped(a, s, ip(s6)); from != to {
					t.Errorf("a is seen as %v", from)
				}
				s.send(to, "answer")
				a.mustReceive("answer")
				for _, stranger := range []struct {
					socket
					in bool
				}{{s2, tt.port}, {x, tt.addr}} {
					stranger.send(to, "stranger")
					if stranger.in {
						a.mustReceive("stranger")
					} else {
						a.mustNotReceive()
					}
				}
			})
		})
	}
}

func isUnsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }
