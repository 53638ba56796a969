package link

import (
	"net"
	"sync"
	"time"
)

// corkedConn collects the records of one large frame, so that the kernel gets
// them in one piece.
type corkedConn struct {
	net.Conn

	mu     sync.Mutex // also a KeyUpdate's answer is written, from the reading side
	first  time.Time
	corked bool
	buf    []byte
}

func (c *corkedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first.IsZero() {
		c.first = time.Now()
	}
	if c.corked {
		c.buf = append(c.buf, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// firstWrite is when this end first said something.
func (c *corkedConn) firstWrite() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first
}

func (c *corkedConn) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

func (c *corkedConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}
