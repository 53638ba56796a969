package nat

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The words for what a Behaviour is made of, as files and people write them.

// words are the texts of an enumeration, by value.
type words struct {
	what string
	all  []string
}

var (
	modeWords       = words{"mode", []string{"translate", "firewall", "open"}}
	dependenceWords = words{"dependence", []string{"endpoint-independent", "address-dependent", "address-and-port-dependent", "per-connection"}}
	hairpinWords    = words{"hairpinning", []string{"none", "internal-source", "external-source"}}
	allocationWords = words{"allocation", []string{"preserve-next", "preserve", "preserve-random", "sequential", "random"}}
	answerWords     = words{"answer", []string{"silent", "reset", "unreachable", "prohibited"}}
	refreshWords    = words{"refresh", []string{"outbound", "inbound", "both"}}
	fragmentsWords  = words{"treatment of fragments", []string{"any-order", "in-order", "drop"}}
	poolingWords    = words{"pooling", []string{"paired", "arbitrary"}}
	sideWords       = words{"side", []string{"inside", "outside", "dmz", "local"}}
	actionWords     = words{"action", []string{"accept", "discard", "reject"}}
)

func (w words) word(i uint8) string {
	if int(i) < len(w.all) {
		return w.all[i]
	}
	return w.what + " " + strconv.Itoa(int(i))
}

func (w words) marshal(i uint8) ([]byte, error) {
	if int(i) >= len(w.all) {
		return nil, fmt.Errorf("nat: no %s has the number %d", w.what, i)
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

func (m Mode) String() string                { return modeWords.word(uint8(m)) }
func (m Mode) MarshalText() ([]byte, error)  { return modeWords.marshal(uint8(m)) }
func (m *Mode) UnmarshalText(b []byte) error { return modeWords.unmarshal((*uint8)(m), b) }

func (d Dependence) String() string                { return dependenceWords.word(uint8(d)) }
func (d Dependence) MarshalText() ([]byte, error)  { return dependenceWords.marshal(uint8(d)) }
func (d *Dependence) UnmarshalText(b []byte) error { return dependenceWords.unmarshal((*uint8)(d), b) }

func (h Hairpin) String() string                { return hairpinWords.word(uint8(h)) }
func (h Hairpin) MarshalText() ([]byte, error)  { return hairpinWords.marshal(uint8(h)) }
func (h *Hairpin) UnmarshalText(b []byte) error { return hairpinWords.unmarshal((*uint8)(h), b) }

func (a Allocation) String() string                { return allocationWords.word(uint8(a)) }
func (a Allocation) MarshalText() ([]byte, error)  { return allocationWords.marshal(uint8(a)) }
func (a *Allocation) UnmarshalText(b []byte) error { return allocationWords.unmarshal((*uint8)(a), b) }

func (a Answer) String() string                { return answerWords.word(uint8(a)) }
func (a Answer) MarshalText() ([]byte, error)  { return answerWords.marshal(uint8(a)) }
func (a *Answer) UnmarshalText(b []byte) error { return answerWords.unmarshal((*uint8)(a), b) }

func (r Refresh) String() string                { return refreshWords.word(uint8(r)) }
func (r Refresh) MarshalText() ([]byte, error)  { return refreshWords.marshal(uint8(r)) }
func (r *Refresh) UnmarshalText(b []byte) error { return refreshWords.unmarshal((*uint8)(r), b) }

func (f Fragments) String() string                { return fragmentsWords.word(uint8(f)) }
func (f Fragments) MarshalText() ([]byte, error)  { return fragmentsWords.marshal(uint8(f)) }
func (f *Fragments) UnmarshalText(b []byte) error { return fragmentsWords.unmarshal((*uint8)(f), b) }

func (p Pooling) String() string                { return poolingWords.word(uint8(p)) }
func (p Pooling) MarshalText() ([]byte, error)  { return poolingWords.marshal(uint8(p)) }
func (p *Pooling) UnmarshalText(b []byte) error { return poolingWords.unmarshal((*uint8)(p), b) }

func (s Side) String() string                { return sideWords.word(uint8(s)) }
func (s Side) MarshalText() ([]byte, error)  { return sideWords.marshal(uint8(s)) }
func (s *Side) UnmarshalText(b []byte) error { return sideWords.unmarshal((*uint8)(s), b) }

func (a RuleAction) String() string                { return actionWords.word(uint8(a)) }
func (a RuleAction) MarshalText() ([]byte, error)  { return actionWords.marshal(uint8(a)) }
func (a *RuleAction) UnmarshalText(b []byte) error { return actionWords.unmarshal((*uint8)(a), b) }

const anyWord = "any"

// SidesOf is the set of these sides.
func SidesOf(all ...Side) (set Sides) {
	for _, s := range all {
		set |= 1 << s
	}
	return set
}

// String is "any", or the sides with commas between them.
func (s Sides) String() string {
	if s == 0 {
		return anyWord
	}
	var all []string
	for side := range Side(8) {
		if s&(1<<side) != 0 {
			all = append(all, side.String())
		}
	}
	return strings.Join(all, ",")
}

func (s Sides) MarshalText() ([]byte, error) {
	if s >= 1<<sides {
		return nil, fmt.Errorf("nat: %d is no set of sides", s)
	}
	return []byte(s.String()), nil
}

func (s *Sides) UnmarshalText(b []byte) error {
	if string(b) == anyWord {
		*s = 0
		return nil
	}
	var set Sides
	for _, word := range strings.Split(string(b), ",") {
		var one Side
		if err := one.UnmarshalText([]byte(strings.TrimSpace(word))); err != nil {
			return fmt.Errorf("%w, and %s", err, anyWord)
		}
		set |= SidesOf(one)
	}
	*s = set
	return nil
}

// String is "any", one port, or the first and the last with a dash between.
func (r PortRange) String() string {
	switch {
	case r == PortRange{}:
		return anyWord
	case r.First == r.Last:
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

func (r PortRange) MarshalText() ([]byte, error) {
	if r.First > r.Last {
		return nil, fmt.Errorf("nat: the ports %v run backwards", r)
	}
	return []byte(r.String()), nil
}

func (r *PortRange) UnmarshalText(b []byte) error {
	text := string(b)
	if text == anyWord {
		*r = PortRange{}
		return nil
	}
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	f, err1 := strconv.ParseUint(first, 10, 16)
	l, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || l == 0 {
		return fmt.Errorf("%q is no port, nor ports like 1000-1999, nor %s", text, anyWord)
	}
	if f > l {
		return fmt.Errorf("the ports %s run backwards", text)
	}
	*r = PortRange{First: uint16(f), Last: uint16(l)}
	return nil
}
