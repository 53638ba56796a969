package bodkin_test

import (
	"sync"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
)

// Nobody has to guess that the other end is gone, whoever leaves first: its
// goodbye is on the way before it leaves the server, and so its relay.
func TestLeaving(t *testing.T) {
	for _, order := range []string{"together", "a first", "b first"} {
		t.Run(order, func(t *testing.T) {
			relayOnly := func(c *bodkin.Config) { c.RelayOnly = true }
			virtual(t, twoHomes, 1, func(t *testing.T, w *world) {
				for range 20 {
					a, b := w.node("a", relayOnly), w.node("b", relayOnly)
					ready(t, a, b)
					ca, cb := connect(t, a, b)
					exchange(t, ca, cb, 1000)
					began := time.Now()
					var wg sync.WaitGroup
					leave := func(p *peer, c *bodkin.Conn, after time.Duration) {
						wg.Go(func() {
							time.Sleep(after)
							c.Close()
							p.Close()
						})
					}
					var later [2]time.Duration
					switch order {
					case "a first":
						later[1] = 50 * time.Millisecond
					case "b first":
						later[0] = 50 * time.Millisecond
					}
					leave(a, ca, later[0])
					leave(b, cb, later[1])
					wg.Wait()
					if d := time.Since(began); d > time.Second {
						t.Fatalf("closing took %v", d)
					}
				}
			})
		})
	}
}
