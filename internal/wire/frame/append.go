package frame

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Append appends f, payload and all.
func Append(b []byte, f *Frame) []byte {
	return append(AppendHeader(b, f), f.payload()...)
}

// AppendHeader appends f without DATA's payload, for a caller that sends
// header and payload from two places.
func AppendHeader(b []byte, f *Frame) []byte {
	start := len(b)
	b = append(b, byte(f.Type), 0, 0, 0)
	b = appendBody(b, f)
	n := len(b) - start - HeaderLen + len(f.payload())
	b[start+1], b[start+2], b[start+3] = byte(n>>16), byte(n>>8), byte(n)
	return b
}

func (f *Frame) payload() []byte {
	if f.Type != DATA {
		return nil
	}
	return f.Data
}

func appendBody(b []byte, f *Frame) []byte {
	switch f.Type {
	case HELLO:
		b = append(b, f.Session[:]...)
		b = append(b, f.Attempt[:]...)
		return append(b, f.Flags)
	case RESUME:
		for _, x := range [...]uint64{uint64(f.Epoch), f.Opened, f.Accepted, f.Limit, uint64(len(f.Entries))} {
			b = appendVarint(b, x)
		}
		for i := range f.Entries {
			e := &f.Entries[i]
			b = appendProgress(b, e.Stream, e.Done, e.Received, e.Limit)
		}
		return b
	case OPEN:
		return appendVarint(b, f.Stream)
	case DATA, FIN:
		return appendVarint(appendVarint(b, f.Stream), f.Offset)
	case ACK:
		return appendProgress(b, f.Stream, f.Done, f.Offset, f.Limit)
	case RESET:
		return appendVarint(appendVarint(b, f.Stream), f.Code)
	case PING, PONG:
		return appendVarint(b, f.N)
	case CLOSE:
		return append(appendVarint(b, f.Code), printable(f.Text)...)
	case LOST:
		return appendVarint(b, uint64(f.Epoch))
	case STREAMS:
		return appendVarint(b, f.Limit)
	}
	return b
}

func appendProgress(b []byte, stream uint64, done bool, received, limit uint64) []byte {
	b = appendVarint(b, stream)
	if done {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return appendVarint(appendVarint(b, received), limit)
}

// printable makes a text that a parser accepts and a terminal survives.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
	for len(s) > MaxText {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// AppendLane appends the header of a lane that starts at offset of stream.
func AppendLane(b []byte, stream, offset uint64) []byte {
	return appendVarint(appendVarint(b, stream), offset)
}
