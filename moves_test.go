package bodkin_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/sim"
)

var (
	moveSeeds = flag.Int("moves", 0, "seeds of TestMoves; 0 is 1,000, or 50 with -short or the race detector")
	moveFirst = flag.Uint64("move-seed", 1, "first seed of TestMoves")
)

// TestMoves sends data both ways while the direct path comes, is cut by a rule,
// and comes back, with loss and reordering on every link: no byte may be lost,
// repeated or reordered.
func TestMoves(t *testing.T) {
	n := *moveSeeds
	if n == 0 {
		n = 1000
		if testing.Short() || raceEnabled {
			n = 50
		}
	}
	for i := range n {
		seed := *moveFirst + uint64(i)
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { move(t, seed) }) {
			return // one is enough to look at
		}
	}
}

func move(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	top := scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted)
	bad := scenario.Link{Delay: time.Duration(1+r.IntN(40)) * time.Millisecond, Jitter: time.Duration(r.IntN(10)) * time.Millisecond,
		Loss: r.Float64() * 0.05, Reorder: r.Float64() * 0.1}
	for i := range top.Gateways {
		top.Gateways[i].Outside.Link = bad
	}
	virtual(t, top, seed, func(t *testing.T, w *world) {
		a, b := w.node("a"), w.node("b")
		defer a.Close()
		defer b.Close()
		ready(t, a, b)
		ca, cb := connect(t, a, b)
		size := 100_000 + r.IntN(300_000)
		results := make(chan error, 4)
		pace := time.Duration(1+r.IntN(20)) * time.Millisecond
		for _, p := range []struct {
			from, to *bodkin.Conn
			seed     uint64
		}{{ca, cb, 2 * seed}, {cb, ca, 2*seed + 1}} {
			data := randomBytes(p.seed, size)
			go func() { results <- sendPaced(p.from, data, pace) }()
			go func() { results <- receiveAll(p.to, data) }()
		}
		cut := sim.Rule{A: scenario.GatewayAAddr, B: scenario.GatewayBAddr}
		waitPath(t, ca, bodkin.Direct)
		time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
		restore := w.net.Cut(cut)
		waitPath(t, ca, bodkin.Relay)
		time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
		restore()
		waitPath(t, ca, bodkin.Direct)
		for range 4 {
			if err := <-results; err != nil {
				t.Fatal(err)
			}
		}
	})
}

// waitPath waits until a path of the kind is in use.
func waitPath(t testing.TB, c *bodkin.Conn, kind bodkin.Kind) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	for path := c.Path(); path.Kind != kind; {
		next, err := c.WaitPathChange(ctx, path)
		if err != nil {
			t.Fatalf("waiting for a %s path: %v (in use: %v)", kind, err, path)
		}
		path = next
	}
}

// sendPaced writes in small pieces, so that the transfer lasts through what
// happens to the paths, and ends its direction.
func sendPaced(c *bodkin.Conn, data []byte, pace time.Duration) error {
	for len(data) > 0 {
		n := min(len(data), 700)
		if _, err := c.Write(data[:n]); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		data = data[n:]
		time.Sleep(pace)
	}
	return c.CloseWrite()
}

func receiveAll(c *bodkin.Conn, want []byte) error {
	got, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("read after %d bytes: %w", len(got), err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("got %d other bytes than the %d sent", len(got), len(want))
	}
	return nil
}
