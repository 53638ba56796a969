package rendezvous

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

var relayID = RelayID{1, 2, 3, 4, 5, 6, 7, 8}

func (w *world) golden(want []string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.trace); diff != "" {
		w.t.Errorf("trace differs (-want +got):\n%s", diff)
	}
}

// One way takes 10 ms: registered after two round trips.
func TestRegisterTrace(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a := w.node("A", "192.0.2.1:1000")
	a.Start(w.now)
	w.run(16*time.Second, nil)
	w.golden([]string{
		"   0.000s A > HELLO",
		"   0.010s S > COOKIE to A",
		"   0.020s A > REGISTER",
		"   0.030s S > REGISTERED to A",
		"   0.040s A ! rendezvous.Registered",
		"  13.202s A > KEEPALIVE",
		"  13.212s S > ALIVE to A",
	})
	got, _ := last[Registered](a)
	if got.Mapped != a.addr.Endpoint || got.ServerID != w.server.id {
		t.Errorf("registered as %+v", got)
	}
}

// A peer that starts and connects in one go: the REQUEST reaches the other
// after the HELLO's round trip and one more way, and packets follow at once.
func TestPipelinedConnectTrace(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	b := w.node("B", "192.0.2.2:2000")
	w.ready()
	w.trace, w.start = nil, w.now
	a := w.node("A", "192.0.2.1:1000")
	a.Start(w.now)
	a.Connect(w.now, b.key.ID(), relayID, PacketRelay|Direct, []byte("offer"))
	w.run(100*time.Millisecond, nil)
	a.StopConnect(relayID)
	w.run(time.Second, nil)
	w.golden([]string{
		"   0.000s A > HELLO",
		"   0.010s S > COOKIE to A",
		"   0.020s A > REGISTER",
		"   0.020s A > CONNECT",
		"   0.030s S > REGISTERED to A",
		"   0.030s S > REQUEST to B",
		"   0.030s S > CONNECTED to A",
		"   0.040s A ! rendezvous.Registered",
		"   0.040s B ! rendezvous.Requested",
		"   0.040s A ! rendezvous.Connected",
	})
	want := Requested{relayID, a.key.ID(), a.addr.Endpoint, PacketRelay | Direct, []byte("offer")}
	if got, _ := last[Requested](b); !cmp.Equal(got, want, cmp.Comparer(func(x, y netip.AddrPort) bool { return x == y })) {
		t.Errorf("B got %+v, want %+v", got, want)
	}
	if got, _ := last[Connected](a); got != (Connected{relayID, wire.StatusOK, PacketRelay | Direct, b.addr.Endpoint}) {
		t.Errorf("A got %+v", got)
	}
	p := append(relay.AppendHeader(nil, relayID), "payload"...)
	if to, ok := w.server.RelayTarget(w.now, a.addr.Endpoint, p); !ok || to != b.addr.Endpoint {
		t.Errorf("relayed to %v, %v", to, ok)
	}
	if to, ok := w.server.RelayTarget(w.now, b.addr.Endpoint, p); !ok || to != a.addr.Endpoint {
		t.Errorf("relayed back to %v, %v", to, ok)
	}
	b.Signal(w.now, relayID, []byte("answer"))
	w.run(time.Second, nil)
	if got, _ := last[Signalled](a); string(got.Sealed) != "answer" || got.Relay != relayID {
		t.Errorf("A was signalled %+v", got)
	}
}

func TestTargetRegistersLater(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a, b := w.node("A", "192.0.2.1:1000"), w.node("B", "192.0.2.2:2000")
	a.Start(w.now)
	a.Connect(w.now, b.key.ID(), relayID, PacketRelay, nil)
	w.run(time.Second, nil)
	if len(a.events) != 1 {
		t.Fatalf("A had %v", a.events)
	}
	b.Start(w.now)
	if !w.run(500*time.Millisecond, func() bool { return count[Connected](a) == 1 && count[Requested](b) == 1 }) {
		t.Fatalf("A had %v, B had %v", a.events, b.events)
	}
	if got, _ := last[Connected](a); got.Status != wire.StatusOK {
		t.Errorf("A got %+v", got)
	}
}

func TestTargetNeverRegisters(t *testing.T) {
	w := newWorld(t, 1, ServerConfig{})
	a := w.node("A", "192.0.2.1:1000")
	w.ready()
	w.start, w.trace = w.now, nil
	a.Connect(w.now, w.server.id, relayID, PacketRelay, nil)
	w.run(10*time.Second, func() bool { return count[Connected](a) == 1 })
	if got, _ := last[Connected](a); got.Status != wire.StatusNotRegistered {
		t.Errorf("A got %+v", got)
	}
	if d := w.now.Sub(w.start); d != 2*time.Second {
		t.Errorf("after %v", d)
	}
	if len(a.connects) != 0 {
		t.Error("still connecting")
	}
}
