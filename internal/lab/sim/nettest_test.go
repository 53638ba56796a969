package sim

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// In real time, and by other people's rules.
func TestConn(t *testing.T) {
	for name, link := range map[string]scenario.Link{
		"instant": {},
		"slow":    {Delay: time.Millisecond, Jitter: time.Millisecond},
		"lossy":   {Loss: 0.01, Reorder: 0.01, Delay: 100 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				n, err := New(public(link), Options{Seed: 1})
				if err != nil {
					return nil, nil, nil, err
				}
				l, err := n.Host("b").ListenTCP(80)
				if err != nil {
					return nil, nil, nil, err
				}
				if c1, err = n.Host("a").DialTCP(context.Background(), 0, end("198.51.100.1:80")); err != nil {
					return nil, nil, nil, err
				}
				if c2, err = l.Accept(); err != nil {
					return nil, nil, nil, err
				}
				return c1, c2, func() { n.Close() }, nil
			})
		})
	}
}
