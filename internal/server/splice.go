package server

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	minChunk = 64 << 10
	maxChunk = 1 << 20 // the kernel's pipe between two sockets
	// chunkTime is how long a splice waits for more before the direction counts
	// as quiet: a quiet one holds no pipe, which is two descriptors.
	chunkTime = time.Second
	// quietRead is what a quiet direction reads by itself.
	quietRead = 2 << 10
)

// direction is one half of a stream relay.
//
// Bulk goes through io.Copy, which between two *net.TCPConn is splice(2): the
// bytes never enter this process. It goes in chunks, because the deadline of a
// splice in progress cannot be moved, and smaller ones where the receiver is
// slow, because a splice that fails while writing has lost what it read.
type direction struct {
	dst, src net.Conn
	last     *atomic.Int64 // of both directions: when a byte moved
	bytes    *atomic.Uint64
	idle     time.Duration
}

// copy returns nil at src's end, and an error when either connection broke or
// neither direction has moved a byte for the idle time.
func (d *direction) copy() error {
	for {
		if err := d.quiet(); err != nil {
			return ended(err)
		}
		if err := d.bulk(); err != nil {
			return ended(err)
		}
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// quiet waits for bytes and passes on the first of them.
func (d *direction) quiet() error {
	var buf [quietRead]byte
	for {
		now := time.Now()
		left := d.idle - now.Sub(time.Unix(0, d.last.Load()))
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		d.src.SetReadDeadline(now.Add(left))
		n, err := d.src.Read(buf[:])
		if n > 0 {
			d.dst.SetWriteDeadline(time.Now().Add(d.idle))
			if _, err := d.dst.Write(buf[:n]); err != nil {
				return err
			}
			d.moved(int64(n))
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// bulk splices until src has been silent for chunkTime.
func (d *direction) bulk() error {
	size := int64(minChunk)
	for {
		start := time.Now()
		d.src.SetReadDeadline(start.Add(min(chunkTime, d.idle)))
		d.dst.SetWriteDeadline(start.Add(d.idle))
		n, err := io.Copy(d.dst, &io.LimitedReader{R: d.src, N: size})
		took := time.Since(start)
		if n > 0 {
			d.moved(n)
		}
		switch {
		case err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || took >= d.idle):
			return err // the write's deadline is the later one
		case err == nil && n < size:
			return io.EOF
		case n == 0:
			return nil
		case took < chunkTime:
			size = min(2*size, maxChunk)
		case took > 4*chunkTime:
			size = minChunk
		}
	}
}

func (d *direction) moved(n int64) {
	d.last.Store(time.Now().UnixNano())
	d.bytes.Add(uint64(n))
}
