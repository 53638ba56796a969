package link

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// Kinds of QUIC streams.
const (
	kindControl = 0x00
	kindData    = 0x01
)

// Application error codes of a CONNECTION_CLOSE, and of streams.
const (
	codeClosed   = 0
	codeProtocol = 1
)

const readLen = 64 << 10

type quicLink struct {
	conn *quic.Conn
	peer identity.ID
	end  atomic.Pointer[EndError] // set before closing from this side

	control struct {
		sync.Mutex
		lane *quic.SendStream
		buf  []byte
	}
	data struct {
		sync.Mutex // held while sending DATA
		buf        []byte
	}
	lanes struct {
		sync.Mutex
		open map[uint64]*lane // by session stream
	}

	in struct {
		sync.Mutex // serializes the handler
		control    bool
		begun      chan struct{} // closed when the first frame has been handled
		buf        []byte
	}
}

// lane sends one run of a session stream.
type lane struct {
	*quic.SendStream
	next uint64
}

func newQUICLink(conn *quic.Conn, peer identity.ID) *quicLink {
	l := &quicLink{conn: conn, peer: peer}
	l.lanes.open = make(map[uint64]*lane)
	l.in.begun = make(chan struct{})
	return l
}

func (l *quicLink) Peer() identity.ID     { return l.peer }
func (l *quicLink) Transport() string     { return "udp" }
func (l *quicLink) RTT() time.Duration    { return l.conn.ConnectionStats().SmoothedRTT }
func (l *quicLink) Done() <-chan struct{} { return l.conn.Context().Done() }

func (l *quicLink) RemoteAddr() net.Addr {
	if u, ok := l.conn.RemoteAddr().(*net.UDPAddr); ok {
		if ip := u.IP.To4(); ip != nil {
			return &net.UDPAddr{IP: ip, Port: u.Port}
		}
	}
	return l.conn.RemoteAddr()
}

func (l *quicLink) Close(reason string) error {
	l.closeWith(codeClosed, &EndError{Cause: CauseLocal, Reason: printable(reason)})
	return nil
}

func (l *quicLink) closeWith(code quic.ApplicationErrorCode, end *EndError) {
	l.end.CompareAndSwap(nil, end)
	l.conn.CloseWithError(code, end.Reason)
}

func (l *quicLink) Err() error {
	select {
	case <-l.conn.Context().Done():
		return l.ended(context.Cause(l.conn.Context()))
	default:
		return nil
	}
}

// ended says why the link ended, given quic-go's reason.
func (l *quicLink) ended(err error) error {
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok && !app.Remote {
		if end := l.end.Load(); end != nil {
			return end
		}
	}
	return quicEnd(err)
}

func quicEnd(err error) error {
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok {
		if app.Remote {
			return &EndError{Cause: CauseRemote, Reason: printable(app.ErrorMessage), Err: err}
		}
		return &EndError{Cause: CauseLocal, Err: err}
	}
	if tr, ok := errors.AsType[*quic.TransportError](err); ok {
		if tr.Remote {
			return &EndError{Cause: CauseRemote, Reason: printable(tr.ErrorMessage), Err: err}
		}
		return &EndError{Cause: CausePeer, Err: err}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, quic.ErrTransportClosed) {
		return &EndError{Cause: CauseLocal, Err: err}
	}
	return &EndError{Cause: CausePath, Err: err} // silence, a stateless reset, a dead socket
}

// ending waits for the end of the link, of which its streams learn a moment
// earlier, and says why.
func (l *quicLink) ending() error {
	<-l.Done()
	return l.Err()
}

func (l *quicLink) Send(f frame.Frame) error {
	if f.Type == frame.DATA {
		return l.sendData(&f)
	}
	if err := l.sendControl(&f); err != nil {
		return err
	}
	switch f.Type {
	case frame.FIN:
		l.drop(f.Stream, func(s *lane) { s.Close() })
	case frame.RESET:
		l.drop(f.Stream, func(s *lane) { s.CancelWrite(codeClosed) })
	}
	return nil
}

func (l *quicLink) sendControl(f *frame.Frame) error {
	c := &l.control
	c.Lock()
	defer c.Unlock()
	c.buf = c.buf[:0]
	if c.lane == nil {
		s, err := l.conn.OpenUniStreamSync(l.conn.Context())
		if err != nil {
			return l.ending()
		}
		s.SetPriority(0, false) // ahead of any DATA
		c.lane = s
		c.buf = append(c.buf, kindControl)
	}
	c.buf = frame.Append(c.buf, f)
	return l.write(c.lane, c.buf)
}

func (l *quicLink) sendData(f *frame.Frame) error {
	if len(f.Data) == 0 {
		return nil
	}
	d := &l.data
	d.Lock()
	defer d.Unlock()
	if s := l.lane(f); s != nil {
		return l.write(s.SendStream, f.Data)
	}
	// A new run. The old one's bytes are worth nothing any more: the session
	// jumps only when the peer has said from where it wants them.
	l.drop(f.Stream, func(s *lane) { s.CancelWrite(codeClosed) })
	s, err := l.conn.OpenUniStreamSync(l.conn.Context())
	if err != nil {
		return l.ending()
	}
	l.lanes.Lock()
	l.lanes.open[f.Stream] = &lane{SendStream: s, next: f.Offset + uint64(len(f.Data))}
	l.lanes.Unlock()
	// Header and first bytes in one write, so that they share a packet.
	n := min(len(f.Data), initialPacketSize)
	d.buf = frame.AppendLane(append(d.buf[:0], kindData), f.Stream, f.Offset)
	d.buf = append(d.buf, f.Data[:n]...)
	if err := l.write(s, d.buf); err != nil || n == len(f.Data) {
		return err
	}
	return l.write(s, f.Data[n:])
}

// lane finds the lane that f continues.
func (l *quicLink) lane(f *frame.Frame) *lane {
	l.lanes.Lock()
	defer l.lanes.Unlock()
	s := l.lanes.open[f.Stream]
	if s == nil || s.next != f.Offset {
		return nil
	}
	s.next += uint64(len(f.Data))
	return s
}

func (l *quicLink) drop(stream uint64, end func(*lane)) {
	l.lanes.Lock()
	s := l.lanes.open[stream]
	delete(l.lanes.open, stream)
	l.lanes.Unlock()
	if s != nil {
		end(s)
	}
}

func (l *quicLink) write(s *quic.SendStream, b []byte) error {
	switch _, err := s.Write(b); {
	case err == nil:
		return nil
	case s == l.control.lane && isStreamError(err):
		end := &EndError{Cause: CausePeer, Reason: "control lane refused", Err: err}
		l.closeWith(codeProtocol, end)
		return l.Err()
	case isStreamError(err) || errors.Is(err, quic.ErrStreamClosed):
		// The peer has stopped reading this lane, or we have ended it: what the
		// session says about the stream decides, not the lane.
		return nil
	default:
		return l.ending()
	}
}

func (l *quicLink) Receive(h func(frame.Frame) error) error {
	l.in.buf = make([]byte, readLen)
	var wg sync.WaitGroup
	for {
		s, err := l.conn.AcceptUniStream(l.conn.Context())
		if err != nil {
			break
		}
		wg.Go(func() {
			if err := l.receive(s, h); err != nil {
				l.closeWith(codeProtocol, &EndError{Cause: CausePeer, Reason: printable(err.Error()), Err: err})
			}
		})
	}
	wg.Wait()
	<-l.Done()
	return l.Err()
}

// receive reads one incoming stream to its end. It returns what the peer did
// wrong, if anything.
func (l *quicLink) receive(s *quic.ReceiveStream, h func(frame.Frame) error) error {
	var kind [1]byte
	if _, err := io.ReadFull(s, kind[:]); err != nil {
		return nil
	}
	switch kind[0] {
	case kindControl:
		return l.receiveControl(s, h)
	case kindData:
		return l.receiveData(s, h)
	}
	return violation("stream of kind %#x", kind[0])
}

func (l *quicLink) receiveControl(s *quic.ReceiveStream, h func(frame.Frame) error) error {
	l.in.Lock()
	again := l.in.control
	l.in.control = true
	l.in.Unlock()
	if again {
		return violation("second control lane")
	}
	var d frame.Decoder
	var f frame.Frame
	var begin sync.Once
	buf := buffer{b: make([]byte, frame.HeaderLen+frame.MaxControl)}
	for {
		switch err := buf.fill(s); {
		case err == nil:
		case errors.Is(err, io.EOF) || isStreamError(err):
			return violation("control lane ended")
		default:
			return nil // the link has ended
		}
		l.in.Lock()
		err := buf.frames(&d, &f, func(f *frame.Frame) error {
			switch f.Type {
			case 0:
				return nil
			case frame.DATA:
				return violation("DATA on the control lane")
			}
			err := h(*f)
			begin.Do(func() { close(l.in.begun) })
			return err
		})
		l.in.Unlock()
		if err != nil {
			return err
		}
	}
}

func (l *quicLink) receiveData(s *quic.ReceiveStream, h func(frame.Frame) error) error {
	stream, offset, ok, err := readLane(s)
	if err != nil || !ok {
		return err
	}
	select {
	case <-l.in.begun:
	case <-l.Done():
		return nil
	}
	for {
		// Wait without a buffer: only the lanes that have something to say share
		// the one of the link.
		var b [1]byte
		if _, err := s.Peek(b[:]); err != nil {
			s.Read(b[:]) // only having read its end makes room for another stream
			return nil
		}
		if err := l.receivePiece(s, stream, &offset, h); err != nil {
			return err
		}
	}
}

func (l *quicLink) receivePiece(s *quic.ReceiveStream, stream uint64, offset *uint64, h func(frame.Frame) error) error {
	l.in.Lock()
	defer l.in.Unlock()
	n, _ := s.Read(l.in.buf)
	if n == 0 {
		return nil
	}
	if *offset+uint64(n) > frame.MaxOffset {
		return violation("data beyond the largest offset")
	}
	err := h(frame.Frame{Type: frame.DATA, Stream: stream, Offset: *offset, Data: l.in.buf[:n]})
	*offset += uint64(n)
	return err
}

// readLane reads the header of a data lane, byte by byte since its length
// shows only in it. It is not ok when the stream ends before.
func readLane(s *quic.ReceiveStream) (stream, offset uint64, ok bool, err error) {
	var b [frame.MaxLane]byte
	for n := range b {
		if _, err := io.ReadFull(s, b[n:n+1]); err != nil {
			return 0, 0, false, nil
		}
		stream, offset, used, err := frame.ParseLane(b[:n+1])
		if err != nil || used > 0 {
			return stream, offset, true, err
		}
	}
	return 0, 0, false, violation("header of a data lane")
}

func isStreamError(err error) bool {
	_, ok := errors.AsType[*quic.StreamError](err)
	return ok
}
