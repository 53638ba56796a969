package bodkin

import (
	"fmt"
	"net/netip"
	"slices"
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

// localFor is the node's endpoint on the way to an address: with the host's
// address where only one is likely, unspecified where the system may choose.
func (n *Node) localFor(remote netip.Addr) netip.AddrPort {
	addrs, err := n.cfg.Network.Addrs()
	if err != nil || !remote.IsValid() {
		return n.LocalAddr()
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.Is4() != remote.Is4() })
	bits := 24
	if remote.Is6() {
		bits = 64
	}
	if near, err := remote.Prefix(bits); err == nil {
		if i := slices.IndexFunc(addrs, near.Contains); i >= 0 {
			addrs = addrs[i : i+1]
		}
	}
	if len(addrs) != 1 {
		return n.LocalAddr()
	}
	return netip.AddrPortFrom(addrs[0], n.localPort())
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
