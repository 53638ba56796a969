package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
)

// leasedLAN is a network that our router leases addresses on: hosts a and b for DHCP
// clients that are other people's, c with our own, t with an address beside the
// pool, and s on the internet.
type leasedLAN struct{ *world }

func newLeasedLAN(t *testing.T, pool dhcp.Pool, hosts ...string) leasedLAN {
	t.Helper()
	netns.Need(t)
	t.Parallel()
	prefix := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	top := scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "s", Port: scenario.Port{Network: scenario.Internet, Addrs: prefix("198.51.100.1/24")}},
			{Name: "t", Port: scenario.Port{Network: "home", Addrs: prefix("10.1.0.50/24")}},
		},
		Gateways: []scenario.Gateway{{
			Name:    "g",
			Inside:  scenario.Port{Network: "home", Addrs: prefix("10.1.0.1/24")},
			Outside: scenario.Port{Network: scenario.Internet, Addrs: prefix("198.51.100.11/24")},
			NAT:     scenario.PortRestricted,
			DHCP:    &pool,
		}},
	}
	var left []string
	for _, name := range hosts {
		top.Hosts = append(top.Hosts, scenario.Host{Name: name, Port: scenario.Port{Network: "home", DHCP: true}})
		if name != "c" {
			left = append(left, name)
		}
	}
	lab, err := netns.New(top, netns.Options{Unconfigured: left})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return leasedLAN{&world{t: t, lab: lab, dir: t.TempDir()}}
}

// tool is the path of somebody else's program. CI installs all of them.
func (h leasedLAN) tool(name string) string {
	h.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("BODKIN_LAB") != "required" {
		h.t.Skip(err)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h leasedLAN) file(name, text string, mode os.FileMode) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// udhcpc starts busybox's client on a host. Its script says what it was called
// with as "script: NAME ADDRESS/BITS by ROUTER".
func (h leasedLAN) udhcpc(host string, args ...string) *process {
	h.t.Helper()
	script := h.file(host+".udhcpc", `#!/bin/sh
case $1 in
deconfig|nak|leasefail) ip link set $interface up; ip -4 address flush dev $interface ;;
bound|renew)
	ip -4 address replace $ip/$mask dev $interface
	ip route replace default via $router ;;
esac
echo "script: $1 $ip/$mask by $router for $lease" >&2
`, 0o755)
	return h.command(host, h.tool("udhcpc"), append([]string{"-f", "-i", netns.HostInterface, "-s", script, "-t", "5", "-T", "1", "-A", "2"}, args...)...).start()
}

// dhclient starts ISC's client on a host, with what it remembers of leases that
// it had before.
func (h leasedLAN) dhclient(host, leases string) *process {
	h.t.Helper()
	script := h.file(host+".dhclient", `#!/bin/sh
case $reason in
BOUND|RENEW|REBIND|REBOOT)
	ip -4 address replace $new_ip_address/24 dev $interface
	ip route replace default via $new_routers ;;
PREINIT) ip link set $interface up ;;
EXPIRE|FAIL|RELEASE|STOP) ip -4 address flush dev $interface ;;
esac
echo "script: $reason $new_ip_address by $new_routers" >&2
`, 0o755)
	conf := h.file(host+".conf", "timeout 10; retry 2; reboot 3; backoff-cutoff 1; initial-interval 1;\n", 0o644)
	return h.command(host, h.tool("dhclient"), "-4", "-d", "-cf", conf, "-sf", script,
		"-lf", h.file(host+".leases", leases, 0o644), "-pf", filepath.Join(h.dir, host+".pid"), netns.HostInterface).start()
}

// dials says whether a host reaches s through the gateway, over TCP.
func (h leasedLAN) dials(host string) error {
	h.t.Helper()
	var l net.Listener
	if err := h.lab.Host("s").Do(func() (err error) { l, err = net.Listen("tcp4", "198.51.100.1:0"); return err }); err != nil {
		h.t.Fatal(err)
	}
	defer l.Close()
	var from net.Conn
	err := h.lab.Host(host).Do(func() (err error) {
		from, err = net.DialTimeout("tcp4", l.Addr().String(), patience)
		return err
	})
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := l.Accept()
	if err != nil {
		return err
	}
	defer to.Close()
	if peer := to.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); peer != netip.MustParseAddr("198.51.100.11") {
		return fmt.Errorf("came as %v", peer)
	}
	from.Close()
	if _, err := to.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// told waits until the lab has an event of the gateway with these words.
func (h leasedLAN) told(words string) {
	h.t.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		events := h.lab.Status().Events
		for _, e := range events {
			if e.Name == "g" && strings.Contains(e.Text, words) {
				return
			}
		}
		if time.Now().After(limit) {
			h.t.Fatalf("no word of %q: %v", words, events)
		}
	}
}

func leasePool(lease time.Duration, first, last string) dhcp.Pool {
	return dhcp.Pool{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last), Lease: lease}
}

func TestUdhcpc(t *testing.T) {
	h := newLeasedLAN(t, leasePool(time.Hour, "10.1.0.100", "10.1.0.109"), "a", "b", "c")
	a := h.udhcpc("a")
	a.awaitWords(`script: bound 10\.1\.0\.10\d/24 by 10\.1\.0\.1 for 3600`, patience)
	if err := h.dials("a"); err != nil {
		t.Error(err)
	}
	// It may wish for an address.
	b := h.udhcpc("b", "-r", "10.1.0.107")
	b.awaitWords(`script: bound 10\.1\.0\.107/24`, patience)
	if err := h.dials("b"); err != nil {
		t.Error(err)
	}
	// Ours is served by the same server.
	h.told("leased")
	if err := h.dials("c"); err != nil {
		t.Error(err)
	}

	a.cmd.Process.Signal(syscall.SIGUSR1) // renew
	a.awaitWords(`script: renew 10\.1\.0\.10\d/24`, patience)
	h.told("renewed")
	a.cmd.Process.Signal(syscall.SIGUSR2) // release
	h.told("released")
}

// A client that slept for longer than its lease finds its address given to
// another host, and is refused it.
func TestUdhcpcIsRefusedAnOutdatedAddress(t *testing.T) {
	h := newLeasedLAN(t, leasePool(5*time.Second, "10.1.0.100", "10.1.0.100"), "a")
	a := h.udhcpc("a")
	a.awaitWords(`script: bound 10\.1\.0\.100/24`, patience)
	a.cmd.Process.Signal(syscall.SIGSTOP)
	if err := h.lab.Move("t", "home", nil); err != nil {
		t.Fatal(err)
	}
	h.told("no address is left")
	h.told("expired")
	for limit := time.Now().Add(patience); h.lab.Host("t").Addr(true) != netip.MustParseAddr("10.1.0.100"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the address is nobody's")
		}
	}
	a.cmd.Process.Signal(syscall.SIGCONT)
	a.cmd.Process.Signal(syscall.SIGUSR1)
	a.awaitWords(`script: (nak|deconfig)`, patience)
	h.told("refused")
	if err := h.dials("t"); err != nil {
		t.Error(err)
	}
}

func TestDhclientRenews(t *testing.T) {
	h := newLeasedLAN(t, leasePool(8*time.Second, "10.1.0.100", "10.1.0.109"), "a")
	a := h.dhclient("a", "")
	a.awaitWords(`script: BOUND 10\.1\.0\.100 by 10\.1\.0\.1`, patience)
	if err := h.dials("a"); err != nil {
		t.Error(err)
	}
	a.awaitWords(`DHCPREQUEST for 10\.1\.0\.100 on eth0 to 10\.1\.0\.1 port 67`, patience)
	a.awaitWords(`script: RENEW 10\.1\.0\.100`, patience)
	h.told("renewed")
}

// A client that cannot send to its server asks everyone when T2 has come.
func TestDhclientRebinds(t *testing.T) {
	h := newLeasedLAN(t, leasePool(16*time.Second, "10.1.0.100", "10.1.0.109"), "a")
	a := h.dhclient("a", "")
	a.awaitWords(`script: BOUND 10\.1\.0\.100 by 10\.1\.0\.1`, patience)
	h.run("a", "ip", "route", "add", "unreachable", "10.1.0.1")
	has := func(words string) func(line) bool {
		return func(l line) bool { return strings.Contains(l.text, words) }
	}
	at := 0
	for _, words := range []string{
		"DHCPREQUEST for 10.1.0.100 on eth0 to 10.1.0.1 port 67",
		"DHCPREQUEST for 10.1.0.100 on eth0 to 255.255.255.255 port 67",
		"DHCPACK of 10.1.0.100 from 10.1.0.1",
		"10.1.0.100 by 10.1.0.1", // the script, of a REBIND or RENEW
	} {
		_, at = a.await(words, at, patience, has(words))
	}
	h.told("renewed")
	for _, l := range a.said() {
		if strings.Contains(l.text, "EXPIRE") || strings.Contains(l.text, "DHCPNAK") {
			t.Error(l.text)
		}
	}
}

func (h leasedLAN) run(host, name string, args ...string) {
	h.t.Helper()
	cmd := h.lab.Host(host).Command(h.t.Context(), h.tool(name), args...)
	if err := h.lab.Host(host).Run(cmd); err != nil {
		h.t.Fatalf("%s %v: %v", name, args, err)
	}
}

// A client that comes from another network asks for the address that it had
// there.
func TestDhclientIsRefusedAnOutdatedAddress(t *testing.T) {
	h := newLeasedLAN(t, leasePool(time.Hour, "10.1.0.100", "10.1.0.109"), "a")
	a := h.dhclient("a", `lease {
  interface "eth0";
  fixed-address 10.9.0.7;
  option subnet-mask 255.255.255.0;
  option routers 10.9.0.1;
  option dhcp-lease-time 1000000;
  option dhcp-message-type 5;
  option dhcp-server-identifier 10.9.0.1;
  renew 2 2036/01/01 00:00:00;
  rebind 3 2036/01/02 00:00:00;
  expire 4 2036/01/03 00:00:00;
}
`)
	a.awaitWords(`DHCPREQUEST for 10\.9\.0\.7`, patience)
	a.awaitWords(`DHCPNAK from 10\.1\.0\.1`, patience)
	h.told("10.9.0.7 refused")
	a.awaitWords(`script: BOUND 10\.1\.0\.100 by 10\.1\.0\.1`, patience)
	if err := h.dials("a"); err != nil {
		t.Error(err)
	}
}

// A host that sends from an address that it was not given is noticed, whether
// somebody else has it or nobody.
func TestAddressThiefIsNoticed(t *testing.T) {
	h := newLeasedLAN(t, leasePool(time.Hour, "10.1.0.100", "10.1.0.109"), "a")
	a := h.udhcpc("a")
	a.awaitWords(`script: bound 10\.1\.0\.100/24`, patience)
	if err := h.dials("a"); err != nil {
		t.Error(err)
	}
	for _, e := range h.lab.Status().Events {
		if strings.Contains(e.Text, "stolen") {
			t.Error(e.Text)
		}
	}
	thief := scenario.HardwareAddr("t")
	for _, stolen := range []string{"10.1.0.100", "10.1.0.105"} {
		h.steal("t", stolen)
		h.told(fmt.Sprintf("%s stolen by %v", stolen, dhcp.MAC(thief)))
	}
}

// One who takes an address and sends nothing by the gateway says so by ARP
// alone. So does one who takes the gateway's own, which gets no packet of his.
func TestQuietAddressThiefIsNoticed(t *testing.T) {
	h := newLeasedLAN(t, leasePool(time.Hour, "10.1.0.100", "10.1.0.109"), "a")
	thief := scenario.HardwareAddr("t")
	for _, stolen := range []string{"10.1.0.1", "10.1.0.105"} {
		h.run("t", "ip", "address", "add", stolen+"/24", "dev", netns.HostInterface)
		err := h.lab.Host("t").Do(func() error {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(stolen)}, &net.UDPAddr{IP: net.IPv4(10, 1, 0, 77), Port: 9})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("is anybody there?")) // nobody is: what leaves are questions who has the address
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		h.told(fmt.Sprintf("%s stolen by %v", stolen, dhcp.MAC(thief)))
		h.run("t", "ip", "address", "del", stolen+"/24", "dev", netns.HostInterface)
	}
}

// steal has a host use an address that it was not given.
func (h leasedLAN) steal(host, stolen string) {
	h.t.Helper()
	h.run(host, "ip", "address", "add", stolen+"/24", "dev", netns.HostInterface)
	err := h.lab.Host(host).Do(func() error {
		from := &net.UDPAddr{IP: net.ParseIP(stolen)}
		c, err := net.DialUDP("udp4", from, &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 9})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("it was I"))
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// A server that pings first does not offer what somebody uses.
func TestOccupiedAddressIsNotOffered(t *testing.T) {
	pool := leasePool(time.Hour, "10.1.0.100", "10.1.0.109")
	pool.Probe = true
	h := newLeasedLAN(t, pool, "a")
	h.steal("t", "10.1.0.100")
	h.told("10.1.0.100 stolen")
	a := h.udhcpc("a")
	a.awaitWords(`script: bound 10\.1\.0\.101/24`, patience)
	h.told("10.1.0.100 occupied")
}
