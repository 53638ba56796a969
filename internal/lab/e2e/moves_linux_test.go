package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// TestMoves: while bytes flow, the session moves from the relay to the direct
// path, back when that is cut, and up again when it is restored. Not a byte is
// lost, repeated or reordered.
func TestMoves(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := twoHomes(t)
			rng := rand.New(rand.NewPCG(seed, 1))
			upTo := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
			b := w.listen("b")
			got := hashOf(b.stdout)
			b.stdin.Close()
			a := w.connect("a", "b")
			pace := paced{w: a.stdin, chunk: 1 << (14 + rng.IntN(5)), rate: 1_000_000 + rng.Int64N(3_000_000), end: make(chan struct{})}
			sent := feed(pace, seed, 1<<40)

			_, n := a.awaitPath("relay", 0, patience)
			_, n = a.awaitPath("direct", n, patience)
			<-time.After(upTo(time.Second))
			t.Logf("cut after %v", time.Since(a.begun))
			if err := w.lab.Cut(scenario.GatewayAAddr, scenario.GatewayBAddr, netns.UDP); err != nil {
				t.Fatal(err)
			}
			_, n = a.awaitPath("relay", n, patience)
			t.Logf("relay after %v", time.Since(a.begun))
			<-time.After(upTo(3 * time.Second))
			t.Logf("restored after %v", time.Since(a.begun))
			if err := w.lab.Restore(scenario.GatewayAAddr, scenario.GatewayBAddr, netns.UDP); err != nil {
				t.Fatal(err)
			}
			a.awaitPath("direct", n, 30*time.Second)
			t.Logf("direct after %v", time.Since(a.begun))
			<-time.After(upTo(time.Second))
			close(pace.end)

			in, out := <-sent, <-got
			a.mustExit(patience)
			b.mustExit(patience)
			if in.err != errPaceEnds || out.err != nil || in.bytes != out.bytes || in.sum != out.sum {
				t.Errorf("sent %d bytes %s (%v), received %d bytes %s (%v)", in.bytes, in.sum, in.err, out.bytes, out.sum, out.err)
			}
			t.Logf("%d bytes", out.bytes)
			var kinds []string
			for _, p := range b.paths() {
				kinds = append(kinds, p.Kind)
			}
			if kinds[0] == "relay" { // else the direct path's first packets overtook the relay's
				kinds = kinds[1:]
			}
			if want := "[direct relay direct]"; fmt.Sprint(kinds) != want {
				t.Errorf("b used %v, want %v", kinds, want)
			}
		})
	}
}

var errPaceEnds = fmt.Errorf("the end")

// paced writes so many bytes a second, in chunks, until end is closed.
type paced struct {
	w     io.WriteCloser
	chunk int
	rate  int64
	end   chan struct{}
}

func (p paced) Write(b []byte) (n int, err error) {
	for n < len(b) {
		k := min(p.chunk, len(b)-n)
		select {
		case <-time.After(time.Duration(int64(k) * int64(time.Second) / p.rate)):
		case <-p.end:
			return n, errPaceEnds
		}
		k, err = p.w.Write(b[n : n+k])
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (p paced) Close() error { return p.w.Close() }
