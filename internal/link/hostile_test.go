package link

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// hostileQUIC is a link to us from a peer with a valid identity that speaks
// QUIC as it likes.
func hostileQUIC(t *testing.T, cfg Config) (*quic.Conn, Link) {
	t.Helper()
	us, they := newIdentity(t), newIdentity(t)
	us.Config = cfg
	pc := listenUDP(t)
	q := newQUIC(t, us, pc)
	tr := &quic.Transport{Conn: listenUDP(t)}
	t.Cleanup(func() { tr.Close() })
	var refused error
	c, err := tr.Dial(t.Context(), pc.LocalAddr(), they.expect(us.ID(), &refused), &quic.Config{MaxIncomingStreams: 10})
	if err != nil {
		t.Fatal(err)
	}
	l, err := q.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c, l
}

func frames(fs ...frame.Frame) (b []byte) {
	for i := range fs {
		b = frame.Append(b, &fs[i])
	}
	return b
}

func header(typ byte, n int) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(typ)<<24|uint32(n))
}

func TestHostileQUICStreams(t *testing.T) {
	ping := frames(frame.Frame{Type: frame.PING, N: 1})
	control := func(b []byte) []byte { return append([]byte{kindControl}, b...) }
	data := func(stream, offset uint64, b []byte) []byte {
		h := quicvarint.Append(quicvarint.Append([]byte{kindData}, stream), offset)
		return append(h, b...)
	}
	for name, streams := range map[string][][]byte{
		"unknown kind":              {{0x17}},
		"second control lane":       {control(ping), control(ping)},
		"control lane ends":         {control(ping)},
		"unknown frame":             {control(header(0x30, 0))},
		"frame of a lying length":   {control(header(byte(frame.HELLO), 3<<20))},
		"frame with a bad body":     {control(append(header(byte(frame.PING), 3), 1, 1, 1))},
		"DATA on the control lane":  {control(frames(frame.Frame{Type: frame.DATA, Stream: 1, Data: []byte("x")}))},
		"offset too large":          {data(1, frame.MaxOffset+1, nil)},
		"offset grows too large":    {control(ping), data(1, frame.MaxOffset-2, []byte("four"))},
		"stream number too large":   {data(frame.MaxStream+1, 0, nil)},
		"what the session refuses":  {control(frames(frame.Frame{Type: frame.RESET, Stream: 66}))},
		"data the session refuses":  {control(ping), data(66, 0, []byte("x"))},
		"data in a very long lane":  {control(ping), data(66, 0, make([]byte, 1<<20))},
		"control in a long garbage": {control(make([]byte, 1<<20))},
	} {
		t.Run(name, func(t *testing.T) {
			c, l := hostileQUIC(t, Config{})
			errRefused := errors.New("no such stream")
			var wg sync.WaitGroup
			for _, b := range streams {
				s, err := c.OpenUniStream()
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() { // an error only says that we closed
					s.Write(b)
					if name == "control lane ends" {
						s.Close()
					}
				})
			}
			err := l.Receive(func(f frame.Frame) error {
				if f.Stream == 66 {
					return errRefused
				}
				return nil
			})
			wg.Wait()
			end, ok := errors.AsType[*EndError](err)
			if !ok || end.Cause != CausePeer || !errors.Is(err, ErrProtocol) || end.Reason == "" {
				t.Errorf("ended with %v", err)
			}
			<-c.Context().Done()
		})
	}
}

// TestDataWaitsForTheFirstFrame has DATA arrive long before the frame that says
// what the link is for, and even that in two pieces.
func TestDataWaitsForTheFirstFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(oneWay)
		us, they := newIdentity(t), newIdentity(t)
		pc, theirs := n.listen("192.0.2.1:1"), n.listen("192.0.2.2:2")
		q := newQUIC(t, us, pc)
		tr := &quic.Transport{Conn: theirs}
		defer tr.Close()
		var refused error
		c, err := tr.Dial(t.Context(), pc.LocalAddr(), they.expect(us.ID(), &refused), &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := q.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan frame.Type, 10)
		ended := make(chan error)
		go func() { ended <- l.Receive(func(f frame.Frame) error { got <- f.Type; return nil }) }()
		first := frames(hello)
		var control *quic.SendStream
		for _, b := range [][]byte{append([]byte{kindData, 1, 0}, "early"...), append([]byte{kindControl}, first[:3]...)} {
			if control, err = c.OpenUniStream(); err != nil {
				t.Fatal(err)
			}
			control.Write(b)
			time.Sleep(time.Second) // virtual
		}
		if len(got) > 0 {
			t.Errorf("got %v before the first frame", <-got)
		}
		control.Write(first[3:])
		for _, want := range []frame.Type{frame.HELLO, frame.DATA} {
			if f := <-got; f != want {
				t.Errorf("got %v, want %v", f, want)
			}
		}
		l.Close("")
		<-ended
	})
}

func TestHostileQUICStreamCount(t *testing.T) {
	c, l := hostileQUIC(t, Config{MaxStreams: 10})
	if _, err := c.OpenStream(); err == nil {
		t.Error("opened a bidirectional stream")
	}
	opened := 0
	for ; opened < 1000; opened++ {
		s, err := c.OpenUniStream()
		if err != nil {
			break
		}
		if _, err := s.Write([]byte{kindData, 1, 0}); err != nil {
			t.Fatal(err)
		}
	}
	if opened != 10+spareStreams {
		t.Errorf("opened %d streams", opened)
	}
	// Streams that never say what they are hold nothing up.
	ended := make(chan error)
	go func() { ended <- l.Receive(func(frame.Frame) error { return nil }) }()
	l.Close("enough")
	wantEnd(t, <-ended, CauseLocal, "enough")
}

func TestHostileQUICRefusesToListen(t *testing.T) {
	c, l := hostileQUIC(t, Config{})
	send(t, l, frame.Frame{Type: frame.DATA, Stream: 1, Data: []byte("x")}, frame.Frame{Type: frame.PING})
	for range 2 {
		s, err := c.AcceptUniStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.CancelRead(1)
	}
	var err error
	for i := uint64(0); err == nil; i++ { // a refused lane is the session's affair, a refused control lane the end
		if err = l.Send(frame.Frame{Type: frame.DATA, Stream: 1, Offset: 1 + i, Data: []byte("x")}); err == nil {
			err = l.Send(frame.Frame{Type: frame.PING})
		}
	}
	wantEnd(t, err, CausePeer, "control lane refused")
}

func hostileTLS(t *testing.T) (*tls.Conn, Link) {
	t.Helper()
	us, they := newIdentity(t), newIdentity(t)
	ca, cb := tcpPair(t)
	var refused error
	c := tls.Client(ca, they.expect(us.ID(), &refused))
	var wg sync.WaitGroup
	wg.Go(func() { c.Handshake() })
	l, err := us.Server(t.Context(), cb)
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	t.Cleanup(func() { c.Close() })
	return c, l
}

func TestHostileTLSFrames(t *testing.T) {
	errRefused := errors.New("no such stream")
	for name, tt := range map[string]struct {
		bytes []byte
		cause Cause
	}{
		"unknown frame":            {header(0x30, 0), CausePeer},
		"frame of a lying length":  {header(byte(frame.HELLO), 3<<20), CausePeer},
		"DATA of a lying length":   {append(header(byte(frame.DATA), 1<<23), 1, 1, 1), CausePeer},
		"DATA without data":        {append(header(byte(frame.DATA), 2), 1, 0), CausePeer},
		"frame with a bad body":    {append(header(byte(frame.PING), 3), 1, 1, 1), CausePeer},
		"what the session refuses": {frames(frame.Frame{Type: frame.RESET, Stream: 66}), CausePeer},
		"frame cut short":          {header(byte(frame.HELLO), 30), CausePath},
		"DATA cut short":           {append(header(byte(frame.DATA), 1000), 1, 0, 1, 1, 1), CausePath},
		"long garbage":             {make([]byte, 1<<20), CausePeer},
	} {
		t.Run(name, func(t *testing.T) {
			c, l := hostileTLS(t)
			var wg sync.WaitGroup
			wg.Go(func() {
				c.Write(tt.bytes)
				c.CloseWrite()
			})
			err := l.Receive(func(f frame.Frame) error {
				if f.Stream == 66 {
					return errRefused
				}
				return nil
			})
			wg.Wait()
			end, ok := errors.AsType[*EndError](err)
			if !ok || end.Cause != tt.cause {
				t.Fatalf("ended with %v", err)
			}
			if errors.Is(err, ErrProtocol) != (tt.cause == CausePeer) || (end.Reason != "") != (tt.cause == CausePeer) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestLaterFramesAreSkipped(t *testing.T) {
	later := header(0x81, 3)
	later = append(later, "new"...)
	later = append(later, frames(frame.Frame{Type: frame.PING, N: 7})...)
	got := make(chan frame.Frame, 2)
	h := func(f frame.Frame) error { got <- f; return nil }
	var wg sync.WaitGroup

	c, l := hostileTLS(t)
	wg.Go(func() { l.Receive(h) })
	c.Write(later)
	if f := <-got; f.Type != frame.PING || f.N != 7 {
		t.Errorf("TLS: got %+v", f)
	}
	l.Close("")

	q, l := hostileQUIC(t, Config{})
	wg.Go(func() { l.Receive(h) })
	s, err := q.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	s.Write(append([]byte{kindControl}, later...))
	if f := <-got; f.Type != frame.PING || f.N != 7 {
		t.Errorf("QUIC: got %+v", f)
	}
	l.Close("")
	wg.Wait()
}

func TestReasonsAreFitForATerminal(t *testing.T) {
	evil := "\x1b[2J\nbye\u202e"
	c, l := hostileQUIC(t, Config{})
	c.CloseWithError(0, evil)
	<-l.Done()
	wantEnd(t, l.Err(), CauseRemote, "?[2J?bye?")

	s, l := hostileTLS(t)
	s.Write(append(header(typeClose, len(evil)), evil...))
	wantEnd(t, l.Receive(nil), CauseRemote, "?[2J?bye?")
}

func TestCloseUnblocksSend(t *testing.T) {
	for name, pair := range pairs {
		t.Run(name, func(t *testing.T) {
			a, _ := pair(t) // nobody receives
			ended := make(chan error)
			go func() {
				var offset uint64
				for {
					if err := a.Send(frame.Frame{Type: frame.DATA, Stream: 1, Offset: offset, Data: chunk}); err != nil {
						ended <- err
						return
					}
					offset += uint64(len(chunk))
				}
			}()
			a.Close("changed my mind")
			wantEnd(t, <-ended, CauseLocal, "changed my mind")
		})
	}
}

func TestDeadSocketEndsTheLink(t *testing.T) {
	ca, cb := tcpPair(t)
	a, b := handshakeTLS(t, newIdentity(t), newIdentity(t), ca, cb)
	in := receive(b, nil)
	cb.(*net.TCPConn).SetLinger(0)
	ca.(*net.TCPConn).SetLinger(0)
	ca.Close()
	wantEnd(t, <-in.ended, CausePath, "")
	wantEnd(t, a.Send(frame.Frame{Type: frame.PING}), CausePath, "")
	wantEnd(t, b.Err(), CausePath, "")
}
