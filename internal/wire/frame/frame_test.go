package frame

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var samples = []struct {
	bytes string
	frame Frame
}{
	{"\x01\x00\x00\x19" + "0123456789abcdef" + "ATTEMPT8" + "\x01",
		Frame{Type: HELLO, Session: [16]byte([]byte("0123456789abcdef")), Attempt: [8]byte([]byte("ATTEMPT8")), Flags: NewSession}},
	{"\x02\x00\x00\x05\x01\x00\x00\x10\x00", Frame{Type: RESUME, Epoch: 1, Limit: 16}},
	{"\x02\x00\x00\x10" + "\x07\x02\x01\x10\x02" + "\x00\x01\x05\x06" + "\x01\x00\x80\x01\x00\x00\x07",
		Frame{Type: RESUME, Epoch: 7, Opened: 2, Accepted: 1, Limit: 16, Entries: []Entry{
			{Stream: 0, Done: true, Received: 5, Limit: 6}, {Stream: 1, Received: 1 << 16, Limit: 7}}}},
	{"\x03\x00\x00\x02\x40\x40", Frame{Type: OPEN, Stream: 64}},
	{"\x04\x00\x00\x07\x02\x40\xff" + "data", Frame{Type: DATA, Stream: 2, Offset: 255, Data: []byte("data")}},
	{"\x05\x00\x00\x07\x03\x01\x05\x80\x01\x00\x00", Frame{Type: ACK, Stream: 3, Done: true, Offset: 5, Limit: 1 << 16}},
	{"\x06\x00\x00\x02\x00\x00", Frame{Type: FIN}},
	{"\x07\x00\x00\x02\x02\x09", Frame{Type: RESET, Stream: 2, Code: 9}},
	{"\x08\x00\x00\x01\x05", Frame{Type: PING, N: 5}},
	{"\x09\x00\x00\x08\xff\xff\xff\xff\xff\xff\xff\xff", Frame{Type: PONG, N: MaxNumber}},
	{"\x0a\x00\x00\x05\x01gone", Frame{Type: CLOSE, Code: UnknownSession, Text: "gone"}},
	{"\x0b\x00\x00\x01\x03", Frame{Type: LOST, Epoch: 3}},
	{"\x0c\x00\x00\x01\x20", Frame{Type: STREAMS, Limit: 32}},
}

func TestLayout(t *testing.T) {
	for _, s := range samples {
		if got := Append(nil, &s.frame); string(got) != s.bytes {
			t.Errorf("%v: appended %x, want %x", s.frame.Type, got, s.bytes)
		}
		var d Decoder
		var f Frame
		n, err := d.Next([]byte(s.bytes), &f)
		if n != len(s.bytes) || err != nil {
			t.Errorf("%v: Next = %d, %v, want %d", s.frame.Type, n, err, len(s.bytes))
		}
		if diff := cmp.Diff(s.frame, f, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%v: %s", s.frame.Type, diff)
		}
	}
}

// However the bytes of a pipe are cut, the same frames come out, and DATA's
// payload byte by byte.
func TestCuts(t *testing.T) {
	var pipe []byte
	for _, s := range samples {
		pipe = append(pipe, s.bytes...)
	}
	for step := 1; step <= len(pipe); step++ {
		var d Decoder
		var f Frame
		var out []byte
		have, used := 0, 0
		for used < len(pipe) {
			n, err := d.Next(pipe[used:have], &f)
			if err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			if n == 0 {
				if have == len(pipe) {
					t.Fatalf("step %d: stuck at %d of %d", step, used, len(pipe))
				}
				have = min(have+step, len(pipe))
				continue
			}
			used += n
			if f.Type == DATA && f.Offset != 255 {
				out = append(out, f.Data...) // a later piece: one byte after the other
				continue
			}
			out = Append(out, &f)
		}
		want := pipe
		if i := bytes.Index(out, []byte{4, 0, 0}); out[i+3] != 7 { // the first piece was shorter than the payload
			out[i+3] = 7
		}
		if !bytes.Equal(out, want) {
			t.Fatalf("step %d: got %x\nwant %x", step, out, want)
		}
	}
}

func TestMalformed(t *testing.T) {
	for name, b := range map[string]string{
		"type 0":               "\x00\x00\x00\x00",
		"unknown type":         "\x0d\x00\x00\x00",
		"control too long":     "\x03\x00\x80\x01",
		"data too long":        "\x04\x01\x00\x11",
		"empty data":           "\x04\x00\x00\x02\x00\x00",
		"data cut":             "\x04\x00\x00\x01\x00\x00\x00",
		"trailing":             "\x03\x00\x00\x02\x01\x01",
		"short number":         "\x03\x00\x00\x01\x40",
		"stream too large":     "\x03\x00\x00\x08\xc0\x00\x00\x01\x00\x00\x00\x00",
		"offset too large":     "\x06\x00\x00\x09\x00\xd0\x00\x00\x00\x00\x00\x00\x00",
		"data past the end":    "\x04\x00\x00\x0a\x00\xcf\xff\xff\xff\xff\xff\xff\xff\x61",
		"too many entries":     "\x02\x00\x00\x06\x01\x00\x00\x00\x44\x01",
		"entries missing":      "\x02\x00\x00\x05\x01\x00\x00\x00\x01",
		"entries in disorder":  "\x02\x00\x00\x0d\x01\x00\x00\x00\x02\x01\x00\x00\x00\x01\x00\x00\x00",
		"undefined flag":       "\x05\x00\x00\x04\x00\x02\x00\x00",
		"epoch too large":      "\x0b\x00\x00\x08\xc0\x00\x00\x01\x00\x00\x00\x00",
		"escape in text":       "\x0a\x00\x00\x03\x00\x1b[",
		"text not UTF-8":       "\x0a\x00\x00\x02\x00\xff",
		"text too long":        "\x0a\x00\x01\x02\x00" + strings.Repeat("a", MaxText+1),
		"hello with a tail":    "\x01\x00\x00\x1a" + strings.Repeat("x", 26),
		"hello too short":      "\x01\x00\x00\x10" + strings.Repeat("x", 16),
		"reset without a code": "\x07\x00\x00\x01\x00",
	} {
		var d Decoder
		var f Frame
		if n, err := d.Next([]byte(b), &f); !errors.Is(err, ErrMalformed) || n != 0 {
			t.Errorf("%s: Next = %d, %v, want malformed", name, n, err)
		}
	}
}

func TestSkip(t *testing.T) {
	var d Decoder
	f := Frame{Type: PING}
	if n, err := d.Next([]byte("\x80\x00\x00\x02ab"), &f); n != 6 || err != nil || f.Type != 0 {
		t.Errorf("Next = %d, %v, type %v; want 6, nil, none", n, err, f.Type)
	}
}

func TestTextIsMadePrintable(t *testing.T) {
	long := strings.Repeat("é", MaxText)
	for in, want := range map[string]string{
		"bye":           "bye",
		"a\x1b[31m\n":   "a?[31m?",
		"bad \xff utf8": "bad ? utf8",
		long:            long[:MaxText],
	} {
		b := Append(nil, &Frame{Type: CLOSE, Text: in})
		var d Decoder
		var f Frame
		if n, err := d.Next(b, &f); n != len(b) || err != nil || f.Text != want {
			t.Errorf("%q came back as %q (%d of %d, %v)", in, f.Text, n, len(b), err)
		}
	}
}

func TestLane(t *testing.T) {
	b := AppendLane(nil, MaxStream, MaxOffset)
	for i := range b {
		if _, _, n, err := ParseLane(b[:i]); n != 0 || err != nil {
			t.Errorf("ParseLane of %d bytes = %d, %v", i, n, err)
		}
	}
	s, o, n, err := ParseLane(append(b, 'x'))
	if s != MaxStream || o != MaxOffset || n != len(b) || n > MaxLane || err != nil {
		t.Errorf("ParseLane = %d, %d, %d, %v", s, o, n, err)
	}
	if _, _, _, err := ParseLane(AppendLane(nil, MaxStream+1, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a stream number beyond the largest: %v", err)
	}
}

// The largest RESUME must fit the limit on control frames.
func TestLargestResume(t *testing.T) {
	f := Frame{Type: RESUME, Epoch: 1<<32 - 1, Opened: MaxStream, Accepted: MaxStream, Limit: MaxStream}
	for i := range uint64(MaxEntries) {
		f.Entries = append(f.Entries, Entry{Stream: MaxStream - MaxEntries + i, Received: MaxOffset, Limit: MaxOffset})
	}
	b := Append(nil, &f)
	var d Decoder
	var g Frame
	if n, err := d.Next(b, &g); n != len(b) || err != nil || len(g.Entries) != MaxEntries {
		t.Errorf("Next = %d of %d, %v, %d entries", n, len(b), err, len(g.Entries))
	}
}

// FuzzDecoder: no input makes it panic or stand still, what was read can be
// written, and what was written is read the same.
func FuzzDecoder(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s.bytes), byte(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut byte) {
		var d Decoder
		var fr Frame
		have := min(int(cut), len(b))
		for {
			n, err := d.Next(b[:have], &fr)
			if err != nil {
				return
			}
			if n == 0 {
				if have == len(b) {
					return
				}
				have = min(have+1+int(cut), len(b))
				continue
			}
			if n > have {
				t.Fatalf("took %d of %d bytes", n, have)
			}
			b, have = b[n:], have-n
			if fr.Type == 0 {
				continue
			}
			again := Append(nil, &fr)
			var d2 Decoder
			var g Frame
			if m, err := d2.Next(again, &g); m != len(again) || err != nil {
				t.Fatalf("%+v appended as %x: %d, %v", fr, again, m, err)
			}
			if third := Append(nil, &g); !bytes.Equal(again, third) {
				t.Fatalf("appended as %x, then as %x", again, third)
			}
		}
	})
}

func BenchmarkData(b *testing.B) {
	payload := make([]byte, MaxData)
	f := Frame{Type: DATA, Stream: 2, Offset: 1 << 40, Data: payload}
	buf := Append(nil, &f)
	b.Run("header", func(b *testing.B) {
		b.ReportAllocs()
		head := make([]byte, 0, 64)
		for b.Loop() {
			head = AppendHeader(head[:0], &f)
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		var g Frame
		for b.Loop() {
			var d Decoder
			if n, _ := d.Next(buf, &g); n != len(buf) {
				b.Fatal(n)
			}
		}
	})
}
