package e2e

import (
	"io"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// TestScenarios runs the table over the kernel's NATs and over gateways of ours.
// The outcomes are those of virtual time: it is the same table.
func TestScenarios(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]netns.Options{"nftables": {Kernel: true}, "ours": {}} {
		for _, c := range scenario.Cases() {
			t.Run(name+"/"+c.Name, func(t *testing.T) { testScenario(t, c, opt) })
		}
	}
}

func testScenario(t *testing.T, c scenario.Case, opt netns.Options) {
	t.Parallel()
	w := newWorldOf(t, c.Topology, opt)
	b := w.listen("b")
	a := w.connect("a", "b")
	talk(t, a, b, "before")
	awaitOutcome(a, c.Want)
	talk(t, a, b, "after")
	talk(t, b, a, "back")
	a.stdin.Close()
	b.stdin.Close()
	a.mustExit(patience)
	b.mustExit(patience)
	checkOutcome(t, a, c.Want)
}

// talk sends a word from one to the other.
func talk(t testing.TB, from, to *process, word string) {
	t.Helper()
	if _, err := from.stdin.WriteString(word); err != nil {
		t.Fatal(err)
	}
	to.stdout.SetReadDeadline(time.Now().Add(patience))
	defer to.stdout.SetReadDeadline(time.Time{})
	got := make([]byte, len(word))
	if _, err := io.ReadFull(to.stdout, got); err != nil || string(got) != word {
		t.Fatalf("%q arrived (%v), want %q", got, err, word)
	}
}

// awaitOutcome waits until the connecting side has what is expected, or knows
// that no direct path comes.
func awaitOutcome(a *process, want scenario.Outcome) {
	a.t.Helper()
	if want.Kind == "direct" {
		a.await("direct path by "+want.Technique, 0, patience, func(l line) bool {
			return l.event.Type == "path" && l.event.Kind == "direct" && (want.Technique == "" || l.event.Technique == want.Technique)
		})
		return
	}
	a.await("end of the attempt", 0, patience, func(l line) bool {
		return l.event.Type == "attempt" && l.event.Result == "failed" && l.event.Technique != "relay"
	})
}

// checkOutcome compares the last path in use.
func checkOutcome(t testing.TB, a *process, want scenario.Outcome) {
	t.Helper()
	paths := a.paths()
	if len(paths) == 0 {
		t.Fatal("no path was in use")
	}
	got := paths[len(paths)-1]
	t.Logf("%s over %s by %s to %v", got.Kind, got.Transport, got.Technique, got.Remote)
	if got.Kind != want.Kind || got.Transport != want.Transport || want.Technique != "" && got.Technique != want.Technique ||
		want.To.IsValid() && got.Remote.Addr() != want.To {
		t.Errorf("want %s over %s by %s to %v", want.Kind, want.Transport, want.Technique, want.To)
	}
}
