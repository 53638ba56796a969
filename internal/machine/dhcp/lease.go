package dhcp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Lease is what a server remembers of a client, also after a restart.
type Lease struct {
	Addr     netip.Addr
	Client   MAC
	ClientID string    // what the client calls itself; empty: by its hardware address
	Until    time.Time // zero: for ever. A lease that has ended is remembered too, so that the client may come back to it
}

// Leases are all that there are and were, by address.
func (s *Server) Leases() []Lease {
	var all []Lease
	for _, r := range s.book.byAddr {
		l := Lease{Addr: r.addr, Client: r.hw, Until: r.until}
		switch {
		case r.state == leased:
		case r.state == idle:
			l.Until = r.since
		default:
			continue
		}
		if id, ok := strings.CutPrefix(r.key, "i"); ok {
			l.ClientID = id
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	return all
}

// Restore takes over the leases of a server that was here before. Those that
// its own configuration rules out are left out, and those that later ones
// contradict or leave no room for; it returns how many.
func (s *Server) Restore(now time.Time, leases []Lease) (left int) {
	leases = slices.Clone(leases)
	slices.SortStableFunc(leases, latestFirst)
	var over []*record
	for _, l := range leases {
		m := message{hw: l.Client, id: l.ClientID}
		k := s.key(&m)
		if !l.Client.single() || len(l.ClientID) > maxClientID || !s.space.lendable(l.Addr, l.Client) ||
			s.book.byKey[k] != nil || !s.vacant(l.Addr) || s.book.byAddr[l.Addr] != nil {
			left++
			continue
		}
		r := s.book.give(now, l.Addr, k, l.Client, l.Client, leased, l.Until)
		if !l.Until.IsZero() && !l.Until.After(now) {
			over = append(over, r)
		}
	}
	for _, r := range slices.Backward(over) {
		s.book.move(r.until, r, idle, time.Time{})
	}
	return left
}

func latestFirst(a, b Lease) int {
	if a.Until.IsZero() || b.Until.IsZero() {
		return a.Until.Compare(b.Until) // for ever, which is zero, before all others
	}
	return b.Until.Compare(a.Until)
}

// Reset is a restart with the leases in a file: offers, thefts and what was set
// aside are forgotten.
func (s *Server) Reset(now time.Time) {
	leases, err := ParseLeases(AppendLeases(nil, s.Leases()))
	if err != nil {
		leases = nil // as with a file that cannot be read
	}
	s.book, s.thefts, s.out, s.exhausted, s.hoarded = newBook(s.space, s.cfg.MaxLeases), map[user]time.Time{}, nil, false, time.Time{}
	s.Restore(now, leases)
}

// Forget ends the leases of a hardware address and keeps it from getting the
// same address back: its next renewal is refused.
func (s *Server) Forget(now time.Time, hw MAC) {
	for _, l := range s.Leases() {
		if l.Client == hw {
			r := s.book.byAddr[l.Addr]
			s.barred.add(r.key, r.addr)
			s.book.move(now, r, free, time.Time{})
			s.exhausted = false
		}
	}
}

// barred are the addresses that clients may not have back, the latest of them.
type barred []struct {
	key  string
	addr netip.Addr
}

const maxBarred = 64

func (b *barred) add(key string, a netip.Addr) {
	b.drop(key)
	if len(*b) >= maxBarred {
		*b = append((*b)[:0], (*b)[1:]...)
	}
	*b = append(*b, struct {
		key  string
		addr netip.Addr
	}{key, a})
}

func (b barred) of(key string) netip.Addr {
	for _, x := range b {
		if x.key == key {
			return x.addr
		}
	}
	return netip.Addr{}
}

func (b *barred) drop(key string) {
	for i, x := range *b {
		if x.key == key {
			*b = slices.Delete(*b, i, i+1)
			return
		}
	}
}

// Leases are kept in a file as text: this line, then a line for each, of
// address, hardware address, client identifier in hexadecimal or "-", and
// its end in RFC 3339 or "never".
const leasesHeader = "bodkin leases 1"

const maxLeasesText = 64 << 20

// AppendLeases appends the text of leases to b.
func AppendLeases(b []byte, leases []Lease) []byte {
	b = append(b, leasesHeader+"\n"...)
	for _, l := range leases {
		id, until := "-", "never"
		if l.ClientID != "" {
			id = hex.EncodeToString([]byte(l.ClientID))
		}
		if !l.Until.IsZero() {
			until = l.Until.UTC().Format(time.RFC3339Nano)
		}
		b = fmt.Appendln(b, l.Addr, l.Client, id, until)
	}
	return b
}

// ParseLeases reads what AppendLeases wrote.
func ParseLeases(b []byte) (all []Lease, err error) {
	if len(b) > maxLeasesText {
		return nil, errors.New("dhcp: leases: too long")
	}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		if n == 1 {
			if string(bytes.TrimSpace(line)) != leasesHeader {
				return nil, fmt.Errorf("dhcp: leases: the first line is not %q", leasesHeader)
			}
			continue
		}
		l, err := parseLease(strings.Fields(string(line)))
		if err != nil {
			return nil, fmt.Errorf("dhcp: leases: line %d: %w", n, err)
		}
		all = append(all, l)
	}
	if n == 0 {
		return nil, errors.New("dhcp: leases: empty")
	}
	return all, nil
}

func parseLease(f []string) (l Lease, err error) {
	if len(f) != 4 {
		return l, fmt.Errorf("%d fields, want 4", len(f))
	}
	if l.Addr, err = netip.ParseAddr(f[0]); err != nil || !l.Addr.Is4() {
		return l, fmt.Errorf("%q is no IPv4 address", f[0])
	}
	if l.Client, err = ParseMAC(f[1]); err != nil {
		return l, err
	}
	if f[2] != "-" {
		id, err := hex.DecodeString(f[2])
		if err != nil || len(id) == 0 || len(id) > maxClientID {
			return l, fmt.Errorf("%.40q is no client identifier", f[2])
		}
		l.ClientID = string(id)
	}
	if f[3] != "never" {
		if l.Until, err = time.Parse(time.RFC3339Nano, f[3]); err != nil || l.Until.IsZero() {
			return l, fmt.Errorf("%q is no time", f[3])
		}
	}
	return l, nil
}
