// Package locator reads and prints the server string: where a server is, and
// who it must prove to be.
//
//	[ID@]PLACE[,PLACE...]      PLACE = [udp:|tcp:]HOST[:PORT]
//
// A place without a transport is both; without a port it is 3478. HOST is a
// name or an address, an IPv6 address in brackets.
package locator

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/bodkin-net/bodkin/internal/identity"
)

// DefaultPort is STUN's (RFC 8489 section 18.6).
const DefaultPort = 3478

const maxPlaces = 16

// ErrLocator is wrapped by every error of Parse.
var ErrLocator = errors.New("not a server string")

// Place is one address of a server.
type Place struct {
	Host     string
	Port     uint16
	UDP, TCP bool
}

// Locator is a parsed server string.
type Locator struct {
	ID     *identity.ID // nil when the server's identity is not pinned
	Places []Place
}

// Parse reads a server string.
func Parse(text string) (Locator, error) {
	var l Locator
	rest := strings.TrimSpace(text)
	if rest == "" {
		return l, fmt.Errorf("%w: it is empty", ErrLocator)
	}
	if idText, places, ok := strings.Cut(rest, "@"); ok {
		id, err := identity.Parse(idText)
		if err != nil {
			return l, fmt.Errorf("%w: before the @: %w", ErrLocator, err)
		}
		l.ID, rest = &id, places
	}
	for text := range strings.SplitSeq(rest, ",") {
		p, err := parsePlace(text)
		if err != nil {
			return Locator{}, err
		}
		l.Places = append(l.Places, p)
	}
	if len(l.Places) > maxPlaces {
		return Locator{}, fmt.Errorf("%w: more than %d places", ErrLocator, maxPlaces)
	}
	return l, nil
}

func parsePlace(text string) (Place, error) {
	p := Place{UDP: true, TCP: true, Port: DefaultPort}
	rest := text
	if r, ok := strings.CutPrefix(rest, "udp:"); ok {
		rest, p.TCP = r, false
	} else if r, ok := strings.CutPrefix(rest, "tcp:"); ok {
		rest, p.UDP = r, false
	}
	p.Host = rest
	bare := strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]")
	if addr, err := netip.ParseAddr(bare); err == nil && (addr.Is4() || rest != bare) {
		p.Host = bare // no port
	} else if err == nil {
		return Place{}, fmt.Errorf("%w: %q needs brackets: [%s]", ErrLocator, text, bare)
	} else if strings.Contains(rest, ":") {
		host, port, err := net.SplitHostPort(rest)
		if err != nil {
			return Place{}, fmt.Errorf("%w: %q is no host:port", ErrLocator, text)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Place{}, fmt.Errorf("%w: %q is no port", ErrLocator, port)
		}
		p.Host, p.Port = host, uint16(n)
	}
	if _, err := identity.Parse(p.Host); err == nil {
		return Place{}, fmt.Errorf("%w: an id without an address: expected ID@HOST:PORT", ErrLocator)
	}
	if !validHost(p.Host) {
		return Place{}, fmt.Errorf("%w: %q is no host", ErrLocator, p.Host)
	}
	return p, nil
}

func validHost(h string) bool {
	if addr, err := netip.ParseAddr(h); err == nil {
		return addr.Zone() == "" // means nothing on another machine
	}
	if h == "udp" || h == "tcp" {
		return false // would read as a transport
	}
	return h != "" && len(h) <= 253 && strings.Trim(strings.ToLower(h), "abcdefghijklmnopqrstuvwxyz0123456789.-_") == ""
}

// String prints the locator so that Parse reads the same.
func (l Locator) String() string {
	var b strings.Builder
	if l.ID != nil {
		b.WriteString(l.ID.String() + "@")
	}
	for i, p := range l.Places {
		if i > 0 {
			b.WriteByte(',')
		}
		switch {
		case !p.TCP:
			b.WriteString("udp:")
		case !p.UDP:
			b.WriteString("tcp:")
		}
		b.WriteString(net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))))
	}
	return b.String()
}
