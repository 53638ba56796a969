package apart

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
)

func port(name, network string, addrs ...string) snapshot.Port {
	p := snapshot.Port{Name: name, Network: network}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, netip.MustParsePrefix(a))
	}
	return p
}

// world has a and c in a home behind two NATs, b behind one, s with none; new
// has no address yet.
func world() World {
	gateway := func(name string, inside, outside snapshot.Port) snapshot.Gateway {
		return snapshot.Gateway{Name: name, Inside: inside, Outside: outside}
	}
	host := func(p snapshot.Port) snapshot.Host { return snapshot.Host{Name: p.Name, Port: p} }
	return World{snapshot.Snapshot{
		Hosts: []snapshot.Host{
			host(port("a", "home", "10.1.0.2/24")), host(port("c", "home", "10.1.0.3/24")),
			host(port("b", "office", "10.2.0.2/24", "2001:db8:2::2/64")),
			host(port("s", "internet", "198.51.100.1/24", "2001:db8::1/64")),
			host(port("six", "internet", "2001:db8::6/64")),
			host(port("new", "home")),
		},
		Gateways: []snapshot.Gateway{
			gateway("ga", port("ga/inside", "home", "10.1.0.1/24"), port("ga/outside", "carrier", "100.64.0.2/24")),
			gateway("cgn", port("cgn/inside", "carrier", "100.64.0.1/24"), port("cgn/outside", "internet", "198.51.100.11/24")),
			gateway("gb", port("gb/inside", "office", "10.2.0.1/24"), port("gb/outside", "internet", "198.51.100.12/24")),
		},
	}}
}

func TestPairs(t *testing.T) {
	for _, tt := range []struct{ node, other, want string }{
		{"a", "s", "10.1.0.2-198.51.100.1"},
		{"s", "a", "10.1.0.2-198.51.100.1"}, // the same: c still reaches s
		{"a", "b", "10.1.0.2-10.2.0.2 10.1.0.2-198.51.100.12"},
		{"a", "c", "10.1.0.2-10.1.0.3 10.1.0.2-100.64.0.2 10.1.0.2-198.51.100.11"},
		{"b", "s", "10.2.0.2-198.51.100.1 2001:db8:2::2-2001:db8::1"},
		{"ga", "s", "100.64.0.2-198.51.100.1"},
		{"a", "all", "10.1.0.2-"},
		{"s", "all", "198.51.100.1- 2001:db8::1-"},
		{"s", "192.0.2.9", "198.51.100.1-192.0.2.9"},
		{"s", "2001:db8::9", "2001:db8::1-2001:db8::9"},
		{"s", "2001:db8::9%eth0", "2001:db8::1-2001:db8::9"}, // packets have no zones
		{"x", "s", "error no host or gateway \"x\""},
		{"s", "x", "error no host or gateway \"x\""},
		{"s", "s", "error s cannot be cut from itself"},
		{"new", "s", "error new has no address now"},
		{"s", "new", "error new has no address now"},
		{"a", "six", "error a and six have no addresses of one family"},
	} {
		pairs, err := world().Pairs(tt.node, tt.other)
		var got []string
		for _, p := range pairs {
			text := p.A.String() + "-"
			if p.B.IsValid() {
				text += p.B.String()
			}
			got = append(got, text)
		}
		slices.Sort(got)
		want := strings.Fields(tt.want)
		slices.Sort(want)
		if err != nil {
			got, want = []string{"error " + err.Error()}, []string{tt.want}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s from %s: %q, want %q", tt.node, tt.other, got, want)
		}
	}
}

func TestPort(t *testing.T) {
	w := world()
	for _, name := range []string{"a", "ga/inside", "ga/outside"} {
		if w.Port(name).Name != name {
			t.Errorf("no %s", name)
		}
	}
	if w.Port("ga").Name != "" {
		t.Error("ga is no port")
	}
}
