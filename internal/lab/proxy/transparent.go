package proxy

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

// transparent serves connections that were to go elsewhere: HTTP requests on
// port 80, TLS on the other ports.
func (s *Server) transparent(l *limited) {
	web := newHandover(l.Addr())
	s.track(web)
	s.serveHTTP(web, s.webProxy())
	s.accept(l, func(c *conn) { s.redirected(c, web) })
}

func (s *Server) redirected(c *conn, web *handover) {
	remote, ok := s.cfg.Original(addrPort(c.RemoteAddr()))
	switch {
	case !ok:
		c.Close()
	case remote.Port() == 80:
		web.give(intended{c, remote})
	default:
		s.tls(c, remote)
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	e, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(e.Addr().Unmap(), e.Port())
}

// tls relays what begins like TLS: a handshake record (RFC 8446 section 5.1).
func (s *Server) tls(c *conn, to netip.AddrPort) {
	defer c.Close()
	r := bufio.NewReader(c)
	c.SetReadDeadline(time.Now().Add(startTime))
	if start, err := r.Peek(6); err != nil || start[0] != 22 || start[1] != 3 || start[5] != 1 {
		return
	}
	c.SetReadDeadline(time.Time{})
	remote, err := s.dial(s.ctx, "tcp", to.String())
	if err != nil {
		return
	}
	relay(buffered{c, r}, remote)
}

// webProxy forwards requests to where their connections were to go.
func (s *Server) webProxy() http.Handler {
	forward := s.forward(func(r *httputil.ProxyRequest) {
		to := r.In.Context().Value(connKey{}).(intended).remote
		r.Out.URL = &url.URL{Scheme: "http", Host: to.String(), Path: r.In.URL.Path, RawPath: r.In.URL.RawPath}
		r.Out.Host = r.In.Host
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			http.Error(w, "this is no proxy that you know of", http.StatusMethodNotAllowed)
			return
		}
		forward.ServeHTTP(w, r)
	})
}

// intended is a connection, and where it was to go.
type intended struct {
	*conn
	remote netip.AddrPort
}

// handover is a listener for connections that come from another one.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error   { h.once.Do(func() { close(h.done) }); return nil }
func (h *handover) Addr() net.Addr { return h.addr }
