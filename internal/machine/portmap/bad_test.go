package portmap

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// everything is a gateway that speaks all protocols, and is otherwise b.
func everything(b Behaviour) Behaviour {
	b.NATPMP, b.PCP, b.UPnP = true, true, true
	return b
}

// ports asks for the ports 6000, 6001 and 6002 by the three protocols, and
// returns the ones that were got; 0 is none. The internal ports are 1000 less.
func (w *world) ports(host netip.Addr) (got [3]uint16) {
	w.Helper()
	if a := w.ask(host, Port, pmp(1, 5000, 6000, 3600)); a[3] == 0 {
		got[0] = binary.BigEndian.Uint16(a[10:])
	}
	client := anna16
	if host == ben {
		client = ben16
	}
	if result, _, a := w.pcp(host, mapHex(with(fClient, client), with(fInternal, "1389"), with(fExternal, "1771"))); result == 0 {
		got[1] = binary.BigEndian.Uint16(a[42:])
	}
	code, out := w.act(host, "AddPortMapping", entryArgs(host, "NewExternalPort", "6002", "NewInternalPort", "5002", "NewProtocol", "UDP")...)
	if code == 0 {
		got[2] = 6002
		if out["NewReservedPort"] != "" {
			w.Error("a port nobody asked about")
		}
	}
	return got
}

func (w *world) wantPorts(host netip.Addr, want [3]uint16) {
	w.Helper()
	if got := w.ports(host); got != want {
		w.Errorf("got ports %v, want %v", got, want)
	}
}

func TestGood(t *testing.T) {
	w := newWorld(t, everything(Behaviour{})).quiet()
	w.wantPorts(anna, [3]uint16{6000, 6001, 6002})
	w.wantPorts(ben, [3]uint16{5000, 5001, 0})
	w.wantOpen(ip.UDP, 6001, "192.168.1.20:5001")
}

func TestLie(t *testing.T) {
	w := newWorld(t, everything(Behaviour{Lie: true})).quiet()
	w.wantPorts(anna, [3]uint16{6000, 6001, 6002})
	w.wantPorts(ben, [3]uint16{5000, 5001, 0}) // consistent, like a good liar
	if len(w.doors.open) != 0 {
		t.Errorf("a liar opened %v", w.doors.open)
	}
	w.wantPorts(anna, [3]uint16{6000, 6001, 6002})
	w.m.AddressChanged(w.now)
	if len(w.doors.open) != 0 || len(w.m.Leases(w.now)) != 5 {
		t.Errorf("after a new address: %v", w.doors.open)
	}
}

func TestForget(t *testing.T) {
	w := newWorld(t, everything(Behaviour{Forget: 5 * time.Minute})).quiet()
	w.ports(anna)
	w.changes()
	w.pass(5*time.Minute - 1)
	w.wantOpen(ip.UDP, 6000, "192.168.1.20:5000")
	w.pass(1)
	if len(w.doors.open) != 0 || len(w.m.Leases(w.now)) != 3 || len(w.polled()) != 0 {
		t.Errorf("forgotten: %v is open", w.doors.open)
	}
	if _, out := w.act(anna, "GetGenericPortMappingEntry", "NewPortMappingIndex", "2"); out["NewExternalPort"] != "6002" {
		t.Errorf("the entry is %v", out)
	}
	if got := w.changes(); len(got) != 3 || got[0] != Forgotten {
		t.Errorf("events %v", got)
	}
	w.wantPorts(anna, [3]uint16{6000, 6001, 6002})
	w.wantOpen(ip.UDP, 6000, "192.168.1.20:5000")
	w.pass(time.Hour)
	if len(w.m.Leases(w.now)) != 0 {
		t.Error("forgotten leases stay")
	}
}

func TestWrongAddress(t *testing.T) {
	for lie, want := range map[WrongAddress]string{RightAddress: "198.51.100.11", PrivateAddress: "10.0.0.1", ZeroAddress: "0.0.0.0"} {
		w := newWorld(t, everything(Behaviour{WrongAddress: lie})).quiet()
		a, _ := netip.AddrFromSlice(w.ask(anna, Port, []byte{0, 0})[8:])
		if a.String() != want {
			t.Errorf("NAT-PMP tells %v, want %s", a, want)
		}
		if b := address16(w.wantPCP(anna, mapHex(), 0)[44:]); b.String() != want {
			t.Errorf("PCP tells %v, want %s", b, want)
		}
		if _, out := w.act(anna, "GetExternalIPAddress"); out["NewExternalIPAddress"] != want {
			t.Errorf("UPnP tells %v, want %s", out, want)
		}
	}
}

func TestRefuse(t *testing.T) {
	for _, c := range []struct {
		refuse  Refusal
		pmp     byte
		pcp     int
		address byte // NAT-PMP's result
	}{{RefuseNotAuthorized, 2, 2, 0}, {RefuseFailed, 3, 7, 3}, {RefuseFull, 4, 8, 0}} {
		w := newWorld(t, everything(Behaviour{Refuse: c.refuse})).quiet()
		w.wantPorts(anna, [3]uint16{})
		if a := w.ask(anna, Port, pmp(1, 5000, 0, 60)); a[3] != c.pmp {
			t.Errorf("NAT-PMP says %d, want %d", a[3], c.pmp)
		}
		if a := w.ask(anna, Port, []byte{0, 0}); a[3] != c.address {
			t.Errorf("NAT-PMP says of the address %d, want %d", a[3], c.address)
		}
		w.wantPCP(anna, mapHex(), c.pcp)
	}
}

func TestLifetimes(t *testing.T) {
	for _, c := range []struct {
		most, pmp, pcp, upnp time.Duration
	}{
		{0, 24 * time.Hour, 24 * time.Hour, 0},
		{time.Hour, time.Hour, time.Hour, time.Hour},
		{time.Minute, time.Minute, time.Minute, time.Minute},
	} {
		w := newWorld(t, everything(Behaviour{MaxLifetime: c.most})).quiet()
		w.ask(anna, Port, pmp(1, 5000, 0, 1<<31))
		w.pcp(anna, mapHex(with(fInternal, "1389"), with(fExternal, "0000"), with(fLifetime, "80000000")))
		w.add(anna, "NewLeaseDuration", "0")
		for i, want := range []time.Duration{c.pmp, c.pcp, c.upnp} {
			l := w.m.Leases(w.now)[i]
			if want == 0 && !l.Expires.IsZero() || want != 0 && l.Expires.Sub(w.now) != want {
				t.Errorf("at most %v: %v gives until %v", c.most, l.By, l.Expires.Sub(w.now))
			}
		}
	}
}

func TestMovePort(t *testing.T) {
	w := newWorld(t, everything(Behaviour{MovePort: true, IGD: 2})).quiet()
	got := w.ports(anna)
	if got[0] == 6000 || got[0] == 5000 || got[0] < 1024 || got[1] == 6001 || got[1] < 1024 || got[2] != 6002 {
		t.Errorf("got ports %v", got)
	}
	w.wantOpen(ip.UDP, got[0], "192.168.1.20:5000")
	w.wantOpen(ip.UDP, 6000, "")
	if _, out := w.act(ben, "AddAnyPortMapping", entryArgs(ben)...); out["NewReservedPort"] == "8080" {
		t.Errorf("reserved %v", out)
	}
	if again := w.ports(anna); again != got {
		t.Errorf("moved again: %v, then %v", got, again)
	}
}

func TestSamePort(t *testing.T) {
	w := newWorld(t, everything(Behaviour{SamePort: true})).quiet()
	w.wantPorts(anna, [3]uint16{5000, 5001, 0})
	w.wantPorts(ben, [3]uint16{})
}

func TestNoLowPorts(t *testing.T) {
	w := newWorld(t, everything(Behaviour{NoLowPorts: true})).quiet()
	if a := w.ask(anna, Port, pmp(1, 80, 8000, 60)); a[3] != pmpNotAuthorized {
		t.Errorf("a low internal port: %x", a)
	}
	if a := w.ask(anna, Port, pmp(1, 5000, 80, 60)); a[3] != 0 || binary.BigEndian.Uint16(a[10:]) < 1024 {
		t.Errorf("a low external port: %x", a)
	}
	w.wantPCP(anna, mapHex(with(fInternal, "1389"), with(fExternal, "0050"), with(fOptions, preferFailure)), 11)
}

func TestOneHost(t *testing.T) {
	w := newWorld(t, everything(Behaviour{OneHost: true})).quiet()
	w.wantPorts(anna, [3]uint16{6000, 6001, 6002})
	w.wantPorts(ben, [3]uint16{})
	w.wantPorts(anna, [3]uint16{6000, 6001, 6002})
	w.pass(time.Hour)
	w.polled()
	w.wantPorts(ben, [3]uint16{6000, 6001, 6002})
}

func TestPerHost(t *testing.T) {
	w := newWorld(t, everything(Behaviour{PerHost: 2})).quiet()
	w.wantPorts(anna, [3]uint16{6000, 6001, 0})
	w.wantPorts(anna, [3]uint16{6000, 6001, 0}) // what it has it may renew
	w.wantPCP(anna, mapHex(with(fInternal, "1400")), pcpQuota)
	w.wantPorts(ben, [3]uint16{5000, 5001, 0})
}

func TestDelay(t *testing.T) {
	w := newWorld(t, everything(Behaviour{Delay: 3 * time.Second})).quiet()
	if w.ask(anna, Port, []byte{0, 0}) != nil {
		t.Error("answered at once")
	}
	next, ok := w.m.NextTimeout()
	if !ok || next.Sub(w.now) != 3*time.Second {
		t.Fatalf("the next timeout is %v", next)
	}
	w.pass(3*time.Second - 1)
	if len(w.polled()) != 0 {
		t.Error("answered too early")
	}
	w.pass(1)
	if len(w.polled()) != 1 {
		t.Error("not answered")
	}
	if r := w.get(rootPath); r.After != 3*time.Second {
		t.Errorf("HTTP answers after %v", r.After)
	}
}

func TestOddPort(t *testing.T) {
	w := newWorld(t, everything(Behaviour{OddPort: true})).quiet()
	from := netip.AddrPortFrom(anna, 40000)
	w.m.Datagram(w.now, from, netip.AddrPortFrom(own, Port), []byte{0, 0})
	w.m.Datagram(w.now, from, netip.AddrPortFrom(SSDPGroup, SSDPPort), search("upnp:rootdevice"))
	all := w.polled()
	if len(all) != 2 || all[0].From.Port() != 15351 || all[1].From.Port() != 11900 {
		t.Errorf("answers %v", all)
	}
}

func TestBadDescription(t *testing.T) {
	w := newWorld(t, everything(Behaviour{BadXML: true}))
	if err := xml.Unmarshal(w.get(rootPath).Body, new(any)); err == nil {
		t.Error("well-formed all the same")
	}
	w = newWorld(t, everything(Behaviour{WrongURL: true}))
	if b := string(w.get(rootPath).Body); !strings.Contains(b, "<URLBase>http://192.0.2.1:5000/</URLBase>") {
		t.Errorf("the right URL all the same: %s", b)
	}
}

func TestFullGateway(t *testing.T) {
	w := newWorld(t, everything(Behaviour{Max: 4})).quiet()
	w.ports(anna)
	w.doors.most = 3
	w.wantPCP(anna, mapHex(with(fInternal, "1400"), with(fExternal, "1400")), pcpNoResources)
	w.doors.most = 0
	w.wantPCP(anna, mapHex(with(fInternal, "1400"), with(fExternal, "1400")), 0)
	w.wantPCP(anna, mapHex(with(fInternal, "1401"), with(fExternal, "1401")), pcpNoResources)
}

func TestReset(t *testing.T) {
	w := newWorld(t, everything(Behaviour{})).quiet()
	w.ports(anna)
	clear(w.doors.open)
	w.m.Reset(w.now)
	if n := len(w.m.Leases(w.now)); n != 0 {
		t.Errorf("%d leases survive", n)
	}
	if all := w.polled(); len(all) != 12 || hex.EncodeToString(all[0].Payload[:8]) != "0080000000000000" {
		t.Errorf("%d announcements", len(all))
	}
	w.wantPorts(ben, [3]uint16{6000, 6001, 6002})
}

// With a new address the leases move to it, and those for whose port there is
// no place end.
func TestAddressChanged(t *testing.T) {
	w := newWorld(t, everything(Behaviour{})).quiet()
	w.ports(anna)
	clear(w.doors.open)
	w.doors.address = netip.MustParseAddr("198.51.100.77")
	w.doors.taken[door{ip.UDP, 6001}] = true
	w.changes()
	w.m.AddressChanged(w.now)
	w.wantOpen(ip.UDP, 6000, "192.168.1.20:5000")
	w.wantOpen(ip.UDP, 6002, "192.168.1.20:5002")
	if got := w.changes(); len(got) != 1 || got[0] != Dropped {
		t.Errorf("events %v", got)
	}
	for _, l := range w.m.Leases(w.now) {
		if l.External.Addr() != w.doors.address {
			t.Errorf("a lease at %v", l.External)
		}
	}
	clear(w.doors.open)
	w.doors.address = netip.Addr{}
	w.m.AddressChanged(w.now)
	if n := len(w.m.Leases(w.now)); n != 0 {
		t.Errorf("%d leases without an address", n)
	}
	w.polled()
	if a := w.ask(anna, Port, []byte{0, 0}); a[3] != pmpNetworkFailure {
		t.Errorf("NAT-PMP says %x", a)
	}
}

func TestBehaviourTexts(t *testing.T) {
	type enum interface {
		MarshalText() ([]byte, error)
		UnmarshalText([]byte) error
	}
	for _, e := range []enum{new(Refusal), new(WrongAddress), new(RemoteHost)} {
		v := reflect.ValueOf(e).Elem()
		n := 0
		for ; ; n++ {
			v.SetUint(uint64(n))
			text, err := e.MarshalText()
			if err != nil {
				break
			}
			if err := e.UnmarshalText(text); err != nil || v.Uint() != uint64(n) {
				t.Errorf("%s became %v, %v", text, v.Uint(), err)
			}
		}
		if err := e.UnmarshalText([]byte("nonsense")); err == nil || n < 3 {
			t.Errorf("%T: %d values, nonsense: %v", e, n, err)
		}
	}
}

func TestImpossible(t *testing.T) {
	good := Config{Addr: own, Inside: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}, Rand: rand.NewPCG(1, 2)}
	for name, change := range map[string]func(*Config){
		"version":    func(c *Config) { c.IGD = 3 },
		"negative":   func(c *Config) { c.Forget = -1 },
		"too short":  func(c *Config) { c.MaxLifetime = time.Millisecond },
		"unknown":    func(c *Config) { c.Refuse = 9 },
		"both":       func(c *Config) { c.SamePort, c.MovePort = true, true },
		"no rand":    func(c *Config) { c.Rand = nil },
		"no address": func(c *Config) { c.Addr = netip.Addr{} },
		"no inside":  func(c *Config) { c.Inside = nil },
		"IPv6":       func(c *Config) { c.Inside = []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")} },
	} {
		c := good
		change(&c)
		if _, err := New(start, c, &doors{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(start, good, &doors{}); err != nil {
		t.Error(err)
	}
}
