package portmap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Behaviour is which protocols are answered, and how badly, as data.
type Behaviour struct {
	NATPMP bool `yaml:"nat-pmp"`
	PCP    bool `yaml:"pcp"`
	UPnP   bool `yaml:"upnp"`

	// IGD is the version of the device that UPnP describes: 1 or 2; zero is 1.
	IGD int `yaml:"igd"`
	// MaxLifetime bounds lifetimes. Zero is a day for NAT-PMP and PCP; for UPnP
	// a week in version 2, and in version 1 no bound: a lease of 0 is for ever.
	MaxLifetime time.Duration `yaml:"max-lifetime"`
	// Max bounds the leases of all clients, PerHost those of one; zero is 1024,
	// and no bound of its own.
	Max     int `yaml:"max"`
	PerHost int `yaml:"per-host"`
	// AnyClient lets a UPnP client open and close ports of other inside hosts.
	// Without it a client has a say in its own only (RFC 6970).
	AnyClient bool `yaml:"any-client"`
	// NoLowPorts refuses ports below 1024.
	NoLowPorts bool `yaml:"no-low-ports"`
	// SamePort wants external and internal port to be the same (UPnP error
	// 724); NAT-PMP and PCP get that port or none.
	SamePort bool `yaml:"same-port"`
	// OnlyPermanent refuses UPnP leases with a lifetime (error 725), as
	// MikroTik's and ZyXEL's gateways do.
	OnlyPermanent bool `yaml:"only-permanent"`
	// RemoteHost says which remote hosts UPnP takes.
	RemoteHost RemoteHost `yaml:"remote-host"`

	// The rest is what gateways do wrong.

	// Refuse is the answer to everyone who wants a port.
	Refuse Refusal `yaml:"refuse"`
	// Lie confirms mappings that are not made.
	Lie bool `yaml:"lie"`
	// WrongAddress is told as the external address instead of the real one.
	WrongAddress WrongAddress `yaml:"wrong-address"`
	// Forget lets every mapping die after this time, without a word; asking
	// for it again revives it.
	Forget time.Duration `yaml:"forget"`
	// MovePort gives another external port than the one asked for, where the
	// protocol can say so, though that one is free.
	MovePort bool `yaml:"move-port"`
	// OneHost serves the host that came first, and the next one when nothing of
	// that host is left.
	OneHost bool `yaml:"one-host"`
	// Delay holds every answer back.
	Delay time.Duration `yaml:"delay"`
	// OddPort answers datagrams from another port than they were sent to.
	OddPort bool `yaml:"odd-port"`
	// BadXML describes the device in XML that is not well-formed.
	BadXML bool `yaml:"bad-xml"`
	// WrongURL describes the device as if it were somewhere else.
	WrongURL bool `yaml:"wrong-url"`
}

// Refusal is the answer to those who want a port.
type Refusal uint8

const (
	RefuseNobody        Refusal = iota
	RefuseNotAuthorized         // switched off by the owner: NAT-PMP 2, PCP 2, UPnP 606
	RefuseFailed                // broken: NAT-PMP 3, PCP 7, UPnP 501 to everything
	RefuseFull                  // no resources: NAT-PMP 4, PCP 8, UPnP 501 and 728
)

// WrongAddress is a lie about the external address.
type WrongAddress uint8

const (
	RightAddress   WrongAddress = iota
	PrivateAddress              // 10.0.0.1
	ZeroAddress                 // 0.0.0.0
)

// RemoteHost is what UPnP's NewRemoteHost may be.
type RemoteHost uint8

const (
	AnyRemoteHost      RemoteHost = iota
	OnlyEveryRemote               // the wildcard alone; else error 726
	OnlySingularRemote            // an address; else error 715
)

// words are the texts of an enumeration, by value.
type words struct {
	what string
	all  []string
}

var (
	refusalWords = words{"refusal", []string{"nobody", "not-authorized", "failed", "full"}}
	addressWords = words{"wrong address", []string{"right", "private", "zero"}}
	remoteWords  = words{"treatment of remote hosts", []string{"any", "only-wildcard", "no-wildcard"}}
)

func (w words) marshal(i uint8) ([]byte, error) {
	if int(i) >= len(w.all) {
		return nil, fmt.Errorf("portmap: no %s has the number %d", w.what, i)
	}
	return []byte(w.all[i]), nil
}

func (w words) unmarshal(i *uint8, text []byte) error {
	at := slices.Index(w.all, string(text))
	if at < 0 {
		return fmt.Errorf("%q is no %s; there are %s", text, w.what, strings.Join(w.all, ", "))
	}
	*i = uint8(at)
	return nil
}

func (r Refusal) MarshalText() ([]byte, error)  { return refusalWords.marshal(uint8(r)) }
func (r *Refusal) UnmarshalText(b []byte) error { return refusalWords.unmarshal((*uint8)(r), b) }

func (a WrongAddress) MarshalText() ([]byte, error)  { return addressWords.marshal(uint8(a)) }
func (a *WrongAddress) UnmarshalText(b []byte) error { return addressWords.unmarshal((*uint8)(a), b) }

func (r RemoteHost) MarshalText() ([]byte, error)  { return remoteWords.marshal(uint8(r)) }
func (r *RemoteHost) UnmarshalText(b []byte) error { return remoteWords.unmarshal((*uint8)(r), b) }

// Check refuses what no gateway can do.
func (b Behaviour) Check() error {
	switch {
	case b.IGD < 0 || b.IGD > 2:
		return fmt.Errorf("portmap: there is no version %d of IGD", b.IGD)
	case b.MaxLifetime < 0 || b.Forget < 0 || b.Delay < 0 || b.Max < 0 || b.PerHost < 0:
		return errors.New("portmap: negative limit")
	case b.MaxLifetime > 0 && b.MaxLifetime < time.Second:
		return errors.New("portmap: lifetimes are told in seconds: max-lifetime is too short")
	case b.Refuse > RefuseFull || b.WrongAddress > ZeroAddress || b.RemoteHost > OnlySingularRemote:
		return fmt.Errorf("portmap: unknown behaviour %+v", b)
	case b.SamePort && b.MovePort:
		return errors.New("portmap: a gateway that moves ports cannot keep them the same")
	}
	return nil
}

// Serves says whether anything is answered at all.
func (b Behaviour) Serves() bool { return b.NATPMP || b.PCP || b.UPnP }
