// Package link makes secured paths between two peers: QUIC over a packet path,
// TLS 1.3 over a stream path. Both ends prove the key that is their identity in
// the handshake; no certificate authority has a say.
//
// A link carries session frames (package frame), and lays them out so:
//
// QUIC. Each end opens unidirectional streams only. The first byte of a stream
// is its kind:
//
//	0x00  control lane: all frames but DATA; one in each direction, for as
//	      long as the link lives
//	0x01  data lane: stream v | offset v | bytes of that session stream, as
//	      package frame says; one for each run of contiguous bytes
//
// TLS. One pipe of frames. Type 0x80, which sessions skip, is the link's own:
// its body is the reason for which the link closes.
package link

import (
	"net"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// Link is a secured path to a peer that has proved its identity.
type Link interface {
	Peer() identity.ID
	RemoteAddr() net.Addr
	Transport() string // "udp" or "tcp"

	// Send sends one frame and blocks while the path is full. Nothing of the
	// frame is kept after return. DATA of one session stream must be sent in
	// order of offset, except that a new run may start anywhere. One goroutine
	// may send DATA while another sends other frames.
	Send(f frame.Frame) error

	// Receive hands every frame to h until the link ends, and returns why. It
	// must be called once, and must run for the link to make progress. h is
	// called by several goroutines, but never by two at a time; it must not
	// block, nor keep the frame's memory. DATA comes in pieces of any size. The
	// frames of the control lane keep their order, and so does DATA of one run;
	// between those there is no order, but that DATA never comes before the first
	// other frame, which says what the link is for. An error of h ends the link as a
	// protocol error of the peer.
	Receive(h func(frame.Frame) error) error

	// RTT is the latest estimate of the round trip between both ends.
	RTT() time.Duration

	// Close tells the peer the reason, best effort, and ends the link. It does
	// not wait for what was sent to arrive. Only the first call counts.
	Close(reason string) error
	// Done is closed when the link has ended, by whichever side.
	Done() <-chan struct{}
	// Err is nil before that, and an *EndError afterwards.
	Err() error
}
