package control

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func ends(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	a, f, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	b = c.(*net.UnixConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	a.SetDeadline(time.Now().Add(patience))
	b.SetDeadline(time.Now().Add(patience))
	return a, b
}

// TestLine: a line arrives whole, with its descriptors, in however many pieces,
// and what follows is left alone.
func TestLine(t *testing.T) {
	a, b := ends(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	long := strings.Repeat("long ", 50_000)
	sent := make(chan error, 1)
	go func() {
		err := writeLine(a, long, int(w.Fd()))
		if err == nil {
			_, err = io.WriteString(a, "\"next\"\nand more")
		}
		sent <- err
	}()
	var got, next string
	fds, err := readLine(b, 1<<20, &got, 2)
	if err != nil || got != long || len(fds) != 1 {
		t.Fatalf("%d bytes, descriptors %v, %v", len(got), fds, err)
	}
	if _, err := readLine(b, 100, &next, 0); err != nil || next != "next" {
		t.Errorf("%q, %v", next, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	w.Close()
	through := os.NewFile(uintptr(fds[0]), "pipe")
	io.WriteString(through, "through")
	through.Close()
	if text, err := io.ReadAll(r); err != nil || string(text) != "through" {
		t.Errorf("%q, %v came by the descriptor", text, err)
	}
	a.Close()
	if rest, err := io.ReadAll(b); err != nil || string(rest) != "and more" {
		t.Errorf("behind the lines: %q, %v", rest, err)
	}
}

// TestBadLines: too long, unfinished, no JSON; unwanted descriptors are closed.
func TestBadLines(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 200), "{", "{\n", "\n", ""} {
		a, b := ends(t)
		io.WriteString(a, text)
		a.CloseWrite()
		var v any
		if _, err := readLine(b, 100, &v, 0); err == nil {
			t.Errorf("%q was read as %v", text, v)
		}
	}
	open := func() int {
		all, _ := os.ReadDir("/proc/self/fd")
		return len(all)
	}
	a, b := ends(t)
	before := open()
	writeLine(a, "x", 0, 1, 2)
	var v string
	if fds, err := readLine(b, 100, &v, 0); err != nil || len(fds) > 0 {
		t.Errorf("%v, %v", fds, err)
	}
	if now := open(); now != before {
		t.Errorf("%d descriptors are open, before %d", now, before)
	}
}

// TestSpool: who does not read gets less, and stops nobody.
func TestSpool(t *testing.T) {
	r, w := io.Pipe()
	s := newSpool(w)
	s.begin()
	piece := bytes.Repeat([]byte("x"), 1<<20)
	wrote := 0
	for {
		if _, err := s.Write(piece); err != nil {
			break
		}
		wrote++
	}
	// Once as much may be in the hands of who passes it on.
	if wrote < spoolSize>>20 || wrote > 2*spoolSize>>20 {
		t.Errorf("%d MiB were kept", wrote)
	}
	<-s.failed
	r.Close()
	s.end()
	// In time, everything arrives.
	var out bytes.Buffer
	s = newSpool(&out)
	s.begin()
	for range 100 {
		s.Write([]byte("0123456789"))
	}
	s.end()
	if out.Len() != 1000 {
		t.Errorf("%d bytes arrived", out.Len())
	}
}
