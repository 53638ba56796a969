package rendezvous

import (
	crand "crypto/rand"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// ClientConfig configures a Client. Only Key is required.
type ClientConfig struct {
	Key      identity.Key
	ServerID *identity.ID  // nil: whoever answers is the server
	Rand     rand.Source   // nil: seeded from crypto/rand; must be unpredictable
	Lifetime time.Duration // of the registration; zero: the server's default
	// RelayOnly keeps our endpoint from other peers: no Direct, ever.
	RelayOnly bool
	// Guest is not to be found by other peers, only asks for them: other
	// processes may use the key at the same time. See SetGuest.
	Guest bool
}

// What a client waits for.
const (
	keepAliveRetry = time.Second
	keepAliveTries = 3
	whoEvery       = time.Second

	minHelloWait = time.Second // when the server does not answer
	maxHelloWait = 3 * time.Second
	fullWait     = 10 * time.Second

	maxEvents = 1 << 10 // that the owner did not ask for
)

// answerWaits are the first waits for an answer, of a HELLO as of a REGISTER.
var answerWaits = [...]time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second}

// ErrNotRegistered is returned by Preface while there is no registration.
var ErrNotRegistered = errors.New("not registered with the server")

// state is what the client does now. What only one state needs is in that
// state's struct.
type state uint8

const (
	// Nothing is sent. Start leaves it.
	idle state = iota
	// HELLO is sent, and repeated for ever. A COOKIE leaves it.
	greeting
	// REGISTER is sent three times, CONNECTs right behind it. REGISTERED
	// leaves it; REFUSED and silence go back to greeting, where a REGISTERED
	// that comes late is still welcome.
	registering
	// KEEPALIVEs are sent. WHO, and three without an answer, go back to
	// greeting.
	registered
)

type greetingState struct {
	tx    uint64 // of all HELLOs until a COOKIE comes
	sent  int
	next  time.Time
	wrong identity.ID // the last wrong server told of
}

type registeringState struct {
	cookie   wire.CookieBytes
	sequence uint64
	packet   []byte // nil: no REGISTER was sent that can still be answered
	sent     int
	refused  int
	next     time.Time
}

type registeredState struct {
	handle      Handle
	keepAlive   time.Duration
	unanswered  int
	first, last uint64 // txids of the unanswered KEEPALIVEs lie here
	next        time.Time
}

// Client is the machine that keeps a peer registered.
type Client struct {
	cfg  ClientConfig
	id   identity.ID
	mac  *wire.MAC
	rand *rand.Rand

	state state
	greet greetingState
	reg   registeringState
	home  registeredState

	server identity.ID // whose key is
	key    wire.MACKey
	keyed  bool
	last   uint64      // the largest txid used under any key
	window wire.Window // of the server's txids, since the last REGISTER
	mapped netip.AddrPort
	up     bool      // Registered was the last news, not Lost
	who    time.Time // when a WHO was last believed

	displaced bool // another process is found under our key; we wait, as a guest

	connects []*connecting
	out      [][]byte
	events   []ClientEvent
}

// NewClient makes a client. Nothing is sent before Start.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Rand == nil {
		var seed [32]byte
		crand.Read(seed[:]) // never fails since Go 1.24
		cfg.Rand = rand.NewChaCha8(seed)
	}
	c := &Client{cfg: cfg, id: cfg.Key.ID(), mac: wire.NewMAC(), rand: rand.New(cfg.Rand)}
	if cfg.ServerID != nil {
		c.agree(*cfg.ServerID) // so that the COOKIE is answered without delay
	}
	return c
}

// agree computes the key shared with a server.
func (c *Client) agree(server identity.ID) bool {
	if c.keyed && c.server == server {
		return true
	}
	shared, err := c.cfg.Key.Shared(server)
	if err != nil {
		return false
	}
	c.server, c.key, c.keyed = server, wire.NewMACKey(shared, c.id, server), true
	return true
}

// SetGuest changes whether others can ask for us, by registering anew if need
// be.
func (c *Client) SetGuest(now time.Time, guest bool) {
	if c.cfg.Guest == guest {
		return
	}
	c.cfg.Guest, c.displaced = guest, false
	if c.state == registering || c.state == registered {
		c.startGreeting(now)
	}
}

// Start registers. Called again, it registers anew at once: the owner knows
// that the network changed, or has a new connection to the server.
func (c *Client) Start(now time.Time) { c.startGreeting(now) }

// Greeting tells whether a COOKIE is awaited: an owner that has sent the HELLO
// to several places learns so which one's COOKIE was taken.
func (c *Client) Greeting() bool { return c.state == greeting }

// Bye ends the registration and all that was asked of Connect; Start begins
// another.
func (c *Client) Bye(now time.Time) {
	handle, ok := c.handle()
	if !ok && c.state == greeting { // anew: the server still has the last one
		handle, ok = c.home.handle, c.home.handle != Handle{}
	}
	if ok {
		c.sendMAC(wire.Bye{Tx: c.tx(), Handle: handle}.Append(nil))
	}
	c.state, c.up, c.connects, c.displaced = idle, false, nil, false
	c.reg, c.home = registeringState{}, registeredState{}
}

// Signal sends a signal to the relay's other party, once: whoever waits for an
// answer repeats it. Without a registration it is not sent.
func (c *Client) Signal(now time.Time, relay RelayID, sealed []byte) {
	if handle, ok := c.handle(); ok {
		c.sendMAC(wire.Signal{Tx: c.tx(), Handle: handle, Relay: relay, Sealed: sealed}.Append(nil))
	}
}

// Preface returns what opens a stream relay. Each is good for one connection.
func (c *Client) Preface(id RelayID) ([]byte, error) {
	if c.state != registered {
		return nil, ErrNotRegistered
	}
	b := relay.Preface{Relay: id, Handle: c.home.handle, Tx: c.tx()}.Append(nil)
	return c.mac.Append(b, 0, &c.key), nil
}

// handle is what a message carries now: zero after a REGISTER whose answer did
// not come, or not yet, see the package wire/rendezvous.
func (c *Client) handle() (Handle, bool) {
	if c.state == registered {
		return c.home.handle, true
	}
	return Handle{}, c.reg.packet != nil
}

func (c *Client) tx() uint64 {
	c.last++
	return c.last
}

func (c *Client) send(b []byte)    { c.out = append(c.out, b) }
func (c *Client) sendMAC(b []byte) { c.send(c.mac.Append(b, 0, &c.key)) }

func (c *Client) tell(e ClientEvent) {
	if len(c.events) < maxEvents {
		c.events = append(c.events, e)
	}
}

// between draws a time, so that a million clients do not act as one.
func (c *Client) between(low, high time.Duration) time.Duration {
	return low + time.Duration(c.rand.Int64N(int64(high-low)+1))
}

// Poll returns the next message to send. It stays valid.
func (c *Client) Poll() ([]byte, bool) {
	if len(c.out) == 0 {
		return nil, false
	}
	b := c.out[0]
	c.out = slices.Delete(c.out, 0, 1)
	return b, true
}

// Event returns the next event.
func (c *Client) Event() (ClientEvent, bool) {
	if len(c.events) == 0 {
		return nil, false
	}
	e := c.events[0]
	c.events = slices.Delete(c.events, 0, 1)
	return e, true
}

// NextTimeout tells when HandleTimeout is to be called next, if ever.
func (c *Client) NextTimeout() (time.Time, bool) {
	var next time.Time
	switch c.state {
	case idle:
		return time.Time{}, false
	case greeting:
		return c.greet.next, true // CONNECTs wait for the REGISTER
	case registering:
		next = c.reg.next
	case registered:
		next = c.home.next
	}
	for _, k := range c.connects {
		if k.next.Before(next) {
			next = k.next
		}
	}
	return next, true
}

// HandleTimeout does what is due.
func (c *Client) HandleTimeout(now time.Time) {
	switch c.state {
	case idle:
		return
	case greeting:
		if !now.Before(c.greet.next) {
			c.sendHello(now)
		}
		return
	case registering:
		if !now.Before(c.reg.next) {
			c.repeatRegister(now)
		}
	case registered:
		if !now.Before(c.home.next) {
			c.sendKeepAlive(now)
		}
	}
	c.repeatConnects(now)
}

// HandlePacket handles a message from the server. b is not kept. What is not
// authentic, or was seen before, is ignored.
func (c *Client) HandlePacket(now time.Time, b []byte) {
	t, tx, ok := wire.Header(b)
	if !ok || c.state == idle {
		return
	}
	switch t {
	case wire.TypeCookie:
		if m, err := wire.ParseCookie(b); err == nil {
			c.handleCookie(now, m)
		}
		return
	case wire.TypeWho:
		if m, err := wire.ParseWho(b); err == nil {
			c.handleWho(now, m)
		}
		return
	}
	if !c.keyed || !c.mac.Verify(b, &c.key) {
		return
	}
	switch t {
	case wire.TypeRegistered:
		if m, err := wire.ParseRegistered(b); err == nil {
			c.handleRegistered(now, m)
		}
	case wire.TypeRefused:
		if m, err := wire.ParseRefused(b); err == nil {
			c.handleRefused(now, m)
		}
	case wire.TypeDisplaced:
		if m, err := wire.ParseDisplaced(b); err == nil {
			c.handleDisplaced(now, m)
		}
	case wire.TypeAlive:
		if _, err := wire.ParseAlive(b); err == nil {
			c.handleAlive(now, tx)
		}
	case wire.TypeConnected:
		if m, err := wire.ParseConnected(b); err == nil {
			c.handleConnected(now, m)
		}
	case wire.TypeRequest:
		if m, err := wire.ParseRequest(b); err == nil && c.fresh(tx) {
			c.tell(Requested{m.Relay, m.Requester, m.Peer, m.Kinds, slices.Clone(m.Sealed)})
		}
	case wire.TypeSignalled:
		if m, err := wire.ParseSignalled(b); err == nil && c.fresh(tx) {
			c.tell(Signalled{m.Relay, slices.Clone(m.Sealed)})
		}
	}
}

func (c *Client) fresh(tx uint64) bool {
	if !c.window.Fresh(tx) {
		return false
	}
	c.window.Mark(tx)
	return true
}
