package portmap

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// soapBody is an action as UPnP Device Architecture 1.1 section 3.2.1 lays it
// out.
func soapBody(urn, action string, args ...string) string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
		`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:` + action + ` xmlns:u="` + urn + `">`)
	for i := 0; i < len(args); i += 2 {
		tag(&b, args[i], args[i+1])
	}
	b.WriteString("</u:" + action + "></s:Body></s:Envelope>")
	return b.String()
}

// act asks the version of WANIPConnection that the gateway describes, and
// returns the error code, or 0 and what came out.
func (w *world) act(host netip.Addr, action string, args ...string) (code int, out map[string]string) {
	w.Helper()
	return w.actAt("WANIPConnection", w.m.cfg.IGD, host, action, args...)
}

func (w *world) actAt(name string, version int, host netip.Addr, action string, args ...string) (code int, out map[string]string) {
	w.Helper()
	at := slices.IndexFunc(services, func(s *service) bool { return s.name == name })
	urn := fmt.Sprintf("urn:schemas-upnp-org:service:%s:%d", name, version)
	r := w.m.HTTP(w.now, HTTPRequest{
		From: netip.AddrPortFrom(host, 50000), Method: "POST", Path: services[at].controlPath(), Host: "192.168.1.1:5000",
		SOAPAction: `"` + urn + "#" + action + `"`, Body: []byte(soapBody(urn, action, args...)),
	})
	var answer struct {
		Body struct {
			Fault struct {
				Code int    `xml:"detail>UPnPError>errorCode"`
				Text string `xml:"detail>UPnPError>errorDescription"`
			}
			Response struct {
				XMLName xml.Name
				Args    []struct {
					XMLName xml.Name
					Text    string `xml:",chardata"`
				} `xml:",any"`
			} `xml:",any"`
		}
	}
	if err := xml.Unmarshal(r.Body, &answer); err != nil || r.Type != textXML {
		w.Fatalf("%s: status %d, type %q, %v: %s", action, r.Status, r.Type, err, r.Body)
	}
	if f := answer.Body.Fault; f.Code != 0 {
		if r.Status != 500 || f.Text == "" {
			w.Errorf("%s: error %d %q with status %d", action, f.Code, f.Text, r.Status)
		}
		return f.Code, nil
	}
	if r.Status != 200 || answer.Body.Response.XMLName != (xml.Name{Space: urn, Local: action + "Response"}) {
		w.Errorf("%s: status %d, %v", action, r.Status, answer.Body.Response.XMLName)
	}
	out = map[string]string{}
	for _, a := range answer.Body.Response.Args {
		out[a.XMLName.Local] = a.Text
	}
	return 0, out
}

// add is AddPortMapping with defaults: TCP 8080 to anna's 80 for an hour.
func (w *world) add(host netip.Addr, args ...string) int {
	w.Helper()
	code, _ := w.act(host, "AddPortMapping", entryArgs(host, args...)...)
	return code
}

func entryArgs(host netip.Addr, args ...string) []string {
	all := []string{
		"NewRemoteHost", "", "NewExternalPort", "8080", "NewProtocol", "TCP", "NewInternalPort", "80", "NewInternalClient", host.String(),
		"NewEnabled", "1", "NewPortMappingDescription", "a <web> server", "NewLeaseDuration", "3600",
	}
	for i := 0; i < len(args); i += 2 {
		all[slices.Index(all, args[i])+1] = args[i+1]
	}
	return all
}

func TestErrorsOfUPnP(t *testing.T) {
	type step struct {
		host   netip.Addr
		action string
		args   []string
	}
	add := func(host netip.Addr, args ...string) step {
		return step{host, "AddPortMapping", entryArgs(host, args...)}
	}
	anyAdd := func(host netip.Addr, args ...string) step {
		return step{host, "AddAnyPortMapping", entryArgs(host, args...)}
	}
	do := func(host netip.Addr, action string, args ...string) step { return step{host, action, args} }
	key := []string{"NewRemoteHost", "", "NewExternalPort", "8080", "NewProtocol", "TCP"}
	rest := func(manage string) []string {
		return []string{"NewStartPort", "8000", "NewEndPort", "9000", "NewProtocol", "TCP", "NewManage", manage}
	}
	for _, c := range []struct {
		name  string
		igd   int
		bad   Behaviour
		steps []step // all but the last succeed
		want  int
	}{
		{"fine", 1, Behaviour{}, []step{add(anna)}, 0},
		{"fine", 2, Behaviour{}, []step{add(anna)}, 0},
		{"no such action", 1, Behaviour{}, []step{do(anna, "OpenSesame")}, 401},
		{"an action of version 2", 1, Behaviour{}, []step{anyAdd(anna)}, 401},
		{"an argument is missing", 1, Behaviour{}, []step{do(anna, "DeletePortMapping", "NewExternalPort", "8080")}, 402},
		{"no port", 1, Behaviour{}, []step{add(anna, "NewExternalPort", "65536")}, 402},
		{"no protocol", 1, Behaviour{}, []step{add(anna, "NewProtocol", "tcp")}, 402},
		{"no boolean", 1, Behaviour{}, []step{add(anna, "NewEnabled", "perhaps")}, 402},
		{"a negative lease", 1, Behaviour{}, []step{add(anna, "NewLeaseDuration", "-1")}, 402},
		{"a name for a client", 1, Behaviour{}, []step{add(anna, "NewInternalClient", "anna.local")}, 402},
		{"a remote host of IPv6", 1, Behaviour{}, []step{add(anna, "NewRemoteHost", "2001:db8::1")}, 402},
		{"internal port 0", 1, Behaviour{}, []step{add(anna, "NewInternalPort", "0")}, 402},
		{"internal port 0", 2, Behaviour{}, []step{add(anna, "NewInternalPort", "0")}, 732},
		{"more than a week", 2, Behaviour{}, []step{add(anna, "NewLeaseDuration", "604801")}, 402},
		{"a long description", 1, Behaviour{}, []step{add(anna, "NewPortMappingDescription", strings.Repeat("x", 257))}, 402},
		{"everything fails", 1, Behaviour{Refuse: RefuseFailed}, []step{do(anna, "GetExternalIPAddress")}, 501},
		{"full", 1, Behaviour{Max: 1}, []step{add(anna), add(anna, "NewExternalPort", "8081", "NewInternalPort", "81")}, 501},
		{"full", 2, Behaviour{Max: 1}, []step{add(anna), anyAdd(anna, "NewExternalPort", "8081", "NewInternalPort", "81")}, 728},
		{"full for one", 2, Behaviour{PerHost: 1}, []step{add(anna), anyAdd(anna, "NewExternalPort", "8081", "NewInternalPort", "81")}, 728},
		{"not full for the other", 2, Behaviour{PerHost: 1}, []step{add(anna), anyAdd(ben, "NewExternalPort", "8081")}, 0},
		{"pretends to be full", 2, Behaviour{Refuse: RefuseFull}, []step{anyAdd(anna)}, 728},
		{"switched off", 1, Behaviour{Refuse: RefuseNotAuthorized}, []step{do(anna, "GetExternalIPAddress"), add(anna)}, 606},
		{"for another", 1, Behaviour{}, []step{add(anna, "NewInternalClient", "192.168.1.30")}, 606},
		{"for another, allowed", 1, Behaviour{AnyClient: true}, []step{add(anna, "NewInternalClient", "192.168.1.30")}, 0},
		{"for someone outside", 1, Behaviour{AnyClient: true}, []step{add(anna, "NewInternalClient", "203.0.113.9")}, 606},
		{"for the gateway", 1, Behaviour{AnyClient: true}, []step{add(anna, "NewInternalClient", "192.168.1.1")}, 606},
		{"a low internal port", 1, Behaviour{NoLowPorts: true}, []step{add(anna)}, 606},
		{"a low external port", 1, Behaviour{NoLowPorts: true}, []step{add(anna, "NewInternalPort", "8000", "NewExternalPort", "80")}, 606},
		{"a low port after a high one", 1, Behaviour{NoLowPorts: true}, []step{add(anna, "NewInternalPort", "8000"), add(anna)}, 606},
		{"another's entry", 1, Behaviour{}, []step{add(anna), do(ben, "DeletePortMapping", key...)}, 606},
		{"another's entry, allowed", 1, Behaviour{AnyClient: true}, []step{add(anna), do(ben, "DeletePortMapping", key...)}, 0},
		{"the connection", 1, Behaviour{}, []step{do(anna, "ForceTermination")}, 606},
		{"beyond the list", 1, Behaviour{}, []step{add(anna), do(anna, "GetGenericPortMappingEntry", "NewPortMappingIndex", "1")}, 713},
		{"no entry to see", 1, Behaviour{}, []step{do(anna, "GetSpecificPortMappingEntry", key...)}, 714},
		{"no entry to delete", 1, Behaviour{}, []step{add(anna), do(anna, "DeletePortMapping", key...), do(anna, "DeletePortMapping", key...)}, 714},
		{"any remote host", 1, Behaviour{RemoteHost: OnlySingularRemote}, []step{add(anna)}, 715},
		{"a remote host", 1, Behaviour{RemoteHost: OnlySingularRemote}, []step{add(anna, "NewRemoteHost", "203.0.113.9")}, 0},
		{"one remote host", 1, Behaviour{RemoteHost: OnlyEveryRemote}, []step{add(anna, "NewRemoteHost", "203.0.113.9")}, 726},
		{"external port 0", 1, Behaviour{}, []step{add(anna, "NewExternalPort", "0")}, 716},
		{"any external port 0", 2, Behaviour{}, []step{anyAdd(anna, "NewExternalPort", "0")}, 0},
		{"another's port", 1, Behaviour{}, []step{add(anna), add(ben)}, 718},
		{"the same again", 1, Behaviour{}, []step{add(anna), add(anna)}, 0},
		{"the same with another port", 1, Behaviour{}, []step{add(anna), add(anna, "NewInternalPort", "81")}, 0},
		{"any port, but another's", 2, Behaviour{}, []step{add(anna), anyAdd(ben)}, 0},
		{"two ports", 1, Behaviour{SamePort: true}, []step{add(anna)}, 724},
		{"two ports", 2, Behaviour{SamePort: true}, []step{anyAdd(anna)}, 724},
		{"one port", 1, Behaviour{SamePort: true}, []step{add(anna, "NewExternalPort", "80")}, 0},
		{"a lease", 1, Behaviour{OnlyPermanent: true}, []step{add(anna)}, 725},
		{"for ever", 1, Behaviour{OnlyPermanent: true}, []step{add(anna, "NewLeaseDuration", "0")}, 0},
		{"something else's port", 1, Behaviour{}, []step{add(anna, "NewExternalPort", "22")}, 718},
		{"something else's port", 2, Behaviour{}, []step{add(anna, "NewExternalPort", "22")}, 729},
		{"nothing to list", 2, Behaviour{}, []step{add(anna), do(ben, "GetListOfPortMappings", append(rest("0"), "NewNumberOfPorts", "0")...)}, 730},
		{"nothing to delete", 2, Behaviour{}, []step{do(ben, "DeletePortMappingRange", rest("0")...)}, 730},
		{"everyone's to delete", 2, Behaviour{}, []step{add(anna), do(ben, "DeletePortMappingRange", rest("1")...)}, 606},
		{"everyone's to delete, allowed", 2, Behaviour{AnyClient: true}, []step{add(anna), do(ben, "DeletePortMappingRange", rest("1")...)}, 0},
		{"an empty range", 2, Behaviour{}, []step{do(ben, "DeletePortMappingRange", "NewStartPort", "2", "NewEndPort", "1", "NewProtocol", "TCP", "NewManage", "0")}, 733},
	} {
		t.Run(fmt.Sprintf("%s, %d", c.name, c.igd), func(t *testing.T) {
			c.bad.UPnP, c.bad.IGD = true, c.igd
			w := newWorld(t, c.bad)
			w.doors.taken[door{ip.TCP, 22}] = true
			for i, s := range c.steps {
				want := 0
				if i == len(c.steps)-1 {
					want = c.want
				}
				if got, _ := w.act(s.host, s.action, s.args...); got != want {
					t.Errorf("%s: error %d, want %d", s.action, got, want)
				}
			}
		})
	}
}

func TestUPnPMapping(t *testing.T) {
	w := newWorld(t, Behaviour{UPnP: true})
	if _, out := w.act(anna, "GetExternalIPAddress"); out["NewExternalIPAddress"] != "198.51.100.11" {
		t.Errorf("the external address is %v", out)
	}
	w.add(anna)
	w.wantOpen(ip.TCP, 8080, "192.168.1.20:80")
	w.add(ben, "NewExternalPort", "9000", "NewProtocol", "UDP", "NewRemoteHost", "203.0.113.9", "NewLeaseDuration", "0")
	if r := w.doors.open[door{ip.UDP, 9000}].Remotes; len(r) != 1 || r[0] != (Filter{netip.MustParsePrefix("203.0.113.9/32"), 0}) {
		t.Errorf("the remote host became %v", r)
	}
	w.pass(10 * time.Minute)

	_, out := w.act(ben, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0")
	want := map[string]string{
		"NewRemoteHost": "", "NewExternalPort": "8080", "NewProtocol": "TCP", "NewInternalPort": "80", "NewInternalClient": "192.168.1.20",
		"NewEnabled": "1", "NewPortMappingDescription": "a <web> server", "NewLeaseDuration": "3000",
	}
	for name, value := range want {
		if out[name] != value {
			t.Errorf("entry 0 has %s %q, want %q", name, out[name], value)
		}
	}
	_, out = w.act(anna, "GetSpecificPortMappingEntry", "NewRemoteHost", "203.0.113.9", "NewExternalPort", "9000", "NewProtocol", "UDP")
	if out["NewInternalClient"] != "192.168.1.30" || out["NewLeaseDuration"] != "0" {
		t.Errorf("the specific entry is %v", out)
	}

	// Changed, disabled and enabled again in place.
	w.add(anna, "NewInternalPort", "81")
	w.wantOpen(ip.TCP, 8080, "192.168.1.20:81")
	w.add(anna, "NewInternalPort", "81", "NewEnabled", "0")
	w.wantOpen(ip.TCP, 8080, "")
	if code := w.add(ben); code != 718 {
		t.Errorf("a disabled entry's port was given away: %d", code)
	}
	w.add(anna, "NewInternalPort", "81", "NewEnabled", "true")
	w.wantOpen(ip.TCP, 8080, "192.168.1.20:81")
	w.act(anna, "DeletePortMapping", "NewRemoteHost", "", "NewExternalPort", "8080", "NewProtocol", "TCP")
	w.wantOpen(ip.TCP, 8080, "")

	w.pass(1000 * time.Hour)
	w.wantOpen(ip.UDP, 9000, "192.168.1.30:80")
}

// A change that fails leaves the entry as it was.
func TestUPnPFailedChange(t *testing.T) {
	w := newWorld(t, Behaviour{UPnP: true})
	w.add(anna)
	port := door{ip.TCP, 8080}
	w.doors.taken[port] = true // so that it cannot be opened again...
	if code := w.add(anna, "NewInternalPort", "81"); code != 718 {
		t.Fatalf("the change came to %d", code)
	}
	delete(w.doors.taken, port) // ...until it can
	l := w.m.Leases(w.now)
	if len(l) != 1 || l[0].Internal.String() != "192.168.1.20:80" {
		t.Errorf("the entry is %+v", l)
	}
	w.add(anna)
	w.wantOpen(ip.TCP, 8080, "192.168.1.20:80")
}

func TestUPnPVersion2(t *testing.T) {
	w := newWorld(t, Behaviour{UPnP: true, IGD: 2})
	w.add(anna, "NewLeaseDuration", "0")
	w.act(ben, "AddAnyPortMapping", entryArgs(ben)...)
	if _, out := w.act(ben, "AddAnyPortMapping", entryArgs(ben, "NewExternalPort", "0")...); out["NewReservedPort"] != "80" {
		t.Errorf("reserved %v", out)
	}
	if left := w.m.Leases(w.now)[0].Expires.Sub(w.now); left != 7*24*time.Hour {
		t.Errorf("for ever became %v", left)
	}
	// A client of version 1 is served too, with the actions of version 1.
	if code, _ := w.actAt("WANIPConnection", 1, anna, "GetStatusInfo"); code != 0 {
		t.Errorf("version 1: error %d", code)
	}
	if code, _ := w.actAt("WANIPConnection", 1, anna, "AddAnyPortMapping", entryArgs(anna)...); code != 401 {
		t.Errorf("an action of version 2 in version 1: error %d", code)
	}

	list := func(manage, number string) (ports []string) {
		_, out := w.act(anna, "GetListOfPortMappings", "NewStartPort", "0", "NewEndPort", "65535", "NewProtocol", "TCP",
			"NewManage", manage, "NewNumberOfPorts", number)
		var l struct {
			XMLName xml.Name `xml:"urn:schemas-upnp-org:gw:WANIPConnection PortMappingList"`
			Entries []struct {
				Port        string `xml:"NewExternalPort"`
				Description string `xml:"NewDescription"`
			} `xml:"PortMappingEntry"`
		}
		if err := xml.Unmarshal([]byte(out["NewPortListing"]), &l); err != nil {
			t.Fatal(err)
		}
		for _, e := range l.Entries {
			if e.Description != "a <web> server" {
				t.Errorf("described as %q", e.Description)
			}
			ports = append(ports, e.Port)
		}
		return ports
	}
	if got := list("0", "0"); !slices.Equal(got, []string{"8080"}) {
		t.Errorf("anna's ports: %v", got)
	}
	if got := list("1", "0"); !slices.Equal(got, []string{"8080", "80"}) {
		t.Errorf("all ports: %v", got)
	}
	if got := list("1", "1"); !slices.Equal(got, []string{"8080"}) {
		t.Errorf("one port: %v", got)
	}
	w.act(ben, "DeletePortMappingRange", "NewStartPort", "0", "NewEndPort", "65535", "NewProtocol", "TCP", "NewManage", "0")
	if l := w.m.Leases(w.now); len(l) != 1 || l[0].Internal.Addr() != anna {
		t.Errorf("left: %+v", l)
	}
}

func TestUPnPStatus(t *testing.T) {
	w := newWorld(t, Behaviour{UPnP: true})
	w.pass(90 * time.Second)
	for _, c := range []struct {
		service, action string
		want            map[string]string
	}{
		{"WANIPConnection", "GetStatusInfo", map[string]string{"NewConnectionStatus": "Connected", "NewLastConnectionError": "ERROR_NONE", "NewUptime": "90"}},
		{"WANIPConnection", "GetNATRSIPStatus", map[string]string{"NewRSIPAvailable": "0", "NewNATEnabled": "1"}},
		{"WANIPConnection", "GetConnectionTypeInfo", map[string]string{"NewConnectionType": "IP_Routed", "NewPossibleConnectionTypes": "IP_Routed"}},
		{"WANCommonInterfaceConfig", "GetCommonLinkProperties", map[string]string{"NewWANAccessType": "Ethernet", "NewPhysicalLinkStatus": "Up",
			"NewLayer1UpstreamMaxBitRate": "1000000000"}},
		{"Layer3Forwarding", "GetDefaultConnectionService", map[string]string{"NewDefaultConnectionService": w.m.defaultConnection()}},
	} {
		code, out := w.actAt(c.service, 1, anna, c.action)
		for name, want := range c.want {
			if out[name] != want {
				t.Errorf("%s: error %d, %s %q, want %q", c.action, code, name, out[name], want)
			}
		}
	}
	for service, want := range map[string]int{w.m.defaultConnection(): 0, "uuid:other": 720} {
		if code, _ := w.actAt("Layer3Forwarding", 1, anna, "SetDefaultConnectionService", "NewDefaultConnectionService", service); code != want {
			t.Errorf("default connection %s: error %d, want %d", service, code, want)
		}
	}
	w.doors.address = netip.Addr{}
	if _, out := w.act(anna, "GetStatusInfo"); out["NewConnectionStatus"] != "Disconnected" {
		t.Errorf("without an address: %v", out)
	}
	if _, out := w.act(anna, "GetExternalIPAddress"); out["NewExternalIPAddress"] != "" {
		t.Errorf("without an address: %v", out)
	}
	if code := w.add(anna); code != 501 {
		t.Errorf("without an address a mapping came to %d", code)
	}
}
