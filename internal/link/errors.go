package link

import (
	"errors"
	"fmt"

	"github.com/bodkin-net/bodkin/internal/identity"
)

var (
	// ErrWrongPeer is matched by the error for an end that proved another
	// identity than the one expected, or one that is not admitted here.
	ErrWrongPeer = errors.New("wrong peer")
	// ErrCertificate is matched by the error for an end whose certificate is
	// not that of a peer.
	ErrCertificate = errors.New("not a peer's certificate")
	// ErrProtocol is matched by the end of a link by CausePeer.
	ErrProtocol = errors.New("protocol violation")
)

// WrongPeerError says who answered instead. It matches ErrWrongPeer.
type WrongPeerError struct {
	Want identity.ID // zero when the listening end did not admit Got
	Got  identity.ID
}

func (e *WrongPeerError) Error() string {
	if e.Want == (identity.ID{}) {
		return fmt.Sprintf("%v: %v is not admitted", ErrWrongPeer, e.Got)
	}
	return fmt.Sprintf("%v: asked for %v, found %v", ErrWrongPeer, e.Want, e.Got)
}

func (e *WrongPeerError) Is(target error) bool { return target == ErrWrongPeer }

// Cause tells who ended a link.
type Cause uint8

const (
	CauseLocal  Cause = iota + 1 // Close was called here
	CauseRemote                  // the peer closed, or refused
	CausePeer                    // the peer broke the rules, and we closed
	CausePath                    // the path broke: nobody closed
)

func (c Cause) String() string {
	switch c {
	case CauseLocal:
		return "closed here"
	case CauseRemote:
		return "closed by the peer"
	case CausePeer:
		return "peer broke the protocol"
	case CausePath:
		return "path broke"
	}
	return "unknown"
}

// EndError says why a link ended.
type EndError struct {
	Cause  Cause
	Reason string // what was, or is, told to the other end; may be empty
	Err    error  // what lies beneath; may be nil
}

func (e *EndError) Error() string {
	switch {
	case e.Reason != "":
		return fmt.Sprintf("link: %v: %s", e.Cause, e.Reason)
	case e.Err != nil:
		return fmt.Sprintf("link: %v: %v", e.Cause, e.Err)
	}
	return fmt.Sprintf("link: %v", e.Cause)
}

func (e *EndError) Unwrap() error { return e.Err }

func (e *EndError) Is(target error) bool { return target == ErrProtocol && e.Cause == CausePeer }

// violation describes what the peer did wrong.
func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
