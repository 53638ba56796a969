package netns

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/service"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// TestPortMapping asks the gateway for a port, by the libraries that others use.
func TestPortMapping(t *testing.T) {
	t.Parallel()
	top := twoNATs(linux, linux, scenario.Link{Delay: time.Millisecond})
	top.Gateways[0].PortMap = portmap.Behaviour{NATPMP: true, UPnP: true}
	l := newLab(t, top, Options{})
	h, s := l.Host("a"), udp(t, l.Host("s"), 3478)
	a := udp(t, h, 4000)
	reached := func(port uint16) {
		t.Helper()
		s.send(netip.AddrPortFrom(ip(gaOut), port), "unasked")
		a.mustReceive("unasked")
	}
	err := h.Do(func() error {
		c := natpmp.NewClientWithTimeout(net.IP(ip(gaIn).AsSlice()), 5*time.Second)
		r, err := c.AddPortMapping("udp", 4000, 14000, 600)
		if err == nil && r.MappedExternalPort != 14000 {
			err = fmt.Errorf("mapped to %d", r.MappedExternalPort)
		}
		return err
	})
	if err != nil {
		t.Fatal("NAT-PMP: ", err)
	}
	reached(14000)

	// UPnP's HTTP goes to the gateway's own stack. The address of the
	// description is found by SSDP.
	where := udp(t, h, 0)
	where.send(netip.MustParseAddrPort("239.255.255.250:1900"), "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n")
	answer, from, ok := where.receive(5 * time.Second)
	if !ok || from.Addr() != ip(gaIn) {
		t.Fatalf("SSDP: %q from %v", answer, from)
	}
	response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := response.Location()
	if err != nil {
		t.Fatal(err)
	}
	// net/http dials where it likes, which must be in the host.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: service.Within(h.Do).DialContext}, Timeout: 10 * time.Second}
	get := func(r *http.Response, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal("UPnP: ", err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != 200 {
			t.Fatalf("UPnP: %d %v %s", r.StatusCode, err, body)
		}
		return string(body)
	}
	const wanIP = "urn:schemas-upnp-org:service:WANIPConnection:1"
	_, rest, _ := strings.Cut(get(client.Get(root.String())), wanIP)
	_, rest, _ = strings.Cut(rest, "<controlURL>")
	path, _, _ := strings.Cut(rest, "</controlURL>")
	control, err := root.Parse(path)
	if err != nil || path == "" {
		t.Fatalf("UPnP: control at %q, %v", path, err)
	}
	body := `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>` +
		`<u:AddPortMapping xmlns:u="` + wanIP + `"><NewRemoteHost></NewRemoteHost><NewExternalPort>15000</NewExternalPort><NewProtocol>UDP</NewProtocol>` +
		`<NewInternalPort>4000</NewInternalPort><NewInternalClient>` + ip(aIn).String() + `</NewInternalClient><NewEnabled>1</NewEnabled>` +
		`<NewPortMappingDescription>test</NewPortMappingDescription><NewLeaseDuration>600</NewLeaseDuration></u:AddPortMapping></s:Body></s:Envelope>`
	ask, err := http.NewRequest("POST", control.String(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	ask.Header = http.Header{"Content-Type": {"text/xml"}, "SOAPAction": {`"` + wanIP + `#AddPortMapping"`}}
	get(client.Do(ask))
	reached(15000)
}

// TestProxies reaches a web server through each kind of proxy of a gateway that
// lets nothing else out.
func TestProxies(t *testing.T) {
	t.Parallel()
	top := twoNATs(linux, linux, scenario.Link{})
	top.Gateways[0].Proxy = scenario.Proxy{HTTP: 3128, SOCKS: 1080, Transparent: true, Only: true}
	l := newLab(t, top, Options{})
	seen := make(chan netip.Addr, 10)
	var web net.Listener
	err := l.Host("s").Do(func() (err error) {
		web, err = net.Listen("tcp4", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _ := netip.ParseAddrPort(r.RemoteAddr)
		seen <- from.Addr()
		io.WriteString(w, "hello")
	})}
	go server.Serve(web)
	defer server.Close()
	for name, proxy := range map[string]string{
		"visible": "http://192.168.1.1:3128", "SOCKS": "socks5://192.168.1.1:1080", "transparent": "",
	} {
		transport := &http.Transport{DisableKeepAlives: true}
		if proxy != "" {
			u, _ := url.Parse(proxy)
			transport.Proxy = http.ProxyURL(u)
		}
		transport.DialContext = service.Within(l.Host("a").Do).DialContext
		c := http.Client{Transport: transport, Timeout: 10 * time.Second}
		r, err := c.Get("http://" + ip(sAddr).String() + "/")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if from := <-seen; err != nil || string(body) != "hello" || from != ip(gaOut) {
			t.Errorf("%s: %q, %v, from %v", name, body, err, from)
		}
	}
	a, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("s"), 3478)
	a.send(netip.AddrPortFrom(ip(sAddr), 3478), "no")
	s.mustNotReceive()
	// Nor do proxies go to the gateway itself, or to everyone on a network of it.
	own := asked{l.wire, l.wire.gateways[0]}.isOwn
	for addr, want := range map[string]bool{"192.168.1.1": true, "192.168.1.255": true, "192.168.1.2": false, "192.168.2.255": false, "0.0.0.0": false} {
		if got := own(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is the gateway's: %v", addr, got)
		}
	}
}
