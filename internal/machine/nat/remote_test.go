package nat

import (
	"net/netip"
	"testing"
	"time"
)

// A packet from outside to an internal address is not taken for one to the
// external endpoint, though the remote would be let in there.
func TestInternalAddressFromOutside(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		g := newBench(t, b)
		at := g.leaves(x, y1)
		if got := g.enters(y1, x); got.IsValid() {
			t.Errorf("it got to %v", got)
		}
		if got := g.enters(y1, at); got != x {
			t.Errorf("the translated one got to %v", got)
		}
	})
}

// Until it is answered a mapping lives for UDPUnanswered, with a timer for all
// remotes or with one for each.
func TestUDPUnanswered(t *testing.T) {
	for _, perSession := range []bool{false, true} {
		b := Behaviour{Filtering: AddressAndPortDependent, Timers: Timers{UDP: 2 * time.Minute, UDPUnanswered: 30 * time.Second, PerSession: perSession}}
		g := newBench(t, b)
		at := g.leaves(x, y1)
		g.now = g.now.Add(20 * time.Second)
		g.leaves(x, y1) // refreshed, for as long
		g.now = g.now.Add(29 * time.Second)
		if g.enters(y1, at) != x {
			t.Fatal("it dies before its time")
		}
		g.now = g.now.Add(119 * time.Second)
		if g.enters(y1, at) != x {
			t.Error("answered, it dies before its time")
		}
		g.now = g.now.Add(2 * time.Second)
		if g.enters(y1, at).IsValid() {
			t.Error("answered, it outlives its time")
		}
		at = g.leaves(x, y1)
		g.now = g.now.Add(31 * time.Second)
		if g.enters(y1, at).IsValid() {
			t.Error("unanswered, it outlives its time")
		}

		// A remote that says nothing, beside one that did.
		at = g.leaves(x, y1)
		g.enters(y1, at)
		g.leaves(x, z1)
		g.now = g.now.Add(31 * time.Second)
		if got := g.enters(z1, at).IsValid(); got == perSession {
			t.Errorf("per session %t: a remote that did not answer gets in: %t", perSession, got)
		}
		if g.enters(y1, at) != x {
			t.Error("one that did does not get in")
		}
	}
}

// RFC 6888 REQ-6, IPv4 only; REQ-4c.
func TestUntranslatedAndRate(t *testing.T) {
	for _, r := range []Remotes{{}, {Prefix: netip.MustParsePrefix("2001:db8::/32")}} {
		cfg := Config{Behaviour: Behaviour{Untranslated: []Remotes{r}}, Rand: newBench(t, Behaviour{}).cfg.Rand}
		cfg.Own[Outside] = []netip.Addr{ours}
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is exempt", r)
		}
	}
	g := newBench(t, Behaviour{Untranslated: []Remotes{{Prefix: netip.PrefixFrom(z1.Addr(), 32)}}})
	if at := g.leaves(x, z1); at != x {
		t.Errorf("%v is %v", x, at)
	}
	if at := g.leaves(x, y1); at.Addr() != ours {
		t.Errorf("%v is %v", x, at)
	}
	if g.enters(z1, x) != x || g.enters(y1, x).IsValid() {
		t.Error("who may answer may not, or the other way round")
	}
}
