package e2e

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

const (
	hundredMB     = 100_000_000
	transferLimit = 3 * time.Minute
	// overhead is what may cross the server beside the relayed stream: keep-alives,
	// the relay link's own, and what was on its way when the path changed.
	overhead = 100_000
)

// Test100MB sends 100 MB from connect's standard input to listen's standard
// output, and counts on the way where they went.
func Test100MB(t *testing.T) {
	homes := func(b ...bool) scenario.Topology {
		top := scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted)
		for i := range top.Gateways {
			top.Gateways[i].NAT.BlockUDP = len(b) > 0
		}
		return top
	}
	t.Run("direct", func(t *testing.T) {
		w := newWorld(t, homes())
		moved := transfer(t, w, scenario.Outcome{Kind: "direct", Transport: "udp"})
		if moved.server > moved.firstSecond+overhead {
			t.Errorf("%d bytes crossed the server, %d in the first second", moved.server, moved.firstSecond)
		}
		if moved.direct+moved.server < hundredMB {
			t.Errorf("%d bytes direct and %d through the server: they went another way", moved.direct, moved.server)
		}
	})
	t.Run("packet relay", func(t *testing.T) {
		w := newWorld(t, homes())
		moved := transfer(t, w, scenario.Outcome{Kind: "relay", Transport: "udp"}, "--relay-only")
		if moved.server < hundredMB || moved.direct != 0 {
			t.Errorf("%d bytes crossed the server, %d went direct", moved.server, moved.direct)
		}
	})
	t.Run("stream relay", func(t *testing.T) {
		w := newWorld(t, homes(true))
		moved := transfer(t, w, scenario.Outcome{Kind: "relay", Transport: "tcp"})
		if moved.server < hundredMB || moved.direct != 0 {
			t.Errorf("%d bytes crossed the server, %d went direct", moved.server, moved.direct)
		}
	})
}

// volume is what crossed the internet from a's NAT while 100 MB went to b.
type volume struct{ server, direct, firstSecond uint64 }

func transfer(t *testing.T, w *world, want scenario.Outcome, flags ...string) volume {
	t.Helper()
	b := w.listen("b")
	got := hashOf(b.stdout)
	begun := time.Now()
	a := w.connect("a", "b", flags...)
	sent := feed(a.stdin, 1, hundredMB)
	var v volume
	second := make(chan uint64, 1)
	timer := time.AfterFunc(time.Until(begun.Add(time.Second)), func() {
		second <- w.carried(netip.Addr{}, scenario.ServerAddr).Bytes
	})
	defer timer.Stop()
	b.stdin.Close()
	var in, out digest
	select {
	case out = <-got:
	case <-time.After(transferLimit):
		t.Fatal("the transfer takes too long")
	}
	took := time.Since(begun)
	in = <-sent
	if in.err != nil || out.err != nil {
		t.Fatalf("sent %d bytes (%v), received %d (%v)", in.bytes, in.err, out.bytes, out.err)
	}
	a.mustExit(patience)
	b.mustExit(patience)
	if in.bytes != hundredMB || out.bytes != hundredMB || in.sum != out.sum {
		t.Errorf("sent %d bytes %s, received %d bytes %s", in.bytes, in.sum, out.bytes, out.sum)
	}
	checkOutcome(t, a, want)
	checkKind(t, b, want)
	v.firstSecond = <-second
	v.server = w.carried(netip.Addr{}, scenario.ServerAddr).Bytes
	v.direct = w.carried(scenario.GatewayAAddr, scenario.GatewayBAddr).Bytes
	t.Logf("100 MB in %v (%.0f Mbit/s): %d bytes to the server, %d of them in the first second; %d direct",
		took.Round(time.Millisecond), hundredMB*8/1e6/took.Seconds(), v.server, v.firstSecond, v.direct)
	return v
}

// checkKind compares the last path that the listening side used.
func checkKind(t *testing.T, b *process, want scenario.Outcome) {
	t.Helper()
	paths := b.paths()
	if len(paths) == 0 {
		t.Fatalf("%s: no path was in use", b.name)
	}
	if last := paths[len(paths)-1]; last.Kind != want.Kind || last.Transport != want.Transport {
		t.Errorf("%s: %s over %s, want %s over %s", b.name, last.Kind, last.Transport, want.Kind, want.Transport)
	}
}
