package main

import (
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/sim"
	"github.com/bodkin-net/bodkin/internal/wire/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

// demoLog prints the steps of a connection with the time since the start.
type demoLog struct {
	mu      sync.Mutex
	out     io.Writer
	start   time.Time
	failed  error
	checks  int  // shown so far
	relayed bool // said that the relay carries
	direct  map[string]bool
}

// maxChecks is how many checks of the hole punching are shown; those that
// watch the path later are all alike.
const maxChecks = 40

func newDemoLog(out io.Writer) *demoLog {
	return &demoLog{out: out, start: time.Now(), direct: make(map[string]bool)}
}

func (l *demoLog) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line(time.Now(), "", fmt.Sprintf(format, args...))
}

func (l *demoLog) line(at time.Time, who, what string) {
	if _, err := fmt.Fprintf(l.out, "%7.1f ms  %-8s %s\n", float64(at.Sub(l.start))/float64(time.Millisecond), who, what); err != nil && l.failed == nil {
		l.failed = err
	}
}

func (l *demoLog) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// event shows what a node tells.
func (l *demoLog) event(name string, e bodkin.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.Type {
	case bodkin.EventRegistered:
		l.line(e.Time, name, "is registered: the server knows its public endpoint")
	case bodkin.EventRequest:
		l.line(e.Time, name, "is asked for by a")
	case bodkin.EventStream:
		l.line(e.Time, name, "has the stream")
	case bodkin.EventPath:
		l.direct[name] = e.Path.Kind == bodkin.Direct
		l.line(e.Time, name, fmt.Sprintf("PATH IN USE: %v", e.Path))
	case bodkin.EventAttempt:
		l.line(e.Time, name, fmt.Sprintf("%s %s: %s", e.Technique, e.Result, e.Reason))
	}
}

// packet shows the packets that make the connection come about: as they leave a
// host, and where a NAT drops them.
func (l *demoLog) packet(e sim.TraceEvent) {
	if e.Kind != sim.Sent && e.Kind != sim.Dropped || len(e.Payload) == 0 {
		return
	}
	host := e.Port == "a" || e.Port == "b" || e.Port == "s"
	if e.Kind == sim.Sent && !host {
		return // a NAT passing it on
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	what := l.describe(e)
	if what == "" {
		return
	}
	if e.Kind == sim.Dropped {
		l.line(e.Time, e.Port, fmt.Sprintf("  x DROPS the %s from %s: %s", what, place(e.Src), e.Reason))
		return
	}
	l.line(e.Time, e.Port, fmt.Sprintf("-> %-15s %s", place(e.Dst), what))
}

// describe names a packet; "" is one that is not shown.
func (l *demoLog) describe(e sim.TraceEvent) string {
	switch b := e.Payload; {
	case b[0] == rendezvous.First:
		if t, _, ok := rendezvous.Header(b); ok && t != rendezvous.TypeKeepAlive && t != rendezvous.TypeAlive {
			return t.String()
		}
	case b[0] <= 3:
		return l.check(b)
	case b[0] == 5 && !l.relayed:
		l.relayed = true
		return "first relayed packet: the handshake, on the heels of the request"
	}
	return ""
}

func (l *demoLog) check(b []byte) string {
	m, err := stun.Parse(b)
	if err != nil || l.checks >= maxChecks || l.direct["a"] && l.direct["b"] {
		return ""
	}
	l.checks++
	size := ""
	if m.Len() >= 1200 {
		size = "full-size "
	}
	switch {
	case m.Type == stun.BindingSuccess:
		return size + "answer to a check"
	case m.Has(stun.UseCandidate):
		return size + "check: \"this path\""
	}
	return size + "check"
}

// place names an endpoint of the demo.
func place(at netip.AddrPort) string {
	names := map[netip.Addr]string{
		scenario.ServerAddr:   "s",
		scenario.GatewayAAddr: "a's NAT",
		scenario.GatewayBAddr: "b's NAT",
	}
	if name, ok := names[at.Addr()]; ok {
		return name
	}
	return at.String()
}
