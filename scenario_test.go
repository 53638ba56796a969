package bodkin_test

import (
	"context"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// outcome waits until the path in use is the expected one, for as long as it
// may take to know that no better one comes, and returns the last.
func outcome(t testing.TB, c *bodkin.Conn, want scenario.Outcome) bodkin.Path {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	path := c.Path()
	for {
		if want.Kind == "direct" && path.Kind == bodkin.Direct && (want.Technique == "" || want.Technique == path.Technique) {
			return path
		}
		next, err := c.WaitPathChange(ctx, path)
		if err != nil {
			return path
		}
		path = next
	}
}

func checkOutcome(t testing.TB, got bodkin.Path, want scenario.Outcome) {
	t.Helper()
	if string(got.Kind) != want.Kind || got.Transport != want.Transport || want.Technique != "" && got.Technique != want.Technique ||
		want.To.IsValid() && got.Remote.Addr() != want.To {
		t.Errorf("path in use is %v; want %s over %s by %s to %s", got, want.Kind, want.Transport, want.Technique, want.To)
	}
}

// TestScenarios runs the table in virtual time, over our gateway.
func TestScenarios(t *testing.T) {
	for _, c := range scenario.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			virtual(t, c.Topology, 1, func(t *testing.T, w *world) {
				a, b := w.node("a"), w.node("b")
				defer a.Close()
				defer b.Close()
				ready(t, a, b)
				ca, cb := connect(t, a, b)
				exchange(t, ca, cb, 100_000)
				checkOutcome(t, outcome(t, ca, c.Want), c.Want)
				exchange(t, cb, ca, 100_000)
			})
		})
	}
}
