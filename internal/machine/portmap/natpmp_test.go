package portmap

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// pmp is a mapping request as RFC 6886 section 3.3 lays it out.
func pmp(op byte, internal, external uint16, seconds uint32) []byte {
	b := []byte{0, op, 0, 0}
	b = binary.BigEndian.AppendUint16(b, internal)
	b = binary.BigEndian.AppendUint16(b, external)
	return binary.BigEndian.AppendUint32(b, seconds)
}

func TestNATPMPBytes(t *testing.T) {
	for _, c := range []struct {
		name, ask, want string
	}{
		{"address", "0000", "00800000" + "00000258" + "c633640b"},
		{"map UDP", "0001" + "0000" + "1388" + "1770" + "00000e10", "00810000" + "00000258" + "1388" + "1770" + "00000e10"},
		{"map TCP, any port", "0002" + "0000" + "1388" + "0000" + "00000e10", "00820000" + "00000258" + "1388" + "1388" + "00000e10"},
		{"too long a lifetime", "0001" + "0000" + "1388" + "0000" + "ffffffff", "00810000" + "00000258" + "1388" + "1388" + "00015180"},
		{"internal port 0", "0001" + "0000" + "0000" + "1770" + "00000e10", "00810002" + "00000258" + "0000" + "0000" + "00000000"},
		{"unmap what is not there", "0001" + "0000" + "1388" + "0000" + "00000000", "00810000" + "00000258" + "1388" + "0000" + "00000000"},
		{"unknown opcode", "0003", "00830005" + "00000258"},
		{"version 1", "0100", "00800001" + "00000258"},
		{"PCP's version", "0201" + "000000000e10", "00810001" + "00000258"},
		{"an answer", "0080", ""},
		{"too short", "00", ""},
		{"too short to map", "0001000013881770", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Behaviour{NATPMP: true}).quiet() // ten minutes: epoch 600
			ask, _ := hex.DecodeString(c.ask)
			if got := hex.EncodeToString(w.ask(anna, Port, ask)); got != c.want {
				t.Errorf("answer %s, want %s", got, c.want)
			}
		})
	}
}

func TestNATPMPLease(t *testing.T) {
	w := newWorld(t, Behaviour{NATPMP: true}).quiet()
	w.ask(anna, Port, pmp(1, 5000, 6000, 3600))
	w.wantOpen(ip.UDP, 6000, "192.168.1.20:5000")
	w.wantOpen(ip.TCP, 6000, "")

	// "the gateway must return the port that it has" whatever is asked for.
	if a := w.ask(anna, Port, pmp(1, 5000, 7000, 3600)); binary.BigEndian.Uint16(a[10:]) != 6000 {
		t.Errorf("the second request got %x", a)
	}
	// Another host gets another port.
	if a := w.ask(ben, Port, pmp(1, 5000, 6000, 3600)); binary.BigEndian.Uint16(a[10:]) != 5000 {
		t.Errorf("another host got %x", a)
	}
	// It cannot end what is not its.
	w.ask(ben, Port, pmp(1, 5001, 0, 0))
	w.pass(3599 * time.Second)
	w.wantOpen(ip.UDP, 6000, "192.168.1.20:5000")
	w.pass(time.Second)
	w.wantOpen(ip.UDP, 6000, "")
	want := []Change{Made, Renewed, Made, Expired, Expired}
	if got := w.changes(); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestNATPMPUnmap(t *testing.T) {
	w := newWorld(t, Behaviour{NATPMP: true, UPnP: true}).quiet()
	for port := uint16(5000); port < 5003; port++ {
		w.ask(anna, Port, pmp(1, port, 0, 3600))
		w.ask(anna, Port, pmp(2, port, 0, 3600))
	}
	w.ask(anna, Port, pmp(1, 5000, 0, 0))
	w.wantOpen(ip.UDP, 5000, "")
	w.wantOpen(ip.UDP, 5001, "192.168.1.20:5001")
	w.ask(ben, Port, pmp(1, 0, 0, 0))
	w.wantOpen(ip.UDP, 5001, "192.168.1.20:5001")
	w.ask(anna, Port, pmp(1, 0, 0, 0)) // all of UDP
	w.wantOpen(ip.UDP, 5001, "")
	w.wantOpen(ip.UDP, 5002, "")
	w.wantOpen(ip.TCP, 5002, "192.168.1.20:5002")

	// What another protocol made is not NAT-PMP's to end.
	w.add(anna, "NewExternalPort", "8000", "NewInternalPort", "8000")
	if a := w.ask(anna, Port, pmp(2, 8000, 0, 0)); a[3] != pmpNotAuthorized {
		t.Errorf("ended another protocol's: %x", a)
	}
	w.wantOpen(ip.TCP, 8000, "192.168.1.20:8000")
	// But its port is what NAT-PMP is told, and it outlives the one or the other.
	if a := w.ask(anna, Port, pmp(2, 8000, 9000, 60)); binary.BigEndian.Uint16(a[10:]) != 8000 {
		t.Errorf("a second port for one endpoint: %x", a)
	}
	w.pass(time.Minute)
	w.wantOpen(ip.TCP, 8000, "192.168.1.20:8000")
}

func TestNobodyElseIsAnswered(t *testing.T) {
	w := newWorld(t, Behaviour{NATPMP: true, PCP: true, UPnP: true}).quiet()
	address := []byte{0, 0}
	for _, c := range []struct{ from, to string }{
		{"203.0.113.9:40000", "192.168.1.1:5351"},    // a stranger
		{"192.168.1.20:40000", "198.51.100.11:5351"}, // the external address
		{"192.168.1.20:40000", "224.0.0.1:5351"},
		{"192.168.1.20:0", "192.168.1.1:5351"},
		{"192.168.1.255:40000", "192.168.1.1:5351"},
		{"192.168.1.0:40000", "192.168.1.1:5351"},
		{"192.168.1.1:40000", "192.168.1.1:5351"},
		{"[fe80::1]:40000", "192.168.1.1:5351"},
		{"192.168.1.20:40000", "192.168.1.1:5352"},
	} {
		w.m.Datagram(w.now, netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to), address)
		if got := w.polled(); got != nil {
			t.Errorf("from %s to %s: answered", c.from, c.to)
		}
	}
	if w.ask(anna, Port, address) == nil {
		t.Error("a host inside is not answered")
	}
}

func TestAnnouncements(t *testing.T) {
	w := newWorld(t, Behaviour{NATPMP: true, PCP: true})
	var at []time.Duration
	count := func() {
		for next, ok := w.m.NextTimeout(); ok; next, ok = w.m.NextTimeout() {
			w.pass(next.Sub(w.now))
			for _, o := range w.polled() {
				if o.From.String() != "192.168.1.1:5351" || o.To.String() != "224.0.0.1:5350" {
					t.Fatalf("announced from %v to %v", o.From, o.To)
				}
				if o.Payload[0] == 0 {
					at = append(at, w.now.Sub(start))
				}
			}
		}
	}
	if n := len(w.polled()); n != 2 {
		t.Fatalf("%d announcements at once, want one of each protocol", n)
	}
	count()
	want := []time.Duration{250, 750, 1750, 3750, 7750, 15750, 31750, 63750, 127750}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(at, want) {
		t.Errorf("announced after %v, want %v", at, want)
	}

	w.pass(time.Hour)
	w.doors.address = netip.MustParseAddr("198.51.100.77")
	w.m.AddressChanged(w.now)
	all := w.polled()
	if len(all) != 2 || hex.EncodeToString(all[0].Payload) != "0080000000000000c633644d" ||
		hex.EncodeToString(all[1].Payload) != "028000000000000000000000"+"000000000000000000000000" {
		t.Errorf("announced %x", all)
	}
}
