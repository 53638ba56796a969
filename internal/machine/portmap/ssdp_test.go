package portmap

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func search(target string) []byte {
	return []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nST: " + target + "\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\n\r\n")
}

// found are the targets that an M-SEARCH finds, each with its answer.
func (w *world) found(to string, request []byte) map[string]http.Header {
	w.Helper()
	w.m.Datagram(w.now, netip.AddrPortFrom(anna, 40000), netip.MustParseAddrPort(to), request)
	all := map[string]http.Header{}
	for _, o := range w.polled() {
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(o.Payload)), nil)
		if err != nil || r.StatusCode != 200 || o.From.String() != "192.168.1.1:1900" || o.To.String() != "192.168.1.20:40000" {
			w.Fatalf("from %v to %v, %v: %q", o.From, o.To, err, o.Payload)
		}
		all[r.Header.Get("ST")] = r.Header
	}
	return all
}

func TestSearch(t *testing.T) {
	const igd1, igd2 = "urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:device:InternetGatewayDevice:2"
	const ip1, ip2 = "urn:schemas-upnp-org:service:WANIPConnection:1", "urn:schemas-upnp-org:service:WANIPConnection:2"
	for _, c := range []struct {
		igd    int
		target string
		want   int
	}{
		{1, "upnp:rootdevice", 1}, {1, igd1, 1}, {1, igd2, 0}, {1, ip1, 1}, {1, ip2, 0}, {1, "ssdp:all", 10},
		{2, "upnp:rootdevice", 1}, {2, igd1, 1}, {2, igd2, 1}, {2, ip1, 1}, {2, ip2, 1}, {2, "ssdp:all", 10},
		{2, "urn:schemas-upnp-org:device:InternetGatewayDevice:3", 0}, {2, "urn:schemas-upnp-org:device:InternetGatewayDevice:0", 0},
		{2, "urn:schemas-upnp-org:service:WANPPPConnection:1", 0}, {2, "upnp:rootdevice:1", 0}, {2, "", 0},
		{2, "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:2", 0}, {2, "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1", 1},
	} {
		w := newWorld(t, Behaviour{UPnP: true, IGD: c.igd}).quiet()
		for _, to := range []string{"239.255.255.250:1900", "192.168.1.1:1900"} {
			all := w.found(to, search(c.target))
			if len(all) != c.want {
				t.Errorf("IGD %d: %s finds %d, want %d", c.igd, c.target, len(all), c.want)
			}
			if h, ok := all[c.target]; c.want == 1 && (!ok || !strings.HasPrefix(h.Get("USN"), "uuid:") ||
				!strings.HasSuffix(h.Get("USN"), "::"+c.target) || h.Get("LOCATION") != "http://192.168.1.1:5000/rootDesc.xml" ||
				h.Get("CACHE-CONTROL") != "max-age=1800") {
				t.Errorf("%s found %v", c.target, h)
			}
		}
	}
	w := newWorld(t, Behaviour{UPnP: true}).quiet()
	if uuid := "uuid:" + w.m.uuids[1]; w.found("239.255.255.250:1900", search(uuid))[uuid].Get("USN") != uuid {
		t.Error("a device is not found by its name")
	}
	for _, bad := range []string{
		"", "M-SEARCH * HTTP/1.1", "GET / HTTP/1.1\r\nST: ssdp:all\r\nMAN: \"ssdp:discover\"\r\n\r\n",
		"M-SEARCH * HTTP/1.1\r\nST: ssdp:all\r\n\r\n",
		string(search("ssdp:all")) + strings.Repeat("X: y\r\n", 500),
		"NOTIFY * HTTP/1.1\r\nNT: upnp:rootdevice\r\nNTS: ssdp:alive\r\n\r\n",
	} {
		if n := len(w.found("239.255.255.250:1900", []byte(bad))); n != 0 {
			t.Errorf("%.40q has %d answers", bad, n)
		}
	}
	if w := newWorld(t, Behaviour{PCP: true}).quiet(); len(w.found("239.255.255.250:1900", search("ssdp:all"))) != 0 {
		t.Error("found without UPnP")
	}
}

func TestNotify(t *testing.T) {
	w := newWorld(t, Behaviour{UPnP: true})
	for _, at := range []time.Duration{0, time.Second, 901 * time.Second, 1801 * time.Second} {
		w.pass(start.Add(at).Sub(w.now))
		all := w.polled()
		if len(all) != 10 {
			t.Fatalf("after %v: %d notifications, want 10", at, len(all))
		}
		for _, o := range all {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(o.Payload)))
			if err != nil || r.Method != "NOTIFY" || r.Header.Get("NTS") != "ssdp:alive" || r.Header.Get("NT") == "" ||
				r.Header.Get("LOCATION") != "http://192.168.1.1:5000/rootDesc.xml" || o.To.String() != "239.255.255.250:1900" {
				t.Fatalf("%v: %q", err, o.Payload)
			}
		}
		if next, ok := w.m.NextTimeout(); !ok || next.Sub(w.now) > 900*time.Second {
			t.Fatalf("after %v the next timeout is %v", at, next)
		}
	}
}

type describedDevice struct {
	Type     string `xml:"deviceType"`
	UDN      string
	Services []struct {
		Type    string `xml:"serviceType"`
		SCPD    string `xml:"SCPDURL"`
		Control string `xml:"controlURL"`
	} `xml:"serviceList>service"`
	Devices []describedDevice `xml:"deviceList>device"`
}

func (w *world) get(path string) Response {
	return w.m.HTTP(w.now, HTTPRequest{From: netip.AddrPortFrom(anna, 1), Method: "GET", Path: path, Host: "192.168.1.1:5000"})
}

// The description is well-formed, and leads to what it describes.
func TestDescription(t *testing.T) {
	for igd, want := range map[int]string{
		1: "InternetGatewayDevice:1 Layer3Forwarding:1 WANDevice:1 WANCommonInterfaceConfig:1 WANConnectionDevice:1 WANIPConnection:1",
		2: "InternetGatewayDevice:2 Layer3Forwarding:1 WANDevice:2 WANCommonInterfaceConfig:1 WANConnectionDevice:2 WANIPConnection:2",
	} {
		w := newWorld(t, Behaviour{UPnP: true, IGD: igd})
		var root struct {
			Device describedDevice `xml:"device"`
		}
		if err := xml.Unmarshal(w.get(rootPath).Body, &root); err != nil {
			t.Fatal(err)
		}
		var types []string
		for devices := []describedDevice{root.Device}; len(devices) > 0; devices = devices[0].Devices {
			d := devices[0]
			types = append(types, strings.TrimPrefix(d.Type, deviceURN))
			for _, s := range d.Services {
				types = append(types, strings.TrimPrefix(s.Type, serviceURN))
				w.checkService(strings.TrimPrefix(s.Type, serviceURN), s.SCPD, s.Control)
			}
		}
		if got := strings.Join(types, " "); got != want {
			t.Errorf("described: %s\nwant: %s", got, want)
		}
	}
}

func (w *world) checkService(name, scpdPath, controlPath string) {
	var scpd struct {
		Actions []string `xml:"actionList>action>name"`
		Related []string `xml:"actionList>action>argumentList>argument>relatedStateVariable"`
		States  []string `xml:"serviceStateTable>stateVariable>name"`
	}
	if err := xml.Unmarshal(w.get(scpdPath).Body, &scpd); err != nil {
		w.Fatalf("%s: %v", name, err)
	}
	for _, related := range scpd.Related {
		if related == "" || !slices.Contains(scpd.States, related) {
			w.Errorf("%s: no state variable %q", name, related)
		}
	}
	actions := map[string]int{"Layer3Forwarding:1": 2, "WANCommonInterfaceConfig:1": 1, "WANIPConnection:1": 11, "WANIPConnection:2": 14}
	if len(scpd.Actions) != actions[name] {
		w.Errorf("%s has %d actions, want %d", name, len(scpd.Actions), actions[name])
	}
	r := w.m.HTTP(w.now, HTTPRequest{From: netip.AddrPortFrom(anna, 1), Method: "POST", Path: controlPath, Host: "192.168.1.1"})
	if r.Status != 400 { // the body is no SOAP
		w.Errorf("%s: nothing to control at %s", name, controlPath)
	}
}

func TestHTTPRefusals(t *testing.T) {
	w := newWorld(t, Behaviour{UPnP: true})
	ok := HTTPRequest{From: netip.AddrPortFrom(anna, 1), Method: "GET", Path: rootPath, Host: "192.168.1.1:5000"}
	for want, change := range map[int]func(*HTTPRequest){
		200: func(r *HTTPRequest) {},
		403: func(r *HTTPRequest) { r.From = netip.AddrPortFrom(stranger, 1) },
		400: func(r *HTTPRequest) { r.Host = "rebound.example:5000" },
		404: func(r *HTTPRequest) { r.Path = "/" },
		405: func(r *HTTPRequest) { r.Method = "POST" },
		413: func(r *HTTPRequest) { r.Body = make([]byte, MaxBody+1) },
	} {
		r := ok
		change(&r)
		if got := w.m.HTTP(w.now, r); got.Status != want || (want != 200 && len(got.Body) != 0) {
			t.Errorf("%+v: status %d, want %d", r, got.Status, want)
		}
	}
	ok.Path, ok.Method = services[0].controlPath(), "GET"
	if got := w.m.HTTP(w.now, ok); got.Status != 405 {
		t.Errorf("GET of a control URL: status %d", got.Status)
	}
	off := newWorld(t, Behaviour{PCP: true})
	if got := off.get(rootPath); got.Status != 404 {
		t.Errorf("without UPnP: status %d", got.Status)
	}
}
