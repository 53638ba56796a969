package dhcp

import (
	"fmt"
	"net/netip"
	"time"
)

// EventKind is what happened at a server.
type EventKind uint8

const (
	Leased    EventKind = iota // to Client, who did not have it, until Until
	Renewed                    // by Client, until Until
	Released                   // by Client
	Expired                    // Client had it
	Refused                    // Client asked for it and may not have it
	Declined                   // Client found somebody else using it; it is set aside
	Occupied                   // User answered when it was pinged; it is set aside
	Exhausted                  // Client got none; said once until an address is free again
	Hoarded                    // Client got none: User asked for too many; said once a minute
	Stolen                     // User uses it, which is leased to Client or, without one, to nobody
	eventKinds
)

func (k EventKind) String() string {
	return [eventKinds]string{
		"leased", "renewed", "released", "expired", "refused", "declined", "occupied", "exhausted", "hoarded", "stolen",
	}[k]
}

// Event is something to tell an operator.
type Event struct {
	Kind   EventKind
	Addr   netip.Addr
	Client MAC
	User   MAC       // who is not the client
	Own    bool      // the address is the server's own
	Until  time.Time // zero: for ever
}

func (e Event) String() string {
	a, c, u := e.Addr, e.Client, e.User
	switch e.Kind {
	case Leased, Renewed:
		end := "for ever"
		if !e.Until.IsZero() {
			end = "until " + e.Until.UTC().Format(time.DateTime)
		}
		return fmt.Sprintf("%v %v by %v %s", a, e.Kind, c, end)
	case Exhausted:
		return fmt.Sprintf("no address is left for %v", c)
	case Hoarded:
		return fmt.Sprintf("%v asks for too many addresses, the last one for %v", u, c)
	case Stolen:
		switch {
		case e.Own:
			return fmt.Sprintf("%v stolen by %v: it is the gateway's own", a, u)
		case c == (MAC{}):
			return fmt.Sprintf("%v stolen by %v: it is leased to nobody", a, u)
		}
		return fmt.Sprintf("%v stolen by %v from %v", a, u, c)
	case Refused:
		return fmt.Sprintf("%v refused to %v", a, c)
	case Occupied:
		return fmt.Sprintf("%v occupied by %v", a, u)
	case Expired:
		return fmt.Sprintf("%v expired, had by %v", a, c)
	}
	return fmt.Sprintf("%v %v by %v", a, e.Kind, c)
}

// maxQueued bounds events and packets that nobody has taken. More than a few
// never wait for a driver that polls.
const maxQueued = 256

// enqueue forgets the oldest when nobody takes any.
func enqueue[T any](q []T, x T) []T {
	if len(q) >= maxQueued {
		q = append(q[:0], q[1:]...)
	}
	return append(q, x)
}

func dequeue[T any](q *[]T) (x T, ok bool) {
	if len(*q) == 0 {
		return x, false
	}
	x, *q = (*q)[0], (*q)[1:]
	if len(*q) == 0 {
		*q = nil
	}
	return x, true
}
