package bodkin

import (
	"errors"
	"fmt"
)

// Code names the kind of an error. It never changes its meaning, so programs
// may compare it: errors.Is(err, bodkin.NoAnswer).
type Code string

const (
	// ServerUnreachable: no rendezvous server answered, over UDP or TCP.
	ServerUnreachable Code = "server-unreachable"
	// WrongServer: what answers there does not own the pinned identity.
	WrongServer Code = "wrong-server"
	// PeerNotFound: the server knows no node with this id just now.
	PeerNotFound Code = "peer-not-found"
	// PeerRefused: the peer is there and does not accept this node.
	PeerRefused Code = "peer-refused"
	// NoAnswer: the server passed the request on and nothing came back.
	NoAnswer Code = "no-answer"
	// NoDirectPath: DirectOnly was asked for and no hole could be made.
	NoDirectPath Code = "no-direct-path"
	// PeerLost: the connection stood, and no path to the peer answers any more.
	PeerLost Code = "peer-lost"
	// PeerClosed: the peer ended the connection before the stream's end.
	PeerClosed Code = "peer-closed"
	// Busy: the server or the peer has too many requests of this node to serve.
	Busy Code = "busy"
	// Displaced: another process registered with this node's key after it, and
	// peers find that one. The node is found again when the other one is gone.
	Displaced Code = "displaced"
	// Closed: this node or connection was closed on this side.
	Closed Code = "closed"
	// BadConfig: the configuration cannot be used as it is.
	BadConfig Code = "bad-config"
)

func (c Code) Error() string { return string(c) }

// Error is what the package's functions return, except for deadlines
// (os.ErrDeadlineExceeded), the caller's context and io.EOF.
type Error struct {
	Code Code
	Text string // one line
	Hint string // what may help; often empty
	// Remote: the cause lies with the peer or the server, not with this node.
	Remote bool
	Err    error // what it came from, or nil
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Text, e.Err)
	}
	return e.Text
}

// Unwrap makes errors.Is find the code as well as the cause.
func (e *Error) Unwrap() []error {
	if e.Err != nil {
		return []error{e.Code, e.Err}
	}
	return []error{e.Code}
}

// errorCode is the code of any error of this package, "" for others.
func errorCode(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
