package portmap

import (
	"encoding/xml"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// A host that asks for everything gets what it may have, and no more.
func TestFlood(t *testing.T) {
	w := newWorld(t, everything(Behaviour{Max: 100, PerHost: 40})).quiet()
	hosts := []netip.Addr{anna, ben, netip.MustParseAddr("192.168.1.40")}
	for _, host := range hosts {
		for port := uint16(1); port < 3000; port++ {
			w.ask(host, Port, pmp(1+byte(port%2), port, port, 1<<31))
		}
	}
	if n := len(w.m.Leases(w.now)); n != 100 || len(w.doors.open) != 100 {
		t.Errorf("%d leases, %d ports, want 100", n, len(w.doors.open))
	}
	if n := w.m.count(anna); n != 40 {
		t.Errorf("one host has %d", n)
	}
	// Nor does what waits for someone to take it grow.
	for range 1000 {
		w.m.Datagram(w.now, netip.AddrPortFrom(anna, 9), netip.AddrPortFrom(own, SSDPPort), search("ssdp:all"))
	}
	if len(w.m.out) > maxPending || len(w.m.events) > maxEvents {
		t.Errorf("%d datagrams and %d events wait", len(w.m.out), len(w.m.events))
	}
}

func TestHostileXML(t *testing.T) {
	w := newWorld(t, everything(Behaviour{}))
	const urn = "urn:schemas-upnp-org:service:WANIPConnection:1"
	good := soapBody(urn, "GetExternalIPAddress")
	post := func(body string) Response {
		return w.m.HTTP(w.now, HTTPRequest{
			From: netip.AddrPortFrom(anna, 1), Method: "POST", Path: "/ctl/WANIPConn1", Host: "192.168.1.1:5000",
			SOAPAction: `"` + urn + `#GetExternalIPAddress"`, Body: []byte(body),
		})
	}
	if r := post(good); r.Status != 200 {
		t.Fatalf("the good one has status %d: %s", r.Status, r.Body)
	}
	inBody := func(s string) string { return strings.Replace(good, "<s:Body>", "<s:Body>"+s, 1) }
	inAction := func(s string) string { return strings.Replace(good, "</u:Get", s+"</u:Get", 1) }
	bomb := `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>`
	for name, body := range map[string]string{
		"nothing":            "",
		"no XML":             "hello",
		"a document type":    strings.Replace(good, "<s:Env", bomb+"<s:Env", 1),
		"an entity":          inAction("<NewX>&a;</NewX>"),
		"an instruction":     strings.Replace(good, "<s:Env", `<?php evil ?><s:Env`, 1),
		"deep":               inBody(strings.Repeat("<a>", 1000) + strings.Repeat("</a>", 1000)),
		"deep in the action": inAction("<NewX><a>1</a></NewX>"),
		"cut":                good[:len(good)-20],
		"garbage behind":     good + "<",
		"two envelopes":      good + good[strings.Index(good, "<s:Env"):],
		"two actions":        inBody("<other/>"),
		"twice the argument": inAction("<NewX>1</NewX><NewX>2</NewX>"),
		"many arguments": inAction(strings.Join(func() (all []string) {
			for i := range 40 {
				all = append(all, fmt.Sprintf("<New%d/>", i))
			}
			return all
		}(), "")),
		"another envelope": strings.Replace(good, envelopeNS, "urn:other", 1),
		"another encoding": strings.Replace(good, `"1.0"`, `"1.0" encoding="utf-16"`, 1),
		"a null byte":      inAction("<NewX>\x00</NewX>"),
	} {
		if r := post(body); r.Status != 400 {
			t.Errorf("%s: status %d, %s", name, r.Status, r.Body)
		}
	}
	// The header says what the body says, or it is no action.
	if r := post(soapBody(urn, "ForceTermination")); !strings.Contains(string(r.Body), "<errorCode>401<") {
		t.Errorf("header and body differ: %d %s", r.Status, r.Body)
	}
	// An extra header is nobody's business.
	if r := post(strings.Replace(good, "<s:Body>", "<s:Header><a><b><c>1</c></b></a></s:Header><s:Body>", 1)); r.Status != 200 {
		t.Errorf("with a SOAP header: %d %s", r.Status, r.Body)
	}
}

// What a client calls its entry does not break out of the list.
func TestHostileDescription(t *testing.T) {
	w := newWorld(t, Behaviour{UPnP: true, IGD: 2})
	const evil = "]]></NewPortListing><x>&amp;<![CDATA["
	w.add(anna, "NewPortMappingDescription", evil)
	_, out := w.act(anna, "GetListOfPortMappings", "NewStartPort", "0", "NewEndPort", "65535", "NewProtocol", "TCP", "NewManage", "0", "NewNumberOfPorts", "0")
	var l struct {
		Description string `xml:"PortMappingEntry>NewDescription"`
	}
	if err := xml.Unmarshal([]byte(out["NewPortListing"]), &l); err != nil || l.Description != evil || len(out) != 1 {
		t.Errorf("%v: %v", err, out)
	}
}

// seeds are requests of all kinds, for the fuzzers.
func seeds() (all [][]byte) {
	all = [][]byte{{0, 0}, pmp(1, 5000, 6000, 60), pmp(2, 0, 0, 0), search("ssdp:all"), search("upnp:rootdevice")}
	for _, s := range []string{mapHex(), mapHex(with(fOptions, preferFailure+"80000001aa000000"))} {
		b := make([]byte, len(s)/2)
		fmt.Sscanf(s, "%x", &b)
		all = append(all, b)
	}
	return all
}

// FuzzDatagram drives a machine with whatever: it never fails, its leases are
// what is open, and nothing is answered louder than the protocols need.
func FuzzDatagram(f *testing.F) {
	for _, b := range seeds() {
		f.Add(b, uint8(0))
		f.Add(b, uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, which uint8) {
		w := newWorld(t, everything(Behaviour{})).quiet()
		port := []uint16{Port, SSDPPort}[which%2]
		for range 2 { // the second time it is a renewal
			w.m.Datagram(w.now, netip.AddrPortFrom(anna, 40000), netip.AddrPortFrom(own, port), b)
			total := 0
			for _, o := range w.polled() {
				total += len(o.Payload)
			}
			if port == Port && total > max(len(b)+3, 24) {
				t.Fatalf("%d bytes in answer to %d", total, len(b))
			}
			w.consistent()
		}
		w.pass(48 * time.Hour)
		if len(w.m.Leases(w.now)) != 0 || len(w.doors.open) != 0 {
			t.Fatalf("after two days there is %+v", w.m.Leases(w.now))
		}
	})
}

func FuzzSOAP(f *testing.F) {
	const urn = "urn:schemas-upnp-org:service:WANIPConnection:2"
	for _, a := range []string{"AddPortMapping", "AddAnyPortMapping", "DeletePortMapping", "GetListOfPortMappings"} {
		f.Add([]byte(soapBody(urn, a, entryArgs(anna)...)), a)
	}
	f.Fuzz(func(t *testing.T, body []byte, action string) {
		w := newWorld(t, Behaviour{UPnP: true, IGD: 2})
		for range 2 {
			r := w.m.HTTP(w.now, HTTPRequest{
				From: netip.AddrPortFrom(anna, 1), Method: "POST", Path: "/ctl/WANIPConn1", Host: "192.168.1.1:5000",
				SOAPAction: `"` + urn + "#" + action + `"`, Body: body,
			})
			if len(r.Body) > 4<<10+2*len(body) {
				t.Fatalf("%d bytes in answer to %d", len(r.Body), len(body))
			}
			w.consistent()
		}
	})
}

// consistent says that the leases and the gateway agree.
func (w *world) consistent() {
	w.Helper()
	open := map[door]netip.AddrPort{}
	for _, l := range w.m.Leases(w.now) {
		if l.Open {
			open[door{l.Proto, l.External.Port()}] = l.Internal
		}
		if !w.m.isClient(l.Internal.Addr()) || l.Internal.Port() == 0 || l.External.Port() == 0 || l.Expires.IsZero() && l.By != UPnP {
			w.Fatalf("an impossible lease: %+v", l)
		}
	}
	if len(open) != len(w.doors.open) {
		w.Fatalf("leases have %v, the gateway %v", open, w.doors.open)
	}
	for at, internal := range open {
		if w.doors.open[at].Internal != internal {
			w.Fatalf("leases have %v, the gateway %v", open, w.doors.open)
		}
	}
}

// A random walk of all requests: leases and gateway always agree.
func TestWalk(t *testing.T) {
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		behaviour := everything(Behaviour{IGD: 1 + rnd.IntN(2), AnyClient: rnd.IntN(2) == 0, SamePort: rnd.IntN(4) == 0, Max: 20})
		if rnd.IntN(3) == 0 {
			behaviour.Forget = 10 * time.Minute
		}
		w := newWorld(t, behaviour).quiet()
		hosts := []netip.Addr{anna, ben}
		for range 600 {
			host := hosts[rnd.IntN(2)]
			internal, external := uint16(5000+rnd.IntN(4)), uint16(5000+rnd.IntN(6))
			seconds := uint32(rnd.IntN(4) * 400)
			client, proto := anna16, []string{"11", "06"}[rnd.IntN(2)]
			if host == ben {
				client = ben16
			}
			switch rnd.IntN(8) {
			case 0, 1:
				w.ask(host, Port, pmp(byte(1+rnd.IntN(2)), internal*uint16(min(1, rnd.IntN(9))), external, seconds))
			case 2, 3:
				request := []func(*mapFields){
					with(fClient, client), with(fProto, proto), with(fLifetime, fmt.Sprintf("%08x", seconds)),
					with(fInternal, fmt.Sprintf("%04x", internal)), with(fExternal, fmt.Sprintf("%04x", external)),
					with(fNonce, []string{nonce1, nonce2}[min(1, rnd.IntN(5))]),
				}
				switch rnd.IntN(3) {
				case 0:
					request = append(request, with(fOptions, preferFailure))
				case 1:
					request = append(request, with(fOp, "02"), with(fPeer, "01bb0000"+peer16))
				}
				w.pcp(host, mapHex(request...))
			case 4, 5:
				action := []string{"AddPortMapping", "AddAnyPortMapping"}[rnd.IntN(2)]
				w.act(host, action, entryArgs(host, "NewExternalPort", fmt.Sprint(external), "NewInternalPort", fmt.Sprint(internal),
					"NewInternalClient", hosts[rnd.IntN(2)].String(), "NewEnabled", fmt.Sprint(min(1, rnd.IntN(4))),
					"NewLeaseDuration", fmt.Sprint(seconds), "NewProtocol", []string{"TCP", "UDP"}[rnd.IntN(2)])...)
			case 6:
				w.act(host, "DeletePortMapping", "NewRemoteHost", "", "NewExternalPort", fmt.Sprint(external), "NewProtocol",
					[]string{"TCP", "UDP"}[rnd.IntN(2)])
			case 7:
				w.pass(time.Duration(rnd.IntN(300)) * time.Second)
				w.polled()
				switch rnd.IntN(30) {
				case 0:
					clear(w.doors.open)
					w.m.AddressChanged(w.now)
				case 1:
					clear(w.doors.open)
					w.m.Reset(w.now)
				}
				w.polled()
			}
			w.consistent()
			if next, ok := w.m.NextTimeout(); ok && next.Before(w.now) {
				t.Fatalf("seed %d: the next timeout is %v ago", seed, w.now.Sub(next))
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}
