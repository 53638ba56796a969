package conformance

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// spoilt are the rfc preset with one thing wrong each.
func spoilt() (all []nat.Behaviour) {
	for _, spoil := range []func(*nat.Behaviour){
		func(b *nat.Behaviour) { b.Hairpin = nat.HairpinInternalSource },
		func(b *nat.Behaviour) { b.Pooling = nat.Arbitrary },
		func(b *nat.Behaviour) { b.Fragments = nat.InOrder },
		func(b *nat.Behaviour) { b.Fragments = nat.DropParts },
		func(b *nat.Behaviour) { b.Timers.UDPRefresh = nat.RefreshInbound },
		func(b *nat.Behaviour) { b.Timers.Established = time.Hour },
		func(b *nat.Behaviour) { b.Timers.AfterFIN = time.Minute },
		func(b *nat.Behaviour) { b.TCP.RefuseSYN = true },
		func(b *nat.Behaviour) { b.TCP.ICMPCloses = true },
		func(b *nat.Behaviour) { b.ICMP.DropErrors = true },
		func(b *nat.Behaviour) { b.ICMP.DropQueries = true },
		func(b *nat.Behaviour) { b.ICMP.KeepQuote = true },
		func(b *nat.Behaviour) { b.KeepTTL = true },
		func(b *nat.Behaviour) { b.Ports.HoldDown = 0 },
		func(b *nat.Behaviour) { b.Ports.Allocation = nat.Sequential },
	} {
		b, _ := nat.PresetByName("rfc")
		spoil(&b)
		all = append(all, b)
	}
	return all
}

// keptByAll are rules that this gateway keeps whatever it is told.
const keptByAll = `
RFC 4787 REQ-12, RFC 4787 REQ-13, RFC 4787 REQ-13a, RFC 5382 REQ-2, RFC 5382 REQ-4a,
RFC 5508 REQ-3, RFC 5508 REQ-3a, RFC 5508 REQ-4, RFC 5508 REQ-5, RFC 5508 REQ-8, RFC 5508 REQ-10c, RFC 5508 REQ-10e,
RFC 7857 section 2.1, RFC 7857 section 2.2, RFC 7857 section 5, RFC 7857 section 6, RFC 7857 section 7, RFC 7857 section 7 TCP, RFC 7857 section 7.1,
RFC 6888 REQ-3, RFC 6888 REQ-4, RFC 6888 REQ-4a, RFC 6888 REQ-4c, RFC 6888 REQ-5, RFC 6888 REQ-5a, RFC 6888 REQ-5b, RFC 6888 REQ-6,
RFC 6888 REQ-8 configured, RFC 6888 REQ-8 number, RFC 6888 REQ-9, RFC 6888 REQ-11a, RFC 6888 REQ-11b, RFC 6888 REQ-11d,`

// Every other rule is broken by some behaviour: its check can fail.
func TestRulesAreBroken(t *testing.T) {
	behaviours := spoilt()
	for _, p := range nat.Presets() {
		if !p.Behaviour.BlockUDP && len(p.Behaviour.Rules) == 0 { // they break everything, and show nothing
			behaviours = append(behaviours, p.Behaviour)
		}
	}
	for _, r := range Requirements() {
		if !r.Checked() || r.Level == May || strings.Contains(keptByAll, r.Name()+",") {
			continue
		}
		if !slices.ContainsFunc(behaviours, func(b nat.Behaviour) bool {
			err := r.Check(b)
			return err != nil && !errors.Is(err, ErrNotFor)
		}) {
			t.Errorf("nothing breaks %s", r.Name())
		}
	}
}
