// Package service is what runs on a gateway's own IP stack: the HTTP half of
// UPnP, and the proxies. The stack may be a namespace's or a simulated one.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/bodkin-net/bodkin/internal/lab/igd"
	"github.com/bodkin-net/bodkin/internal/lab/proxy"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
	"github.com/bodkin-net/bodkin/internal/machine/router"
)

// Configure sets what a router does for the services of a gateway.
func Configure(g *scenario.Gateway, cfg *router.Config) {
	cfg.PortMap = g.PortMap
	cfg.NAT.Rules = slices.Concat(proxy.Rules(g.Proxy), g.NAT.Rules)
	if g.Proxy.Transparent {
		cfg.Redirect, cfg.RedirectTo = proxy.Ports(g.Proxy), scenario.TransparentPort
	}
}

// Needed says whether a gateway has any services.
func Needed(g *scenario.Gateway) bool {
	return g.PortMap.UPnP || g.Proxy.HTTP != 0 || g.Proxy.SOCKS != 0 || g.Proxy.Transparent
}

// Stack is a gateway's own IP stack, with the functions of net.ListenConfig and
// net.Dialer.
type Stack interface {
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Router is the part of a router that services ask. It is called from many
// goroutines.
type Router interface {
	HTTP(portmap.HTTPRequest) portmap.Response
	Intended(seen netip.AddrPort) (remote netip.AddrPort, ok bool)
}

// Config says where the services run.
type Config struct {
	Gateway *scenario.Gateway
	// Inside is the gateway's first IPv4 address there: the services listen
	// at it.
	Inside netip.Addr
	Stack  Stack
	Router Router
	// Lookup finds the addresses of a name; nil knows no names.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// IsOwn says which addresses are the gateway's: a proxy does not go there.
	IsOwn func(netip.Addr) bool
}

// Services are those that run on one gateway.
type Services struct{ running []io.Closer }

// Start runs the services of a gateway until Close.
func Start(cfg Config) (*Services, error) {
	s := &Services{}
	if err := s.start(cfg); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Services) start(cfg Config) error {
	if !Needed(cfg.Gateway) {
		return nil
	}
	if !cfg.Inside.Is4() {
		return errors.New("service: the gateway has no IPv4 address inside")
	}
	if cfg.Gateway.PortMap.UPnP {
		l, err := cfg.listen(portmap.HTTPPort)
		if err != nil {
			return err
		}
		s.running = append(s.running, igd.Serve(l, cfg.Router.HTTP))
	}
	p := cfg.Gateway.Proxy
	var at proxy.Listeners
	for _, want := range []struct {
		port uint16
		l    *net.Listener
	}{{p.HTTP, &at.HTTP}, {p.SOCKS, &at.SOCKS}, {transparentPort(p), &at.Transparent}} {
		if want.port == 0 {
			continue
		}
		l, err := cfg.listen(want.port)
		if err != nil {
			return err
		}
		*want.l = l
		s.running = append(s.running, l)
	}
	if at != (proxy.Listeners{}) {
		s.running = append(s.running, proxy.Serve(at, proxy.Config{
			Dial: cfg.dial, ListenPacket: cfg.Stack.ListenPacket, Permitted: cfg.permitted, Original: cfg.Router.Intended,
		}))
	}
	return nil
}

func transparentPort(p scenario.Proxy) uint16 {
	if p.Transparent {
		return scenario.TransparentPort
	}
	return 0
}

// Close ends the services, and waits.
func (s *Services) Close() error {
	var errs []error
	for _, c := range slices.Backward(s.running) {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.running = nil
	return errors.Join(errs...)
}

func (cfg *Config) listen(port uint16) (net.Listener, error) {
	l, err := cfg.Stack.Listen(context.Background(), "tcp4", netip.AddrPortFrom(cfg.Inside, port).String())
	if err != nil {
		return nil, fmt.Errorf("service: %w", err)
	}
	return l, nil
}

// permitted says where proxies go.
func (cfg *Config) permitted(a netip.Addr) bool { return a.IsGlobalUnicast() && !cfg.IsOwn(a) }

// dial connects a proxy's client to the first of an address's that answers.
func (cfg *Config) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, errors.New("service: no such port")
	}
	addrs, err := cfg.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	err = proxy.ErrForbidden
	for _, a := range addrs {
		if !cfg.permitted(a) {
			continue
		}
		var c net.Conn
		if c, err = cfg.Stack.DialContext(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func (cfg *Config) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap().WithZone("")}, nil
	}
	if cfg.Lookup == nil {
		return nil, fmt.Errorf("service: nobody knows the name %q", host)
	}
	return cfg.Lookup(ctx, host)
}
