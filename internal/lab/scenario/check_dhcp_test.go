package scenario

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
)

// A pool of two addresses, of which one is a fixed host's, and three ports that
// want one.
func TestShortages(t *testing.T) {
	const file = `
hosts: {a: home, b: home, c: {network: home, address: 10.0.0.5/29}, s: internet}
gateways:
  g:
    outside: internet
    inside: {network: home, address: 10.0.0.1/29}
    dhcp: {first: 10.0.0.5, last: 10.0.0.6%s}
  deep: {inside: far, outside: home, dhcp: {first: 10.1.0.2, last: 10.1.0.2}}
`
	load := func(yaml string) Topology {
		t.Helper()
		top, err := Load("f.yaml", []byte(yaml))
		if err != nil {
			t.Fatal(err)
		}
		return top
	}
	top := load(fmt.Sprintf(file, ""))
	if d := cmp.Diff([]Shortage{{"g", "home", 1, 3}}, Shortages(top)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Shortage{{"g", "home", 1, 2}}, Shortages(top, "b", "s")); d != "" {
		t.Error(d)
	}
	if got := Shortages(top, "a", "b"); got != nil {
		t.Errorf("%+v", got)
	}
	want := []string{"f.yaml:7: gateways.g.dhcp: addresses to lend: 1, wanted: 3"}
	if d := cmp.Diff(want, Warnings("f.yaml", []byte(fmt.Sprintf(file, "")))); d != "" {
		t.Error(d)
	}
	// Who has a reservation takes no other address.
	mac := func(port string) string { return dhcp.MAC(HardwareAddr(port)).String() }
	manual := ", manual: {" + mac("a") + ": 10.0.0.2, " + mac("deep/outside") + ": 10.0.0.6}"
	if d := cmp.Diff([]Shortage{{"g", "home", 0, 1}}, Shortages(load(fmt.Sprintf(file, manual)))); d != "" {
		t.Error(d)
	}
	if got := Warnings("f.yaml", []byte("hosts: {s: internet}")); got != nil {
		t.Errorf("%q", got)
	}
	if got := Warnings("f.yaml", []byte("hosts: {s: nowhere}")); got != nil {
		t.Errorf("%q", got)
	}
}
