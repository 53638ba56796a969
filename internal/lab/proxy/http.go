package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"time"
)

// httpProxy is a proxy that its clients know of (RFC 9110 sections 3.7 and
// 9.3.6).
func (s *Server) httpProxy() http.Handler {
	plain := s.forward(func(*httputil.ProxyRequest) {})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodConnect:
			s.connect(w, r)
		case r.URL.Scheme == "http" && r.URL.Host != "":
			plain.ServeHTTP(w, r)
		default:
			http.Error(w, "this is a proxy", http.StatusBadRequest)
		}
	})
}

// forward passes requests on, without what belongs to one hop alone.
func (s *Server) forward(rewrite func(*httputil.ProxyRequest)) *httputil.ReverseProxy {
	transport := &http.Transport{
		DialContext: s.dialFor, DisableCompression: true, MaxConnsPerHost: s.cfg.Max, MaxIdleConns: s.cfg.Max,
		IdleConnTimeout: time.Minute, ResponseHeaderTimeout: s.cfg.Idle, MaxResponseHeaderBytes: maxHeader,
	}
	s.track(&closer{transport.CloseIdleConnections})
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			rewrite(r)
			r.Out = r.Out.WithContext(context.WithValue(r.Out.Context(), requestKey{}, r.In.Context()))
			r.Out.URL.RawQuery = r.In.URL.RawQuery // as it is, also where Go would not read it so
			// What is said of proxies before this one is not ours to drop, as Go does.
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if said, ok := r.In.Header[name]; ok {
					r.Out.Header[name] = said
				}
			}
			r.Out.Header.Add("Via", "1.1 gateway") // RFC 9110 section 7.6.3
		},
		Transport: transport, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { refuse(w, err) },
	}
}

// requestKey leads from what a Transport dials with to the context of the request.
type requestKey struct{}

// dialFor dials for a request, and no longer than that: a Transport goes on
// without it, so that who comes and goes would have dials without a bound.
func (s *Server) dialFor(ctx context.Context, network, address string) (net.Conn, error) {
	request := ctx.Value(requestKey{}).(context.Context)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(request, cancel)()
	return s.dial(ctx, network, address)
}

func refuse(w http.ResponseWriter, err error) {
	var late net.Error
	switch {
	case errors.Is(err, ErrForbidden):
		http.Error(w, "nobody may go there", http.StatusForbidden)
	case errors.As(err, &late) && late.Timeout():
		http.Error(w, "the other end does not answer in time", http.StatusGatewayTimeout)
	default:
		http.Error(w, "the other end does not answer", http.StatusBadGateway)
	}
}

// closer is a function to call at Close.
type closer struct{ f func() }

func (c *closer) Close() error { c.f(); return nil }

// connect answers CONNECT, and relays.
func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	if _, _, err := net.SplitHostPort(r.Host); err != nil {
		http.Error(w, "no such port", http.StatusBadRequest)
		return
	}
	remote, err := s.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		refuse(w, err)
		return
	}
	client, rest, err := http.NewResponseController(w).Hijack()
	if err != nil {
		remote.Close()
		return
	}
	client.SetDeadline(time.Time{})
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		client.Close()
		remote.Close()
		return
	}
	relay(buffered{client.(*conn), rest.Reader}, remote)
}

// buffered is a connection of which something has been read already.
type buffered struct {
	*conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) {
	if b.r.Buffered() > 0 {
		return b.r.Read(p)
	}
	return b.conn.Read(p)
}

type connKey struct{}

// connContext lets handlers see their connection.
func connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}
