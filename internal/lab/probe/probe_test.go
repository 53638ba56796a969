package probe_test

import (
	"os"
	"strings"
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
	virtual(t, probe.Presets(), func(p *probe.Prober, homes []probe.Home) {
		var all sync.WaitGroup
		for _, h := range homes {
			all.Go(func() {
				got, err := p.Look(h)
				if err != nil {
					t.Error(err)
				}
				if want := probe.ExpectAt(probe.Ours, h); got != want {
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
	virtual(t, probe.Twins(probe.Presets()), func(p *probe.Prober, homes []probe.Home) {
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

// TestQuirksAreDocumented: each has its section, with packets, and each section
// of the page is for one.
func TestQuirksAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/QUIRKS.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, s := range strings.Split(string(page), "\n## ")[1:] {
		name, text, _ := strings.Cut(s, "\n")
		if strings.Contains(name, ": ") {
			sections[name] = text
		}
	}
	for _, q := range probe.Quirks {
		text, ok := sections[q.Name]
		if !ok || !strings.Contains(text, "    A:40000 > S:") {
			t.Errorf("no section %q with packets", q.Name)
		}
		for _, p := range q.Presets {
			if !strings.Contains(text, p) {
				t.Errorf("section %q does not name preset %s", q.Name, p)
			}
		}
		delete(sections, q.Name)
	}
	for name := range sections {
		t.Errorf("the tests know no quirk %q", name)
	}
}
