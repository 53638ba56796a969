package bodkin_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// oneWay is the trip from a through the server to b, and also the round trip
// between a and b.
const oneWay = 4 * scenario.AccessDelay

// TestFirstByteBudget holds the first application byte and the direct path
// against the budget, in exact virtual time: three trips A-S-B when both are
// registered, five and a half from a cold start of both, and the direct path in
// use no later than two more round trips A-B.
func TestFirstByteBudget(t *testing.T) {
	for _, c := range []struct {
		name   string
		nat    string
		warm   bool
		budget time.Duration
		direct bool
	}{
		{"registered, port restricted", "port restricted", true, 3 * oneWay, true},
		{"registered, symmetric", "symmetric", true, 3 * oneWay, false},
		{"cold, port restricted", "port restricted", false, 5*oneWay + oneWay/2, true},
		{"cold, symmetric", "symmetric", false, 5*oneWay + oneWay/2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind := scenario.PortRestricted
			if c.nat == "symmetric" {
				kind = scenario.Symmetric
			}
			virtual(t, scenario.TwoHomes(kind, kind), 1, func(t *testing.T, w *world) {
				start := time.Now()
				a, b := w.node("a"), w.node("b")
				defer a.Close()
				defer b.Close()
				l, err := b.Listen()
				if err != nil {
					t.Fatal(err)
				}
				if c.warm {
					ready(t, a, b)
					synctest.Wait()
					start = time.Now()
				}
				first := make(chan time.Duration, 1)
				go func() {
					conn, err := l.AcceptConn(context.Background())
					if err != nil {
						t.Error(err)
						return
					}
					io.ReadFull(conn, make([]byte, 1))
					first <- time.Since(start)
				}()
				conn, err := a.Dial(context.Background(), b.ID())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				got := <-first
				t.Logf("first byte after %v: %.2f trips", got, float64(got)/float64(oneWay))
				if got > c.budget {
					t.Errorf("first byte after %v, budget %v", got, c.budget)
				}
				if !c.direct {
					return
				}
				outcome(t, conn, scenario.Outcome{Kind: "direct"})
				moved := time.Since(start)
				t.Logf("direct path in use after %v: %.2f trips", moved, float64(moved)/float64(oneWay))
				if path := conn.Path(); path.Kind != bodkin.Direct || moved > got+2*oneWay {
					t.Errorf("path %v after %v, budget %v", path, moved, got+2*oneWay)
				}
			})
		})
	}
}
