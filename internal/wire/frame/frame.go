// Package frame is the language of a session: what its two ends say to one
// another on every link.
//
// In a pipe (a TLS link, or the control lane of a QUIC link) each frame is
//
//	type u8 | length u24, big endian | body [length]
//
// Numbers in bodies are variable-length integers as in RFC 9000 section 16
// ("v" below), except where a size is given:
//
//	 1 HELLO    session [16] | attempt [8] | flags u8 (1: a new session)
//	 2 RESUME   epoch v | opened v | accepted v | streams v | count v | count x entry
//	            entry: stream v | flags u8 (1: done) | received v | limit v, ascending by stream
//	 3 OPEN     stream v
//	 4 DATA     stream v | offset v | payload [1..65536]
//	 5 ACK      stream v | flags u8 (1: done) | received v | limit v
//	 6 FIN      stream v | final v
//	 7 RESET    stream v | code v
//	 8 PING     n v
//	 9 PONG     n v
//	10 CLOSE    code v | text, UTF-8 without control characters [0..256], to the end of the body
//	11 LOST     epoch v
//	12 STREAMS  streams v
//
// A type that is not known is an error below 0x80 and skipped from 0x80 on,
// so that later versions can say more to those who understand it.
//
// On a QUIC link DATA is no frame. It travels in lanes, unidirectional QUIC
// streams, each of which carries consecutive bytes of one session stream:
//
//	stream v | offset v (of the first byte) | bytes ...
//
// What the frames mean, and the order in which they may come, is written in
// the package session.
package frame

import (
	"errors"
	"fmt"
)

// Type says what a frame is about and which of its fields count.
type Type uint8

const (
	HELLO Type = 1 + iota
	RESUME
	OPEN
	DATA
	ACK
	FIN
	RESET
	PING
	PONG
	CLOSE
	LOST
	STREAMS
)

var names = [...]string{
	HELLO: "HELLO", RESUME: "RESUME", OPEN: "OPEN", DATA: "DATA", ACK: "ACK", FIN: "FIN",
	RESET: "RESET", PING: "PING", PONG: "PONG", CLOSE: "CLOSE", LOST: "LOST", STREAMS: "STREAMS",
}

func (t Type) String() string {
	if int(t) < len(names) && names[t] != "" {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

const (
	HeaderLen  = 4         // type and length
	MaxData    = 64 << 10  // payload of one DATA frame
	MaxControl = 32 << 10  // body of any other frame
	MaxEntries = 1024      // entries of a RESUME
	MaxText    = 256       // bytes of a CLOSE's text
	MaxLane    = 16        // header of a lane
	MaxOffset  = 1<<60 - 1 // of a byte in a stream; final sizes and limits obey it too
	MaxStream  = 1<<32 - 1 // number of a stream
	MaxNumber  = maxVarint // everything else
)

// NewSession in Frame.Flags: the sender has had no answer in this session
// yet, so a peer that does not know it starts it. Without it, such a peer
// answers CLOSE with UnknownSession.
const NewSession = 1

// Codes of CLOSE. From AppCode on they belong to whoever uses the session.
// RESET's codes are the user's alone.
const (
	NoError        = 0
	UnknownSession = 1 // the process that knew this session is gone
	ProtocolError  = 2
	Refused        = 3 // this peer may not connect
	Timeout        = 4 // no link for too long
	GoingAway      = 5
	InternalError  = 6
	AppCode        = 256
)

// Frame is any frame; Type says which fields count:
//
//	HELLO    Session, Attempt, Flags
//	RESUME   Epoch, Opened, Accepted, Limit (streams the peer may open in all), Entries
//	OPEN     Stream
//	DATA     Stream, Offset, Data
//	ACK      Stream, Offset (received), Limit, Done
//	FIN      Stream, Offset (the final size)
//	RESET    Stream, Code
//	PING     N
//	PONG     N
//	CLOSE    Code, Text
//	LOST     Epoch
//	STREAMS  Limit
type Frame struct {
	Type     Type
	Flags    uint8
	Done     bool
	Epoch    uint32
	Stream   uint64
	Offset   uint64
	Limit    uint64
	Code     uint64
	N        uint64
	Opened   uint64 // streams that the sender has opened so far
	Accepted uint64 // streams of the receiver's that the sender has heard of so far
	Data     []byte // aliases what was parsed
	Entries  []Entry
	Text     string
	Session  [16]byte
	Attempt  [8]byte
}

// Entry is what the sender of a RESUME has received of one stream.
type Entry struct {
	Stream   uint64
	Received uint64
	Limit    uint64
	Done     bool
}

// ErrMalformed is wrapped by every error about bytes that are no frame.
var ErrMalformed = errors.New("malformed frame")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
