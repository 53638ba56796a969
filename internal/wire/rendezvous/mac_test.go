package rendezvous

import (
	"crypto/hmac"
	"crypto/sha256"
	"testing"
)

// A KEEPALIVE's MAC, against crypto/hmac.
func BenchmarkMAC(b *testing.B) {
	raw := [32]byte{1}
	msg := KeepAlive{}.Append(make([]byte, 0, 64))
	b.Run("MAC", func(b *testing.B) {
		k, m := MACKeyOf(raw), NewMAC()
		b.ReportAllocs()
		for b.Loop() {
			m.Append(msg, 0, &k)
		}
	})
	b.Run("hmac", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h := hmac.New(sha256.New, raw[:])
			h.Write(msg)
			h.Sum(msg[:len(msg):cap(msg)])
		}
	})
}
