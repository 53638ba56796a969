package punch

import (
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

const ms = time.Millisecond

// The offerer knows the answerer's server-reflexive endpoint after a round trip
// to the server; the answerer has the whole offer after a one-way trip over the
// server, which takes as long. A path is a full-size round trip behind the
// first check to get through.
func TestTimeline(t *testing.T) {
	for _, tt := range []struct {
		name             string
		offerer, answerr time.Duration // start
		up               time.Duration // at the offerer, after its start
		nominated        time.Duration // at the answerer, after the offerer's start
	}{
		{"together", 80 * ms, 80 * ms, 120 * ms, 160 * ms},
		{"answerer first, its second check gets through", 80 * ms, 30 * ms, 90 * ms, 130 * ms},
		{"answerer long before, none of its checks gets through", 341 * ms, 0, 160 * ms, 200 * ms},
		{"answerer later", 80 * ms, 100 * ms, 140 * ms, 180 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, _, a, b := differentNATs(1, portRestricted, portRestricted)
			ca, cb := a.candidates(false), b.candidates(true)
			w.after(tt.offerer, func() { a.begin(true, cb) })
			w.after(tt.answerr, func() { b.begin(false, ca) })
			w.run(time.Second)
			pa, up := a.mustPath(t, Punch)
			pb, nominated := b.mustPath(t, Punch)
			if up-tt.offerer != tt.up || nominated-tt.offerer != tt.nominated {
				t.Errorf("up after %v at the offerer, %v at the answerer; want %v, %v\n%s",
					up-tt.offerer, nominated-tt.offerer, tt.up, tt.nominated, strings.Join(w.trace, "\n"))
			}
			if up-tt.offerer > 2*2*oneWay {
				t.Errorf("up after %v: more than two round trips", up-tt.offerer)
			}
			if pa.Remote != b.mapped() || pb.Remote != a.mapped() || pa.Mapped != a.mapped() || pb.Mapped != b.mapped() {
				t.Errorf("paths %+v and %+v", pa, pb)
			}
			if pa.RTT != 2*oneWay {
				t.Errorf("round trip %v", pa.RTT)
			}
		})
	}
}

// Ford, Srisuresh and Kegel section 3.3: behind a common NAT the private
// endpoints are used, whether or not it hairpins.
func TestCommonNAT(t *testing.T) {
	for name, h := range map[string]nat.Hairpin{"no hairpin": nat.NoHairpin, "hairpin": nat.HairpinExternalSource} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(1)
			inet := &network{w: w, delay: oneWay}
			lan := w.gateway(inet, "198.51.100.1", nat.Behaviour{Filtering: nat.AddressAndPortDependent, Hairpin: h}, ms)
			a, b := w.host(lan, "a", "10.0.0.2"), w.host(lan, "b", "10.0.0.3")
			a.begin(true, b.candidates(true)) // the answer is still on its way
			b.begin(false, a.candidates(false))
			w.run(10 * ms)
			pa, up := a.mustPath(t, LAN)
			pb, _ := b.mustPath(t, LAN)
			if pa.Remote != ep("10.0.0.3:4001") || pb.Remote != ep("10.0.0.2:4000") {
				t.Errorf("paths %+v, %+v", pa, pb)
			}
			if up != 3*ms {
				t.Errorf("up after %v, want one and a half round trips of the LAN\n%s", up, strings.Join(w.trace, "\n"))
			}
		})
	}
}

// Section 3.5: with several levels only the outer NAT's hairpin leads there,
// though both peers are in private networks that look like the other's.
func TestSeveralLevels(t *testing.T) {
	for _, tt := range []struct {
		name    string
		hairpin nat.Hairpin
		want    Technique // "" is none
	}{
		{"hairpin", nat.HairpinExternalSource, Hairpin},
		{"no hairpin", nat.NoHairpin, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(1)
			inet := &network{w: w, delay: oneWay}
			isp := w.gateway(inet, "198.51.100.1", nat.Behaviour{Filtering: nat.AddressAndPortDependent, Hairpin: tt.hairpin}, 5*ms)
			a := w.host(w.gateway(isp, "100.64.0.2", portRestricted, 0), "a", "192.168.1.2")
			b := w.host(w.gateway(isp, "100.64.0.3", portRestricted, 0), "b", "192.168.1.3")
			a.begin(true, b.candidates(false))
			b.begin(false, a.candidates(false))
			w.run(20 * time.Second)
			if tt.want == "" {
				f, at, ok := a.failed()
				if !ok || f.Reason != NoAnswer || at != tryFor {
					t.Errorf("failed %v %+v at %v", ok, f, at)
				}
				return
			}
			pa, _ := a.mustPath(t, tt.want)
			b.mustPath(t, tt.want)
			if pa.Remote != b.mapped() {
				t.Errorf("path %+v", pa)
			}
		})
	}
}

// A NAT that hairpins with the internal source shows each the other's inner
// gateway as a peer-reflexive endpoint.
func TestHairpinInternalSource(t *testing.T) {
	w := newWorld(1)
	inet := &network{w: w, delay: oneWay}
	isp := w.gateway(inet, "198.51.100.1", nat.Behaviour{Filtering: nat.AddressAndPortDependent, Hairpin: nat.HairpinInternalSource}, 5*ms)
	inner := nat.Behaviour{} // lets a packet from another source in
	a := w.host(w.gateway(isp, "100.64.0.2", inner, 0), "a", "192.168.1.2")
	b := w.host(w.gateway(isp, "100.64.0.3", inner, 0), "b", "192.168.1.3")
	a.begin(true, b.candidates(false))
	b.begin(false, a.candidates(false))
	w.run(time.Second)
	pa, _ := a.mustPath(t, Punch)
	if pa.Remote.Addr().String() != "100.64.0.3" {
		t.Errorf("path %+v", pa)
	}
	b.mustPath(t, Punch)
}

func TestIPv6(t *testing.T) {
	w := newWorld(1)
	inet := &network{w: w, delay: oneWay}
	a := w.host(w.gateway(inet, "198.51.100.1", symmetric, 0), "a", "10.0.0.2", "2001:db8:1::2")
	b := w.host(w.gateway(inet, "198.51.100.2", symmetric, 0), "b", "10.1.0.2", "2001:db8:2::2")
	a.begin(true, b.candidates(false))
	b.begin(false, a.candidates(false))
	w.run(time.Second)
	_, up := a.mustPath(t, IPv6)
	b.mustPath(t, IPv6)
	if up != 120*ms {
		t.Errorf("up after %v", up)
	}
}

// IPv4 and IPv6 both work: IPv6 wins, and nothing is given away for it.
func TestIPv6BeforeNAT(t *testing.T) {
	w := newWorld(1)
	inet := &network{w: w, delay: oneWay}
	a := w.host(w.gateway(inet, "198.51.100.1", portRestricted, 0), "a", "10.0.0.2", "2001:db8:1::2")
	b := w.host(w.gateway(inet, "198.51.100.2", portRestricted, 0), "b", "10.1.0.2", "2001:db8:2::2")
	a.begin(true, b.candidates(false))
	b.begin(false, a.candidates(false))
	w.run(time.Second)
	_, up := a.mustPath(t, IPv6)
	b.mustPath(t, IPv6)
	ups := 0
	for _, e := range a.events {
		if _, ok := e.(PathUp); ok {
			ups++
		}
	}
	if up != 120*ms || ups != 1 {
		t.Errorf("up after %v, %d times", up, ups)
	}
}

// Which pairs of NATs this technique gets through: all with a predictable
// endpoint on both sides, and a symmetric one only towards address-dependent
// filtering or none.
func TestPairsOfNATs(t *testing.T) {
	kinds := []struct {
		name string
		b    nat.Behaviour
	}{
		{"independent", nat.Behaviour{}},
		{"address restricted", nat.Behaviour{Filtering: nat.AddressDependent}},
		{"port restricted", portRestricted},
		{"symmetric", symmetric},
	}
	want := [4][4]bool{
		{true, true, true, true},
		{true, true, true, true},
		{true, true, true, false},
		{true, true, false, false},
	}
	for i, x := range kinds {
		for j, y := range kinds {
			t.Run(x.name+" to "+y.name, func(t *testing.T) {
				w, _, a, b := differentNATs(1, x.b, y.b)
				a.begin(true, b.candidates(true))
				b.begin(false, a.candidates(false))
				w.run(20 * time.Second)
				_, up, ok := a.path()
				_, _, okb := b.path()
				if ok != want[i][j] || okb != ok {
					t.Fatalf("path at offerer %v, answerer %v; want %v\n%s", ok, okb, want[i][j], strings.Join(w.trace, "\n"))
				}
				if ok && up > 4*oneWay {
					t.Errorf("after %v", up)
				}
			})
		}
	}
}

// A path that carries only small packets is not used, and both say so.
func TestMTU(t *testing.T) {
	w, inet, a, b := differentNATs(1, portRestricted, portRestricted)
	inet.mtu = FullSize - 1
	a.begin(true, b.candidates(true))
	b.begin(false, a.candidates(false))
	w.run(20 * time.Second)
	f, at, ok := a.failed()
	if !ok || f.Reason != MTULimited || at != tryFor {
		t.Errorf("offerer failed %v %+v at %v", ok, f, at)
	}
	limited := 0
	for _, e := range a.events {
		if l, ok := e.(PathLimited); ok && l.Remote == b.mapped() && l.Technique == Punch {
			limited++
		}
	}
	if limited != 1 {
		t.Errorf("%d times limited: %v", limited, a.events)
	}
	f, at, ok = b.failed()
	if !ok || f.Reason != MTULimited || at != tryFor+answererMore {
		t.Errorf("answerer failed %v %+v at %v", ok, f, at)
	}
}

func TestNoCandidates(t *testing.T) {
	w, _, a, _ := differentNATs(1, portRestricted, portRestricted)
	a.begin(true, nil)
	w.run(20 * time.Second)
	if f, at, ok := a.failed(); !ok || f.Reason != NoCandidates || at != tryFor || len(a.sent) != 0 {
		t.Errorf("failed %v %+v at %v, sent %v", ok, f, at, a.sent)
	}
}

// Candidates that come later are tried; one that works and is better replaces
// the path, on both sides.
func TestBetterLater(t *testing.T) {
	w := newWorld(1)
	inet := &network{w: w, delay: oneWay}
	lan := w.gateway(inet, "198.51.100.1", nat.Behaviour{Filtering: nat.AddressAndPortDependent, Hairpin: nat.HairpinExternalSource}, ms)
	a, b := w.host(lan, "a", "10.0.0.2"), w.host(lan, "b", "10.0.0.3")
	a.begin(true, b.candidates(true))
	b.begin(false, a.candidates(true))
	w.run(time.Second)
	a.mustPath(t, Hairpin)
	b.mustPath(t, Hairpin)
	a.m.AddRemote(w.now, b.candidates(false))
	w.run(2 * time.Second)
	_, at := a.mustPath(t, LAN)
	b.mustPath(t, LAN)
	if at != time.Second+4*ms {
		t.Errorf("replaced at %v", at)
	}
}

const watchPatience = watchLimit * watchRepeat

// With loss, reordering and duplication, over many seeds: the two agree, and a
// path is nearly always found.
func TestLoss(t *testing.T) {
	seeds := 400
	if testing.Short() {
		seeds = 50
	}
	for _, tt := range []struct {
		loss  float64
		worst time.Duration
	}{{0.05, 1500 * ms}, {0.2, 3 * time.Second}, {0.4, tryFor}} {
		found, slowest := 0, time.Duration(0)
		for seed := range seeds {
			w, inet, a, b := differentNATs(uint64(seed), portRestricted, portRestricted)
			inet.loss, inet.jitter, inet.dup = tt.loss, 30*ms, 0.05
			a.begin(true, b.candidates(true))
			w.run(time.Duration(seed%90) * ms)
			b.begin(false, a.candidates(false))
			w.run(tryFor + 2*time.Second)
			// At the highest loss one may have given its path up, and the
			// other notices from its silence.
			inet.loss = 0
			w.run(tryFor + 2*time.Second + watchPeriod + watchPatience)
			pa, up, ok := a.path()
			pb, _, okb := b.path()
			if ok != okb {
				t.Fatalf("loss %v, seed %d: path at offerer %v, at answerer %v\n%s", tt.loss, seed, ok, okb, strings.Join(w.trace, "\n"))
			}
			if ok {
				found++
				slowest = max(slowest, up)
				if pa.Remote != b.mapped() || pb.Remote != a.mapped() {
					t.Fatalf("seed %d: paths %+v, %+v", seed, pa, pb)
				}
			}
		}
		t.Logf("loss %v: %d of %d found, slowest %v", tt.loss, found, seeds, slowest)
		if tt.loss <= 0.2 && found != seeds || slowest > tt.worst {
			t.Errorf("loss %v: %d of %d found, slowest %v", tt.loss, found, seeds, slowest)
		}
	}
}

// Only the techniques asked for are tried, answered or named.
func TestTechniques(t *testing.T) {
	for _, only := range []Technique{LAN, IPv6, Punch, Hairpin} {
		w := newWorld(1)
		inet := &network{w: w, delay: oneWay}
		behind := nat.Behaviour{Hairpin: nat.HairpinExternalSource}
		lan := w.gateway(inet, "198.51.100.1", behind, ms)
		a := w.host(lan, "a", "10.0.0.2", "2001:db8:1::2")
		b := w.host(lan, "b", "10.0.0.3", "2001:db8:2::3")
		a.begin(true, nil)
		a.m.cfg.Techniques = []Technique{only}
		a.m.AddRemote(w.now, b.candidates(false))
		b.begin(false, a.candidates(false))
		w.run(20 * time.Second)
		p, _, ok := a.path()
		if only == Punch { // both are behind one NAT: there is none
			if f, _, failed := a.failed(); ok || !failed || f.Reason != NoCandidates {
				t.Errorf("%s: %+v %+v", only, p, f)
			}
			continue
		}
		if !ok || p.Technique != only {
			t.Errorf("%s: %v %+v", only, ok, p)
		}
		for _, e := range a.events {
			if x, ok := e.(Answered); ok && x.Technique != only {
				t.Errorf("%s: %+v", only, x)
			}
		}
	}
}

// golden is one punch between port-restricted NATs, packet by packet.
const golden = `
    0s a > 198.51.100.2:60001    check
    0s b > 10.0.0.2:4000         check
    0s b > 198.51.100.1:60001    check
  20ms a > 198.51.100.2:60001    check
  20ms b > 10.0.0.2:4000         check
  20ms b > 198.51.100.1:60001    check
  40ms b > 198.51.100.1:60001    answer
  40ms b > 198.51.100.1:60001    check
  40ms a > 198.51.100.2:60001    answer
  40ms a > 198.51.100.2:60001    check
  40ms a > 198.51.100.2:60001    full-size check
  60ms b > 198.51.100.1:60001    answer
  60ms b > 198.51.100.1:60001    check
  60ms a > 198.51.100.2:60001    answer
  60ms a > 198.51.100.2:60001    check
  60ms b > 10.0.0.2:4000         check
  80ms a : punch.Answered {Remote:198.51.100.2:60001 Technique:udp-punch}
  80ms a > 198.51.100.2:60001    answer
  80ms b > 198.51.100.1:60001    answer
  80ms b > 198.51.100.1:60001    full-size answer
 100ms a > 198.51.100.2:60001    answer
 100ms b > 198.51.100.1:60001    answer
 120ms a > 198.51.100.2:60001    check, nominating
 120ms a : punch.PathUp {Remote:198.51.100.2:60001 Technique:udp-punch RTT:80ms Mapped:198.51.100.1:60001}
 140ms b > 10.0.0.2:4000         check
 160ms b > 198.51.100.1:60001    answer
 160ms b : punch.PathUp {Remote:198.51.100.1:60001 Technique:udp-punch RTT:80ms Mapped:198.51.100.2:60001}
`

func TestGolden(t *testing.T) {
	w, _, a, b := differentNATs(1, portRestricted, portRestricted)
	a.begin(true, b.candidates(true))
	b.begin(false, a.candidates(false))
	w.run(200 * ms)
	if got := strings.Join(w.trace, "\n"); got != strings.Trim(golden, "\n") {
		t.Errorf("\n%s", got)
	}
}
