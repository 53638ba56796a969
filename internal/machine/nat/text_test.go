package nat

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

type text interface {
	encoding.TextMarshaler
	encoding.TextUnmarshaler
}

// Every value of every enumeration has a word of its own, and the word leads
// back to it; the value after the last has none.
func TestWords(t *testing.T) {
	for _, c := range []struct {
		zero text
		last uint64
		want string // of the last
	}{
		{new(Mode), uint64(Open), "open"},
		{new(Dependence), uint64(PerConnection), "per-connection"},
		{new(Hairpin), uint64(HairpinExternalSource), "external-source"},
		{new(Allocation), uint64(Random), "random"},
		{new(Answer), uint64(Prohibited), "prohibited"},
		{new(Refresh), uint64(RefreshBoth), "both"},
		{new(Fragments), uint64(DropParts), "drop"},
		{new(Pooling), uint64(Arbitrary), "arbitrary"},
		{new(Side), uint64(Local), "local"},
		{new(RuleAction), uint64(Reject), "reject"},
		{new(Sides), 1<<sides - 1, "inside,outside,dmz,local"},
		{new(ip.Proto), uint64(ip.ICMP), "icmp"},
	} {
		v := reflect.ValueOf(c.zero).Elem()
		name := v.Type().String()
		seen := map[string]bool{}
		for i := range c.last + 1 {
			v.SetUint(i)
			word, err := c.zero.MarshalText()
			if err != nil || seen[string(word)] || strings.ToLower(string(word)) != string(word) {
				t.Fatalf("%s %d: %q, %v", name, i, word, err)
			}
			seen[string(word)] = true
			back := reflect.New(v.Type())
			if err := back.Interface().(text).UnmarshalText(word); err != nil || back.Elem().Uint() != i {
				t.Errorf("%s: %q became %d: %v", name, word, back.Elem().Uint(), err)
			}
		}
		if word, _ := c.zero.MarshalText(); string(word) != c.want {
			t.Errorf("%s: the last is %q, want %q", name, word, c.want)
		}
		v.SetUint(c.last + 1)
		if word, err := c.zero.MarshalText(); err == nil {
			t.Errorf("%s %d has the word %q", name, c.last+1, word)
		}
		if s, ok := c.zero.(fmt.Stringer); ok && name != "ip.Proto" && seen[s.String()] {
			t.Errorf("%s %d is called %q", name, c.last+1, s)
		}
		err := c.zero.UnmarshalText([]byte("nonsense"))
		if err == nil || !strings.Contains(err.Error(), `"nonsense"`) || !strings.Contains(err.Error(), strings.Split(c.want, ",")[0]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSidesText(t *testing.T) {
	var s Sides
	if err := s.UnmarshalText([]byte("dmz, inside")); err != nil || s != SidesOf(Inside, DMZ) {
		t.Errorf("%v, %v", s, err)
	}
	if s.String() != "inside,dmz" {
		t.Errorf("%v", s)
	}
}

func TestPortRangeText(t *testing.T) {
	for word, want := range map[string]PortRange{
		"any": {}, "80": {80, 80}, "1000-1999": {1000, 1999}, "0-65535": {0, 65535},
	} {
		var r PortRange
		if err := r.UnmarshalText([]byte(word)); err != nil || r != want {
			t.Errorf("%s: %v, %v", word, r, err)
		}
		if back, err := r.MarshalText(); err != nil || string(back) != word {
			t.Errorf("%s became %s: %v", word, back, err)
		}
	}
	for _, word := range []string{"", "0", "-", "80-", "-80", "90-80", "65536", "1-2-3", "http", "+80", " 80"} {
		var r PortRange
		if err := r.UnmarshalText([]byte(word)); err == nil {
			t.Errorf("%q is %v", word, r)
		}
	}
	if b, err := (PortRange{2, 1}).MarshalText(); err == nil {
		t.Errorf("backwards: %s", b)
	}
}
