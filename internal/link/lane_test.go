package link

import (
	"bytes"
	"testing"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

// TestRunsOfAStream does what a session does when it comes back to a link: it
// goes on from wherever the peer asked it to.
func TestRunsOfAStream(t *testing.T) {
	for name, pair := range pairs {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			const size = 1 << 20
			p := pattern(1, size)
			have := make([]byte, 0, size)
			full := make(chan struct{})
			ended := make(chan error)
			go func() {
				ended <- b.Receive(func(f frame.Frame) error {
					// Like a session: what is new is kept, what is known is dropped.
					if n := uint64(len(have)); f.Type == frame.DATA && f.Offset <= n && f.Offset+uint64(len(f.Data)) > n {
						if have = append(have, f.Data[n-f.Offset:]...); len(have) == size {
							close(full)
						}
					}
					return nil
				})
			}()
			go a.Receive(func(frame.Frame) error { return nil })
			send(t, a, hello)
			for _, run := range [][2]int{{0, 1000}, {1000, 70_000}, {500, 200_000}, {500, 300_000}, {0, 10}, {0, size}} {
				for off := run[0]; off < run[1]; off += frame.MaxData {
					send(t, a, frame.Frame{Type: frame.DATA, Stream: 1, Offset: uint64(off), Data: p[off:min(run[1], off+frame.MaxData)]})
				}
			}
			<-full
			if !bytes.Equal(have, p) {
				t.Error("the stream differs")
			}
			a.Close("")
			<-ended
		})
	}
}

// TestFinishedStreamsMakeRoom opens more streams, one after the other, than a
// link has at a time.
func TestFinishedStreamsMakeRoom(t *testing.T) {
	ia, ib := newIdentity(t), newIdentity(t)
	ib.Config.MaxStreams = 2
	pb := listenUDP(t)
	a, b := dialQUIC(t, newQUIC(t, ia, listenUDP(t)), newQUIC(t, ib, pb), pb.LocalAddr(), ib.ID())
	const streams = 5 * spareStreams
	want := make(map[uint64]int)
	for i := range uint64(streams) {
		want[i] = 10
	}
	in := receive(b, want)
	go a.Receive(func(frame.Frame) error { return nil })
	send(t, a, hello)
	<-in.frames
	for i := range uint64(streams) {
		send(t, a, frame.Frame{Type: frame.DATA, Stream: i, Data: pattern(i, 10)})
		if i%2 == 0 {
			send(t, a, frame.Frame{Type: frame.FIN, Stream: i, Offset: 10})
		} else {
			<-in.frames // the FIN before: by now this stream's data may be dropped
			send(t, a, frame.Frame{Type: frame.FIN, Stream: i, Offset: 10})
			<-in.frames
		}
	}
	<-in.full
	if n := len(a.(*quicLink).lanes.open); n != 0 {
		t.Errorf("%d lanes are still open", n)
	}
	send(t, a, frame.Frame{Type: frame.DATA, Stream: 9999, Data: pattern(1, 10)}, frame.Frame{Type: frame.RESET, Stream: 9999})
	if f := <-in.frames; f.Type != frame.RESET {
		t.Errorf("got %v", f.Type)
	}
	if n := len(a.(*quicLink).lanes.open); n != 0 {
		t.Errorf("%d lanes are still open", n)
	}
}

// TestWindowsHoldASession sends all that a session may have under way to a peer
// that does not read.
func TestWindowsHoldASession(t *testing.T) {
	const window = 8 << 20 // of the session
	a, b := quicPair(t)
	for off := 0; off < window; off += len(chunk) {
		send(t, a, frame.Frame{Type: frame.DATA, Stream: 1, Offset: uint64(off), Data: chunk})
	}
	send(t, a, frame.Frame{Type: frame.DATA, Stream: 2, Data: chunk}, frame.Frame{Type: frame.PING})
	in := receive(b, map[uint64]int{1: window, 2: len(chunk)})
	<-in.full
	b.Close("")
	<-in.ended
}

// TestFinishedLaneTakesNoMore is the race of DATA with the FIN of its stream.
func TestFinishedLaneTakesNoMore(t *testing.T) {
	a, b := quicPair(t)
	in := receive(b, map[uint64]int{1: 1})
	send(t, a, frame.Frame{Type: frame.DATA, Stream: 1, Data: chunk[:1]})
	l := a.(*quicLink)
	lane := l.lanes.open[1]
	send(t, a, frame.Frame{Type: frame.FIN, Stream: 1, Offset: 1})
	if err := l.write(lane.SendStream, chunk); err != nil {
		t.Errorf("writing to a finished lane: %v", err)
	}
	<-in.full
	a.Close("")
	<-in.ended
}
