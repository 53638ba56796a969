package link

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// buffer holds bytes of a pipe until they make frames.
type buffer struct {
	b    []byte
	r, w int
}

// fill reads once, and makes room for it first.
func (b *buffer) fill(r io.Reader) error {
	if b.r == b.w {
		b.r, b.w = 0, 0
	} else if b.w == len(b.b) {
		b.w = copy(b.b, b.b[b.r:b.w])
		b.r = 0
	}
	n, err := r.Read(b.b[b.w:])
	b.w += n
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// frames hands over what is there. A skipped frame has type 0, and its bytes
// in Data.
func (b *buffer) frames(d *frame.Decoder, f *frame.Frame, h func(*frame.Frame) error) error {
	for b.r < b.w {
		n, err := d.Next(b.b[b.r:b.w], f)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if f.Type == 0 {
			f.Data = b.b[b.r : b.r+n]
		}
		b.r += n
		if err := h(f); err != nil {
			return err
		}
	}
	return nil
}

const maxReason = 256

// printable makes a text that may have come from anyone fit for a terminal.
func printable(s string) string {
	s = s[:min(len(s), 4*maxReason)]
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
	for len(s) > maxReason {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
