package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpu is what this process has used so far.
func cpu(who int) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What a relay costs by splice, and by a loop that reads and writes.
func BenchmarkStreamRelay(b *testing.B) {
	loop := func(dst, src net.Conn) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 64<<10))
		return err
	}
	splice := func(dst, src net.Conn) error {
		var last atomic.Int64
		last.Store(time.Now().UnixNano())
		d := direction{dst: dst, src: src, last: &last, bytes: new(atomic.Uint64), idle: time.Minute}
		return d.copy()
	}
	for _, c := range []struct {
		name string
		copy func(dst, src net.Conn) error
	}{{"splice", splice}, {"loop", loop}} {
		b.Run(c.name, func(b *testing.B) { benchmarkCopy(b, c.copy) })
	}
}

// benchmarkCopy measures the CPU of the thread that copies, and of it alone.
func benchmarkCopy(b *testing.B, copy func(dst, src net.Conn) error) {
	const chunk = 4 << 20
	a, sa := tcpPair(b)
	z, sz := tcpPair(b)
	done := make(chan time.Duration)
	go func() {
		runtime.LockOSThread() // for RUSAGE_THREAD; the thread ends with the goroutine
		before := cpu(unix.RUSAGE_THREAD)
		if err := copy(sz, sa); err != nil {
			b.Error(err)
		}
		sz.CloseWrite()
		done <- cpu(unix.RUSAGE_THREAD) - before
	}()
	go func() {
		buf := make([]byte, chunk)
		for range b.N {
			a.Write(buf)
		}
		a.CloseWrite()
	}()
	b.SetBytes(chunk)
	buf := make([]byte, chunk)
	total := 0
	for {
		n, err := z.Read(buf)
		total += n
		if err != nil {
			break
		}
	}
	used := <-done
	b.ReportMetric(float64(total)*8/1e9/used.Seconds(), "Gbit/cpu-s")
}

// bytesRead is what this process has copied in by read(2), which splice(2)
// does not count towards.
func bytesRead(t *testing.T) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skipf("no I/O accounting here: %v", err)
	}
	if _, err := fmt.Fscanf(bytes.NewReader(b), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStreamRelayIsSpliced(t *testing.T) {
	const size = 64 << 20
	s := bare(t)
	a, sa := tcpPair(t)
	b, sb := tcpPair(t)
	over := relayed(s, sa, sb)
	ready(t, a, b)
	before := bytesRead(t)
	go func() {
		a.Write(make([]byte, size))
		a.CloseWrite()
	}()
	if n, err := io.Copy(struct{ io.Writer }{io.Discard}, b); n != size || err != nil {
		t.Fatal(n, err)
	}
	// The receiver above has read it all once. A relay that copies reads it again.
	if n := bytesRead(t) - before; n > size+size/4 {
		t.Errorf("%d bytes read to relay %d", n-size, size)
	}
	b.Close()
	<-over
}
