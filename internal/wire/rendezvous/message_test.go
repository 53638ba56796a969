package rendezvous

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/identity"
)

func fill(n int, from byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

var (
	clientID = identity.ID(fill(32, 0x10))
	serverID = identity.ID(fill(32, 0x50))
	cookie   = CookieBytes(fill(24, 0xa0))
	handle   = Handle(fill(8, 0xc0))
	relayID  = RelayID(fill(8, 0xd0))
	ep4      = netip.MustParseAddrPort("192.0.2.1:3478")
	ep6      = netip.MustParseAddrPort("[2001:db8::7]:65535")
)

type message interface{ Append([]byte) []byte }

// parse reads any message. Its MAC, if it has one, is taken on trust.
func parse(b []byte) (m message, mac bool, err error) {
	t, _, _ := Header(b)
	switch t {
	case TypeHello:
		m, err = ParseHello(b)
	case TypeCookie:
		m, err = ParseCookie(b)
	case TypeRegister:
		m, err = ParseRegister(b)
	case TypeRegistered:
		m, err = ParseRegistered(b)
	case TypeKeepAlive:
		m, err = ParseKeepAlive(b)
	case TypeAlive:
		m, err = ParseAlive(b)
	case TypeWho:
		m, err = ParseWho(b)
	case TypeConnect:
		m, err = ParseConnect(b)
	case TypeConnected:
		m, err = ParseConnected(b)
	case TypeRequest:
		m, err = ParseRequest(b)
	case TypeSignal:
		m, err = ParseSignal(b)
	case TypeSignalled:
		m, err = ParseSignalled(b)
	case TypeBye:
		m, err = ParseBye(b)
	case TypeRefused:
		m, err = ParseRefused(b)
	case TypeDisplaced:
		m, err = ParseDisplaced(b)
	default:
		return nil, false, ErrMalformed
	}
	return m, t != TypeHello && t != TypeCookie && t != TypeWho, err
}

const tx = "0102030405060708"

// Golden vectors: what stands on the wire, up to the MAC.
var vectors = []struct {
	m    message
	want string
}{
	{Hello{0x0102030405060708, clientID}, "04010100" + tx + hex.EncodeToString(clientID[:]) + strings.Repeat("00", 84)},
	{Cookie{0x0102030405060708, cookie, serverID, ep4},
		"04010200" + tx + hex.EncodeToString(cookie[:]) + hex.EncodeToString(serverID[:]) + "040d96c0000201" + strings.Repeat("00", 12)},
	{Register{clientID, cookie, 0x0102030405060708, 300, RelayOnly},
		"04010300" + tx + hex.EncodeToString(clientID[:]) + hex.EncodeToString(cookie[:]) + tx + "012c" + "01"},
	{Registered{0x0102030405060708, handle, ep6, 60, 15},
		"04010400" + tx + "c0c1c2c3c4c5c6c7" + "06ffff20010db8000000000000000000000007" + "003c" + "000f"},
	{KeepAlive{0x0102030405060708, handle}, "04010500" + tx + "c0c1c2c3c4c5c6c7"},
	{Alive{0x0102030405060708}, "04010600" + tx},
	{Who{0, handle}, "04010700" + "0000000000000000" + "c0c1c2c3c4c5c6c7"},
	{Connect{0x0102030405060708, handle, serverID, relayID, PacketRelay | Direct, []byte("sealed")},
		"04010800" + tx + "c0c1c2c3c4c5c6c7" + hex.EncodeToString(serverID[:]) + "d0d1d2d3d4d5d6d7" + "05" + "0006" + "7365616c6564"},
	{Connected{0x0102030405060708, relayID, StatusRateLimited, StreamRelay, netip.AddrPort{}},
		"04010900" + tx + "d0d1d2d3d4d5d6d7" + "02" + "02" + strings.Repeat("00", 19)},
	{Request{0x0102030405060708, relayID, clientID, ep4, Direct, []byte("x")},
		"04010a00" + tx + "d0d1d2d3d4d5d6d7" + hex.EncodeToString(clientID[:]) + "040d96c0000201" + strings.Repeat("00", 12) + "04" + "0001" + "78"},
	{Signal{0x0102030405060708, Handle{}, relayID, []byte("xy")},
		"04010b00" + tx + "0000000000000000" + "d0d1d2d3d4d5d6d7" + "0002" + "7879"},
	{Signalled{0x0102030405060708, relayID, []byte("xy")}, "04010c00" + tx + "d0d1d2d3d4d5d6d7" + "0002" + "7879"},
	{Bye{0x0102030405060708, handle}, "04010d00" + tx + "c0c1c2c3c4c5c6c7"},
	{Refused{0x0102030405060708, ReasonSequence, 9}, "04010e00" + tx + "01" + "0000000000000009"},
	{Displaced{0x0102030405060708, 9}, "04010f00" + tx + "0000000000000009"},
}

// encode appends m and, where it has one, its MAC.
func encode(m message, k *MACKey) []byte {
	b := m.Append(nil)
	if t, _, _ := Header(b); t != TypeHello && t != TypeCookie && t != TypeWho {
		b = NewMAC().Append(b, 0, k)
	}
	return b
}

func TestVectors(t *testing.T) {
	k := MACKeyOf([32]byte{1})
	seen := map[Type]bool{}
	for _, v := range vectors {
		b := v.m.Append(nil)
		typ, _, _ := Header(b)
		seen[typ] = true
		if got := hex.EncodeToString(b); got != v.want {
			t.Errorf("%v:\n got %s\nwant %s", typ, got, v.want)
		}
		full := encode(v.m, &k)
		m, _, err := parse(full)
		if err != nil {
			t.Errorf("%v: %v", typ, err)
			continue
		}
		if !bytes.Equal(encode(m, &k), full) {
			t.Errorf("%v is not stable", typ)
		}
	}
	if len(seen) != Types-1 {
		t.Errorf("%d types of %d have a vector", len(seen), Types-1)
	}
}

// The whole of one MAC, computed with crypto/hmac and HKDF's definition.
func TestMACVector(t *testing.T) {
	shared := fill(32, 0)
	extract := hmac.New(sha256.New, make([]byte, 32))
	extract.Write(shared)
	expand := hmac.New(sha256.New, extract.Sum(nil))
	expand.Write([]byte("bodkin rendezvous v1"))
	expand.Write(clientID[:])
	expand.Write(serverID[:])
	expand.Write([]byte{1})
	want := hmac.New(sha256.New, expand.Sum(nil))
	b := KeepAlive{0x0102030405060708, handle}.Append(nil)
	want.Write(b)
	k := NewMACKey(shared, clientID, serverID)
	b = NewMAC().Append(b, 0, &k)
	if got := b[len(b)-MACLen:]; !bytes.Equal(got, want.Sum(nil)[:MACLen]) {
		t.Errorf("MAC %x, want %x", got, want.Sum(nil)[:MACLen])
	}
	const golden = "5b3ee6a42d47636dac57446cc6353f58"
	if got := hex.EncodeToString(b[len(b)-MACLen:]); got != golden {
		t.Errorf("MAC %s, want %s", got, golden)
	}
}

func TestMACLengths(t *testing.T) {
	raw := [32]byte(fill(32, 3))
	k, m := MACKeyOf(raw), NewMAC()
	for n := range 300 {
		want := hmac.New(sha256.New, raw[:])
		want.Write(fill(n, 9))
		b := m.Append(append([]byte("prefix"), fill(n, 9)...), 6, &k)
		if !bytes.Equal(b[6+n:], want.Sum(nil)[:MACLen]) {
			t.Fatalf("MAC over %d bytes is wrong", n)
		}
		if !m.Verify(b[6:], &k) {
			t.Fatalf("MAC over %d bytes is not accepted", n)
		}
		for _, flip := range []int{6, 6 + n, len(b) - 1} {
			b[flip] ^= 0x80
			if m.Verify(b[6:], &k) {
				t.Fatalf("over %d bytes, byte %d changed: accepted", n, flip)
			}
			b[flip] ^= 0x80
		}
	}
	if m.Verify(make([]byte, MACLen-1), &k) {
		t.Error("15 bytes are accepted")
	}
}

// Every message has one length, or the one that its own length field says.
func TestLengths(t *testing.T) {
	k := MACKeyOf([32]byte{1})
	for _, v := range vectors {
		full := encode(v.m, &k)
		typ, _, _ := Header(full)
		for n := range full {
			if _, _, err := parse(full[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%v cut to %d of %d bytes: %v", typ, n, len(full), err)
			}
		}
		if _, _, err := parse(append(full, 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v with a byte more: %v", typ, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	k := MACKeyOf([32]byte{1})
	for _, c := range []struct {
		name string
		m    message
		at   int
		to   byte
	}{
		{"first byte", vectors[4].m, 0, 5},
		{"version", vectors[4].m, 1, 2},
		{"type zero", vectors[4].m, 2, 0},
		{"type unknown", vectors[4].m, 2, byte(Types)},
		{"header flags", vectors[4].m, 3, 1},
		{"padding of HELLO", vectors[0].m, 127, 1},
		{"family", vectors[1].m, 68, 5},
		{"IPv4 with more", vectors[1].m, 86, 1},
		{"IPv6 unspecified and so on", Registered{Mapped: ep4}, 20, 6},
		{"port zero", Registered{Mapped: netip.MustParseAddrPort("192.0.2.1:1")}, 22, 0},
		{"none that is something", Registered{}, 30, 1},
		{"sequence that is not the txid", vectors[2].m, 75, 0},
		{"flags of REGISTER", vectors[2].m, 78, 8},
		{"waiting, and no guest", vectors[2].m, 78, 5},
		{"kinds of CONNECT", vectors[7].m, 60, 8},
		{"status", vectors[8].m, 20, 5},
		{"kinds of CONNECTED", vectors[8].m, 21, 8},
		{"kinds of REQUEST", vectors[9].m, 71, 0xff},
		{"length of sealed", vectors[10].m, 29, 3},
		{"reason", vectors[13].m, 12, 3},
	} {
		b := encode(c.m, &k)
		if _, _, err := parse(b); err != nil && c.name != "IPv6 unspecified and so on" {
			t.Errorf("%s: refused before the change: %v", c.name, err)
		}
		b[c.at] = c.to
		if c.name == "IPv6 unspecified and so on" {
			clear(b[23:39])
		}
		if _, _, err := parse(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1:3478":          "192.0.2.1:3478",
		"[2001:db8::1]:1":         "[2001:db8::1]:1",
		"[::ffff:192.0.2.1]:3478": "192.0.2.1:3478",
		"[fe80::1%eth0]:5":        "[fe80::1]:5",
		"192.0.2.1:0":             "",
		"0.0.0.0:7":               "",
		"[::]:7":                  "",
	} {
		got, err := ParseEndpoint(AppendEndpoint(nil, netip.MustParseAddrPort(text)))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if want == "" && got.IsValid() || want != "" && got != netip.MustParseAddrPort(want) {
			t.Errorf("%s became %v", text, got)
		}
	}
}

// The server's promise needs these lengths.
func TestNoAnswerIsLonger(t *testing.T) {
	if cookieMsgLen > HelloLen {
		t.Error("COOKIE is longer than HELLO")
	}
	if max(registeredLen, refusedLen) > registerLen {
		t.Error("an answer is longer than REGISTER")
	}
	if WhoLen > min(keepAliveLen, byeLen, connectLen, signalLen) {
		t.Error("WHO is longer than what it answers")
	}
	if n := len(Request{Sealed: make([]byte, MaxSealed)}.Append(nil)) + MACLen; n != MaxLen {
		t.Errorf("MaxLen is %d, not %d", MaxLen, n)
	}
}

func FuzzParse(f *testing.F) {
	k := MACKeyOf([32]byte{1})
	for _, v := range vectors {
		f.Add(encode(v.m, &k))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, mac, err := parse(b)
		if err != nil {
			return
		}
		again := m.Append(nil)
		if mac {
			again = append(again, b[len(b)-MACLen:]...)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

// Each decoder by itself, under any header.
func FuzzEveryDecoder(f *testing.F) {
	k := MACKeyOf([32]byte{1})
	for _, v := range vectors {
		f.Add(encode(v.m, &k))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HeaderLen {
			return
		}
		b = bytes.Clone(b)
		b[0], b[1], b[3] = First, Version, 0
		for typ := range byte(Types + 1) {
			b[2] = typ
			m, mac, err := parse(b)
			if err != nil {
				continue
			}
			again := m.Append(nil)
			if mac {
				again = append(again, b[len(b)-MACLen:]...)
			}
			if !bytes.Equal(again, b) {
				t.Errorf("%v: %x became %x", Type(typ), b, again)
			}
		}
	})
}

func FuzzParseEndpoint(f *testing.F) {
	f.Add(AppendEndpoint(nil, ep4))
	f.Add(AppendEndpoint(nil, ep6))
	f.Add(make([]byte, EndpointLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		ep, err := ParseEndpoint(b)
		if err == nil && !bytes.Equal(AppendEndpoint(nil, ep), b) {
			t.Errorf("%x became %v", b, ep)
		}
	})
}

// Window against the obvious: a set.
func FuzzWindow(f *testing.F) {
	f.Add(uint64(5), []byte{1, 130, 130, 127, 255, 129, 160, 255, 7, 200, 128, 100, 120, 255, 128})
	f.Fuzz(func(t *testing.T, base uint64, steps []byte) {
		if base > 1<<63 {
			return
		}
		w := NewWindow(base)
		seen, top := map[uint64]bool{}, base
		for _, s := range steps {
			if s == 255 {
				base += 10
				top = max(top, base)
				w.Rebase(base)
				continue
			}
			tx := top + uint64(s) - 128
			if tx > top && s < 128 { // wrapped below zero
				continue
			}
			want := tx > base && !seen[tx] && (tx > top || top-tx < 64)
			if got := w.Fresh(tx); got != want {
				t.Fatalf("Fresh(%d) = %v with base %d, top %d", tx, got, base, top)
			}
			if want {
				w.Mark(tx)
				seen[tx] = true
				top = max(top, tx)
			}
		}
		if w.Base() != base || w.Top() != top {
			t.Errorf("base %d, top %d; want %d, %d", w.Base(), w.Top(), base, top)
		}
	})
}
