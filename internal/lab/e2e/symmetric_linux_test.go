package e2e

import (
	"testing"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// TestSymmetric: both NATs choose a random port for every remote endpoint.
// There is nothing to aim at; the relay carries, and everything ends well.
func TestSymmetric(t *testing.T) {
	t.Parallel()
	w := newWorld(t, scenario.TwoHomes(scenario.Symmetric, scenario.Symmetric))
	b := w.listen("b")
	got := hashOf(b.stdout)
	b.stdin.Close()
	a := w.connect("a", "b")
	sent := feed(a.stdin, 7, 1_000_000)
	in, out := <-sent, <-got
	a.mustExit(patience)
	b.mustExit(patience)
	if in.err != nil || out.err != nil || in.sum != out.sum {
		t.Errorf("sent %+v, received %+v", in, out)
	}
	checkOutcome(t, a, scenario.Outcome{Kind: "relay", Transport: "udp", Technique: "relay", To: scenario.ServerAddr})
}
