package bodkin

import (
	"fmt"
	"net/netip"
	"time"
)

// Kind says whether a path leads through the server.
type Kind string

const (
	Relay  Kind = "relay"
	Direct Kind = "direct"
)

// Path is the way that bytes take to the peer just now.
type Path struct {
	Kind      Kind           `json:"kind"`
	Transport string         `json:"transport"` // "udp" or "tcp"
	Technique string         `json:"technique"` // how it came about: "relay", "udp-lan", "udp-punch", ...
	Local     netip.AddrPort `json:"local"`     // the node's own socket
	Remote    netip.AddrPort `json:"remote"`    // the peer's endpoint, or the server's on a relay
	// RTT is the round trip of the path when it was last measured.
	RTT time.Duration `json:"-"`
}

// Equal tells whether both are the same way, whatever was measured on it.
func (p Path) Equal(q Path) bool {
	p.RTT, q.RTT = 0, 0
	return p == q
}

func (p Path) String() string {
	if p.Kind == "" {
		return "no path"
	}
	return fmt.Sprintf("%s %s %s (%s, rtt %s)", p.Kind, p.Transport, p.Remote, p.Technique, p.RTT.Round(100*time.Microsecond))
}
