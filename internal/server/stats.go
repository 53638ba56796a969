package server

import (
	"sync/atomic"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
)

// Stats are counters since the start, but for what there is now: Peers, Relays,
// Conns, HalfOpen and StreamRelays.
type Stats struct {
	rendezvous.Stats

	PacketsIn, PacketsOut uint64 // UDP datagrams
	BindingAnswers        uint64 // STUN, over UDP and TCP

	Conns, HalfOpen int    // TCP connections, and those of them that proved nothing yet
	Accepted        uint64 // TCP connections ever
	Refused         uint64 // of them, over a limit: at once, or to make room
	SlowReaders     uint64 // cut because they did not read

	StreamRelays int
	StreamBytes  uint64 // relayed over TCP
}

type counters struct {
	packetsIn, packetsOut, stun    atomic.Uint64
	accepted, refused, slowReaders atomic.Uint64
	streamRelays                   atomic.Int64
	streamBytes                    atomic.Uint64
}

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	machine := s.machine.Stats()
	s.mu.Unlock()
	conns, half := s.admission.counts()
	return Stats{
		Stats:          machine,
		PacketsIn:      s.count.packetsIn.Load(),
		PacketsOut:     s.count.packetsOut.Load(),
		BindingAnswers: s.count.stun.Load(),
		Conns:          conns,
		HalfOpen:       half,
		Accepted:       s.count.accepted.Load(),
		Refused:        s.count.refused.Load(),
		SlowReaders:    s.count.slowReaders.Load(),
		StreamRelays:   int(s.count.streamRelays.Load()),
		StreamBytes:    s.count.streamBytes.Load(),
	}
}
