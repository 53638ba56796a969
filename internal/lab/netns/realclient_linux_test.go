package netns

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
)

// configure is what the clients run when they have been given something.
const configure = `#!/bin/sh
case "$1$reason" in
bound|renew|BOUND|RENEW|REBIND|REBOOT)
	address=${ip:-$new_ip_address}
	ip address flush dev eth0 scope global
	ip address add "$address/${mask:-24}" dev eth0
	ip route replace default via "${router:-$new_routers}" dev eth0
	;;
esac
`

// TestRealClients: other people's DHCP clients get addresses on the wire, and
// notice that one is taken.
func TestRealClients(t *testing.T) {
	t.Parallel()
	none := scenario.Link{}
	script := filepath.Join(t.TempDir(), "configure")
	if err := os.WriteFile(script, []byte(configure), 0o755); err != nil {
		t.Fatal(err)
	}
	top := scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: scenario.Port{Network: "home", DHCP: true}},
			{Name: "thief", Port: scenario.Port{Network: "home", DHCP: true}},
			{Name: "s", Port: on(scenario.Internet, none, sAddr)},
		},
		Gateways: []scenario.Gateway{{Name: "g", NAT: linux, DHCP: &dhcp.Pool{First: netip.MustParseAddr("192.168.1.100"), Last: netip.MustParseAddr("192.168.1.199")},
			Inside: on("home", none, gaIn), Outside: on(scenario.Internet, none, gaOut)}},
	}
	for _, tt := range []struct {
		name  string
		args  []string
		taken bool // one of the pool's addresses is in use, and the client looks
	}{
		{"udhcpc", []string{"-i", "eth0", "-f", "-q", "-n", "-s", script}, false},
		{"udhcpc", []string{"-i", "eth0", "-f", "-q", "-n", "-a", "-A", "1", "-s", script}, true},
		{"dhclient", []string{"-1", "-d", "-lf", filepath.Join(t.TempDir(), "leases"), "-pf", filepath.Join(t.TempDir(), "pid"), "-sf", script, "eth0"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path, err := exec.LookPath(tt.name)
			if err != nil {
				t.Skip(err)
			}
			l := newLab(t, top, Options{Unconfigured: []string{"a", "thief"}})
			if tt.taken {
				steal(t, l.Host("thief"), "192.168.1.100/24")
			}
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			h := l.Host("a")
			cmd := h.Command(ctx, path, tt.args...)
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := h.Start(cmd); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cancel()
				cmd.Wait()
				if t.Failed() {
					t.Log(out.String())
				}
			}()
			var got netip.Addr
			await(t, "an address", func() bool {
				got = globalAddr(t, h)
				return got.IsValid()
			})
			want := netip.MustParseAddr("192.168.1.100")
			if tt.taken {
				want = want.Next()
			}
			if got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			s := udp(t, l.Host("s"), 3478)
			await(t, "through the gateway", func() bool {
				a := udp(t, h, 4000)
				defer a.Close()
				if _, err := a.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(ip(sAddr), 3478)); err != nil {
					return false // there is no route yet
				}
				_, from, ok := s.receive(100 * time.Millisecond)
				return ok && from.Addr() == ip(gaOut)
			})
		})
	}
}

// TestRealClientIsToldRoutes: the routes come as other people's client reads
// them, the way out among them.
func TestRealClientIsToldRoutes(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("udhcpc")
	if err != nil {
		t.Skip(err)
	}
	script := filepath.Join(t.TempDir(), "tell")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$1: $staticroutes\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, besideTheWayOut(false), Options{Unconfigured: []string{"a"}})
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := l.Host("a").Command(ctx, path, "-i", "eth0", "-f", "-q", "-n", "-O", "staticroutes", "-s", script)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := l.Host("a").Run(cmd); err != nil || !strings.Contains(out.String(), "bound: 10.9.0.0/24 192.168.1.5 0.0.0.0/0 192.168.1.1\n") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// steal gives a host an address behind everybody's back.
func steal(t *testing.T, h *Host, addr string) {
	t.Helper()
	err := h.Do(func() error {
		eth0, err := netlink.LinkByName(HostInterface)
		if err != nil {
			return err
		}
		return addAddress(eth0, netip.MustParsePrefix(addr))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// globalAddr is the IPv4 address that the kernel of a host has.
func globalAddr(t *testing.T, h *Host) (a netip.Addr) {
	t.Helper()
	err := h.Do(func() error {
		eth0, err := netlink.LinkByName(HostInterface)
		if err != nil {
			return err
		}
		list, err := netlink.AddrList(eth0, netlink.FAMILY_V4)
		if len(list) > 0 {
			a = prefixOf(list[0].IPNet).Addr()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}
