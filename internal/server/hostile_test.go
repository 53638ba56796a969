package server

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// speaker is a peer whose every message a test makes.
type speaker struct {
	t   *testing.T
	nc  net.Conn
	id  identity.ID
	key wire.MACKey
}

func speak(t *testing.T, s *running, number int) *speaker {
	t.Helper()
	key, server := clientKey(number), seed(1).ID()
	shared, err := key.Shared(server)
	if err != nil {
		t.Fatal(err)
	}
	return &speaker{t, dial(t, "udp", s.udp), key.ID(), wire.NewMACKey(shared, key.ID(), server)}
}

// hears sends b and returns its answers. That there are no more is known from
// the COOKIE that is asked for behind it.
func (p *speaker) hears(b []byte) (answers [][]byte) {
	p.t.Helper()
	p.nc.Write(b)
	end := wire.Hello{Tx: 1 << 40, Client: p.id}.Append(nil)
	p.nc.Write(end)
	p.nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		in := make([]byte, 2048)
		n, err := p.nc.Read(in)
		if err != nil {
			p.t.Fatalf("%x: %v", b[:min(len(b), 16)], err)
		}
		if _, tx, _ := wire.Header(in[:n]); tx == 1<<40 {
			return answers
		}
		answers = append(answers, in[:n])
	}
}

func (p *speaker) cookie() wire.CookieBytes {
	p.t.Helper()
	got := p.hears(wire.Hello{Tx: 7, Client: p.id}.Append(nil))
	if len(got) != 1 {
		p.t.Fatalf("HELLO has %d answers", len(got))
	}
	m, err := wire.ParseCookie(got[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return m.Cookie
}

func (p *speaker) seal(b []byte) []byte { return wire.NewMAC().Append(b, 0, &p.key) }

func (p *speaker) register(sequence uint64) []byte {
	return p.seal(wire.Register{Client: p.id, Cookie: p.cookie(), Sequence: sequence}.Append(nil))
}

// registered sends a REGISTER until it is answered: the key of a new peer is
// agreed on beside what comes after.
func (p *speaker) registered(b []byte) wire.Registered {
	p.t.Helper()
	for range 1000 {
		for _, got := range p.hears(b) {
			if m, err := wire.ParseRegistered(got); err == nil {
				p.quiet()
				return m
			}
		}
	}
	p.t.Fatal("not registered")
	return wire.Registered{}
}

// quiet takes in what is still on the way: an earlier copy of the REGISTER may
// be answered by whoever agreed on the key, in his own time.
func (p *speaker) quiet() {
	p.t.Helper()
	p.nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	for {
		if _, err := p.nc.Read(make([]byte, 2048)); err != nil {
			return
		}
	}
}

// Registrations that were overheard, or are made up, change nothing for the
// peer whose name they bear, and get no answer where none is owed.
func TestReplayedAndForgedRegistrations(t *testing.T) {
	s := start(t, open(t, "127.0.0.1"))
	honest, evil := speak(t, s, 1), speak(t, s, 66)
	first := honest.register(1000)
	honest.registered(first)
	second := honest.register(2000)
	at := honest.registered(second)
	tx := uint64(2000)
	alive := func(when string) {
		t.Helper()
		tx++
		got := honest.hears(honest.seal(wire.KeepAlive{Tx: tx, Handle: at.Handle}.Append(nil)))
		if len(got) != 1 || wire.Type(got[0][2]) != wire.TypeAlive {
			t.Errorf("%s: the peer's keep-alive is answered %x", when, got)
		}
	}
	alive("before")
	as := *evil
	as.id = honest.id
	stolen := honest.register(1 << 60)
	for _, c := range []struct {
		what string
		b    []byte
	}{
		{"replayed from elsewhere", second},
		{"overheard and never sent", stolen},
		{"another's name, own key", as.register(1 << 61)},
		{"cookie made up", as.seal(wire.Register{Client: evil.id, Cookie: wire.CookieBytes{1}, Sequence: 1}.Append(nil))},
		{"MAC cut off", stolen[:len(stolen)-1]},
	} {
		if got := evil.hears(c.b); len(got) != 0 {
			t.Errorf("%s: answered %x", c.what, got)
		}
		alive(c.what)
	}
	if got := honest.hears(first); len(got) != 1 || wire.Type(got[0][2]) != wire.TypeRefused {
		t.Errorf("an old REGISTER is answered %x", got)
	}
	if again := honest.registered(second); again.Handle != at.Handle {
		t.Error("a repeated REGISTER makes another registration")
	}
	alive("afterwards")
	if st := s.Stats(); st.Peers != 1 {
		t.Errorf("%d peers", st.Peers)
	}
}

// Messages of every length but their own, up to the longest that UDP carries,
// over UDP and over TCP.
func TestTruncatedAndOversizedMessages(t *testing.T) {
	s := start(t, open(t, "127.0.0.1"))
	p := speak(t, s, 1)
	at := p.registered(p.register(1))
	messages := [][]byte{
		wire.Hello{Tx: 7, Client: p.id}.Append(nil),
		p.register(2),
		p.seal(wire.KeepAlive{Tx: 3, Handle: at.Handle}.Append(nil)),
		p.seal(wire.Connect{Tx: 4, Handle: at.Handle, Target: p.id, Sealed: make([]byte, 100)}.Append(nil)),
		p.seal(wire.Signal{Tx: 5, Handle: at.Handle, Sealed: make([]byte, 100)}.Append(nil)),
		p.seal(wire.Bye{Tx: 6, Handle: at.Handle}.Append(nil)),
	}
	for _, b := range messages {
		for n := range len(b) {
			if got := p.hears(b[:n]); len(got) != 0 {
				t.Errorf("%v cut to %d bytes is answered %x", wire.Type(b[2]), n, got)
			}
		}
		for _, more := range []int{1, 2, 16, 1000, 1400, 65507 - len(b)} {
			if got := p.hears(append(bytes.Clone(b), make([]byte, more)...)); len(got) != 0 {
				t.Errorf("%v with %d bytes more is answered %x", wire.Type(b[2]), more, got)
			}
		}
	}
	malformed := uint64(0)
	for _, b := range messages {
		malformed += uint64(len(b) - 1 + 6) // nothing at all is no message, not even a malformed one
	}
	if st := s.Stats(); st.Malformed != malformed || st.Peers != 1 {
		t.Errorf("%d malformed of %d, %d peers", st.Malformed, malformed, st.Peers)
	}
	// A length that says more or less than there is ends the connection.
	for _, frame := range [][]byte{{0, 0}, {0, 11}, {0xff, 0xff}, {byte((wire.MaxLen + 1) >> 8), byte((wire.MaxLen + 1) & 0xff)}} {
		nc := dial(t, "tcp", s.tcp)
		nc.Write(append([]byte{wire.First}, frame...))
		nc.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("length %x is answered", frame)
		} else if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("length %x keeps the connection", frame)
		}
	}
	if got := p.hears(messages[2]); len(got) != 1 || wire.Type(got[0][2]) != wire.TypeAlive {
		t.Errorf("the peer's keep-alive is answered %x", got)
	}
}
