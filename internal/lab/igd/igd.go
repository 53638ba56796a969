// Package igd serves the HTTP half of a gateway's UPnP: what its machine says,
// over whatever listener the driver of the gateway has.
package igd

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"

	"github.com/bodkin-net/bodkin/internal/lab/share"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// Machine is the part of a router that answers requests. It is called from
// many goroutines.
type Machine func(portmap.HTTPRequest) portmap.Response

// Who connects and says nothing is not waited for, nor who does not read what
// he has asked for.
const (
	requestTime = 10 * time.Second
	answerTime  = 10 * time.Second
	idleTime    = time.Minute
	maxConns    = 64 // at once; others wait. Of one address, a quarter; more are closed
)

// Server serves one gateway.
type Server struct {
	http http.Server
	done chan struct{}
}

// Serve answers what comes to l until Close.
func Serve(l net.Listener, m Machine) *Server {
	s := &Server{done: make(chan struct{}), http: http.Server{
		Handler: m, ReadTimeout: requestTime, IdleTimeout: idleTime, MaxHeaderBytes: portmap.MaxBody,
		ErrorLog: log.New(io.Discard, "", 0),
	}}
	go func() {
		defer close(s.done)
		s.http.Serve(share.Listener(netutil.LimitListener(l, maxConns), share.New(maxConns)))
	}()
	return s
}

// Close ends every connection, and waits.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	if errors.Is(err, net.ErrClosed) {
		return nil // the listener went first
	}
	return err
}

func (m Machine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, "", http.StatusBadRequest)
		return
	}
	// One byte more than may be, which the machine then refuses.
	body, err := io.ReadAll(io.LimitReader(r.Body, portmap.MaxBody+1))
	if err != nil {
		return // the client is gone, or too slow
	}
	answer := m(portmap.HTTPRequest{
		From:   netip.AddrPortFrom(from.Addr().Unmap(), from.Port()),
		Method: r.Method, Path: r.URL.Path, Host: r.Host, SOAPAction: r.Header.Get("SOAPAction"), Body: body,
	})
	if answer.After > 0 {
		t := time.NewTimer(answer.After)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		}
	}
	// From now on, not from when the request came: the answer was held back.
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	if answer.Type != "" {
		w.Header().Set("Content-Type", answer.Type)
	}
	w.WriteHeader(answer.Status)
	w.Write(answer.Body)
}
