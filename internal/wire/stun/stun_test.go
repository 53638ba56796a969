package stun

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	pion "github.com/pion/stun/v3"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// RFC 5769 section 2.1 to 2.3, and RFC 8489 appendix B.1 as corrected by
// erratum 6268.
var (
	sampleRequest = unhex(`00010058 2112a442 b7e7a701bc34d686fa87dfae
		80220010 5354554e207465737420636c69656e74 00240004 6e0001ff 80290008 932ff9b151263b36
		00060009 6576746a3a68367659202020 00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 80280004 e57a3bcf`)
	sampleIPv4 = unhex(`0101003c 2112a442 b7e7a701bc34d686fa87dfae
		8022000b 7465737420766563746f7220 00200008 0001a147e112a643
		00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004 c07d4c96`)
	sampleIPv6 = unhex(`01010048 2112a442 b7e7a701bc34d686fa87dfae
		8022000b 7465737420766563746f7220 00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9
		00080014 a382954e4be67bf11784c97c8292c275bfe3ed41 80280004 c8fb0b4c`)
	sampleSHA256 = unhex(`00010090 2112a442 78ad3433c6ad72c029da412e
		001e0020 4a3cf38fef6992bda952c67804 17da0f24819415569e60b205c46e41407f1704
		00150029 6f62 4d61744a6f7332414141 43662f2f343939 6b39353464364f4c33346f4c394653547679363473 41000000
		0014000b 6578616d706c652e6f726700 001d0004 00020000
		001c0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65`)
)

func TestVectors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		b      []byte
		typ    Type
		mapped string
		user   string
	}{
		{"request", sampleRequest, BindingRequest, "", "evtj:h6vY"},
		{"IPv4 response", sampleIPv4, BindingSuccess, "192.0.2.1:32853", ""},
		{"IPv6 response", sampleIPv6, BindingSuccess, "[2001:db8:1234:5678:11:2233:4455:6677]:32853", ""},
	} {
		m, err := Parse(tt.b)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if m.Type != tt.typ || m.ID != TransactionID(tt.b[8:20]) || !m.HasFingerprint() {
			t.Errorf("%s: %+v", tt.name, m)
		}
		if mapped, ok := m.Mapped(); ok != (tt.mapped != "") || ok && mapped.String() != tt.mapped {
			t.Errorf("%s: mapped %v", tt.name, mapped)
		}
		if user, _ := m.Get(Username); string(user) != tt.user {
			t.Errorf("%s: user %q", tt.name, user)
		}
		for i := range tt.b {
			bad := bytes.Clone(tt.b)
			bad[i] ^= 1
			if m, err := Parse(bad); err == nil && m.HasFingerprint() {
				t.Errorf("%s: accepted with byte %d wrong", tt.name, i)
			}
			if _, err := Parse(tt.b[:i]); err == nil {
				t.Errorf("%s: accepted when cut to %d", tt.name, i)
			}
		}
	}
}

func TestIntegrityVector(t *testing.T) {
	key := sha256.Sum256([]byte("\u30de\u30c8\u30ea\u30c3\u30af\u30b9:example.org:TheMatrIX"))
	mac := hmac.New(sha256.New, key[:])
	m, err := Parse(sampleSHA256)
	if err != nil || !m.Verify(mac) {
		t.Fatalf("%v, verified %v", err, m.Verify(mac))
	}
	w := Begin(nil, BindingRequest, m.ID)
	for _, a := range []AttrType{Userhash, Nonce, Realm, PasswordAlgorithm} {
		v, _ := m.Get(a)
		w.Add(a, v)
	}
	w.AddIntegrity(mac)
	if !bytes.Equal(w.Bytes(), sampleSHA256) {
		t.Errorf("built\n%x, want\n%x", w.Bytes(), sampleSHA256)
	}
	for i := range sampleSHA256 {
		bad := bytes.Clone(sampleSHA256)
		bad[i] ^= 1
		if m, err := Parse(bad); err == nil && m.Verify(mac) {
			t.Errorf("verified with byte %d wrong", i)
		}
	}
	if m.Verify(hmac.New(sha256.New, []byte("another key"))) {
		t.Error("verified under another key")
	}
}

// What is behind the integrity does not count.
func TestBehindIntegrity(t *testing.T) {
	mac := hmac.New(sha256.New, []byte("k"))
	w := Begin(nil, BindingRequest, TransactionID{1})
	w.AddIntegrity(mac)
	w.Add(Username, []byte("u"))
	w.Add(0x7777, nil)
	w.AddFingerprint()
	m, err := Parse(w.Bytes())
	if err != nil || !m.Verify(mac) || !m.HasFingerprint() {
		t.Fatal(err)
	}
	if m.Has(Username) {
		t.Error("an unprotected attribute counts")
	}
	if _, unknown := m.Unknown(); unknown {
		t.Error("an unprotected attribute must be known")
	}
	// Nothing may follow FINGERPRINT.
	w.Add(Username, []byte("u"))
	if _, err := Parse(w.Bytes()); err == nil {
		t.Error("something follows the fingerprint")
	}
}

// pion/stun reads what we write, strictly, and agrees with it.
func TestPionReads(t *testing.T) {
	for _, ep := range []string{"192.0.2.7:5", "[2001:db8::7]:65535", "[::ffff:192.0.2.7]:5"} {
		for _, total := range []int{0, 200, 1200} {
			mapped := netip.MustParseAddrPort(ep)
			mac := hmac.New(sha256.New, []byte("k"))
			prefix := []byte("before")
			w := Begin(prefix, BindingSuccess, TransactionID{9, 8, 7})
			w.Add(Username, []byte("abcde"))
			w.AddMapped(mapped)
			if total != 0 {
				w.PadTo(total)
			}
			w.AddIntegrity(mac)
			w.AddFingerprint()
			b := w.Bytes()[len(prefix):]
			if total != 0 && len(b) != total || w.Len() != len(b) {
				t.Errorf("%d bytes, want %d", len(b), total)
			}
			p := pion.NewWithOptions(pion.WithStrict(true))
			if err := pion.Decode(b, p); err != nil {
				t.Fatal(err)
			}
			var x pion.XORMappedAddress
			if err := x.GetFrom(p); err != nil {
				t.Fatal(err)
			}
			if got, _ := netip.AddrFromSlice(x.IP); got.Unmap() != mapped.Addr().Unmap() || x.Port != int(mapped.Port()) {
				t.Errorf("pion read %v", x)
			}
			if err := pion.Fingerprint.Check(p); err != nil {
				t.Error(err)
			}
			m, err := Parse(b)
			if err != nil || !m.Verify(mac) {
				t.Fatal(err)
			}
			if got, _ := m.Mapped(); got.Port() != mapped.Port() || got.Addr() != mapped.Addr().Unmap() {
				t.Errorf("we read %v", got)
			}
		}
	}
}

func TestPadTo(t *testing.T) {
	for _, total := range []int{0, 20, 60, 67, 66, 1201} {
		w := Begin(nil, BindingRequest, TransactionID{})
		w.PadTo(total)
		if w.Len() != HeaderLen {
			t.Errorf("padded to %d", total)
		}
	}
	w := Begin(nil, BindingRequest, TransactionID{})
	w.PadTo(HeaderLen + trailerLen + attrHeaderLen)
	if w.Len() != HeaderLen+attrHeaderLen {
		t.Error("the smallest padding does not fit")
	}
}

func TestBindingResponse(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("198.51.100.7:999"), netip.MustParseAddrPort("[2001:db8::9]:1")
	request := func(build ...pion.Setter) []byte {
		m, err := pion.Build(append([]pion.Setter{pion.TransactionID, pion.BindingRequest}, build...)...)
		if err != nil {
			t.Fatal(err)
		}
		return m.Raw
	}
	raw := func(a pion.AttrType, n int) pion.Setter { return pion.RawAttribute{Type: a, Value: make([]byte, n)} }
	many := []pion.Setter{}
	for i := range 20 {
		many = append(many, raw(pion.AttrType(0x4000+i), 0))
	}
	for _, tt := range []struct {
		name    string
		request []byte
		mapped  netip.AddrPort
		unknown int
		size    int
	}{
		{"bare", request(), v4, 0, 32},
		{"bare, IPv6", request(), v6, 0, 44},
		{"fingerprint", request(pion.Fingerprint), v4, 0, 40},
		{"software", request(pion.NewSoftware("a client")), v4, 0, 32},
		{"credentials that nobody asked for", request(pion.NewUsername("u"), pion.NewShortTermIntegrity("p"), pion.Fingerprint), v4, 0, 40},
		{"RFC 5780 change request", request(raw(pion.AttrChangeRequest, 4)), v4, 1, 36},
		{"ICE check", request(raw(pion.AttrPriority, 4), raw(pion.AttrUseCandidate, 0), pion.Fingerprint), v4, 2, 44},
		{"many unknown", request(many...), v6, maxUnknown, 44},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, ok := AppendBindingResponse([]byte("x"), tt.request, tt.mapped)
			if !ok || b[0] != 'x' {
				t.Fatal("no answer")
			}
			b = b[1:]
			var m pion.Message
			if err := pion.Decode(b, &m); err != nil {
				t.Fatal(err)
			}
			if len(b) != tt.size || !bytes.Equal(m.TransactionID[:], tt.request[8:20]) {
				t.Errorf("%d bytes %x", len(b), b)
			}
			if m.Contains(pion.AttrFingerprint) && pion.Fingerprint.Check(&m) != nil {
				t.Error("wrong fingerprint")
			}
			if tt.unknown > 0 {
				var e pion.ErrorCodeAttribute
				var u pion.UnknownAttributes
				if m.Type != pion.BindingError || e.GetFrom(&m) != nil || e.Code != pion.CodeUnknownAttribute ||
					u.GetFrom(&m) != nil || len(u) != tt.unknown {
					t.Errorf("%v %v %v", m.Type, e, u)
				}
				return
			}
			var x pion.XORMappedAddress
			if m.Type != pion.BindingSuccess || x.GetFrom(&m) != nil {
				t.Fatal(m.Type)
			}
			if got, _ := netip.AddrFromSlice(x.IP); got.Unmap() != tt.mapped.Addr() || x.Port != int(tt.mapped.Port()) {
				t.Errorf("told %v", x)
			}
		})
	}
}

func TestNoResponseOwed(t *testing.T) {
	good := sampleRequest
	wrong := bytes.Clone(good)
	wrong[len(wrong)-1] ^= 1
	noCookie := unhex("00010000 00000000 000000000000000000000000")
	for name, b := range map[string][]byte{
		"nothing": nil, "response": sampleIPv4, "wrong fingerprint": wrong, "no cookie": noCookie,
		"indication": unhex("00110000 2112a442 000000000000000000000000"),
		"allocate":   unhex("00030000 2112a442 000000000000000000000000"),
		"longer":     append(bytes.Clone(good), 0, 0, 0, 0),
	} {
		if out, ok := AppendBindingResponse([]byte("x"), b, netip.MustParseAddrPort("192.0.2.1:1")); ok || string(out) != "x" {
			t.Errorf("%s: answered %x", name, out)
		}
	}
}

func TestSize(t *testing.T) {
	if n, ok := Size(sampleRequest[:HeaderLen]); !ok || n != len(sampleRequest) {
		t.Errorf("%d %v", n, ok)
	}
	for _, bad := range [][]byte{nil, sampleRequest[:19], append([]byte{0x40}, sampleRequest[1:]...), unhex("00010003 2112a442 000000000000000000000000")} {
		if _, ok := Size(bad); ok {
			t.Errorf("%x is framed", bad)
		}
	}
}

func TestResponseDoesNotAllocate(t *testing.T) {
	b := make([]byte, 0, 128)
	from := netip.MustParseAddrPort("[2001:db8::9]:1")
	for name, q := range map[string][]byte{
		"success": unhex("00010000 2112a442 000000000000000000000001"),
		"error":   sampleRequest, // has PRIORITY
	} {
		if n := testing.AllocsPerRun(100, func() { AppendBindingResponse(b, q, from) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkAppendBindingResponse(b *testing.B) {
	q := unhex("00010000 2112a442 000000000000000000000001")
	from := netip.MustParseAddrPort("192.0.2.1:1")
	buf := make([]byte, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		AppendBindingResponse(buf, q, from)
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range [][]byte{sampleRequest, sampleIPv4, sampleIPv6, sampleSHA256} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		from := netip.MustParseAddrPort("[2001:db8::9]:1")
		out, ok := AppendBindingResponse(nil, b, from)
		if len(out) > 52 {
			t.Fatalf("an answer of %d bytes", len(out))
		}
		m, err := Parse(b)
		if err != nil {
			if ok {
				t.Fatal("answered what is no message")
			}
			return
		}
		if ok {
			if _, err := Parse(out); err != nil {
				t.Fatal(err)
			}
		}
		m.Verify(hmac.New(sha256.New, []byte("k")))
		m.Mapped()
		m.Unknown(Username)
		// What counts of it, written again, reads the same.
		w := Begin(nil, m.Type, m.ID)
		for at := HeaderLen; at < m.integrity; {
			a, v, next := attribute(b, at)
			w.Add(a, v)
			at = next
		}
		again, err := Parse(w.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for at := HeaderLen; at < m.integrity; {
			a, _, next := attribute(b, at)
			x, _ := m.Get(a)
			y, _ := again.Get(a)
			if !bytes.Equal(x, y) {
				t.Fatalf("attribute %#x: %x, then %x", a, x, y)
			}
			at = next
		}
		// pion agrees that it is a message.
		if err := pion.Decode(b, new(pion.Message)); err != nil {
			t.Fatalf("pion: %v", err)
		}
	})
}
