package link

import (
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

const (
	typeClose = 0x80 // the link's own frame: why it closes

	recordLen = 16 << 10 // the largest plaintext of a TLS record
	pipeLen   = 64 << 10 // read at once; at least HeaderLen + MaxControl

	// How long Close may wait for the peer to take the reason.
	closeTimeout = 250 * time.Millisecond
)

type tlsLink struct {
	tls  *tls.Conn
	conn *corkedConn
	peer identity.ID
	rtt  time.Duration

	write struct {
		sync.Mutex
		buf []byte
	}

	once sync.Once
	end  error
	done chan struct{}
}

func newTLSLink(c *corkedConn, t *tls.Conn, peer identity.ID, rtt time.Duration) *tlsLink {
	return &tlsLink{tls: t, conn: c, peer: peer, rtt: rtt, done: make(chan struct{})}
}

func (l *tlsLink) Peer() identity.ID     { return l.peer }
func (l *tlsLink) Transport() string     { return "tcp" }
func (l *tlsLink) RemoteAddr() net.Addr  { return l.conn.RemoteAddr() }
func (l *tlsLink) Done() <-chan struct{} { return l.done }

// RTT is that of the handshake, which a stream relay does not cut in two as it
// does what TCP measures.
func (l *tlsLink) RTT() time.Duration { return l.rtt }

func (l *tlsLink) Err() error {
	select {
	case <-l.done:
		return l.end
	default:
		return nil
	}
}

// finish ends the link with err, unless it has ended before. A reason is told
// to the peer.
func (l *tlsLink) finish(end error, reason string, tell bool) error {
	l.once.Do(func() {
		l.end = end
		close(l.done)
		if tell {
			l.tell(reason)
		}
		l.conn.Close()
	})
	return l.Err()
}

// tell sends the reason, unless the pipe is full.
func (l *tlsLink) tell(reason string) {
	if !l.write.TryLock() {
		return
	}
	defer l.write.Unlock()
	l.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	b := append([]byte{typeClose, 0, byte(len(reason) >> 8), byte(len(reason))}, reason...)
	l.tls.Write(b)
}

func (l *tlsLink) Close(reason string) error {
	reason = printable(reason)
	l.finish(&EndError{Cause: CauseLocal, Reason: reason}, reason, true)
	return nil
}

func (l *tlsLink) Send(f frame.Frame) error {
	if f.Type == frame.DATA && len(f.Data) == 0 {
		return nil
	}
	w := &l.write
	w.Lock()
	defer w.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	w.buf = frame.AppendHeader(w.buf[:0], &f)
	rest := f.Data
	if f.Type != frame.DATA {
		rest = nil
	}
	// The first record is put together from header and data; the others are cut
	// out of the data as they are.
	n := min(len(rest), recordLen-len(w.buf))
	w.buf = append(w.buf, rest[:n]...)
	rest = rest[n:]
	if len(rest) == 0 {
		_, err := l.tls.Write(w.buf)
		return l.wrote(err)
	}
	l.conn.cork()
	_, err := l.tls.Write(w.buf)
	if err == nil {
		_, err = l.tls.Write(rest)
	}
	if ferr := l.conn.uncork(); err == nil {
		err = ferr
	}
	return l.wrote(err)
}

func (l *tlsLink) wrote(err error) error {
	if err == nil {
		return nil
	}
	return l.finish(tlsEnd(err), "", false)
}

func (l *tlsLink) Receive(h func(frame.Frame) error) error {
	var d frame.Decoder
	var f frame.Frame
	buf := buffer{b: make([]byte, pipeLen)}
	for {
		if err := buf.fill(l.tls); err != nil {
			return l.finish(tlsEnd(err), "", false)
		}
		var closed *EndError
		err := buf.frames(&d, &f, func(f *frame.Frame) error {
			if f.Type == 0 {
				if f.Data[0] == typeClose {
					closed = &EndError{Cause: CauseRemote, Reason: printable(string(f.Data[frame.HeaderLen:]))}
					return closed
				}
				return nil
			}
			return h(*f)
		})
		switch {
		case closed != nil:
			return l.finish(closed, "", false)
		case err != nil:
			reason := printable(err.Error())
			return l.finish(&EndError{Cause: CausePeer, Reason: reason, Err: err}, reason, true)
		}
	}
}
