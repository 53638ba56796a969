package bodkin

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	machine "github.com/bodkin-net/bodkin/internal/machine/session"
	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// Conn is a stream to a peer. It is a net.Conn with half-close, and it outlives
// the paths that carry it.
type Conn struct {
	s  *session
	id machine.StreamID

	readable, writable, flushed chan struct{} // of capacity 1: try again
	reading, writing            sync.Mutex    // one Read and one Write at a time
	readBy, writeBy             *netio.Deadline
	bytesIn, bytesOut           atomic.Int64

	once   sync.Once
	closed chan struct{}
}

// newConn makes the handle of a stream. The session's lock is held.
func (s *session) newConn(id machine.StreamID) *Conn {
	c := &Conn{s: s, id: id, closed: make(chan struct{}),
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), flushed: make(chan struct{}, 1),
		readBy: netio.NewDeadline(), writeBy: netio.NewDeadline()}
	s.conns[id] = c
	return c
}

// Peer is the id that the other end has proved.
func (c *Conn) Peer() ID { return c.s.peer }

// LocalAddr is this node's id, RemoteAddr the peer's; endpoints are in Path.
func (c *Conn) LocalAddr() net.Addr  { return Addr{c.s.n.ID()} }
func (c *Conn) RemoteAddr() net.Addr { return Addr{c.s.peer} }

// Path is the way that bytes take just now; its zero value is none.
func (c *Conn) Path() Path {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.s.currentPath()
}

// WaitPathChange returns the path in use as soon as it is another than old, an
// error when the connection is over or ctx ends.
func (c *Conn) WaitPathChange(ctx context.Context, old Path) (Path, error) {
	for {
		c.s.mu.Lock()
		path, moved, err := c.s.currentPath(), c.s.moved, c.s.err
		c.s.mu.Unlock()
		if !path.Equal(old) || err != nil {
			return path, err
		}
		select {
		case <-moved:
		case <-c.s.done:
		case <-ctx.Done():
			return path, ctx.Err()
		}
	}
}

// Read returns what the peer wrote; io.EOF after its CloseWrite or Close.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	for {
		if err := c.mayGoOn("read", c.readBy); err != nil {
			return 0, err
		}
		c.s.mu.Lock()
		n, err := c.s.m.Read(c.id, p)
		c.s.settle()
		c.s.mu.Unlock()
		switch {
		case n > 0:
			c.bytesIn.Add(int64(n))
			return n, nil
		case err == io.EOF:
			return 0, io.EOF
		case err != nil:
			return 0, c.failed("read", err)
		case len(p) == 0:
			return 0, nil
		}
		c.wait(c.readable, c.readBy)
	}
}

// Write sends p. It blocks while the peer does not read, and while no path
// works; what it has taken will reach the peer over whatever path there is.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for {
		if err := c.mayGoOn("write", c.writeBy); err != nil {
			return n, err
		}
		c.s.mu.Lock()
		k, err := c.s.m.Write(c.id, p[n:])
		c.s.settle()
		c.s.mu.Unlock()
		n += k
		c.bytesOut.Add(int64(k))
		switch {
		case err != nil:
			return n, c.failed("write", err)
		case n == len(p):
			return n, nil
		}
		c.wait(c.writable, c.writeBy)
	}
}

// mayGoOn is the error of a connection closed here or of a deadline passed.
func (c *Conn) mayGoOn(op string, by *netio.Deadline) error {
	switch {
	case isClosed(c.closed):
		return c.opError(op, net.ErrClosed)
	case isClosed(by.Wait()):
		return c.opError(op, os.ErrDeadlineExceeded)
	}
	return nil
}

func (c *Conn) wait(ready chan struct{}, by *netio.Deadline) {
	select {
	case <-ready:
	case <-by.Wait():
	case <-c.closed:
	case <-c.s.done:
		// Over: trying again gives the rest of the data, or the error.
	}
}

// failed turns an error of the machine into one for the user.
func (c *Conn) failed(op string, err error) error {
	var reset *machine.ResetError
	switch {
	case errors.As(err, &reset) && reset.Code == frame.Refused:
		err = &Error{Code: PeerRefused, Remote: true, Text: "the peer does not take this stream"}
	case errors.As(err, &reset), errors.Is(err, machine.ErrStopped):
		err = &Error{Code: PeerClosed, Remote: true, Text: "the peer closed the stream"}
	case errors.Is(err, machine.ErrWriteClosed), errors.Is(err, machine.ErrReadClosed), errors.Is(err, machine.ErrNoStream):
		err = net.ErrClosed
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.err != nil && errors.Is(err, machine.ErrClosed) {
		err = c.s.err
	}
	return c.opError(op, err)
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "bodkin", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// CloseWrite tells the peer that nothing follows; reading goes on.
func (c *Conn) CloseWrite() error {
	c.s.mu.Lock()
	err := c.s.m.CloseWrite(c.id)
	c.s.settle()
	c.s.mu.Unlock()
	if err != nil {
		return c.failed("close", err)
	}
	return nil
}

// Flush waits until the peer has received all that was written, and the end of
// it after CloseWrite. It says nothing of whether the peer has read it.
func (c *Conn) Flush(ctx context.Context) error {
	for {
		c.s.mu.Lock()
		done, err := c.s.m.Flushed(c.id)
		over := c.s.err
		c.s.settle()
		c.s.mu.Unlock()
		switch {
		case done:
			return nil
		case over != nil:
			return c.opError("flush", over)
		case err != nil:
			return c.failed("flush", err)
		}
		select {
		case <-c.flushed:
		case <-c.s.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends both directions. What was written is still delivered, in the
// background; Flush waits for it.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.end(func() {
			c.s.m.CloseWrite(c.id) // an error means that it is over already
			c.s.m.CloseRead(c.id)
		})
	})
	return nil
}

// Reset gives the stream up in both directions: what was not delivered yet is
// dropped, and the peer's Read fails instead of ending, so that a part does not
// pass for the whole. Close has nothing to do after it.
func (c *Conn) Reset() {
	c.once.Do(func() {
		c.end(func() { c.s.m.Reset(c.id, frame.AppCode) })
	})
}

// end takes the stream from the session; over tells the peer.
func (c *Conn) end(over func()) {
	close(c.closed)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	delete(c.s.conns, c.id)
	over()
	c.s.closeIfUnused()
	c.s.settle()
	c.s.n.emit(Event{Type: EventEnd, Peer: c.s.peer, BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load()})
}

func (c *Conn) SetDeadline(t time.Time) error {
	c.readBy.Set(t)
	c.writeBy.Set(t)
	return nil
}

func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readBy.Set(t)
	return nil
}

func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeBy.Set(t)
	return nil
}
