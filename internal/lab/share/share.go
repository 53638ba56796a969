// Package share divides the connections that a service has among those who come,
// so that one host cannot have all of them.
package share

import (
	"net"
	"net/netip"
	"sync"
)

// Shares counts who has how many of a bounded number. Its memory is bounded by
// that number: an address that has nothing is not remembered.
type Shares struct {
	max, each int

	mu  sync.Mutex
	n   int
	has map[netip.Addr]int
}

// New is for so many at once, of which one address gets a quarter.
func New(limit int) *Shares {
	return &Shares{max: limit, each: max(1, limit/4), has: map[netip.Addr]int{}}
}

// Take is false when an address has its share already, or nothing is left.
func (s *Shares) Take(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n >= s.max || s.has[a] >= s.each {
		return false
	}
	s.n++
	s.has[a]++
	return true
}

// Give takes back what an address has taken.
func (s *Shares) Give(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n--
	if s.has[a]--; s.has[a] == 0 {
		delete(s.has, a)
	}
}

// Of is the address at the other end of a connection; invalid where it has none.
func Of(c net.Conn) netip.Addr {
	e, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return e.Addr().Unmap()
}

// Listener closes the connections that are too many for their address.
func Listener(l net.Listener, s *Shares) net.Listener { return &listener{l, s} }

type listener struct {
	net.Listener
	shares *Shares
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a := Of(c)
		if l.shares.Take(a) {
			return &conn{Conn: c, give: sync.OnceFunc(func() { l.shares.Give(a) })}, nil
		}
		c.Close()
	}
}

type conn struct {
	net.Conn
	give func()
}

func (c *conn) Close() error {
	defer c.give()
	return c.Conn.Close()
}
