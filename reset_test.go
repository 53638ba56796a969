package bodkin_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// What was given up half-way never looks like a whole.
func TestReset(t *testing.T) {
	virtual(t, scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted), 1, func(t *testing.T, w *world) {
		a, b := w.node("a"), w.node("b")
		defer a.Close()
		defer b.Close()
		ca, cb := connect(t, a, b)
		defer cb.Close()
		exchange(t, ca, cb, 100_000)
		if _, err := ca.Write(randomBytes(1, 5_000_000)); err != nil {
			t.Fatal(err)
		}
		if err := ca.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		ca.Reset()
		if err := ca.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := ca.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("read here: %v", err)
		}
		if _, err := io.Copy(io.Discard, cb); !errors.Is(err, bodkin.PeerClosed) {
			t.Errorf("read there: %v", err)
		}
		cb.SetWriteDeadline(time.Now().Add(10 * time.Second))
		var err error
		for err == nil {
			_, err = cb.Write(make([]byte, 1<<16))
		}
		if !errors.Is(err, bodkin.PeerClosed) {
			t.Errorf("write there: %v", err)
		}
	})
}
