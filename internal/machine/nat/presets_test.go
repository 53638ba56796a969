package nat

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestPresets(t *testing.T) {
	fit := regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	var names []string
	for i, p := range Presets() {
		if !fit.MatchString(p.Name) || p.What == "" || p.Source == "" || strings.ContainsAny(p.What+p.Source, "\n|") {
			t.Errorf("%+v", p)
		}
		for j, q := range Presets() {
			if i != j && (p.Name == q.Name || reflect.DeepEqual(p.Behaviour, q.Behaviour)) {
				t.Errorf("%s and %s are the same", p.Name, q.Name)
			}
		}
		if b, ok := PresetByName(p.Name); !ok || !reflect.DeepEqual(b, p.Behaviour) {
			t.Errorf("%s is not found by its name", p.Name)
		}
		cfg := Config{Behaviour: p.Behaviour, Rand: rand.NewPCG(1, 2), Inside: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
		cfg.Own[Outside] = []netip.Addr{ours}
		if _, err := New(cfg); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		names = append(names, p.Name)
	}
	// Scripts and documents name them.
	want := "open udp-blocked symmetric-firewall full-cone restricted port-restricted symmetric p1 p2 p3 p4 p5 p6 p7" +
		" rfc linux carrier carrier-symmetric openwrt pf turncoat meddler renumbering web-only web-inspecting proxy-only"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("there are\n%s, want\n%s", got, want)
	}
	if _, ok := PresetByName("cone"); ok {
		t.Error("there is a cone")
	}
}

// Who changes a preset changes his own.
func TestPresetIsACopy(t *testing.T) {
	mine, _ := PresetByName("web-only")
	mine.Rules[0].DstPorts[0] = PortRange{1, 1}
	again, _ := PresetByName("web-only")
	if again.Rules[0].DstPorts[0] == mine.Rules[0].DstPorts[0] {
		t.Error("the next one got the change too")
	}
}
