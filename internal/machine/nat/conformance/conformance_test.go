package conformance

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// The preset rfc breaks no rule: TestRFC/RFC4787/REQ-1 and on.
func TestRFC(t *testing.T) {
	b, _ := nat.PresetByName("rfc")
	for rfc, list := range byRFC() {
		t.Run(fmt.Sprintf("RFC%d", rfc), func(t *testing.T) {
			for _, r := range list {
				t.Run(r.Number, func(t *testing.T) {
					if !r.Checked() {
						t.Skip(r.Why)
					}
					if err := r.Check(b); err != nil {
						t.Errorf("%v: %v", r.Level, err)
					}
				})
			}
		})
	}
}

func byRFC() map[int][]Requirement {
	all := map[int][]Requirement{}
	for _, r := range Requirements() {
		all[r.RFC] = append(all[r.RFC], r)
	}
	return all
}

func TestRequirements(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Requirements() {
		if seen[r.Name()] || r.Text == "" || r.Checked() == (r.Why != "") || strings.ContainsAny(r.Text+r.Why, "|\n") {
			t.Errorf("%+v", r)
		}
		seen[r.Name()] = true
	}
}

// What is no NAT, or none of a carrier, is not judged as one.
func TestNotFor(t *testing.T) {
	for _, r := range Requirements() {
		if err := r.Check(nat.Behaviour{Mode: nat.Open}); !errors.Is(err, ErrNotFor) {
			t.Errorf("%s, of a plain router: %v", r.Name(), err)
		}
		if err := r.Check(nat.Behaviour{}); r.RFC == 6888 && !errors.Is(err, ErrNotFor) {
			t.Errorf("%s, of a home router: %v", r.Name(), err)
		}
	}
}
