package rendezvous

import (
	"net/netip"
	"time"
)

// Server is the rendezvous server's machine.
type Server struct{ cfg ServerConfig }

// NewServer makes a server that knows nobody yet.
func NewServer(cfg ServerConfig) *Server { return &Server{cfg: cfg.withDefaults()} }

// HandlePacket handles a rendezvous message. The work is bounded; b is not kept.
func (s *Server) HandlePacket(now time.Time, from Addr, b []byte) {}

// RelayTarget tells where to forward a relayed packet, unchanged.
func (s *Server) RelayTarget(now time.Time, from netip.AddrPort, b []byte) (to netip.AddrPort, ok bool) {
	return netip.AddrPort{}, false
}

// StreamRelay authenticates a stream relay's preface: side 0 asked for the
// relay, side 1 is the target.
func (s *Server) StreamRelay(now time.Time, preface []byte) (relay RelayID, side int, err error) {
	return RelayID{}, 0, nil
}

// ConnClosed forgets the peer that was registered over the connection.
func (s *Server) ConnClosed(now time.Time, conn uint64) {}

// Poll returns the next message to send.
func (s *Server) Poll() (Out, bool) { return Out{}, false }

// PollSlot returns the next slot that changed, as it is now.
func (s *Server) PollSlot() (Slot, bool) { return Slot{}, false }

// NextTimeout tells when HandleTimeout is to be called next, if ever.
func (s *Server) NextTimeout() (time.Time, bool) { return time.Time{}, false }

// HandleTimeout ends what is over, a bounded amount of it per call.
func (s *Server) HandleTimeout(now time.Time) {}

// Stats returns the counters.
func (s *Server) Stats() Stats { return Stats{} }
