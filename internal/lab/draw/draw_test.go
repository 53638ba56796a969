package draw

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

var update = flag.Bool("update", false, "write testdata anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func port(name, network string, addrs ...string) snapshot.Port {
	p := snapshot.Port{Name: name, Network: network, Interface: "eth0", Hardware: scenario.HardwareAddr(name)}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, netip.MustParsePrefix(a))
	}
	return p
}

// counted has a port lose packets both ways, one more of its own.
func counted(p snapshot.Port, sent, received, lost uint64) snapshot.Port {
	p.Sent = snapshot.Count{Packets: sent, Bytes: sent * 120}
	if lost > 0 {
		p.Sent.DroppedPackets, p.Sent.DroppedBytes = lost+1, (lost+1)*120
	}
	p.Received = snapshot.Count{Packets: received, Bytes: received * 900, DroppedPackets: lost, DroppedBytes: lost * 900}
	return p
}

func linked(p snapshot.Port, l scenario.Link) snapshot.Port {
	p.Link = l
	return p
}

func mapping(proto ip.Proto, internal, external string, sessions ...nat.Session) nat.Mapping {
	return nat.Mapping{Proto: proto, Internal: netip.MustParseAddrPort(internal), External: netip.MustParseAddrPort(external), Sessions: sessions}
}

func session(remote string, left time.Duration) nat.Session {
	return nat.Session{Remote: netip.MustParseAddrPort(remote), Expires: noon.Add(left)}
}

// town is a lab with all that can be shown.
func town() Lab {
	homeNAT, _ := nat.PresetByName("port-restricted")
	carrier, _ := nat.PresetByName("carrier")
	established := session("198.51.100.1:443", 2*time.Hour)
	established.Established = true
	dmz := port("office/dmz", "office-dmz", "203.0.113.17/28")
	home := snapshot.Gateway{
		Name: "home", NAT: homeNAT,
		Inside:  port("home/inside", "home-lan", "10.1.0.1/24"),
		Outside: counted(linked(port("home/outside", "carrier", "100.64.0.11/24"), scenario.Link{Delay: 4 * time.Millisecond, Loss: 0.01, Rate: 50e6}), 1523, 2204, 17),
		Mappings: []nat.Mapping{
			mapping(ip.TCP, "10.1.0.2:50112", "100.64.0.11:50112", established),
			{Proto: ip.UDP, Internal: netip.MustParseAddrPort("10.1.0.2:5000"), External: netip.MustParseAddrPort("100.64.0.11:5000"), Explicit: true, Until: noon.Add(30 * time.Minute)},
			{Proto: ip.TCP, Internal: netip.MustParseAddrPort("10.1.0.2:80"), External: netip.MustParseAddrPort("100.64.0.11:8080"), Explicit: true,
				Remotes: []nat.Remotes{{Prefix: netip.MustParsePrefix("198.51.100.2/32")}, {Prefix: netip.MustParsePrefix("203.0.113.0/24"), Port: 5060}, {Port: 99}}},
			mapping(ip.UDP, "10.1.0.2:4000", "100.64.0.11:4000", session("198.51.100.2:5000", 290*time.Second), session("198.51.100.1:3478", 8*time.Second)),
		},
		Stats:  nat.Stats{Forwarded: 3727, Mappings: 4, Sessions: 3},
		Leases: []snapshot.Lease{{Addr: netip.MustParseAddr("10.1.0.2"), Hardware: scenario.HardwareAddr("a"), Host: "a", Expires: noon.Add(52 * time.Minute)}},
	}
	home.Stats.Dropped[nat.Filtered], home.Stats.Dropped[nat.Kept] = 12, 99
	a := snapshot.Host{Name: "a", Port: counted(port("a", "home-lan", "10.1.0.2/24"), 1490, 2100, 0)}
	a.Port.DHCP, a.Lease = true, &home.Leases[0]
	cgn := snapshot.Gateway{
		Name: "cgn", NAT: carrier,
		Inside:  port("cgn/inside", "carrier", "100.64.0.1/24"),
		Outside: counted(linked(port("cgn/outside", scenario.Internet, "198.51.100.11/24", "198.51.100.12/24"), scenario.Link{Delay: 20 * time.Millisecond, Jitter: 3 * time.Millisecond}), 1400, 2200, 0),
		Mappings: []nat.Mapping{
			mapping(ip.UDP, "100.64.0.11:4000", "198.51.100.11:31744", session("198.51.100.1:3478", 100*time.Second)),
		},
		Stats: nat.Stats{Forwarded: 3600, Hairpinned: 4, Mappings: 9000, Sessions: 9100},
	}
	office := snapshot.Gateway{
		Name: "office", NAT: nat.Behaviour{Mode: nat.Firewall, Filtering: nat.AddressDependent}, UDPBlocked: true,
		Inside:  port("office/inside", "office-lan", "203.0.113.1/28", "2001:db8:b::1/64"),
		Outside: port("office/outside", scenario.Internet, "198.51.100.30/24", "2001:db8::30/64"),
		DMZ:     &dmz,
		Mappings: []nat.Mapping{
			mapping(ip.TCP, "[2001:db8:b::2]:40001", "[2001:db8:b::2]:40001", session("[2001:db8::1]:443", time.Hour)),
		},
		Stats: nat.Stats{Forwarded: 81, Mappings: 1, Sessions: 1},
	}
	office.Stats.Dropped[nat.Blocked] = 44
	kernel := snapshot.Gateway{
		Name: "old", NAT: homeNAT, Kernel: true,
		Inside:  port("old/inside", "old-lan", "192.168.1.1/24"),
		Outside: port("old/outside", scenario.Internet, "198.51.100.40/24"),
	}
	waiting := port("guest", "home-lan")
	waiting.DHCP = true
	return Lab{Name: "town", Title: "A carrier, an office and a home", Snapshot: snapshot.Snapshot{
		Time: noon,
		Networks: []snapshot.Network{{Name: scenario.Internet, Ports: []string{"s", "cgn/outside"}, Capture: "x"},
			{Name: "carrier"}, {Name: "home-lan"}, {Name: "office-lan"}, {Name: "office-dmz"}, {Name: "old-lan"}},
		Hosts: []snapshot.Host{
			{Name: "s", Port: counted(linked(port("s", scenario.Internet, "198.51.100.1/24", "2001:db8::1/64"), scenario.Link{Delay: 20 * time.Millisecond}), 2300, 1500, 0)},
			a,
			{Name: "guest", Port: waiting},
			{Name: "desk", Port: port("desk", "office-lan", "203.0.113.2/28", "2001:db8:b::2/64"), Firewall: &nat.Stats{}},
			{Name: "www", Port: port("www", "office-dmz", "203.0.113.18/28")},
			{Name: "pc", Port: port("pc", "old-lan", "192.168.1.2/24")},
		},
		Gateways: []snapshot.Gateway{cgn, home, office, kernel},
		Cuts: []snapshot.Cut{
			{A: netip.MustParseAddr("10.1.0.2"), B: netip.MustParseAddr("203.0.113.18"), Protocol: snapshot.UDP},
			{A: netip.MustParseAddr("198.51.100.40")},
		},
		Events: []snapshot.Event{{Time: noon.Add(-3 * time.Second), Name: "home", Text: "10.1.0.2 was lent to a"}},
	}}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is no longer what is drawn; look at it, then: go test -update\n%s", file, got)
	}
}

func TestGolden(t *testing.T) {
	golden(t, "town.txt", Text(town(), 100))
	golden(t, "town.svg", SVG(town()))
	text, err := json.MarshalIndent(town(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "town.json", string(text)+"\n")
}

func TestWidth(t *testing.T) {
	for _, width := range []int{60, 80, 100} {
		for line := range strings.Lines(Text(town(), width)) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%d columns instead of %d: %s", n, width, line)
			}
		}
	}
}

// TestHostileNames: names and words of a topology get into neither the
// terminal's nor XML's syntax.
func TestHostileNames(t *testing.T) {
	evil := "\x1b[31m<script>\"&'\x00\n</svg>"
	l := town()
	l.Name, l.Title = evil, evil
	l.Networks[0].Name = evil
	l.Hosts[0].Name, l.Hosts[1].Port.Network = evil, evil
	l.Gateways[0].Name, l.Gateways[1].Inside.Network = evil, evil
	l.Gateways[1].Leases[0].Host = evil
	l.Events[0].Name, l.Events[0].Text = evil, evil
	if text := Text(l, 200); strings.ContainsAny(text, "\x1b\x00") {
		t.Errorf("control characters in %q", text)
	}
	picture := SVG(l)
	if strings.Contains(picture, "<script") || strings.Count(picture, "</svg>") != 1 {
		t.Error("a name became an element")
	}
	for d := xml.NewDecoder(strings.NewReader(picture)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := json.Marshal(l); err != nil {
		t.Error(err)
	}
}

// TestCrowd: a picture stays one however much there is, and nothing stands
// beyond its edge.
func TestCrowd(t *testing.T) {
	l := Lab{Name: strings.Repeat("n", 63), Title: strings.Repeat("家", 10_000), Snapshot: snapshot.Snapshot{Time: noon}}
	g := snapshot.Gateway{Name: "g", Inside: port("g/inside", "in", "10.1.0.1/8"), Outside: port("g/outside", scenario.Internet)}
	for n := range 5000 {
		a := netip.AddrFrom4([4]byte{10, 2, byte(n >> 8), byte(n)})
		e := netip.AddrPortFrom(a, 80)
		g.Leases = append(g.Leases, snapshot.Lease{Addr: a})
		g.Mappings = append(g.Mappings, nat.Mapping{Proto: ip.UDP, Internal: e, External: e})
	}
	g.Stats.Mappings = len(g.Mappings)
	l.Gateways = []snapshot.Gateway{g}
	picture := SVG(l)
	var width, height float64
	if _, err := fmt.Sscanf(picture, `<svg xmlns="http://www.w3.org/2000/svg" width="%f" height="%f"`, &width, &height); err != nil {
		t.Fatal(err)
	}
	// The letters of a title are 12 pixels wide, as are these of the line below.
	if width < 63*12 || width > 2000 || height > 1000 {
		t.Errorf("%.0f x %.0f pixels", width, height)
	}
	if strings.Count(picture, "and 4986 more") != 2 {
		t.Error("nothing says that there are more mappings and leases")
	}
	for line := range strings.Lines(Text(l, 80)) {
		if n := utf8.RuneCountInString(line); n > 81 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	l = Lab{Name: "x", Title: strings.Repeat("家", 80)}
	if fmt.Sscanf(SVG(l), `<svg xmlns="http://www.w3.org/2000/svg" width="%f"`, &width); width < 80*12 {
		t.Errorf("%.0f pixels wide", width)
	}
}

// TestStrange draws what no topology is: nothing, and networks in a circle.
func TestStrange(t *testing.T) {
	for _, l := range []Lab{
		{},
		{Snapshot: snapshot.Snapshot{Gateways: []snapshot.Gateway{
			{Name: "x", Inside: port("x/inside", scenario.Internet), Outside: port("x/outside", scenario.Internet)}}}},
		{Snapshot: snapshot.Snapshot{Gateways: []snapshot.Gateway{
			{Name: "x", Inside: port("x/inside", "b"), Outside: port("x/outside", scenario.Internet)},
			{Name: "y", Inside: port("y/inside", scenario.Internet), Outside: port("y/outside", "b")}}}},
	} {
		if Text(l, 80) == "" || !strings.HasSuffix(SVG(l), "</svg>\n") {
			t.Errorf("%+v is not drawn", l)
		}
	}
}

func TestWords(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{metric(0), "0 "}, {metric(999), "999 "}, {metric(1000), "1 k"}, {metric(1250), "1.2 k"}, {metric(999_999), "1 M"},
		{metric(uint64(1) << 63), "9.2 E"}, {metric(12_345_678), "12 M"},
		{linkWords(scenario.Link{}), ""},
		{linkWords(scenario.Link{MTU: 1500}), ""},
		{linkWords(scenario.Link{Delay: 20 * time.Millisecond, Jitter: time.Millisecond, Loss: .015, Reorder: .1, Repeat: 1, Rate: 1e7, MTU: 1400}),
			"20ms+1ms, loss 1.5%, reorder 10%, duplicate 100%, 10 Mbit/s, MTU 1400"},
		{left(noon, time.Time{}), ""}, {left(noon, noon), "0s"}, {left(noon, noon.Add(1234*time.Millisecond)), "1.2s"}, {left(noon, noon.Add(75500*time.Millisecond)), "1m16s"},
		{remote(netip.AddrPort{}), "anyone"}, {remote(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 0)), "192.0.2.1:*"},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}
