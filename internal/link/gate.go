package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
)

var errBusy = errors.New("too many handshakes under way")

// gate counts the handshakes that strangers have started and not finished.
type gate struct {
	max int

	mu    sync.Mutex
	total int
	from  map[any]int
}

// One source may have an eighth of the places, and the first quarter is given
// without asking for a proof of address, which costs a round trip.
const (
	sourceShare = 8
	freeShare   = 4
)

func newGate(max int) *gate { return &gate{max: max, from: make(map[any]int)} }

// crowded tells whether a newcomer must prove its address first.
func (g *gate) crowded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total >= g.max/freeShare
}

type gateKey struct{}

// enter takes a place until ctx ends or leave is called with what it returns.
func (g *gate) enter(ctx context.Context, from net.Addr) (context.Context, error) {
	key := source(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.max || g.from[key] >= max(1, g.max/sourceShare) {
		return nil, errBusy
	}
	g.total++
	g.from[key]++
	left := sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.total--
		if g.from[key]--; g.from[key] == 0 {
			delete(g.from, key)
		}
	})
	context.AfterFunc(ctx, left)
	return context.WithValue(ctx, gateKey{}, left), nil
}

// leave gives the place back, at the end of the handshake.
func (g *gate) leave(ctx context.Context) {
	if left, ok := ctx.Value(gateKey{}).(func()); ok {
		left()
	}
}

// source is what counts as one stranger: an IPv4 address, an IPv6 /64, or a
// relay.
func source(a net.Addr) any {
	if u, ok := a.(*net.UDPAddr); ok {
		ip := u.AddrPort().Addr().Unmap().WithZone("")
		bits := ip.BitLen()
		if ip.Is6() {
			bits = 64
		}
		return netip.PrefixFrom(ip, bits).Masked()
	}
	return a
}
