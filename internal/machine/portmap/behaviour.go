// Package portmap answers those who ask a gateway for a port: NAT-PMP (RFC
// 6886), PCP (RFC 6887) and UPnP IGD, as a pure state machine.
package portmap

import "time"

// Behaviour is which protocols are answered, and how badly, as data.
type Behaviour struct {
	NATPMP bool `yaml:"nat-pmp"`
	PCP    bool `yaml:"pcp"`
	UPnP   bool `yaml:"upnp"`

	// Lie confirms mappings that are not made.
	Lie bool `yaml:"lie"`
	// WrongAddress is told as the external address instead of the real one:
	// "private" for 10.0.0.1, "zero" for 0.0.0.0; empty tells the truth.
	WrongAddress string `yaml:"wrong-address"`
	// OnlyPermanent refuses leases with a lifetime (UPnP error 725).
	OnlyPermanent bool `yaml:"only-permanent"`
	// Forget lets every mapping die after this time, without a word.
	Forget time.Duration `yaml:"forget"`
	// MaxLifetime bounds lifetimes; zero is a day.
	MaxLifetime time.Duration `yaml:"max-lifetime"`
}
