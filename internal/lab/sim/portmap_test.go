package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// opened has s send to a port of ga that should be mapped to a, or not.
func opened(t *testing.T, n *Network, s, a net.PacketConn, to string, want bool) {
	t.Helper()
	send(t, s, to, "unasked")
	if msg, _ := receive(t, a); (msg == "unasked") != want {
		t.Errorf("%s is open: %v, want %v", to, !want, want)
	}
}

func TestNATPMP(t *testing.T) {
	top := behind(portRestricted, portRestricted)
	top.Gateways[0].PortMap = portmap.Behaviour{NATPMP: true}
	inBubble(t, top, func(t *testing.T, n *Network) {
		s, a, u := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("a"), 0)
		ask := func(request []byte) []byte {
			t.Helper()
			send(t, u, "10.0.0.1:5351", string(request))
			answer, from := receive(t, u)
			if from != "10.0.0.1:5351" || len(answer) < 12 || binary.BigEndian.Uint16([]byte(answer[2:])) != 0 {
				t.Fatalf("%x from %s", answer, from)
			}
			return []byte(answer)
		}
		if got := netip.AddrFrom4([4]byte(ask([]byte{0, 0})[8:])); got != addr("198.51.100.1") {
			t.Errorf("external address %v", got)
		}
		opened(t, n, s, a, "198.51.100.1:4000", false)
		request := []byte{0, 1, 0, 0, 0, 7, 4000 >> 8, 4000 & 255, 0, 0, 0, 60}
		if got := binary.BigEndian.Uint16(ask(request)[10:]); got != 4000 {
			t.Errorf("external port %d", got)
		}
		opened(t, n, s, a, "198.51.100.1:4000", true)
		time.Sleep(time.Minute) // what has come through goes on as after a question
		opened(t, n, listenUDP(t, n.Host("s"), 2), a, "198.51.100.1:4000", false)
		if happened(n, "ga", "port mapping") < 2 {
			t.Errorf("%v", n.Events())
		}
	})
}

// UPnP: found by a multicast, described and told over HTTP, all in virtual
// time.
func TestUPnP(t *testing.T) {
	top := behind(portRestricted, nat.Behaviour{})
	top.Gateways[0].PortMap = portmap.Behaviour{UPnP: true, Delay: 20 * time.Millisecond}
	inBubble(t, top, func(t *testing.T, n *Network) {
		s, a, u := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("a"), 0)
		send(t, u, "239.255.255.250:1900", "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: upnp:rootdevice\r\n\r\n")
		time.Sleep(2 * time.Second)
		answer, _ := receive(t, u)
		_, rest, _ := strings.Cut(answer, "LOCATION: ")
		location, _, _ := strings.Cut(rest, "\r\n")
		if !strings.HasPrefix(location, "http://10.0.0.1:5000/") {
			t.Fatalf("%q", answer)
		}
		web := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, at string) (net.Conn, error) {
			return n.Host("a").DialTCP(ctx, 0, end(at))
		}}}
		fetch := func(r *http.Request) (int, string) {
			t.Helper()
			start := time.Now()
			answer, err := web.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			if err != nil || time.Since(start) != 20*time.Millisecond {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			return answer.StatusCode, string(body)
		}
		get, _ := http.NewRequest("GET", location, nil)
		status, body := fetch(get)
		const service = "urn:schemas-upnp-org:service:WANIPConnection:1"
		_, rest, _ = strings.Cut(body, service)
		_, rest, _ = strings.Cut(rest, "<controlURL>")
		control, _, found := strings.Cut(rest, "</controlURL>")
		if status != 200 || !found {
			t.Fatalf("%d: %s", status, body)
		}
		opened(t, n, s, a, "198.51.100.1:4000", false)
		post, _ := http.NewRequest("POST", "http://10.0.0.1:5000"+control, strings.NewReader(fmt.Sprintf(
			`<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>`+
				`<u:AddPortMapping xmlns:u="%s"><NewRemoteHost></NewRemoteHost><NewExternalPort>4000</NewExternalPort><NewProtocol>UDP</NewProtocol>`+
				`<NewInternalPort>7</NewInternalPort><NewInternalClient>10.0.0.2</NewInternalClient><NewEnabled>1</NewEnabled>`+
				`<NewPortMappingDescription>test</NewPortMappingDescription><NewLeaseDuration>60</NewLeaseDuration></u:AddPortMapping></s:Body></s:Envelope>`, service)))
		post.Header.Set("SOAPAction", `"`+service+`#AddPortMapping"`)
		post.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
		if status, body := fetch(post); status != 200 {
			t.Fatalf("%s: %d: %s", control, status, body)
		}
		opened(t, n, s, a, "198.51.100.1:4000", true)
		// Nobody outside is served.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := n.Host("s").DialTCP(ctx, 0, end("198.51.100.1:5000")); err == nil {
			t.Error("UPnP is served outside")
		}
	})
}
