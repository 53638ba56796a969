package link

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// shortReads reads as TLS and QUIC do: less than asked for, now and then.
type shortReads struct {
	r   io.Reader
	rnd *rand.Rand
}

func (s shortReads) Read(b []byte) (int, error) {
	n := []int{1, 5, 1000, 20_000, 100_000}[s.rnd.IntN(5)]
	return s.r.Read(b[:min(n, len(b))])
}

// TestBufferGivesWhatWasSent cuts a pipe of all sizes of frames anywhere.
func TestBufferGivesWhatWasSent(t *testing.T) {
	largest := frame.Frame{Type: frame.RESUME, Epoch: 1}
	for i := range uint64(frame.MaxEntries) {
		largest.Entries = append(largest.Entries, frame.Entry{Stream: frame.MaxStream - frame.MaxEntries + i, Received: frame.MaxOffset, Limit: frame.MaxOffset})
	}
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var pipe, want, got []byte
		var control int
		for range 50 {
			switch rnd.IntN(4) {
			case 0:
				pipe = frame.Append(pipe, &largest)
				control += frame.MaxEntries
			case 1:
				pipe = append(append(pipe, header(0x80+byte(rnd.IntN(100)), 7)...), "skipped"...)
			case 2:
				pipe = frame.Append(pipe, &frame.Frame{Type: frame.PING, N: rnd.Uint64N(1 << 60)})
				control++
			case 3:
				data := pattern(seed, 1+rnd.IntN(frame.MaxData))
				pipe = frame.Append(pipe, &frame.Frame{Type: frame.DATA, Stream: 1, Offset: uint64(len(want)), Data: data})
				want = append(want, data...)
			}
		}
		r := shortReads{bytes.NewReader(pipe), rnd}
		buf := buffer{b: make([]byte, frame.HeaderLen+frame.MaxControl)}
		var d frame.Decoder
		var f frame.Frame
		var err error
		for err = buf.fill(r); err == nil; err = buf.fill(r) {
			if err := buf.frames(&d, &f, func(f *frame.Frame) error {
				switch f.Type {
				case frame.DATA:
					if f.Offset != uint64(len(got)) {
						t.Fatalf("seed %d: offset %d after %d bytes", seed, f.Offset, len(got))
					}
					got = append(got, f.Data...)
				case frame.RESUME:
					control -= len(f.Entries)
				case frame.PING:
					control--
				case 0:
					if !strings.HasSuffix(string(f.Data), "skipped") {
						t.Fatalf("seed %d: skipped %q", seed, f.Data)
					}
				}
				return nil
			}); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if err != io.EOF || buf.r != buf.w || control != 0 || !bytes.Equal(got, want) {
			t.Errorf("seed %d: ended with %v, %d bytes left, %d frames missing, data differ: %v", seed, err, buf.w-buf.r, control, !bytes.Equal(got, want))
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"bye":                          "bye",
		"grüße":                        "grüße",
		"a\x00b\x1b[31m\xff":           "a?b?[31m?",
		strings.Repeat("x", 1<<20):     strings.Repeat("x", maxReason),
		strings.Repeat("ü", 200):       strings.Repeat("ü", maxReason/2),
		"x" + strings.Repeat("ü", 200): "x" + strings.Repeat("ü", (maxReason-1)/2),
	} {
		if got := printable(in); got != want || !utf8.ValidString(got) {
			t.Errorf("%.20q became %.40q", in, got)
		}
	}
}
