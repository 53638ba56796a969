package session

import (
	"errors"
	"fmt"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// StreamID names a stream: even ones were opened by the controller.
type StreamID uint64

// LinkID names a link. The shell chooses it and never uses one twice.
type LinkID uint64

// Config is what a session starts with; the zero value of every field works.
type Config struct {
	Controller bool     // this end began the session and decides which link is in use
	Session    [16]byte // the same at both ends

	Window     int           // bytes of one stream and direction in flight or unread; 8 MiB
	Memory     int           // bytes of all streams of one direction; 64 MiB
	MaxStreams int           // streams that each end may have open at once; 256, from 16 to 512
	Linger     time.Duration // how long Close waits for the peer to have everything; 10 s
}

const (
	initialWindow  = 64 << 10 // what either end may send of a stream before it hears a limit
	initialStreams = 16       // what either end may open before it hears a limit
	ackEvery       = 256 << 10
	ackDelay       = 25 * time.Millisecond
	pingBusy       = time.Second      // link in use, something unacknowledged
	pingOpen       = 2 * time.Second  // link in use, while there are streams
	pingIdle       = 15 * time.Second // any link
	doubtAfter     = time.Second      // the link in use is late: the others are asked too
	deadAfter      = 3 * time.Second  // an expectation without a frame
	closeWait      = 3 * time.Second  // for the answer to a CLOSE
	maxLinks       = 16
	maxStreams     = frame.MaxEntries / 2 // both ends' streams fit one RESUME
)

func (c Config) withDefaults() Config {
	c.Window = or(c.Window, 8<<20)
	c.Memory = or(c.Memory, 64<<20)
	c.Linger = or(c.Linger, 10*time.Second)
	c.MaxStreams = min(max(or(c.MaxStreams, 256), initialStreams), maxStreams)
	c.Window = max(c.Window, initialWindow)
	return c
}

func or[T int | time.Duration](x, otherwise T) T {
	if x <= 0 {
		return otherwise
	}
	return x
}

var (
	ErrClosed      = errors.New("session closed")
	ErrWriteClosed = errors.New("stream closed for writing")
	ErrReadClosed  = errors.New("stream closed for reading")
	ErrStopped     = errors.New("the peer stopped reading the stream")
	ErrNoStream    = errors.New("no such stream")
	ErrStreams     = errors.New("the peer allows no more streams now")
)

// ResetError is what reading a stream gives that the peer has reset.
type ResetError struct{ Code uint64 }

func (e *ResetError) Error() string { return fmt.Sprintf("stream reset by the peer, code %d", e.Code) }

// CloseError is why a session that this end did not close is over.
type CloseError struct {
	Code   uint64 // frame.NoError ...
	Text   string
	Remote bool // the peer's word; else this end found the peer at fault
}

func (e *CloseError) Error() string {
	who := "session closed"
	if e.Remote {
		who = "session closed by the peer"
	}
	if e.Text == "" {
		return fmt.Sprintf("%s, code %d", who, e.Code)
	}
	return fmt.Sprintf("%s, code %d: %s", who, e.Code, e.Text)
}

func (e *CloseError) Is(target error) bool { return target == ErrClosed }
