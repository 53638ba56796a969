package locator

import (
	"errors"
	"reflect"
	"testing"

	"github.com/bodkin-net/bodkin/internal/identity"
)

func TestParse(t *testing.T) {
	id := identity.FromSeed([32]byte{1}).ID()
	both := func(host string, port uint16) Place { return Place{Host: host, Port: port, UDP: true, TCP: true} }
	for text, want := range map[string]Locator{
		"example.org":                  {Places: []Place{both("example.org", 3478)}},
		"example.org:80":               {Places: []Place{both("example.org", 80)}},
		"192.0.2.1":                    {Places: []Place{both("192.0.2.1", 3478)}},
		"[2001:db8::1]":                {Places: []Place{both("2001:db8::1", 3478)}},
		"[2001:db8::1]:99":             {Places: []Place{both("2001:db8::1", 99)}},
		id.String() + "@192.0.2.1:443": {ID: &id, Places: []Place{both("192.0.2.1", 443)}},
		"udp:192.0.2.1:1,tcp:h:2": {Places: []Place{
			{Host: "192.0.2.1", Port: 1, UDP: true}, {Host: "h", Port: 2, TCP: true}}},
	} {
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Parse(%q) = %+v, %v", text, got, err)
			continue
		}
		if again, err := Parse(got.String()); err != nil || !reflect.DeepEqual(again, want) {
			t.Errorf("Parse(%q) = %+v, %v", got.String(), again, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	id := identity.FromSeed([32]byte{1}).ID().String()
	for _, text := range []string{"", "@", "x@h", id, id + "@", id[:20] + "@h", "h:0", "h:99999", "h:x", "2001:db8::1", "a b", "h,", ",h", "[h", "http://h/"} {
		l, err := Parse(text)
		if !errors.Is(err, ErrLocator) {
			t.Errorf("Parse(%q) = %+v, %v", text, l, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("udp:192.0.2.1:1,tcp:h:2")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(l.String()); err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("%q parses as %+v, prints as %q, parses as %+v, %v", text, l, l.String(), again, err)
		}
	})
}
