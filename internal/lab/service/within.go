package service

import (
	"context"
	"net"
)

// Within is the stack of a network namespace. It is a function that runs
// another there, on a thread of its own, and waits for it.
type Within func(func() error) error

func (do Within) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return l, err
}

func (do Within) ListenPacket(ctx context.Context, network, address string) (c net.PacketConn, err error) {
	err = do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return c, err
}

// DialContext takes an address, not a name: who looks up names has other
// threads do it.
func (do Within) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}
