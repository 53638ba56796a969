package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// sample sends n numbered datagrams of size bytes from a to b and returns the
// numbers in the order of arrival, with the time since the first was sent.
func sample(t *testing.T, net *Network, n, size int, gap time.Duration) (order []int, times []time.Duration) {
	t.Helper()
	a, b := listenUDP(t, net.Host("a"), 7), listenUDP(t, net.Host("b"), 9)
	defer a.Close()
	b.(*udpConn).SetReadBuffer(1 << 30)
	start := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			if _, _, err := b.ReadFrom(buf); err != nil {
				return
			}
			var i int
			fmt.Sscanf(string(buf), "%d", &i)
			order = append(order, i)
			times = append(times, time.Since(start))
		}
	}()
	msg := make([]byte, size)
	for i := range n {
		copy(msg, fmt.Sprintf("%d ", i))
		if _, err := a.WriteTo(msg, udp("198.51.100.1:9")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(gap)
	}
	time.Sleep(time.Minute)
	b.Close()
	<-done
	return order, times
}

func TestLoss(t *testing.T) {
	// 10% on each of two links leaves 81%.
	inBubble(t, public(scenario.Link{Loss: 0.1}), func(t *testing.T, n *Network) {
		order, _ := sample(t, n, 10000, 100, time.Millisecond)
		if len(order) < 8000 || len(order) > 8200 {
			t.Errorf("%d of 10000 arrived", len(order))
		}
		if !slices.IsSorted(order) {
			t.Error("out of order")
		}
	})
}

func TestJitter(t *testing.T) {
	link := scenario.Link{Delay: 10 * time.Millisecond, Jitter: 4 * time.Millisecond}
	inBubble(t, public(link), func(t *testing.T, n *Network) {
		order, times := sample(t, n, 5000, 100, time.Millisecond)
		if len(order) != 5000 || slices.IsSorted(order) {
			t.Errorf("%d arrived, in order: %v", len(order), slices.IsSorted(order))
		}
		var sum time.Duration
		for i, at := range times {
			took := at - time.Duration(order[i])*time.Millisecond
			if took < 20*time.Millisecond || took > 28*time.Millisecond {
				t.Fatalf("took %v", took)
			}
			sum += took
		}
		if mean := sum / 5000; mean < 23900*time.Microsecond || mean > 24100*time.Microsecond {
			t.Errorf("mean %v", mean)
		}
	})
}

func TestReorder(t *testing.T) {
	top := public(scenario.Link{})
	top.Hosts[0].Port.Link = scenario.Link{Delay: 10 * time.Millisecond, Reorder: 0.2}
	inBubble(t, top, func(t *testing.T, n *Network) {
		order, times := sample(t, n, 5000, 100, time.Millisecond)
		early := 0
		for i, at := range times {
			switch took := at - time.Duration(order[i])*time.Millisecond; took {
			case 0:
				early++
			case 10 * time.Millisecond:
			default:
				t.Fatalf("took %v", took)
			}
		}
		if early < 900 || early > 1100 {
			t.Errorf("%d of 5000 overtook", early)
		}
	})
}

// A megabit a second: packets of 1,250 bytes leave every 10 ms, whether the
// sender's or the receiver's link is the slow one.
func TestRate(t *testing.T) {
	for slow := range 2 {
		top := public(scenario.Link{})
		top.Hosts[slow].Port.Link = scenario.Link{Rate: 1e6, Delay: time.Millisecond}
		inBubble(t, top, func(t *testing.T, n *Network) {
			order, times := sample(t, n, 40, 1250-28, 0)
			if len(order) != 40 {
				t.Fatalf("%d of 40 arrived", len(order))
			}
			for i, at := range times {
				if want := time.Duration(i+1)*10*time.Millisecond + time.Millisecond; at != want {
					t.Errorf("packet %d after %v, want %v", i, at, want)
				}
			}
			// The queue holds 64 KiB: 52 packets.
			if order, _ := sample(t, n, 200, 1250-28, 0); len(order) != 52 {
				t.Errorf("%d of 200 at once arrived", len(order))
			}
		})
	}
}

// What is lost takes nothing of the rate: those that are not follow each other.
func TestLossTakesNoRate(t *testing.T) {
	top := public(scenario.Link{})
	top.Hosts[0].Port.Link = scenario.Link{Rate: 1e6, Loss: 0.5}
	inBubble(t, top, func(t *testing.T, n *Network) {
		order, times := sample(t, n, 50, 1250-28, 0)
		if len(order) == 0 || len(order) == 50 {
			t.Fatalf("%d of 50 arrived", len(order))
		}
		for i, at := range times {
			if want := time.Duration(i+1) * 10 * time.Millisecond; at != want {
				t.Errorf("packet %d after %v, want %v", i, at, want)
			}
		}
	})
}

// The queue in front of a slow receiver is in the order of arrival.
func TestRateOfReceiver(t *testing.T) {
	top := public(scenario.Link{})
	top.Hosts[1].Port.Link.Rate = 1e6
	inBubble(t, top, func(t *testing.T, n *Network) {
		a, b := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("b"), 9)
		start := time.Now()
		msg := strings.Repeat("x", 1250-28-1)
		n.SetLink("a", scenario.Link{Delay: 100 * time.Millisecond})
		send(t, a, "198.51.100.1:9", msg+"1")
		n.SetLink("a", scenario.Link{})
		send(t, a, "198.51.100.1:9", msg+"2")
		expect(t, b, msg+"2", "192.0.2.1:7")
		if took := time.Since(start); took != 10*time.Millisecond {
			t.Errorf("the second took %v", took)
		}
		expect(t, b, msg+"1", "192.0.2.1:7")
		if took := time.Since(start); took != 110*time.Millisecond {
			t.Errorf("the first took %v", took)
		}
	})
}

func TestMTU(t *testing.T) {
	top := public(scenario.Link{})
	top.Hosts[1].Port.Link.MTU = 1400
	inBubble(t, top, func(t *testing.T, n *Network) {
		for _, c := range []struct{ size, want int }{{1372, 1}, {1373, 0}, {1473, 0}} {
			if order, _ := sample(t, n, 1, c.size, 0); len(order) != c.want {
				t.Errorf("%d bytes: %d arrived", c.size, len(order))
			}
		}
	})
}

func TestSetLink(t *testing.T) {
	inBubble(t, public(scenario.Link{}), func(t *testing.T, n *Network) {
		if err := n.SetLink("b", scenario.Link{Delay: 7 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		if _, times := sample(t, n, 1, 100, 0); times[0] != 7*time.Millisecond {
			t.Errorf("took %v", times[0])
		}
		if err := n.SetLink("c", scenario.Link{}); err == nil {
			t.Error("there is a port c")
		}
		if err := n.SetLink("b", scenario.Link{Loss: 2}); err == nil {
			t.Error("more than everything can be lost")
		}
	})
}

// One seed, one run.
func TestSeed(t *testing.T) {
	run := func(seed uint64) (order []int) {
		synctest.Test(t, func(t *testing.T) {
			link := scenario.Link{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.1, Reorder: 0.1}
			n, err := New(public(link), Options{Seed: seed})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			order, _ = sample(t, n, 500, 100, time.Millisecond)
		})
		return order
	}
	if !slices.Equal(run(1), run(1)) {
		t.Error("one seed, two runs")
	}
	if slices.Equal(run(1), run(2)) {
		t.Error("two seeds, one run")
	}
}

// TestFasterLink: what waited for a slow link does not keep a faster one busy.
func TestFasterLink(t *testing.T) {
	for _, faster := range []int64{1_000_000, 1e9, 1e12} {
		inBubble(t, public(scenario.Link{}), func(t *testing.T, n *Network) {
			a, b := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("b"), 9)
			set := func(rate int64) {
				if err := n.SetLink("a", scenario.Link{Rate: rate}); err != nil {
					t.Fatal(err)
				}
			}
			set(8000)
			for range 40 { // 40 seconds
				send(t, a, "198.51.100.1:9", strings.Repeat("x", 972))
			}
			set(faster)
			start := time.Now()
			send(t, a, "198.51.100.1:9", "y")
			if got, _ := receive(t, b); got != "y" || time.Since(start) > 330*time.Millisecond {
				t.Errorf("%d: %.10q came after %v", faster, got, time.Since(start))
			}
		})
	}
}
