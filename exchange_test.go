package bodkin_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/bodkin-net/bodkin"
)

// randomBytes are n bytes that only the seed decides.
func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	r.Read(b)
	return b
}

// exchange sends n bytes from one end to the other and compares them.
func exchange(t testing.TB, from, to *bodkin.Conn, n int) {
	t.Helper()
	data := randomBytes(uint64(n), n)
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(data)
		sent <- err
	}()
	got := make([]byte, n)
	if _, err := io.ReadFull(to, got); err != nil {
		t.Fatalf("read: %v", err)
	}
	if err := <-sent; err != nil {
		t.Fatalf("write: %v", err)
	}
	if !bytes.Equal(got, data) {
		t.Fatal("other bytes arrived than were sent")
	}
}
