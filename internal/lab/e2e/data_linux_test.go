package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
)

// random is a stream of bytes that only the seed decides.
func random(seed uint64) io.Reader {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 1})
}

// digest is the hash of a stream of bytes, told when it ended.
type digest struct {
	sum   string
	bytes int64
	err   error
}

// hashOf reads to the end.
func hashOf(r io.Reader) <-chan digest {
	done := make(chan digest, 1)
	go func() {
		h := sha256.New()
		n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, make([]byte, 256<<10))
		done <- digest{hex.EncodeToString(h.Sum(nil)), n, err}
	}()
	return done
}

// feed writes n random bytes and closes.
func feed(w io.WriteCloser, seed uint64, n int64) <-chan digest {
	done := make(chan digest, 1)
	go func() {
		d := digest{}
		h, from, b := sha256.New(), random(seed), make([]byte, 256<<10)
		for d.bytes < n && d.err == nil {
			b := b[:min(int64(len(b)), n-d.bytes)]
			from.Read(b)
			var k int
			k, d.err = w.Write(b)
			h.Write(b[:k])
			d.bytes += int64(k)
		}
		if err := w.Close(); d.err == nil {
			d.err = err
		}
		d.sum = hex.EncodeToString(h.Sum(nil))
		done <- d
	}()
	return done
}
