package probe

import (
	"slices"
	"strings"
)

// Implementations of gateways: ours, in virtual time and in the kernel's lab,
// and the kernel's own.
const (
	Ours     = "ours"
	NFTables = "nftables"
)

// Quirk is a known difference between what an implementation of gateways does
// and what a behaviour says. docs/QUIRKS.md has a section of its name, with the
// packets that show it.
type Quirk struct {
	Name    string
	Where   string
	Presets []string
	seen    func(*Seen)
}

// Quirks are all that are known.
var Quirks = []Quirk{
	{Name: "nftables: ports are shared", Where: NFTables, Presets: []string{"port-restricted", "p1", "x-prohibiting"},
		seen: func(s *Seen) { s.Clash = Shared }},
	{Name: "nftables: a taken port is replaced by a random one", Where: NFTables,
		Presets: []string{"full-cone", "restricted", "p2", "p3", "x-hairpin", "x-hairpin-internal"},
		seen:    func(s *Seen) { s.Clash = AnyPort }},
	{Name: "nftables: each connection draws a port", Where: NFTables, Presets: []string{"symmetric"},
		seen: func(s *Seen) { s.TCP.Mapping = ByConnection }},
	{Name: "nftables: hairpins are not filtered", Where: NFTables, Presets: []string{"x-strict-hairpin"},
		seen: func(s *Seen) { s.UDP.Hairpin, s.TCP.Hairpin = FromExternal, FromExternal }},
}

// ExpectAt is Expect, with the quirks of an implementation.
func ExpectAt(where string, h Home) Seen {
	s := Expect(h.NAT)
	for _, q := range Quirks {
		if q.is(where, h) {
			q.seen(&s)
		}
	}
	return s
}

func (q *Quirk) is(where string, h Home) bool {
	return q.Where == where && slices.Contains(q.Presets, strings.TrimSuffix(h.Name, twin))
}
