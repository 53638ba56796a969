// Package conformance is the rules that the RFCs have for NATs, each with a
// check that gives packets to a gateway and looks at what comes out: RFC 4787
// (UDP), 5382 (TCP), 5508 (ICMP), 7857 (updates to these) and 6888 (carrier
// NATs).
package conformance

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Level is how much an RFC wants something (RFC 2119).
type Level uint8

const (
	Must   Level = iota
	Should       // and RECOMMENDED
	May          // and OPTIONAL
)

func (l Level) String() string { return [...]string{"MUST", "SHOULD", "MAY"}[l] }

// Requirement is a rule of an RFC.
type Requirement struct {
	RFC int
	// Number is the RFC's own: REQ-5a, or the section where RFC 7857 changes
	// something. Where one number asks for several things, a word tells them
	// apart.
	Number string
	Level  Level
	Text   string // in our words

	check func(*trial)
	// Why says why there is no check, for rules that no packet shows.
	Why string
}

// Name is unique: RFC 4787 REQ-1.
func (r Requirement) Name() string { return fmt.Sprintf("RFC %d %s", r.RFC, r.Number) }

// Checked says whether Check does anything.
func (r Requirement) Checked() bool { return r.check != nil }

// ErrNotFor says that a requirement is not for such a gateway.
var ErrNotFor = errors.New("not for this gateway")

// Check tries a gateway of this behaviour. It returns what the gateway does
// wrong, or an error that is ErrNotFor. The same behaviour always gets the same
// answer.
func (r Requirement) Check(b nat.Behaviour) error {
	return r.try(b, func(c nat.Config) (gateway, error) { return nat.New(c) })
}

// gateway is what a check gives packets to. That of nat is one; the tests have
// others, each with a fault that no behaviour has.
type gateway interface {
	Handle(now time.Time, from nat.Side, pkt []byte, off nat.Offload) nat.Verdict
	HandleTimeout(now time.Time)
	NextTimeout() (time.Time, bool)
	Poll() (nat.Out, bool)
	Map(now time.Time, want nat.Request) (nat.Mapping, error)
	Reset()
	Stats() nat.Stats
}

type maker func(nat.Config) (gateway, error)

func (r Requirement) try(b nat.Behaviour, make maker) (err error) {
	if r.check == nil {
		return fmt.Errorf("%w: %s", ErrNotFor, r.Why)
	}
	if b.Mode != nat.Translate {
		return fmt.Errorf("%w: it does not translate", ErrNotFor)
	}
	if r.RFC == 6888 && !Carrier(b) {
		return fmt.Errorf("%w: it is no carrier NAT", ErrNotFor)
	}
	defer func() {
		switch v := recover().(type) {
		case nil:
		case verdict:
			err = v.err
			if r.Level == May && (err == errNoUDP || err == errNoTCP || err == errNoPing) {
				err = fmt.Errorf("%w: %w", ErrNotFor, err) // it has no use for the permission
			}
		default:
			panic(v)
		}
	}()
	r.check(&trial{b, make})
	return nil
}

// Carrier says whether a gateway is one for many subscribers: it bounds what
// each of them gets (RFC 6888 REQ-4).
func Carrier(b nat.Behaviour) bool { return b.Ports.PerHost > 0 || b.Ports.Block > 0 }

// Requirements are all, by RFC in the order in which they came, and by number.
func Requirements() []Requirement {
	return slices.Concat(everyNAT(), of(7857, updates), of(6888, carrierRules))
}

func everyNAT() []Requirement {
	return slices.Concat(of(4787, udpRules), of(5382, tcpRules), of(5508, icmpRules))
}

func of(rfc int, list []Requirement) []Requirement {
	list = slices.Clone(list)
	for i := range list {
		list[i].RFC = rfc
	}
	return list
}

// trial is one Check.
type trial struct {
	b    nat.Behaviour
	make maker
}

// verdict is panicked with, to end a trial.
type verdict struct{ err error }

// fail ends the trial: the gateway broke the rule.
func (*trial) fail(format string, args ...any) {
	panic(verdict{fmt.Errorf(format, args...)})
}

// want fails unless ok.
func (*trial) want(ok bool, broken string) {
	if !ok {
		panic(verdict{errors.New(broken)})
	}
}

// gets fails for a gateway that lets nothing of a kind out at all, so that
// there is nothing to try.
func (*trial) gets(ok bool, broken error) {
	if !ok {
		panic(verdict{broken})
	}
}

var (
	errNoUDP  = errors.New("no UDP gets out")
	errNoTCP  = errors.New("no TCP gets out")
	errNoPing = errors.New("no ping gets out")
)

// notFor ends the trial: the rule is not for this gateway.
func (*trial) notFor(why string) {
	panic(verdict{fmt.Errorf("%w: %s", ErrNotFor, why)})
}
