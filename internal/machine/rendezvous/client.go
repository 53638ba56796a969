package rendezvous

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
)

// ClientConfig configures a Client. Only Key is required.
type ClientConfig struct {
	Key      identity.Key
	ServerID *identity.ID  // nil: whoever answers is the server
	Rand     rand.Source   // nil: seeded from crypto/rand; must be unpredictable
	Lifetime time.Duration // of the registration; zero: the server's default
	// RelayOnly keeps our endpoint from other peers: no Direct, ever.
	RelayOnly bool
}

// ErrNotRegistered is returned by Preface while there is no registration.
var ErrNotRegistered = errors.New("not registered with the server")

// Client is the machine that keeps a peer registered.
type Client struct{ cfg ClientConfig }

// NewClient makes a client. Nothing is sent before Start.
func NewClient(cfg ClientConfig) *Client { return &Client{cfg: cfg} }

// Start registers. Called again, it registers anew at once: the owner knows
// that the network changed, or has a new connection to the server.
func (c *Client) Start(now time.Time) {}

// HandlePacket handles a message from the server. b is not kept.
func (c *Client) HandlePacket(now time.Time, b []byte) {}

// HandleTimeout does what is due.
func (c *Client) HandleTimeout(now time.Time) {}

// NextTimeout tells when HandleTimeout is to be called next, if ever.
func (c *Client) NextTimeout() (time.Time, bool) { return time.Time{}, false }

// Poll returns the next message to send. It stays valid.
func (c *Client) Poll() ([]byte, bool) { return nil, false }

// Event returns the next event.
func (c *Client) Event() (ClientEvent, bool) { return nil, false }

// Connect asks for a peer: see StopConnect for when the asking ends.
func (c *Client) Connect(now time.Time, target identity.ID, relay RelayID, kinds Kinds, sealed []byte) {}

// StopConnect ends Connect's retransmission: the peer was heard, or is not
// wanted any more. The relay, if there is one, stays.
func (c *Client) StopConnect(relay RelayID) {}

// Signal sends a signal to the relay's other party, once.
func (c *Client) Signal(now time.Time, relay RelayID, sealed []byte) {}

// Preface returns what opens a stream relay.
func (c *Client) Preface(relay RelayID) ([]byte, error) { return nil, ErrNotRegistered }

// Bye ends the registration; Start begins another.
func (c *Client) Bye(now time.Time) {}
