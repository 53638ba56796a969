package conformance

import (
	"errors"
	"slices"
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

// Every rule is broken by some behaviour, or by a gateway with a fault: its
// check can fail.
func TestRulesAreBroken(t *testing.T) {
	behaviours := spoilt()
	for _, p := range nat.Presets() {
		if !p.Behaviour.BlockUDP && len(p.Behaviour.Rules) == 0 { // they break everything, and show nothing
			behaviours = append(behaviours, p.Behaviour)
		}
	}
	rfc, _ := nat.PresetByName("rfc")
	for _, r := range Requirements() {
		if !r.Checked() || r.Level == May {
			continue
		}
		broken := func(err error) bool { return err != nil && !errors.Is(err, ErrNotFor) }
		if !slices.ContainsFunc(behaviours, func(b nat.Behaviour) bool { return broken(r.Check(b)) }) &&
			!slices.ContainsFunc(faults, func(make maker) bool { return broken(r.try(rfc, make)) }) {
			t.Errorf("nothing breaks %s", r.Name())
		}
	}
}
