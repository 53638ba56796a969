package portmap_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/huin/goupnp/dcps/internetgateway2"
	natpmp "github.com/jackpal/go-nat-pmp"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// Other people's clients, over real sockets on a loopback address of our own.

type box struct {
	mu   sync.Mutex
	m    *portmap.Machine
	addr netip.Addr
	http netip.AddrPort
	open map[uint16]portmap.Request
}

func (b *box) External(netip.Addr) netip.Addr { return netip.MustParseAddr("198.51.100.11") }
func (b *box) Map(_ time.Time, want portmap.Request) (netip.AddrPort, error) {
	if want.External == 0 {
		want.External = want.Internal.Port()
	}
	if r, ok := b.open[want.External]; ok && r.Internal != want.Internal {
		return netip.AddrPort{}, portmap.ErrTaken
	}
	b.open[want.External] = want
	return netip.AddrPortFrom(b.External(want.Internal.Addr()), want.External), nil
}
func (b *box) Unmap(_ time.Time, _ ip.Proto, external netip.AddrPort) {
	delete(b.open, external.Port())
}

func newBox(t *testing.T, behaviour portmap.Behaviour) *box {
	t.Helper()
	pid := os.Getpid()
	b := &box{addr: netip.AddrFrom4([4]byte{127, byte(100 + pid>>16&63), byte(pid >> 8), byte(pid)}), open: map[uint16]portmap.Request{}}
	if last := b.addr.As4()[3]; last == 0 || last == 255 {
		b.addr = netip.AddrFrom4([4]byte{127, 99, 1, 7})
	}
	listener, err := net.Listen("tcp4", netip.AddrPortFrom(b.addr, 0).String())
	if err != nil {
		t.Skipf("no loopback address but the first: %v", err)
	}
	b.http = listener.Addr().(*net.TCPAddr).AddrPort()
	b.m, err = portmap.New(time.Now(), portmap.Config{
		Behaviour: behaviour, Addr: b.addr, Inside: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, HTTPPort: b.http.Port(),
		Rand: rand.NewPCG(1, 2),
	}, b)
	if err != nil {
		t.Fatal(err)
	}
	for { // nobody hears the announcements
		if _, ok := b.m.Poll(); !ok {
			break
		}
	}
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.addr, portmap.Port)))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: b}
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(listener) })
	wg.Go(func() { b.serveUDP(udp) })
	t.Cleanup(func() { server.Close(); udp.Close(); wg.Wait() })
	return b
}

func (b *box) serveUDP(udp *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		b.mu.Lock()
		b.m.Datagram(time.Now(), from, netip.AddrPortFrom(b.addr, portmap.Port), buf[:n])
		for o, ok := b.m.Poll(); ok; o, ok = b.m.Poll() {
			if o.To.Addr().IsLoopback() {
				udp.WriteToUDPAddrPort(o.Payload, o.To)
			}
		}
		b.mu.Unlock()
	}
}

func (b *box) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.m.HTTP(time.Now(), portmap.HTTPRequest{
		From: netip.MustParseAddrPort(r.RemoteAddr), Method: r.Method, Path: r.URL.Path, Host: r.Host,
		SOAPAction: r.Header.Get("SOAPAction"), Body: body,
	})
	w.Header().Set("Content-Type", a.Type)
	w.WriteHeader(a.Status)
	w.Write(a.Body)
}

func (b *box) at(port uint16) netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open[port].Internal
}

func TestJackpal(t *testing.T) {
	b := newBox(t, portmap.Behaviour{NATPMP: true})
	c := natpmp.NewClientWithTimeout(b.addr.AsSlice(), 10*time.Second)
	a, err := c.GetExternalAddress()
	if err != nil || a.ExternalIPAddress != [4]byte{198, 51, 100, 11} {
		t.Fatalf("%+v, %v", a, err)
	}
	r, err := c.AddPortMapping("udp", 5000, 6000, 3600)
	if err != nil || r.MappedExternalPort != 6000 || r.InternalPort != 5000 || r.PortMappingLifetimeInSeconds != 3600 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := b.at(6000); got.String() != "127.0.0.1:5000" {
		t.Errorf("the port leads to %v", got)
	}
	if r, err = c.AddPortMapping("udp", 5000, 0, 0); err != nil || r.PortMappingLifetimeInSeconds != 0 || b.at(6000).IsValid() {
		t.Errorf("%+v, %v", r, err)
	}
	b.become(t, portmap.Behaviour{NATPMP: true, Refuse: portmap.RefuseNotAuthorized})
	if r, err := c.AddPortMapping("udp", 5000, 6000, 3600); err == nil || !strings.Contains(err.Error(), "Not Authorized") {
		t.Errorf("refused: %+v, %v", r, err)
	}
}

// become gives a box another behaviour.
func (b *box) become(t *testing.T, behaviour portmap.Behaviour) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	m, err := portmap.New(time.Now(), portmap.Config{
		Behaviour: behaviour, Addr: b.addr, Inside: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, HTTPPort: b.http.Port(),
		Rand: rand.NewPCG(1, 2),
	}, b)
	if err != nil {
		t.Fatal(err)
	}
	b.m = m

}

func TestGoupnp(t *testing.T) {
	b := newBox(t, portmap.Behaviour{UPnP: true})
	location := &url.URL{Scheme: "http", Host: b.http.String(), Path: "/rootDesc.xml"}
	clients, err := internetgateway2.NewWANIPConnection1ClientsByURL(location)
	if err != nil || len(clients) != 1 {
		t.Fatalf("%d clients, %v", len(clients), err)
	}
	c := clients[0]
	if a, err := c.GetExternalIPAddress(); err != nil || a != "198.51.100.11" {
		t.Errorf("%s, %v", a, err)
	}
	if _, sipped, err := c.GetNATRSIPStatus(); err != nil || !sipped {
		t.Errorf("%v, %v", sipped, err)
	}
	if status, _, _, err := c.GetStatusInfo(); err != nil || status != "Connected" {
		t.Errorf("%s, %v", status, err)
	}
	if err := c.AddPortMapping("", 8080, "TCP", 80, "127.0.0.1", true, "x & <y>", 600); err != nil {
		t.Fatal(err)
	}
	if got := b.at(8080); got.String() != "127.0.0.1:80" {
		t.Errorf("the port leads to %v", got)
	}
	_, port, proto, internal, client, enabled, description, lease, err := c.GetGenericPortMappingEntry(0)
	got := fmt.Sprint(port, proto, internal, client, enabled, description, err)
	if got != fmt.Sprint(8080, "TCP", 80, "127.0.0.1", true, "x & <y>", nil) || lease == 0 || lease > 600 {
		t.Errorf("entry 0: %s, %d s", got, lease)
	}
	if _, _, _, _, _, _, _, _, err := c.GetGenericPortMappingEntry(1); err == nil || !strings.Contains(err.Error(), "713") {
		t.Errorf("entry 1: %v", err)
	}
	if err := c.AddPortMapping("", 8081, "TCP", 80, "127.0.0.2", true, "", 600); err == nil || !strings.Contains(err.Error(), "606") {
		t.Errorf("for another: %v", err)
	}
	if err := c.DeletePortMapping("", 8080, "TCP"); err != nil || b.at(8080).IsValid() {
		t.Errorf("deleted: %v", err)
	}
	if scpd, err := c.Service.RequestSCPD(); err != nil || scpd.GetAction("AddPortMapping") == nil {
		t.Errorf("the description of the service: %v", err)
	}

	b.become(t, portmap.Behaviour{UPnP: true, IGD: 2})
	clients2, err := internetgateway2.NewWANIPConnection2ClientsByURL(location)
	if err != nil || len(clients2) != 1 {
		t.Fatalf("%d clients of version 2, %v", len(clients2), err)
	}
	if port, err := clients2[0].AddAnyPortMapping("", 8080, "TCP", 80, "127.0.0.1", true, "", 600); err != nil || port != 8080 {
		t.Errorf("port %d, %v", port, err)
	}
	if list, err := clients2[0].GetListOfPortMappings(0, 65535, "TCP", false, 0); err != nil || !strings.Contains(list, "PortMappingEntry") {
		t.Errorf("%s, %v", list, err)
	}

	b.become(t, portmap.Behaviour{UPnP: true, BadXML: true})
	if clients, err := internetgateway2.NewWANIPConnection1ClientsByURL(location); err == nil && len(clients) > 0 {
		t.Error("a client made something of malformed XML")
	}
}
