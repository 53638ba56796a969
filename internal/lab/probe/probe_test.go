package probe_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/probe"
	"github.com/bodkin-net/bodkin/internal/lab/sim"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// virtual builds a world in virtual time.
func virtual(t *testing.T, presets []nat.Preset, f func(p *probe.Prober, homes []probe.Home)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n, err := sim.New(probe.World(presets), sim.Options{Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		homes, servers := probe.Homes(presets, func(name string) probe.Stack { return n.Host(name) })
		p, err := probe.New(servers, 3*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		f(p, homes)
	})
}

// TestPresetsInVirtualTime: every preset looks as its data says.
func TestPresetsInVirtualTime(t *testing.T) {
	virtual(t, nat.Presets(), func(p *probe.Prober, homes []probe.Home) {
		var all sync.WaitGroup
		for _, h := range homes {
			all.Go(func() {
				got, err := p.Look(h)
				if err != nil {
					t.Error(err)
				}
				if want := probe.Expect(h.NAT); got != want {
					t.Errorf("%s: %+v, want %+v", h.Name, got, want)
				}
			})
		}
		all.Wait()
	})
}

// TestTraversalInVirtualTime: every pair of presets, each with itself among
// them, can make the holes that their data says.
func TestTraversalInVirtualTime(t *testing.T) {
	virtual(t, probe.Twins(nat.Presets()), func(p *probe.Prober, homes []probe.Home) {
		var all sync.WaitGroup
		for a, b := range probe.Pairs(homes) {
			all.Go(func() {
				got, err := p.Pair(a, b)
				if err != nil {
					t.Error(err)
				}
				if want := probe.ExpectPair(a.NAT, b.NAT); got != want {
					t.Errorf("%s, %s: %+v, want %+v", a.Name, b.Name, got, want)
				}
			})
		}
		all.Wait()
	})
}
