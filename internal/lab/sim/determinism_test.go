package sim

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// TestDeterminism: nothing that is sent, by anyone at any time, depends on
// anything but the seed.
func TestDeterminism(t *testing.T) {
	link := scenario.Link{Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.1, Repeat: 0.1, Reorder: 0.1}
	top := leasing(symmetric, nat.Behaviour{Hairpin: nat.HairpinExternalSource, Ports: nat.Ports{Allocation: nat.Random}})
	for i := range top.Gateways {
		top.Gateways[i].Outside.Link = link
	}
	run := func(seed uint64) (steps []string) {
		synctest.Test(t, func(t *testing.T) {
			n, err := New(top, Options{Seed: seed, Trace: func(e TraceEvent) {
				steps = append(steps, fmt.Sprint(e.Time, e.Kind, e.Port, e.Src, e.Dst, e.Length, e.Reason))
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			configured(t, n)
			for i, name := range []string{"a", "c", "b"} {
				u := listenUDP(t, n.Host(name), 0)
				for range 50 {
					send(t, u, "192.0.2.1:1", "x")
					time.Sleep(time.Millisecond)
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				n.Host(name).Ping(ctx, addr("192.0.2.1"), 5000)
				n.Host(name).DialTCP(ctx, 0, end("192.0.2.1:80"))
				cancel()
				switch i {
				case 0:
					err = n.NewLease("ga")
				case 1:
					err = n.Move("a", "home-c", nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Minute)
			}
		})
		return steps
	}
	first := run(3)
	if second := run(3); !slices.Equal(first, second) || len(first) < 1000 {
		t.Errorf("two runs of %d and %d steps differ", len(first), len(second))
	}
	if slices.Equal(first, run(4)) {
		t.Error("two seeds, one run")
	}
}
