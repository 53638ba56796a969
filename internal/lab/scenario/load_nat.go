package scenario

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// ownPresets reads the behaviours that a file brings. One may stand on those
// before it.
func (r *reader) ownPresets(f field) error {
	return r.each(f, func(name string, f field) error {
		if _, ok := nat.PresetByName(name); ok {
			return r.fault(f.value, f.path, "there is a preset of this name already")
		}
		var b nat.Behaviour
		if err := r.behaviour(f.value, f.path, "base", &b); err != nil {
			return err
		}
		r.presets[name] = b
		return nil
	})
}

// behaviour is the name of a preset, or fields, with a preset for the rest.
func (r *reader) behaviour(n *yaml.Node, path, base string, b *nat.Behaviour) error {
	if n.Kind != yaml.MappingNode {
		return r.preset(n, path, b)
	}
	rest, preset := without(n, base)
	if preset != nil {
		r.lines[path+"."+base] = preset.Line
		if err := r.preset(preset, path+"."+base, b); err != nil {
			return err
		}
	}
	rest, policy := without(rest, "tcp-policy")
	all, err := r.fields(rest, path)
	if err != nil {
		return err
	}
	v := reflect.ValueOf(b).Elem()
	for _, f := range all {
		if err := r.member(f, v, base); err != nil {
			return err
		}
	}
	if policy == nil {
		return nil
	}
	if b.TCPPolicy == nil {
		b.TCPPolicy = &nat.Policy{Mapping: b.Mapping, Filtering: b.Filtering, Hairpin: b.Hairpin}
	} else {
		own := *b.TCPPolicy
		b.TCPPolicy = &own
	}
	return r.value(policy, path+".tcp-policy", reflect.ValueOf(b.TCPPolicy).Elem(), "")
}

func (r *reader) preset(n *yaml.Node, path string, b *nat.Behaviour) error {
	name, err := r.scalar(n, path)
	if err != nil {
		return err
	}
	known, ok := r.presets[name]
	if !ok {
		known, ok = nat.PresetByName(name)
	}
	if !ok {
		var names []string
		for _, p := range nat.Presets() {
			names = append(names, p.Name)
		}
		return r.fault(n, path, "no preset %q; there are %s, and those of the file", name, strings.Join(names, ", "))
	}
	*b = known
	return nil
}

// sides reads a list; one side is read like any other word.
func (r *reader) sides(n *yaml.Node, path string, s *nat.Sides) error {
	var all []string
	for _, item := range n.Content {
		word, err := r.scalar(item, path)
		if err != nil {
			return err
		}
		all = append(all, word)
	}
	return r.text(&yaml.Node{Kind: yaml.ScalarNode, Value: strings.Join(all, ","), Line: n.Line}, path, s)
}

// pool is true for one with all defaults, false for none.
func (r *reader) pool(n *yaml.Node, path string, p **dhcp.Pool) error {
	if n.Kind == yaml.ScalarNode {
		var serve bool
		if err := r.value(n, path, reflect.ValueOf(&serve).Elem(), ""); err != nil {
			return err
		}
		if *p = nil; serve {
			*p = new(dhcp.Pool)
		}
		return nil
	}
	*p = new(dhcp.Pool)
	return r.value(n, path, reflect.ValueOf(*p).Elem(), "")
}
