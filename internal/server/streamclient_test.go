package server

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
)

// streamClient is a peer registered over TCP.
type streamClient struct {
	*rendezvous.Client
	mu     sync.Mutex
	nc     net.Conn
	events chan rendezvous.ClientEvent
}

func tcpClient(t testing.TB, s *running, number int) *streamClient {
	t.Helper()
	id := s.cfg.Key.ID()
	c := &streamClient{
		Client: rendezvous.NewClient(rendezvous.ClientConfig{Key: clientKey(number), ServerID: &id}),
		nc:     dial(t, "tcp", s.tcp),
		events: make(chan rendezvous.ClientEvent, 100),
	}
	c.nc.Write([]byte{4})
	c.do(func(now time.Time) { c.Start(now) })
	go func() {
		for {
			b := make([]byte, 2)
			if _, err := io.ReadFull(c.nc, b); err != nil {
				return
			}
			b = make([]byte, binary.BigEndian.Uint16(b))
			if _, err := io.ReadFull(c.nc, b); err != nil {
				return
			}
			c.do(func(now time.Time) { c.HandlePacket(now, b) })
		}
	}()
	waitFor[rendezvous.Registered](t, c)
	return c
}

func clientKey(number int) identity.Key { return identity.FromSeed([32]byte{byte(number), 1}) }

// do acts on the client and sends what comes of it.
func (c *streamClient) do(act func(now time.Time)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	act(time.Now())
	for b, ok := c.Poll(); ok; b, ok = c.Poll() {
		c.nc.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	}
	for e, ok := c.Event(); ok; e, ok = c.Event() {
		c.events <- e
	}
}

// waitFor waits for an event of one type and passes over the others.
func waitFor[E rendezvous.ClientEvent](t testing.TB, c *streamClient) (e E) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		select {
		case got := <-c.events:
			if e, ok := got.(E); ok {
				return e
			}
		case <-deadline:
			t.Fatalf("no %T came", e)
		}
	}
}
