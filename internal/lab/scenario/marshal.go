package scenario

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Marshal writes a topology so that Load reads it back, without defaults left
// to be filled in.
func Marshal(t Topology) ([]byte, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	if t.Name != "" {
		add(root, "name", word(t.Name))
	}
	hosts := &yaml.Node{Kind: yaml.MappingNode}
	for i := range t.Hosts {
		h := &t.Hosts[i]
		n, err := encodeStruct(reflect.ValueOf(h.Port))
		if err != nil {
			return nil, fmt.Errorf("hosts.%s: %w", h.Name, err)
		}
		rest, err := encodeStruct(reflect.ValueOf(*h)) // the firewall
		if err != nil {
			return nil, fmt.Errorf("hosts.%s: %w", h.Name, err)
		}
		n.Content = append(n.Content, rest.Content...)
		add(hosts, h.Name, n)
	}
	gateways := &yaml.Node{Kind: yaml.MappingNode}
	for i := range t.Gateways {
		g := &t.Gateways[i]
		n, err := encodeStruct(reflect.ValueOf(*g))
		if err != nil {
			return nil, fmt.Errorf("gateways.%s: %w", g.Name, err)
		}
		add(gateways, g.Name, n)
	}
	add(root, "hosts", hosts)
	add(root, "gateways", gateways)
	return yaml.Marshal(root)
}

func add(to *yaml.Node, name string, value *yaml.Node) {
	to.Content = append(to.Content, word(name), value)
}

// word is quoted where it would not be read as text.
func word(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// bare is never quoted.
func bare(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

func encodeStruct(v reflect.Value) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := range v.NumField() {
		name, how := tag(v.Type().Field(i))
		_, action := v.Field(i).Interface().(nat.RuleAction) // a rule says what it does
		if name == "" || v.Field(i).IsZero() && !action {
			continue
		}
		value, err := encode(v.Field(i), how)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		add(n, name, value)
	}
	return n, nil
}

func encode(v reflect.Value, how string) (*yaml.Node, error) {
	switch x := v.Interface().(type) {
	case nat.Behaviour:
		for _, p := range nat.Presets() {
			if reflect.DeepEqual(p.Behaviour, x) {
				return bare(p.Name), nil
			}
		}
	case nat.Policy: // every field, for none has a default of its own
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range []struct {
			name string
			text encoding.TextMarshaler
		}{{"mapping", x.Mapping}, {"filtering", x.Filtering}, {"hairpin", x.Hairpin}} {
			text, err := f.text.MarshalText()
			if err != nil {
				return nil, err
			}
			add(n, f.name, bare(string(text)))
		}
		return n, nil
	case dhcp.Pool:
		if reflect.ValueOf(x).IsZero() {
			return bare("true"), nil
		}
	case time.Duration:
		return bare(x.String()), nil
	}
	if text, ok := v.Interface().(encoding.TextMarshaler); ok {
		s, err := text.MarshalText()
		return bare(string(s)), err
	}
	switch v.Kind() {
	case reflect.Pointer:
		return encode(v.Elem(), how)
	case reflect.Struct:
		return encodeStruct(v)
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range v.Len() {
			item, err := encode(v.Index(i), "")
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		return n, nil
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int {
			if a.String() < b.String() {
				return -1
			}
			return 1
		})
		for _, k := range keys {
			item, err := encode(v.MapIndex(k), "")
			if err != nil {
				return nil, err
			}
			add(n, k.String(), item)
		}
		return n, nil
	case reflect.String:
		return word(v.String()), nil
	case reflect.Bool:
		return bare(strconv.FormatBool(v.Bool())), nil
	case reflect.Float64:
		return bare(strconv.FormatFloat(v.Float(), 'g', -1, 64)), nil
	}
	if v.CanInt() {
		return bare(strconv.FormatInt(v.Int(), 10)), nil
	}
	return bare(strconv.FormatUint(v.Uint(), 10)), nil
}
