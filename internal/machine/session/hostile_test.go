package session

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
)

func TestProtocolErrors(t *testing.T) {
	type F = frame.Frame
	for name, frames := range map[string][]F{
		"gap":                     {{Type: frame.DATA, Stream: 0, Offset: 1, Data: []byte("x")}},
		"beyond the limit":        {{Type: frame.DATA, Stream: 0, Data: make([]byte, initialWindow+1)}},
		"behind FIN":              {{Type: frame.FIN, Stream: 0, Offset: 1}, {Type: frame.DATA, Stream: 0, Data: []byte("xy")}},
		"two ends":                {{Type: frame.FIN, Stream: 0, Offset: 1}, {Type: frame.FIN, Stream: 0, Offset: 2}},
		"FIN before data":         {{Type: frame.DATA, Stream: 0, Data: []byte("xy")}, {Type: frame.FIN, Stream: 0, Offset: 1}},
		"FIN beyond the limit":    {{Type: frame.FIN, Stream: 0, Offset: initialWindow + 1}},
		"too many streams":        {{Type: frame.OPEN, Stream: 2 * 16}},
		"not opened":              {{Type: frame.OPEN, Stream: 3}},
		"ACK of nothing":          {{Type: frame.ACK, Stream: 1, Offset: 1}},
		"ACK of a stranger":       {{Type: frame.ACK, Stream: 5, Done: true}},
		"RESUME of a stranger":    {{Type: frame.RESUME, Epoch: 2, Entries: []frame.Entry{{Stream: 3}}}},
		"RESUME of unsent bytes":  {{Type: frame.RESUME, Epoch: 2, Entries: []frame.Entry{{Stream: 1, Received: 1}}}},
		"RESUME of many streams":  {{Type: frame.RESUME, Epoch: 2, Entries: []frame.Entry{{Stream: 64}}}},
		"LOST from a controller":  {{Type: frame.LOST, Epoch: 1}},
		"HELLO of another":        {{Type: frame.HELLO, Session: [16]byte{1}}},
		"DATA to a stream unborn": {{Type: frame.DATA, Stream: 7, Data: []byte("x")}},
	} {
		now := time.Unix(0, 0)
		m := New(Config{MaxStreams: 16})
		m.Open() // stream 1
		m.LinkUp(now, 1, 1, [8]byte{})
		m.HandleFrame(now, 1, &F{Type: frame.RESUME, Epoch: 1})
		var err error
		for i := range frames {
			err = m.HandleFrame(now, 1, &frames[i])
		}
		var broken *CloseError
		if !errors.As(err, &broken) || broken.Code != frame.ProtocolError || broken.Remote {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var last F
		for {
			f, ok := m.Next(now, 1)
			if !ok {
				break
			}
			last = f
			m.Sent(now, 1, f)
		}
		if last.Type != frame.CLOSE || last.Code != frame.ProtocolError {
			t.Errorf("%s: the last frame is %v, code %d", name, last.Type, last.Code)
		}
		if e := lastEvent(m); e == nil || e.Err != broken {
			t.Errorf("%s: no Closed", name)
		}
	}
}

func lastEvent(m *Machine) (closed *Closed) {
	for {
		e, ok := m.Event()
		if !ok {
			return closed
		}
		if c, is := e.(Closed); is {
			closed = &c
		}
	}
}

// hostileFrame makes a frame of small numbers out of a few random bytes, so
// that they often mean something.
func hostileFrame(b []byte) frame.Frame {
	pick := func(i int) uint64 { return uint64(b[i] % 8) }
	f := frame.Frame{
		Type:     frame.Type(1 + b[0]%12),
		Stream:   pick(1),
		Offset:   pick(2) * pick(3) * 9973,
		Limit:    pick(4) << pick(5) << 13,
		Code:     pick(2),
		N:        pick(3),
		Epoch:    uint32(pick(2)),
		Opened:   pick(3),
		Accepted: pick(4),
		Done:     b[6]&1 != 0,
		Data:     make([]byte, 1+int(pick(5))*9973%frame.MaxData),
	}
	for s := range uint64(8) {
		if b[7]>>s&1 != 0 {
			f.Entries = append(f.Entries, frame.Entry{Stream: s, Received: pick(2) * 9973, Limit: f.Limit, Done: b[6]>>s&1 != 0})
		}
	}
	return f
}

// hostile drives a machine with frames and calls made of b.
func hostile(t *testing.T, b []byte) {
	now := time.Unix(0, 0)
	cfg := Config{Controller: len(b) > 0 && b[0]&1 != 0, Window: 1 << 18, Memory: 1 << 21, MaxStreams: 16}
	m := New(cfg)
	buf := make([]byte, 50_000)
	for len(b) >= 10 {
		op, arg, rest := b[0], b[1], b[2:10]
		b = b[10:]
		link := LinkID(arg % 4)
		now = now.Add(time.Duration(arg) * 20 * time.Millisecond)
		switch op % 16 {
		case 0:
			m.LinkUp(now, link, int(op>>4), [8]byte{})
		case 1:
			m.LinkDown(now, link)
		case 2:
			m.Open()
		case 3, 4:
			m.Write(StreamID(rest[0]%8), buf[:int(rest[1])*100])
		case 5:
			m.Read(StreamID(rest[0]%8), buf)
		case 6:
			m.CloseWrite(StreamID(rest[0] % 8))
			m.CloseRead(StreamID(rest[1] % 8))
		case 7:
			m.Reset(StreamID(rest[0]%8), 1)
		case 8, 9:
			for range 3 {
				f, ok := m.Next(now, link)
				if !ok {
					break
				}
				m.Sent(now, link, f)
			}
		case 10:
			m.HandleTimeout(now)
		case 11:
			if rest[0] == 0 {
				m.Close(now, uint64(rest[1]%2), "")
			}
			m.Accept()
		default:
			f := hostileFrame(rest)
			m.HandleFrame(now, link, &f)
		}
		for {
			if _, ok := m.Wake(); !ok {
				break
			}
		}
		for {
			if _, ok := m.Event(); !ok {
				break
			}
		}
		m.NextTimeout()
		s := m.Stats()
		bound := 2*(cfg.Memory/chunkSize) + 4*cfg.MaxStreams
		switch {
		case s.Chunks > bound, s.Streams > 2*cfg.MaxStreams, s.Unread > uint64(cfg.Memory), s.Retained > uint64(cfg.Memory),
			len(m.accept) > cfg.MaxStreams, len(m.control.q) > 200, len(m.data.q) > 200, len(m.delayed) > 1000, s.Links > maxLinks:
			t.Fatalf("out of bounds: %+v accept %d control %d data %d delayed %d", s, len(m.accept), len(m.control.q), len(m.data.q), len(m.delayed))
		}
		e := end{w: &world{now: now}, m: m}
		if e.check(); e.w.bad != nil {
			t.Fatal(e.w.bad)
		}
	}
}

// Whatever comes, in whatever order: no panic, the counts right, the bounds kept.
func TestHostileWalk(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 3))
		b := make([]byte, 3000)
		for i := 0; i < len(b); i += 4 {
			binary.NativeEndian.PutUint32(b[i:], rng.Uint32())
		}
		hostile(t, b)
	}
}

func FuzzHostile(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Fuzz(hostile)
}
