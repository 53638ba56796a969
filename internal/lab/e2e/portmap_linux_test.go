package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// Other people's clients ask our gateway for ports, and see whether they are
// open.

// box is a lab with host a behind gateway ga, and host s outside.
type box struct {
	*testing.T
	*netns.Lab
}

func newBox(t *testing.T, change func(*scenario.Gateway)) *box {
	t.Helper()
	netns.Need(t)
	top := scenario.OneHome(scenario.PortRestricted)
	change(&top.Gateways[0])
	lab, err := netns.New(top, netns.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return &box{t, lab}
}

const (
	homeInside  = "10.1.0.1"
	homeOutside = "198.51.100.11"
	homeServer  = "198.51.100.1"
)

// run runs a program on a host, and returns what it prints and how it ends.
func (h *box) run(host, program string, args ...string) (string, error) {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out strings.Builder
	cmd := h.Host(host).Command(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := h.Host(host).Run(cmd)
	if ctx.Err() != nil {
		h.Fatalf("%s %v does not end:\n%s", program, args, &out)
	}
	return out.String(), err
}

// upnpc is miniupnpc's client, which holds the documentation's addresses for
// private ones, and a gateway with one for disconnected: -i has it go on.
func (h *box) upnpc(host, args string, want ...string) {
	h.Helper()
	h.mustSay(host, need(h.T, "upnpc"), "-i -u http://"+homeInside+":5000/rootDesc.xml "+args, want...)
}

// mustSay runs a program, which must say all of these.
func (h *box) mustSay(host, program, args string, want ...string) {
	h.Helper()
	out, err := h.run(host, program, strings.Fields(args)...)
	// natpmpc asks again after 250 ms, and on a slow machine takes the second
	// answer to one question for the answer to the next.
	for range 5 {
		if !strings.Contains(out, "protocol UNKNOWN") {
			break
		}
		out, err = h.run(host, program, strings.Fields(args)...)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.Fatal(err)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			h.Fatalf("%s %s does not say %q:\n%s", program, args, w, out)
		}
	}
}

// listen answers every connection to a port of a host with who it is.
func (h *box) listen(host, at, who string) {
	h.Helper()
	var l net.Listener
	err := h.Host(host).Do(func() (err error) {
		l, err = net.Listen("tcp4", at)
		return err
	})
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, who)
			c.Close()
		}
	}()
}

// answers is who answers a connection from a host; empty: nobody.
func (h *box) answers(host, to string) string {
	h.Helper()
	var c net.Conn
	err := h.Host(host).Do(func() (err error) {
		c, err = net.DialTimeout("tcp4", to, time.Second)
		return err
	})
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	all, _ := io.ReadAll(c)
	return string(all)
}

func (h *box) wantAnswer(to, want string) {
	h.Helper()
	if got := h.answers("s", to); got != want {
		h.Errorf("%s is answered by %q, want %q", to, got, want)
	}
}

// TestUPNPC: miniupnpc's client finds our gateway, opens a port, sees it in the
// list and closes it; while it is open, a connection from outside comes
// through.
func TestUPNPC(t *testing.T) {
	t.Parallel()
	upnpc := need(t, "upnpc")
	for name, igd := range map[string]int{"version 1": 1, "version 2": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newBox(t, func(g *scenario.Gateway) { g.PortMap = portmap.Behaviour{UPnP: true, IGD: igd} })
			h.listen("a", "10.1.0.2:8000", "host a")
			h.mustSay("a", upnpc, "-i -l", "desc: http://"+homeInside+":5000/rootDesc.xml", "ExternalIPAddress = "+homeOutside,
				"Local LAN ip address : 10.1.0.2", "713")
			h.wantAnswer(homeOutside+":8080", "")

			h.upnpc("a", "-a 10.1.0.2 8000 8080 TCP 600", "external "+homeOutside+":8080 TCP is redirected to internal 10.1.0.2:8000")
			h.upnpc("a", "-l", "TCP  8080->10.1.0.2:8000")
			h.wantAnswer(homeOutside+":8080", "host a")
			h.upnpc("a", "-s", "Connected", "10.1.0.2")

			h.upnpc("b", "-a 10.1.0.3 8000 8080 TCP 600", "718 (ConflictInMappingEntry)")
			h.upnpc("b", "-a 10.1.0.2 8000 8081 TCP 600", "606 (Action not authorized)")
			h.upnpc("b", "-d 8080 TCP", "606")
			h.wantAnswer(homeOutside+":8080", "host a")
			if igd == 2 {
				h.upnpc("b", "-n 10.1.0.3 8000 8080 TCP 600", "is redirected to internal 10.1.0.3:8000")
				h.upnpc("a", "-L", "8080->10.1.0.2:8000")
			}

			h.upnpc("a", "-d 8080 TCP", "UPNP_DeletePortMapping() returned : 0")
			h.wantAnswer(homeOutside+":8080", "")
			h.upnpc("a", "-d 8080 TCP", "714")
		})
	}
}

// TestNATPMPC: libnatpmp's client does the same.
func TestNATPMPC(t *testing.T) {
	t.Parallel()
	natpmpc := need(t, "natpmpc")
	h := newBox(t, func(g *scenario.Gateway) { g.PortMap = portmap.Behaviour{NATPMP: true, PCP: true} })
	h.listen("a", "10.1.0.2:8000", "host a")
	h.mustSay("a", natpmpc, "", "using gateway : "+homeInside, "Public IP address : "+homeOutside)
	h.wantAnswer(homeOutside+":8080", "")
	h.mustSay("a", natpmpc, "-a 8080 8000 tcp 600", "Mapped public port 8080 protocol TCP to local port 8000 liftime 600")
	h.wantAnswer(homeOutside+":8080", "host a")
	// The other host gets another port.
	h.listen("b", "10.1.0.3:8000", "host b")
	h.mustSay("b", natpmpc, "-a 8080 8000 tcp 600", "Mapped public port 8000 protocol TCP")
	h.wantAnswer(homeOutside+":8000", "host b")
	h.mustSay("a", natpmpc, "-a 0 8000 tcp 0", "liftime 0")
	h.wantAnswer(homeOutside+":8080", "")
	h.wantAnswer(homeOutside+":8000", "host b")

	// A reboot forgets.
	if err := h.RebootGateway("g"); err != nil {
		t.Fatal(err)
	}
	h.wantAnswer(homeOutside+":8000", "")
}

// A gateway that lies is believed.
func TestLyingGateway(t *testing.T) {
	t.Parallel()
	natpmpc := need(t, "natpmpc")
	h := newBox(t, func(g *scenario.Gateway) {
		g.PortMap = portmap.Behaviour{NATPMP: true, UPnP: true, Lie: true, WrongAddress: portmap.PrivateAddress}
	})
	h.listen("a", "10.1.0.2:8000", "host a")
	h.mustSay("a", natpmpc, "-a 8080 8000 tcp 600", "Public IP address : 10.0.0.1", "Mapped public port 8080 protocol TCP")
	h.upnpc("a", "-l", "ExternalIPAddress = 10.0.0.1", "8080->10.1.0.2:8000")
	h.wantAnswer(homeOutside+":8080", "")
}

// The services are the inside's alone.
func TestServicesInsideOnly(t *testing.T) {
	t.Parallel()
	h := newBox(t, func(g *scenario.Gateway) { g.PortMap = portmap.Behaviour{NATPMP: true, UPnP: true} })
	for _, to := range []string{homeOutside, homeInside} {
		if c := h.answers("s", to+":5000"); c != "" {
			t.Errorf("UPnP is served to strangers at %s", to)
		}
	}
	var c net.PacketConn
	err := h.Host("s").Do(func() (err error) { c, err = net.ListenPacket("udp4", homeServer+":0"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.WriteTo([]byte{0, 0}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(homeOutside+":5351")))
	c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, _, err := c.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("a stranger is answered with %d bytes", n)
	}
}
