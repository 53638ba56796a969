package docs_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

// seed counts upwards from first.
func seed(first byte) (s [32]byte) {
	for i := range s {
		s[i] = first + byte(i)
	}
	return s
}

// examples makes with the code what the document shows.
func examples(t *testing.T) [][2]string {
	client, server := identity.FromSeed(seed(0)), identity.FromSeed(seed(0x20))
	shared, err := client.Shared(server.ID())
	if err != nil {
		t.Fatal(err)
	}
	key := wire.NewMACKey(shared, client.ID(), server.ID())
	mac := wire.NewMAC()
	var cookie wire.CookieBytes
	for i := range cookie {
		cookie[i] = 0x40 + byte(i)
	}
	handle, id := [8]byte{0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67}, relay.ID{0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77}
	text := func(b []byte) string { return hex.EncodeToString(b) }
	maced := func(b []byte) string { return text(mac.Append(b, 0, &key)) }
	check := stun.Begin(nil, stun.BindingRequest, stun.TransactionID([]byte("abcdefghijkl")))
	check.Add(stun.Username, []byte(text(handle[:])+":o"))
	checkKey := seed(0x80)
	check.AddIntegrity(hmac.New(sha256.New, checkKey[:]))
	check.AddFingerprint()
	f := func(f frame.Frame) string { return text(frame.Append(nil, &f)) }
	clientID := client.ID()
	return [][2]string{
		{"client id", text(clientID[:])},
		{"client id as text", client.ID().String()},
		{"server id as text", server.ID().String()},
		{"X25519 secret", text(shared)},
		{"REGISTER", maced(wire.Register{Client: client.ID(), Cookie: cookie, Sequence: 1, Lifetime: 60}.Append(nil))},
		{"KEEPALIVE", maced(wire.KeepAlive{Tx: 2, Handle: handle}.Append(nil))},
		{"stream preface", maced(relay.Preface{Relay: id, Handle: handle, Tx: 3}.Append(nil))},
		{"check", text(check.Bytes())},
		{"RESUME", f(frame.Frame{Type: frame.RESUME, Epoch: 1, Opened: 1, Limit: 256, Entries: []frame.Entry{{Limit: 65536}}})},
		{"DATA", f(frame.Frame{Type: frame.DATA, Offset: 16383, Data: []byte("x")})},
	}
}

func TestExamples(t *testing.T) {
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	// Without white space, because the document wraps what is long.
	squeezed := strings.Join(strings.Fields(string(text)), "")
	for _, e := range examples(t) {
		if line := strings.Join(strings.Fields(e[0]), "") + e[1]; !strings.Contains(squeezed, line) {
			t.Errorf("the document should show %s:\n%s", e[0], e[1])
		}
	}
}
