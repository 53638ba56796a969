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

const (
	// Addresses as PCP writes them.
	anna16    = "00000000000000000000ffffc0a80114"
	ben16     = "00000000000000000000ffffc0a8011e"
	outside16 = "00000000000000000000ffffc633640b"
	other16   = "00000000000000000000ffffc633640c"
	peer16    = "00000000000000000000ffffcb007109"
	any16     = "00000000000000000000ffff00000000"
	none16    = "00000000000000000000000000000000"

	nonce1 = "0102030405060708090a0b0c"
	nonce2 = "ffffffffffffffffffffffff"

	preferFailure = "02000000"
)

// pcpHex is a MAP request from anna as RFC 6887 section 11.1 lays it out, in
// hex: for UDP port 5000, with external port 6000.
func mapHex(change ...func(*mapFields)) string {
	f := mapFields{op: "01", lifetime: "00000e10", client: anna16, nonce: nonce1, proto: "11", internal: "1388", external: "1770", address: none16}
	for _, c := range change {
		c(&f)
	}
	return "02" + f.op + "0000" + f.lifetime + f.client + f.nonce + f.proto + "000000" + f.internal + f.external + f.address + f.peer + f.options
}

type mapFields struct {
	op, lifetime, client, nonce, proto, internal, external, address, peer, options string
}

func with(field func(*mapFields) *string, value string) func(*mapFields) {
	return func(f *mapFields) { *field(f) = value }
}

func fOp(f *mapFields) *string       { return &f.op }
func fLifetime(f *mapFields) *string { return &f.lifetime }
func fClient(f *mapFields) *string   { return &f.client }
func fNonce(f *mapFields) *string    { return &f.nonce }
func fProto(f *mapFields) *string    { return &f.proto }
func fInternal(f *mapFields) *string { return &f.internal }
func fExternal(f *mapFields) *string { return &f.external }
func fAddress(f *mapFields) *string  { return &f.address }
func fPeer(f *mapFields) *string     { return &f.peer }
func fOptions(f *mapFields) *string  { return &f.options }

func (w *world) pcp(host netip.Addr, request string) (result int, lifetime uint32, answer []byte) {
	w.Helper()
	b, err := hex.DecodeString(request)
	if err != nil {
		w.Fatal(err)
	}
	a := w.ask(host, Port, b)
	if a == nil {
		return -1, 0, nil
	}
	if len(a) < 24 || len(a)%4 != 0 || len(a) > 1100 || a[0] != 2 || a[1] != b[1]|0x80 {
		w.Fatalf("an ill-formed answer: %x", a)
	}
	return int(a[3]), binary.BigEndian.Uint32(a[4:]), a
}

func (w *world) wantPCP(host netip.Addr, request string, want int) []byte {
	w.Helper()
	got, _, a := w.pcp(host, request)
	if got != want {
		w.Errorf("result %d, want %d", got, want)
	}
	return a
}

func TestPCPBytes(t *testing.T) {
	answered := func(op, lifetime, rest string) string {
		return "02" + op + "0000" + lifetime + "00000258" + "000000000000000000000000" + rest
	}
	filter := "03000014" + "00" + "78" + "0050" + peer16 // 203.0.113.9/24, port 80
	peerEnd := "01bb0000" + peer16
	for _, c := range []struct{ name, ask, want string }{
		{"ANNOUNCE", "0200000000000000" + anna16, answered("80", "00000000", "")},
		{"MAP", mapHex(), answered("81", "00000e10", nonce1+"11000000"+"1388"+"1770"+outside16)},
		{"MAP of TCP, any port", mapHex(with(fProto, "06"), with(fExternal, "0000")),
			answered("81", "00000e10", nonce1+"06000000"+"1388"+"1388"+outside16)},
		{"a short lifetime", mapHex(with(fLifetime, "00000001")), answered("81", "00000078", nonce1+"11000000"+"1388"+"1770"+outside16)},
		{"PREFER_FAILURE", mapHex(with(fAddress, outside16), with(fOptions, preferFailure)),
			answered("81", "00000e10", nonce1+"11000000"+"1388"+"1770"+outside16+preferFailure)},
		{"FILTER", mapHex(with(fOptions, filter)), answered("81", "00000e10", nonce1+"11000000"+"1388"+"1770"+outside16+filter)},
		{"an option to ignore", mapHex(with(fOptions, "80000001"+"aa000000"+preferFailure)),
			answered("81", "00000e10", nonce1+"11000000"+"1388"+"1770"+outside16+preferFailure)},
		{"another address", mapHex(with(fAddress, other16)), answered("81", "00000e10", nonce1+"11000000"+"1388"+"1770"+outside16)},
		{"unmap what is not there", mapHex(with(fLifetime, "00000000")), answered("81", "00000000", nonce1+"11000000"+"1388"+"1770"+none16)},
		{"PEER", mapHex(with(fOp, "02"), with(fAddress, any16), with(fPeer, peerEnd)),
			answered("82", "00000e10", nonce1+"11000000"+"1388"+"1770"+outside16+peerEnd)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Behaviour{PCP: true}).quiet()
			_, _, a := w.pcp(anna, c.ask)
			if got := hex.EncodeToString(a); got != c.want {
				t.Errorf("answer\n%s, want\n%s", got, c.want)
			}
		})
	}
}

func TestPCPErrors(t *testing.T) {
	filter := "03000014" + "00" + "80" + "0050" + peer16
	many := ""
	for i := range 9 {
		many += "03000014" + "00" + "80" + "005" + string(rune('0'+i)) + peer16
	}
	peerEnd := "01bb0000" + peer16
	peer := func(change ...func(*mapFields)) string {
		return mapHex(append([]func(*mapFields){with(fOp, "02"), with(fPeer, peerEnd)}, change...)...)
	}
	long := mapHex()
	for len(long) <= 2*1100 {
		long += "80000000"
	}
	for _, c := range []struct {
		name, ask string
		bad       Behaviour
		want      int
		seconds   uint32
	}{
		{"version 1", "01" + mapHex()[2:], Behaviour{}, 1, 1800},
		{"version 0", "0000", Behaviour{}, 1, 1800},
		{"switched off", mapHex(), Behaviour{Refuse: RefuseNotAuthorized}, 2, 1800},
		{"all ports", mapHex(with(fInternal, "0000")), Behaviour{}, 2, 1800},
		{"a low internal port", mapHex(with(fInternal, "0050")), Behaviour{NoLowPorts: true}, 2, 1800},
		{"a header alone", "0201000000000e10" + anna16, Behaviour{}, 3, 1800},
		{"less than a header", "02010000", Behaviour{}, 3, 1800},
		{"no multiple of four", mapHex() + "00", Behaviour{}, 3, 1800},
		{"more than 1100 bytes", long, Behaviour{}, 3, 1800},
		{"PEER without a peer", mapHex(with(fOp, "02")), Behaviour{}, 3, 1800},
		{"PEER with PREFER_FAILURE", peer(with(fOptions, preferFailure)), Behaviour{}, 3, 1800},
		{"PEER from port 0", peer(with(fInternal, "0000")), Behaviour{}, 3, 1800},
		{"PEER to port 0", peer(with(fPeer, "00000000"+peer16)), Behaviour{}, 3, 1800},
		{"PEER to nobody", peer(with(fPeer, "01bb0000"+any16)), Behaviour{}, 3, 1800},
		{"opcode 3", "0203000000000000" + anna16, Behaviour{}, 4, 1800},
		{"THIRD_PARTY", mapHex(with(fOptions, "01000010"+ben16)), Behaviour{}, 5, 1800},
		{"THIRD_PARTY that is no third", mapHex(with(fOptions, "01000010"+anna16)), Behaviour{}, 3, 1800},
		{"THIRD_PARTY for PEER", peer(with(fOptions, "01000010"+ben16)), Behaviour{}, 5, 1800},
		{"THIRD_PARTY that is too short", mapHex(with(fOptions, "01000004"+anna16[24:])), Behaviour{}, 6, 1800},
		{"unmapping with PREFER_FAILURE", mapHex(with(fLifetime, "00000000"), with(fOptions, preferFailure)), Behaviour{}, 6, 1800},
		{"unmapping with FILTER", mapHex(with(fLifetime, "00000000"), with(fOptions, filter)), Behaviour{}, 6, 1800},
		{"an option to heed", mapHex(with(fOptions, "7f000000")), Behaviour{}, 5, 1800},
		{"PREFER_FAILURE twice", mapHex(with(fOptions, preferFailure+preferFailure)), Behaviour{}, 6, 1800},
		{"PREFER_FAILURE with data", mapHex(with(fOptions, "0200000100000000")), Behaviour{}, 6, 1800},
		{"an option that is cut", mapHex(with(fOptions, "80000004")), Behaviour{}, 6, 1800},
		{"FILTER that is too short", mapHex(with(fOptions, "03000004"+"00800050")), Behaviour{}, 6, 1800},
		{"FILTER of 95 bits", mapHex(with(fOptions, "03000014"+"005f0050"+peer16)), Behaviour{}, 6, 1800},
		{"FILTER of IPv6", mapHex(with(fOptions, "03000014"+"00800050"+"20010db8000000000000000000000001")), Behaviour{}, 6, 1800},
		{"FILTER for PEER", peer(with(fOptions, filter)), Behaviour{}, 6, 1800},
		{"broken", mapHex(), Behaviour{Refuse: RefuseFailed}, 7, 30},
		{"full", mapHex(), Behaviour{Refuse: RefuseFull}, 8, 30},
		{"SCTP", mapHex(with(fProto, "84")), Behaviour{}, 9, 1800},
		{"all protocols", mapHex(with(fProto, "00"), with(fInternal, "0000")), Behaviour{}, 9, 1800},
		{"PEER of SCTP", peer(with(fProto, "84")), Behaviour{}, 9, 1800},
		{"another address", mapHex(with(fAddress, other16), with(fOptions, preferFailure)), Behaviour{}, 11, 30},
		{"PEER at another address", peer(with(fAddress, other16)), Behaviour{}, 11, 30},
		{"a low port and no other", mapHex(with(fExternal, "0050"), with(fOptions, preferFailure)), Behaviour{NoLowPorts: true}, 11, 1800},
		{"PEER at a low port", peer(with(fExternal, "0050")), Behaviour{NoLowPorts: true}, 11, 1800},
		{"the same port", mapHex(with(fOptions, preferFailure)), Behaviour{SamePort: true}, 11, 30},
		{"someone else's request", mapHex(with(fClient, ben16)), Behaviour{}, 12, 1800},
		{"nine filters", mapHex(with(fOptions, many)), Behaviour{}, 13, 1800},
		{"an answer", "0281" + mapHex()[4:], Behaviour{}, -1, 0},
		{"one byte", "02", Behaviour{}, -1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.bad.PCP = true
			w := newWorld(t, c.bad).quiet()
			result, seconds, a := w.pcp(anna, c.ask)
			if result != c.want || seconds != c.seconds {
				t.Errorf("result %d for %d s, want %d for %d s", result, seconds, c.want, c.seconds)
			}
			if len(w.m.Leases(w.now)) != 0 {
				t.Error("a mapping was made")
			}
			if asked := len(c.ask) / 2; len(a) > max(24, (asked+3)&^3) {
				t.Errorf("%d bytes in answer to %d", len(a), asked)
			}
		})
	}
}

func TestPCPMap(t *testing.T) {
	w := newWorld(t, Behaviour{PCP: true}).quiet()
	w.wantPCP(anna, mapHex(), 0)
	w.wantOpen(ip.UDP, 6000, "192.168.1.20:5000")
	w.pass(time.Minute)

	// Who does not know the nonce neither renews nor ends it, and is told how
	// long it lasts.
	for _, lifetime := range []string{"00000e10", "00000000"} {
		if result, seconds, _ := w.pcp(anna, mapHex(with(fNonce, nonce2), with(fLifetime, lifetime))); result != 2 || seconds != 3540 {
			t.Errorf("with another nonce: result %d for %d s", result, seconds)
		}
	}
	// Renewed, it keeps its port, unless that is not good enough.
	a := w.wantPCP(anna, mapHex(with(fExternal, "1b58")), 0)
	if got := binary.BigEndian.Uint16(a[42:]); got != 6000 {
		t.Errorf("renewed at port %d", got)
	}
	w.wantPCP(anna, mapHex(with(fExternal, "1b58"), with(fOptions, preferFailure)), 11)

	// Someone else does not get the port.
	bens := func(options string) string { return mapHex(with(fClient, ben16), with(fOptions, options)) }
	w.wantPCP(ben, bens(preferFailure), 11)
	a = w.wantPCP(ben, bens(""), 0)
	if got := binary.BigEndian.Uint16(a[42:]); got != 5000 {
		t.Errorf("another host got port %d", got)
	}

	w.wantPCP(anna, mapHex(with(fLifetime, "00000000")), 0)
	w.wantOpen(ip.UDP, 6000, "")
	w.pass(time.Hour)
	w.wantOpen(ip.UDP, 5000, "")
}

func TestPCPUnmapAll(t *testing.T) {
	w := newWorld(t, Behaviour{PCP: true}).quiet()
	for _, proto := range []string{"06", "11"} {
		w.wantPCP(anna, mapHex(with(fProto, proto)), 0)
		w.wantPCP(anna, mapHex(with(fProto, proto), with(fInternal, "1389"), with(fExternal, "1771")), 0)
	}
	w.wantPCP(anna, mapHex(with(fNonce, nonce2), with(fInternal, "2000"), with(fExternal, "2000")), 0)
	none := with(fLifetime, "00000000")
	w.wantPCP(anna, mapHex(none, with(fInternal, "0000")), 2) // of UDP the one with another nonce is left
	w.wantOpen(ip.UDP, 6000, "")
	w.wantOpen(ip.UDP, 6001, "")
	w.wantOpen(ip.UDP, 0x2000, "192.168.1.20:8192")
	w.wantOpen(ip.TCP, 6001, "192.168.1.20:5001")
	w.wantPCP(anna, mapHex(none, with(fNonce, nonce2), with(fInternal, "0000")), 0)
	w.wantPCP(anna, mapHex(none, with(fProto, "00"), with(fInternal, "0000")), 0)
	if n := len(w.m.Leases(w.now)); n != 0 {
		t.Errorf("%d left", n)
	}
}

func TestPCPFilters(t *testing.T) {
	w := newWorld(t, Behaviour{PCP: true}).quiet()
	filter := func(bits, port, last string) string {
		return "03000014" + "00" + bits + port + "00000000000000000000ffffcb0071" + last
	}
	drop := "03000014" + "00" + "00" + "0000" + none16
	for _, c := range []struct {
		options string
		want    []Filter
	}{
		{filter("80", "0050", "09"), []Filter{{netip.MustParsePrefix("203.0.113.9/32"), 80}}},
		{filter("80", "0050", "09"), []Filter{{netip.MustParsePrefix("203.0.113.9/32"), 80}}},
		{"", []Filter{{netip.MustParsePrefix("203.0.113.9/32"), 80}}},
		{filter("78", "0000", "09"), []Filter{{netip.MustParsePrefix("203.0.113.9/32"), 80}, {netip.MustParsePrefix("203.0.113.0/24"), 0}}},
		{drop + filter("60", "0051", "09"), []Filter{{netip.MustParsePrefix("0.0.0.0/0"), 81}}},
		{drop, nil},
	} {
		w.wantPCP(anna, mapHex(with(fOptions, c.options)), 0)
		if got := w.doors.open[door{ip.UDP, 6000}].Remotes; !slices.Equal(got, c.want) {
			t.Errorf("filters %v, want %v", got, c.want)
		}
	}
}

func TestPCPPeer(t *testing.T) {
	w := newWorld(t, Behaviour{PCP: true}).quiet()
	peer := func(lifetime string, last string, change ...func(*mapFields)) string {
		return mapHex(append([]func(*mapFields){
			with(fOp, "02"), with(fLifetime, lifetime), with(fPeer, "01bb0000"+peer16[:30]+last),
		}, change...)...)
	}
	w.wantPCP(anna, peer("00000e10", "09"), 0)
	w.wantOpen(ip.UDP, 6000, "192.168.1.20:5000")
	only := Filter{netip.MustParsePrefix("203.0.113.9/32"), 443}
	if r := w.doors.open[door{ip.UDP, 6000}].Remotes; len(r) != 1 || r[0] != only {
		t.Errorf("open for %v", r)
	}
	// It is not made shorter, nor ended.
	for _, lifetime := range []string{"00000078", "00000000"} {
		if result, seconds, _ := w.pcp(anna, peer(lifetime, "09")); result != 0 || seconds != 3600 {
			t.Errorf("result %d for %d s", result, seconds)
		}
	}
	w.wantPCP(anna, peer("00000e10", "09", with(fNonce, nonce2)), 2)
	// The second peer shares the port, and has to.
	w.wantPCP(anna, peer("00000078", "0a", with(fExternal, "0000")), 0)
	w.wantPCP(anna, peer("00000078", "0b", with(fExternal, "1b58")), 11)
	if r := w.doors.open[door{ip.UDP, 6000}].Remotes; len(r) != 2 {
		t.Errorf("open for %v", r)
	}
	// MAP opens it for everyone, and after it the peers are left.
	w.wantPCP(anna, mapHex(), 0)
	if r := w.doors.open[door{ip.UDP, 6000}].Remotes; len(r) != 0 {
		t.Errorf("open for %v", r)
	}
	w.wantPCP(anna, mapHex(with(fLifetime, "00000000")), 0)
	w.pass(2 * time.Minute)
	if r := w.doors.open[door{ip.UDP, 6000}].Remotes; len(r) != 1 || r[0] != only {
		t.Errorf("open for %v", r)
	}
	w.pass(time.Hour)
	w.wantOpen(ip.UDP, 6000, "")
}

// One port, two protocols: each tells the other's clients what it does not
// speak (RFC 6886 section 3.5, RFC 6887 section 9).
func TestVersions(t *testing.T) {
	address, announce := "0000", "0200000000000000"+anna16
	for _, c := range []struct {
		b         Behaviour
		ask, want string
	}{
		{Behaviour{NATPMP: true}, announce, "00800001"},
		{Behaviour{PCP: true}, address, "02800001"},
		{Behaviour{NATPMP: true, PCP: true}, address, "00800000"},
		{Behaviour{NATPMP: true, PCP: true}, announce, "02800000"},
		{Behaviour{NATPMP: true, PCP: true}, "0301" + announce[4:], "02810001"},
		{Behaviour{UPnP: true}, announce, ""},
	} {
		w := newWorld(t, c.b).quiet()
		b, _ := hex.DecodeString(c.ask)
		a := w.ask(anna, Port, b)
		if got := hex.EncodeToString(a[:min(4, len(a))]); got != c.want {
			t.Errorf("%+v: asked %s, answered %s, want %s", c.b, c.ask, got, c.want)
		}
	}
}
