package netns

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
)

// sixAndThree is six hosts and three gateways, the common measure of a lab. Two
// of the hosts have their addresses by DHCP.
func sixAndThree() scenario.Topology {
	access := scenario.Link{Delay: 5 * time.Millisecond}
	none := scenario.Link{}
	t := scenario.Topology{Hosts: []scenario.Host{
		{Name: "s1", Port: on(scenario.Internet, access, "203.0.113.101/24")},
		{Name: "s2", Port: on(scenario.Internet, access, "203.0.113.102/24")},
		{Name: "l", Port: scenario.Port{Network: "lan3", DHCP: true}},
		{Name: "m", Port: scenario.Port{Network: "lan3", DHCP: true}},
	}}
	for i := 1; i <= 3; i++ {
		lan, prefix := fmt.Sprint("lan", i), fmt.Sprintf("192.168.%d.", i)
		t.Gateways = append(t.Gateways, scenario.Gateway{Name: fmt.Sprint("g", i), NAT: linux,
			Inside: on(lan, none, prefix+"1/24"), Outside: on(scenario.Internet, access, fmt.Sprintf("203.0.113.%d/24", i))})
		if i < 3 {
			t.Hosts = append(t.Hosts, scenario.Host{Name: fmt.Sprint("h", i), Port: on(lan, none, prefix+"2/24")})
		}
	}
	t.Gateways[2].DHCP = &dhcp.Pool{}
	return t
}

// TestStartUnderOneSecond measures; a busy machine may take several times as
// long.
func TestStartUnderOneSecond(t *testing.T) {
	Need(t)
	var least time.Duration
	for i := range 5 {
		start := time.Now()
		l, err := New(sixAndThree(), Options{})
		up := time.Since(start)
		if err != nil {
			t.Fatal(err)
		}
		if !l.Host("m").Addr(true).IsValid() {
			t.Error("up, but a host has no address")
		}
		start = time.Now()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("up in %v, down in %v", up, time.Since(start))
		if i == 0 || up < least {
			least = up
		}
	}
	if least > 5*time.Second {
		t.Errorf("the fastest of five starts took %v", least)
	}
}

// TestHundredLabs builds and removes labs, and looks for what they have left.
func TestHundredLabs(t *testing.T) {
	Need(t)
	n := 100
	if testing.Short() {
		n = 10
	}
	var daemons []int
	spaces := map[string]bool{}
	before := census(t)
	for i := range n {
		l, err := New(sixAndThree(), Options{Seed: uint64(i)})
		if err != nil {
			t.Fatalf("lab %d: %v", i, err)
		}
		for _, s := range l.spaces {
			spaces[fmt.Sprintf("net:[%d]", s.inode)] = true
		}
		h := l.Host("h1")
		cmd := h.Command(t.Context(), "/bin/sh", "-c", "setsid sleep 1000 >/dev/null & echo $!; exec sleep 1000 >/dev/null")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Start(cmd); err != nil {
			t.Fatal(err)
		}
		var daemon int
		if _, err := fmt.Fscan(out, &daemon); err != nil {
			t.Fatal(err)
		}
		daemons = append(daemons, daemon)
		if i%10 == 0 {
			a, s := udp(t, h, 4000), udp(t, l.Host("s1"), 3478)
			mapped(a, s, netip.MustParseAddr("203.0.113.101"))
			a.Close()
			s.Close()
		}
		if err := l.Close(); err != nil {
			t.Fatalf("lab %d: %v", i, err)
		}
		cmd.Wait()
	}
	for _, pid := range daemons {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && spaces[ns] {
			t.Errorf("process %d lives on in %s", pid, ns)
		}
	}
	// Threads end a moment after their goroutines.
	deadline := time.Now().Add(30 * time.Second)
	for {
		left := census(t).minus(before)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v", left)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// things counts what there is, by kind.
type things map[string]int

func (now things) minus(before things) []string {
	var more []string
	for kind, n := range now {
		if n > before[kind] {
			more = append(more, fmt.Sprintf("%s: %d, were %d", kind, n, before[kind]))
		}
	}
	return more
}

// census counts what this process has of what a lab is made of. Threads that
// the runtime keeps for itself do not count: those of a lab are in namespaces.
func census(t *testing.T) things {
	t.Helper()
	c := things{"descriptors": openDescriptors(t), "interfaces": len(interfaceNames(t))}
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range threads {
		if to, err := os.Readlink(p); err == nil && to != here {
			c["threads elsewhere"]++
		}
	}
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range children {
		if b, err := os.ReadFile(p); err == nil {
			c["children"] += len(strings.Fields(string(b)))
		}
	}
	c["goroutines"] = runtime.NumGoroutine()
	return c
}
