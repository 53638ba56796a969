package server

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

// client is a peer with a socket of its own that hears only the server
// endpoint that it registered with.
type client struct {
	*rendezvous.Client
	mu      sync.Mutex
	nc      net.Conn
	stream  bool
	events  chan rendezvous.ClientEvent
	relayed chan []byte
}

// register makes a peer that is registered over "udp" or "tcp".
func register(t testing.TB, network string, server netip.AddrPort, number int) *client {
	t.Helper()
	id := seed(1).ID()
	c := &client{
		Client:  rendezvous.NewClient(rendezvous.ClientConfig{Key: clientKey(number), ServerID: &id}),
		nc:      dial(t, network, server),
		stream:  network == "tcp",
		events:  make(chan rendezvous.ClientEvent, 100),
		relayed: make(chan []byte, 100),
	}
	c.nc.SetDeadline(time.Time{}) // it may live long
	if c.stream {
		c.nc.Write([]byte{4})
	}
	c.do(func(now time.Time) { c.Start(now) })
	go c.receive()
	waitFor[rendezvous.Registered](t, c)
	return c
}

func (c *client) receive() {
	for {
		b := make([]byte, 2048)
		n, err := 0, error(nil)
		if !c.stream {
			c.mu.Lock()
			at, _ := c.NextTimeout()
			c.mu.Unlock()
			c.nc.SetReadDeadline(at)
			n, err = c.nc.Read(b)
		} else if _, err = io.ReadFull(c.nc, b[:2]); err == nil {
			n, err = io.ReadFull(c.nc, b[:binary.BigEndian.Uint16(b)])
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.do(func(now time.Time) { c.HandleTimeout(now) })
			continue
		}
		if err != nil {
			return
		}
		if b[0] == relay.First {
			c.relayed <- b[:n]
			continue
		}
		c.do(func(now time.Time) { c.HandlePacket(now, b[:n]) })
	}
}

func clientKey(number int) identity.Key { return identity.FromSeed([32]byte{byte(number), 1}) }

// do acts on the client and sends what comes of it.
func (c *client) do(act func(now time.Time)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	act(time.Now())
	for b, ok := c.Poll(); ok; b, ok = c.Poll() {
		if c.stream {
			b = append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
		}
		c.nc.Write(b)
	}
	for e, ok := c.Event(); ok; e, ok = c.Event() {
		c.events <- e
	}
}

// waitFor waits for an event of one type and passes over the others.
func waitFor[E rendezvous.ClientEvent](t testing.TB, c *client) (e E) {
	t.Helper()
	deadline := time.After(10 * time.Second)
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
