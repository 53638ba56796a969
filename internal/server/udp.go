package server

import (
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

const lastSTUN = 0x03 // first bytes up to here are STUN's (RFC 9443)

// serveUDP reads the socket until it is closed.
func (s *Server) serveUDP(sock int) error {
	r := s.sockets[sock].reader()
	o := newOutbox(s.sockets)
	for {
		in, err := r.read()
		if err != nil {
			return err
		}
		s.serveBatch(sock, in, o)
	}
}

// serveBatch handles the datagrams of one read. It takes the lock at the first
// one that needs the machine, and keeps it for the rest of the batch.
func (s *Server) serveBatch(sock int, in []datagram, o *outbox) {
	var now time.Time
	locked := false
	lock := func() {
		if !locked {
			s.mu.Lock()
			now = time.Now()
			locked = true
		}
	}
	for _, d := range in {
		if len(d.b) == 0 {
			continue
		}
		switch first := d.b[0]; {
		case first <= lastSTUN:
			s.answerSTUN(sock, d, o)
		case first == wire.First:
			lock()
			s.handle(now, o, rendezvous.Addr{Endpoint: d.addr}, sock, d.b)
		case first == relay.First:
			lock()
			if to, ok := s.machine.RelayTarget(now, d.addr, d.b); ok {
				if by := s.routes.to(to); by >= 0 {
					o.add(by, to, d.b)
				}
			}
		}
	}
	if locked {
		s.armTimer()
		s.mu.Unlock()
	}
	s.count.packetsIn.Add(uint64(len(in)))
	s.flush(o)
}

// answerSTUN answers a Binding request. An error is owed only where it is not
// louder than the request; success is owed to every request.
func (s *Server) answerSTUN(sock int, d datagram, o *outbox) {
	start := len(o.arena)
	arena, ok := stun.AppendBindingResponse(o.arena, d.b, d.addr)
	if !ok {
		return
	}
	answer := arena[start:]
	if len(answer) > len(d.b) && isBindingError(answer) {
		return
	}
	o.arena = arena
	o.add(sock, d.addr, answer)
	s.count.stun.Add(1)
}

func isBindingError(b []byte) bool {
	return stun.Type(b[0])<<8|stun.Type(b[1]) == stun.BindingError
}
