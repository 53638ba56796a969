package portmap

import (
	"net/netip"
	"strings"
	"time"
)

// HTTPRequest is a request for the gateway, Response the answer. Who drives
// the machine speaks HTTP.
type HTTPRequest struct {
	From       netip.AddrPort
	Method     string
	Path       string
	Host       string // the header
	SOAPAction string // the header
	Body       []byte
}

type Response struct {
	Status int
	// Type is the Content-Type; empty without a body.
	Type string
	Body []byte
	// After is how long the answer is to be held back.
	After time.Duration
}

// MaxBody is what a request's body may have at most.
const MaxBody = 16 << 10

const textXML = `text/xml; charset="utf-8"`

// HTTP answers a request: the description of the device and its services, and
// the SOAP actions. It serves the inside alone, under the gateway's address
// alone: no web page may have a browser ask us under a name of its own.
func (m *Machine) HTTP(now time.Time, r HTTPRequest) Response {
	m.advance(now)
	answer := m.serve(r)
	answer.After = m.cfg.Delay
	if len(answer.Body) > 0 {
		answer.Type = textXML
	}
	return answer
}

func (m *Machine) serve(r HTTPRequest) Response {
	host, _, _ := strings.Cut(r.Host, ":")
	switch {
	case !m.cfg.UPnP:
		return Response{Status: 404}
	case !m.isClient(r.From.Addr()):
		return Response{Status: 403}
	case host != m.cfg.Addr.String():
		return Response{Status: 400}
	case len(r.Body) > MaxBody:
		return Response{Status: 413}
	}
	if r.Path == rootPath {
		return get(r.Method, m.describeDevice)
	}
	for _, s := range services {
		switch r.Path {
		case s.scpdPath():
			return get(r.Method, func() []byte { return m.describeService(s) })
		case s.controlPath():
			if r.Method != "POST" {
				return Response{Status: 405}
			}
			return m.soap(s, r)
		}
	}
	return Response{Status: 404}
}

func get(method string, page func() []byte) Response {
	if method != "GET" && method != "HEAD" {
		return Response{Status: 405}
	}
	return Response{Status: 200, Body: page()}
}
