// Package proxy is what a gateway relays itself instead of forwarding: an HTTP
// proxy, a SOCKS5 proxy (RFC 1928), and a transparent one. It takes listeners
// and a dialer, so it runs in a gateway's namespace and in the simulator.
//
// The HTTP proxy takes CONNECT and requests with a whole URL. The SOCKS5 proxy
// asks for no password, and knows CONNECT and UDP ASSOCIATE. The transparent
// one speaks HTTP on port 80 and lets TLS pass on every other port: what is
// neither does not get through.
package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/share"
)

// Config is what the proxies run on.
type Config struct {
	// Dial connects to the outside, ListenPacket opens UDP sockets for SOCKS5's
	// associations, as net.Dialer and net.ListenConfig do. Names are for Dial
	// to know.
	Dial         func(ctx context.Context, network, address string) (net.Conn, error)
	ListenPacket func(ctx context.Context, network, address string) (net.PacketConn, error)
	// Permitted says where such a socket may send to; nil is everywhere. Dial
	// sees to that itself.
	Permitted func(netip.Addr) bool
	// Original is where a connection that came to the transparent proxy from a
	// client was to go.
	Original func(client netip.AddrPort) (remote netip.AddrPort, ok bool)
	// Max bounds the connections from the inside, those to each proxy apart;
	// zero is 256. One address has a quarter of them. One more is closed at once.
	Max int
	// Idle ends a connection on which nothing passes either way; zero is 10
	// minutes.
	Idle time.Duration
}

// ErrForbidden is what Dial says of destinations that are nobody's business.
var ErrForbidden = errors.New("proxy: forbidden")

// Listeners are where the proxies are; nil is none.
type Listeners struct {
	HTTP, SOCKS, Transparent net.Listener
}

const (
	defaultMax  = 256
	defaultIdle = 10 * time.Minute
	startTime   = 10 * time.Second // to say what is wanted
	acceptPause = 50 * time.Millisecond
	lingerTime  = time.Second
	dialTime    = 30 * time.Second
	maxHeader   = 64 << 10
)

// Server is proxies that run.
type Server struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{}
}

// Serve runs the proxies until Close.
func Serve(l Listeners, cfg Config) *Server {
	if cfg.Max == 0 {
		cfg.Max = defaultMax
	}
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	s := &Server{cfg: cfg, open: map[io.Closer]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if l.HTTP != nil {
		s.serveHTTP(s.limit(l.HTTP), s.httpProxy())
	}
	if l.SOCKS != nil {
		s.accept(s.limit(l.SOCKS), s.socks)
	}
	if l.Transparent != nil {
		s.transparent(s.limit(l.Transparent))
	}
	return s
}

// Close ends the proxies and every connection, and waits.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	s.cancel()
	for c := range open {
		c.Close()
	}
	s.wg.Wait()
	return nil
}

// begin has Close wait for s.wg.Done; it does not once the server is closed.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.wg.Add(1)
	}
	return !s.closed
}

// run runs f in a goroutine that Close waits for.
func (s *Server) run(f func()) bool {
	if !s.begin() {
		return false
	}
	go func() {
		defer s.wg.Done()
		f()
	}()
	return true
}

// track has Close close c. It closes it itself once the server is closed.
func (s *Server) track(c io.Closer) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.open[c] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		c.Close()
	}
}

func (s *Server) untrack(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// accept hands connections to handle, each in a goroutine.
func (s *Server) accept(l *limited, handle func(*conn)) {
	s.run(func() {
		for {
			c, err := l.accept()
			if err != nil {
				return
			}
			if !s.run(func() { handle(c) }) {
				c.Close()
			}
		}
	})
}

// serveHTTP serves HTTP requests.
func (s *Server) serveHTTP(l net.Listener, h http.Handler) {
	var counted sync.Map
	server := &http.Server{
		Handler: s.counted(h), ReadHeaderTimeout: startTime, IdleTimeout: s.cfg.Idle, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(io.Discard, "", 0), ConnContext: connContext, BaseContext: func(net.Listener) context.Context { return s.ctx },
		// Close of http.Server does not wait for its goroutines.
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				if s.begin() {
					counted.Store(c, nil)
				}
			case http.StateClosed, http.StateHijacked:
				if _, ok := counted.LoadAndDelete(c); ok {
					s.wg.Done()
				}
			}
		},
	}
	s.track(server)
	s.run(func() { server.Serve(l) })
}

// counted has Close wait for every request, also those that hijack.
func (s *Server) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.begin() {
			defer s.wg.Done()
			h.ServeHTTP(w, r)
		}
	})
}

// dial connects to the outside. Close ends it and waits for it.
func (s *Server) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !s.begin() {
		return nil, net.ErrClosed
	}
	defer s.wg.Done()
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	c, err := s.cfg.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return s.newConn(c, func() {}), nil
}

// conn is a connection that Close closes.
type conn struct {
	net.Conn
	s     *Server
	idle  *time.Timer // closes it when nothing has passed for long
	once  sync.Once
	after func()
}

func (s *Server) newConn(c net.Conn, after func()) *conn {
	tracked := &conn{Conn: c, s: s, after: after, idle: time.AfterFunc(s.cfg.Idle, func() { c.Close() })}
	s.track(tracked)
	return tracked
}

// heard is that something passes.
func (c *conn) heard() { c.idle.Reset(c.s.cfg.Idle) }

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard()
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.heard()
	}
	return n, err
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.idle.Stop()
		c.after()
		c.s.untrack(c)
	})
	return err
}

// CloseWrite ends what is written, where the connection can say so.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// linger hears out a client that sends more than was read: a reset would take
// the last answer from it.
func linger(c *conn) {
	if c.CloseWrite() == nil {
		c.SetReadDeadline(time.Now().Add(lingerTime))
		io.CopyN(io.Discard, c, maxHeader)
	}
}

// limited closes connections that are too many.
type limited struct {
	net.Listener
	s      *Server
	shares *share.Shares
}

func (s *Server) limit(l net.Listener) *limited {
	limited := &limited{Listener: l, s: s, shares: share.New(s.cfg.Max)}
	s.track(limited)
	return limited
}

func (l *limited) Accept() (net.Conn, error) { return l.accept() }

// accept fails when nothing more will come.
func (l *limited) accept() (*conn, error) {
	for {
		c, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil { // no descriptor is free, or the like: it passes
			select {
			case <-l.s.ctx.Done():
				return nil, net.ErrClosed
			case <-time.After(acceptPause):
				continue
			}
		}
		if from := share.Of(c); l.shares.Take(from) {
			return l.s.newConn(c, func() { l.shares.Give(from) }), nil
		}
		c.Close()
	}
}

// relay copies between two connections until both directions have ended. It
// closes both.
func relay(a, b net.Conn) {
	defer a.Close()
	defer b.Close()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			if _, err := io.Copy(way[1], way[0]); err != nil {
				a.Close()
				b.Close()
				return
			}
			way[1].(interface{ CloseWrite() error }).CloseWrite()
		})
	}
	wg.Wait()
}
