package bodkin_test

import (
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
)

// waitEvent waits for an event, and returns how long that took.
func waitEvent(t testing.TB, p *peer, what string, is func(bodkin.Event) bool) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		select {
		case e := <-p.events:
			if is(e) {
				return time.Since(began)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no event: %s", what)
		}
	}
}

// Two processes listen with one key: the earlier one is told, once, and is found
// again when the later one is gone.
func TestSameKeyTwice(t *testing.T) {
	virtual(t, twoHomes, 1, func(t *testing.T, w *world) {
		registered := func(e bodkin.Event) bool { return e.Type == bodkin.EventRegistered }
		displaced := func(e bodkin.Event) bool { return e.Type == bodkin.EventError && e.Code == bodkin.Displaced }
		sameKey := func(c *bodkin.Config) { c.Key = testKey("a") }
		a, b := w.node("a"), w.node("b", sameKey)
		defer a.Close()
		for _, p := range []*peer{a, b} {
			mustListen(t, p)
			waitEvent(t, p, "registered", registered)
			time.Sleep(time.Second) // it may have registered before it listened, too
			for len(p.events) > 0 {
				if e := <-p.events; !registered(e) {
					t.Errorf("%+v", e)
				}
			}
		}
		if d := waitEvent(t, a, "a is displaced", displaced); d > 16*time.Second {
			t.Errorf("a was told after %v", d)
		}
		time.Sleep(5 * time.Minute)
		for _, p := range []*peer{a, b} {
			for len(p.events) > 0 {
				t.Errorf("then %+v", <-p.events)
			}
		}
		b.Close()
		if d := waitEvent(t, a, "a is found again", registered); d > 16*time.Second {
			t.Errorf("a was registered again after %v", d)
		}
		c := w.node("b", func(c *bodkin.Config) { c.Key = testKey("c") })
		defer c.Close()
		conn, err := c.Dial(t.Context(), a.ID())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}

func mustListen(t testing.TB, p *peer) {
	t.Helper()
	if _, err := p.Listen(); err != nil {
		t.Fatal(err)
	}
}
