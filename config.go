package bodkin

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/wire/locator"
)

// ID is a node's public key. It prints with a checksum, so that a typo is told
// from an id that nobody has.
type ID = identity.ID

// Key is a node's private key.
type Key = identity.Key

// ParseID reads an id as String prints it.
func ParseID(text string) (ID, error) { return identity.Parse(text) }

// GenerateKey makes a key that lives as long as the program keeps it.
func GenerateKey() Key { return identity.Generate() }

// LoadKey reads the key in a file, and creates it on first use with mode 0600.
// A file that other users can read is refused.
func LoadKey(file string) (Key, error) { return identity.LoadOrCreate(file) }

// Network is where a node gets its sockets from. The zero Config uses the
// operating system's; a program with a network stack of its own brings that.
type Network interface {
	// ListenUDP opens a socket on the port, 0 for any, of every address.
	ListenUDP(port uint16) (net.PacketConn, error)
	// DialTCP connects from the port, 0 for any, which other connections may
	// use at the same time.
	DialTCP(ctx context.Context, port uint16, remote netip.AddrPort) (net.Conn, error)
	// Addrs lists the addresses of the host.
	Addrs() ([]netip.Addr, error)
	// LookupIP resolves a host name.
	LookupIP(ctx context.Context, host string) ([]netip.Addr, error)
}

// Config says how a node is to work. Server is required; everything else has a
// usable zero value.
type Config struct {
	// Key is the node's identity. The zero Key is replaced by a fresh one.
	Key Key
	// Server is the server string that `bodkin serve` prints; host or
	// host:port alone works too, without the server's identity pinned.
	Server string
	// Port is the local UDP port, 0 for any.
	Port uint16
	// Network is where sockets come from; nil is the operating system.
	Network Network
	// Accept lets the node's Listener take connections. Allow names who may
	// connect; empty is anyone who knows the id.
	Accept bool
	Allow  []ID
	// RelayOnly never tries a direct path and tells peers no address.
	// DirectOnly never uses a relay, and fails where no hole can be made.
	RelayOnly  bool
	DirectOnly bool
	// Techniques limits hole punching to the named ones; empty is all. See
	// [Techniques].
	Techniques []string
	// Observe, when set, is called with every event, in order, one at a time.
	// It must return soon and must not call the node's blocking methods.
	Observe func(Event)
	// Log receives what helps to find faults; nil is silence.
	Log *slog.Logger
	// PeerTimeout is how long a connection waits for a path when none answers
	// though the server can be reached; 0 is 2.5 s. That no path answers is
	// known after 3 to 6 s, so the peer may be away for about 5 s.
	PeerTimeout time.Duration
	// ServerTimeout is how long Dial and Ready wait for the server; 0 is 10 s.
	ServerTimeout time.Duration
}

// Techniques lists the names that Config.Techniques takes.
func Techniques() []string { return []string{"udp-lan", "udp-ipv6", "udp-punch", "udp-hairpin"} }

func (c Config) withDefaults() (Config, locator.Locator, error) {
	bad := func(text string, err error, hint string) (Config, locator.Locator, error) {
		return c, locator.Locator{}, &Error{Code: BadConfig, Text: text, Err: err, Hint: hint}
	}
	if c.Server == "" {
		return bad("no server given", nil, "the one who runs `bodkin serve` has the server string")
	}
	where, err := locator.Parse(c.Server)
	if err != nil {
		return bad("server string", err, "expected ID@HOST:PORT, as `bodkin serve` prints it")
	}
	if c.RelayOnly && c.DirectOnly {
		return bad("relay-only and direct-only exclude each other", nil, "")
	}
	for _, name := range c.Techniques {
		if !slices.Contains(Techniques(), name) {
			return bad("unknown technique "+name, nil, "known ones: "+joinWords(Techniques()))
		}
	}
	if !c.Key.Valid() {
		c.Key = GenerateKey()
	}
	if c.Network == nil {
		c.Network = netio.OS{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.PeerTimeout == 0 {
		c.PeerTimeout = 2500 * time.Millisecond
	}
	if c.ServerTimeout == 0 {
		c.ServerTimeout = 10 * time.Second
	}
	return c, where, nil
}
