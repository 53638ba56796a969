package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

func setTTL(t testing.TB, s socket, ttl int) {
	t.Helper()
	if err := ipv4.NewConn(s.UDPConn).SetTTL(ttl); err != nil {
		t.Fatal(err)
	}
}

// TestNothingLeft looks for what a lab could leave behind.
func TestNothingLeft(t *testing.T) {
	Need(t)
	interfaces, descriptors := interfaceNames(t), openDescriptors(t)
	for _, opt := range []Options{{}, {Kernel: true, UserWire: true}, {Kernel: true}} {
		l, err := New(twoNATs(nat.Behaviour{}, linux, scenario.Link{}), opt)
		if err != nil {
			t.Fatal(err)
		}
		inside := map[string]bool{}
		for _, s := range l.spaces {
			inside[fmt.Sprintf("net:[%d]", s.inode)] = true
		}
		// A program whose child is a daemon with the pipe as its only tie.
		cmd := l.Host("a").Command(context.Background(), "/bin/sh", "-c", "setsid sleep 1000 & exec sleep 1000")
		if err := l.Host("a").Start(cmd); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(interfaceNames(t), interfaces) {
			t.Errorf("interfaces %v, before %v", interfaceNames(t), interfaces)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("the command ended: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
		if err := l.Host("a").Do(func() error { return nil }); err != errClosed {
			t.Errorf("a closed host: %v", err)
		}
		// Threads end a moment after their goroutines.
		deadline := time.Now().Add(30 * time.Second)
		for left := users(t, inside); len(left) > 0; left = users(t, inside) {
			if time.Now().After(deadline) {
				t.Fatalf("%v are in namespaces of the lab", left)
			}
		}
	}
	if now := openDescriptors(t); now > descriptors {
		t.Errorf("%d descriptors are open, before %d", now, descriptors)
	}
}

// users lists threads of any process, and descriptors of this one, in or of
// the namespaces.
func users(t *testing.T, inside map[string]bool) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/proc/[0-9]*/task/*/ns/net", "/proc/self/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			if to, err := os.Readlink(p); err == nil && inside[to] {
				found = append(found, p)
			}
		}
	}
	return found
}

func interfaceNames(t *testing.T) []string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestSideBySide builds the same topology twice at once.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	top := twoNATs(linux, linux, scenario.Link{Delay: time.Millisecond})
	for i := range 2 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, top, Options{})
			a, b := punched(t, l)
			for range 50 {
				a.send(a.peer, t.Name())
				b.mustReceive(t.Name())
			}
		})
	}
}

func TestKernelWire(t *testing.T) {
	t.Parallel()
	l := newLab(t, twoNATs(linux, nat.Behaviour{}, scenario.Link{}), Options{Kernel: true})
	if _, err := l.Counters(); err != errKernelWire {
		t.Errorf("counters: %v", err)
	}
	a, b := punched(t, l)
	a.send(a.peer, "over veth")
	b.mustReceive("over veth")
}

// TestManyPrefixes: hosts on the internet reach each other whatever their
// prefixes are, on either wire.
func TestManyPrefixes(t *testing.T) {
	t.Parallel()
	none := scenario.Link{}
	top := scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: on("lan-a", none, "10.1.0.2/24", "2001:db8:1::2/64")},
			{Name: "b", Port: on(scenario.Internet, none, "198.51.100.1/24", "2001:db8:2::1/64")},
			{Name: "c", Port: on(scenario.Internet, none, "192.0.2.1/24", "2001:db8:3::1/64")},
		},
		Gateways: []scenario.Gateway{{Name: "ga", NAT: linux, Inside: on("lan-a", none, "10.1.0.1/24", "2001:db8:1::1/64"),
			Outside: on(scenario.Internet, none, "203.0.113.1/24", "2001:db8::1/64")}},
	}
	for _, opt := range []Options{{}, {Kernel: true, UserWire: true}, {Kernel: true}} {
		l := newLab(t, top, opt)
		b := udp(t, l.Host("b"), 1)
		for _, from := range []socket{udp(t, l.Host("a"), 1), udp(t, l.Host("c"), 1)} {
			for _, v4 := range []bool{true, false} {
				from.send(netip.AddrPortFrom(l.Host("b").Addr(v4), 1), "there")
				b.send(b.mustReceive("there"), "and back")
				from.mustReceive("and back")
			}
		}
	}
}

func TestImpossible(t *testing.T) {
	none := scenario.Link{}
	for _, tt := range []struct {
		name string
		top  scenario.Topology
		opt  Options
		want string
	}{
		{"checked", scenario.Topology{Hosts: []scenario.Host{{Name: "a", Port: on("lan", none, aIn)}}}, Options{}, "netns: hosts.a: no gateway leads out"},
		{"the internet's own", scenario.Topology{Hosts: []scenario.Host{{Name: "a", Port: on(scenario.Internet, none, "198.18.255.254/15")}}}, Options{}, "netns: hosts.a.address: 198.18.255.254 belongs"},
		{"bad loss", twoHosts(scenario.Link{Loss: 2}), Options{}, "from 0 to 1"},
		{"nothing to leave", twoHosts(none), Options{Unconfigured: []string{"a"}}, `no host "a" with DHCP`},
		{"nobody to leave", twoHosts(none), Options{Unconfigured: []string{"x"}}, `no host "x" with DHCP`},
	} {
		if _, err := New(tt.top, tt.opt); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestRoutes: plain routers deep inside are found from everywhere.
func TestRoutes(t *testing.T) {
	t.Parallel()
	none := scenario.Link{}
	open := nat.Behaviour{Mode: nat.Open}
	top := scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: on("deep", none, "198.51.100.2/28", "2001:db8:a:1::2/64")},
			{Name: "b", Port: on("lan-b", none, "198.51.100.34/28", "2001:db8:b::2/64")},
		},
		Gateways: []scenario.Gateway{
			{Name: "inner", NAT: open, Inside: on("deep", none, "198.51.100.1/28", "2001:db8:a:1::1/64"), Outside: on("middle", none, "198.51.100.18/28", "2001:db8:a:2::2/64")},
			{Name: "outer", NAT: open, Inside: on("middle", none, "198.51.100.17/28", "2001:db8:a:2::1/64"), Outside: on(scenario.Internet, none, "203.0.113.1/24", "2001:db8::1/64")},
			{Name: "gb", NAT: open, Inside: on("lan-b", none, "198.51.100.33/28", "2001:db8:b::1/64"), Outside: on(scenario.Internet, none, "203.0.113.2/24", "2001:db8::2/64")},
		},
	}
	for _, opt := range []Options{{}, {Kernel: true, UserWire: true}, {Kernel: true}} {
		l := newLab(t, top, opt)
		a, b := udp(t, l.Host("a"), 1), udp(t, l.Host("b"), 1)
		for _, v4 := range []bool{true, false} {
			a.send(netip.AddrPortFrom(l.Host("b").Addr(v4), 1), "there")
			if from := b.mustReceive("there"); from.Addr() != l.Host("a").Addr(v4) {
				t.Errorf("from %v", from)
			}
			b.send(netip.AddrPortFrom(l.Host("a").Addr(v4), 1), "and back")
			a.mustReceive("and back")
		}
	}
}
