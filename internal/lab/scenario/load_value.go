package scenario

import (
	"encoding"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// tag takes a struct field's yaml tag apart: its name, and how to read it.
func tag(f reflect.StructField) (name, how string) {
	name, how, _ = strings.Cut(f.Tag.Get("yaml"), ",")
	return name, how
}

// member reads a field of the struct v.
func (r *reader) member(f field, v reflect.Value, beside ...string) error {
	var known []string
	for i := range v.NumField() {
		name, how := tag(v.Type().Field(i))
		if name == f.name && name != "" {
			return r.value(f.value, f.path, v.Field(i), how)
		}
		if name != "" {
			known = append(known, name)
		}
	}
	return r.unknown(f, append(known, beside...))
}

// scalar is the text of a plain value or a key.
func (r *reader) scalar(n *yaml.Node, path string) (string, error) {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return "", r.fault(n, path, "no anchors and aliases; a behaviour that is used again is a preset")
	case n.Kind != yaml.ScalarNode:
		return "", r.fault(n, path, "one value is wanted here")
	case n.Style&yaml.TaggedStyle != 0:
		return "", r.fault(n, path, "no tags, like %s", n.Tag)
	case n.Tag == "!!merge":
		return "", r.fault(n, path, "no merging; a behaviour that is used again is a preset")
	case n.Tag == "!!null":
		return "", r.fault(n, path, "nothing stands here")
	}
	return n.Value, nil
}

// value reads n into v.
func (r *reader) value(n *yaml.Node, path string, v reflect.Value, how string) error {
	switch p := v.Addr().Interface().(type) {
	case *Port:
		return r.port(n, path, p)
	case *nat.Behaviour:
		return r.behaviour(n, path, "preset", p)
	case **dhcp.Pool:
		return r.pool(n, path, p)
	case *nat.Sides:
		if n.Kind == yaml.SequenceNode {
			return r.sides(n, path, p)
		}
	}
	if text, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return r.text(n, path, text)
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return r.value(n, path, v.Elem(), how)
	case reflect.Struct:
		all, err := r.fields(n, path)
		for _, f := range all {
			if err == nil {
				err = r.member(f, v)
			}
		}
		return err
	case reflect.Slice:
		return r.list(n, path, v)
	case reflect.Map:
		return r.table(n, path, v)
	}
	return r.plain(n, path, v, how)
}

// list takes one value for a list of one. It replaces what is there.
func (r *reader) list(n *yaml.Node, path string, v reflect.Value) error {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		at := path
		if n.Kind == yaml.SequenceNode {
			at += "[" + strconv.Itoa(i) + "]"
			r.lines[at] = item.Line
		}
		if err := r.value(item, at, v.Index(i), ""); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) table(n *yaml.Node, path string, v reflect.Value) error {
	all, err := r.fields(n, path)
	if err != nil {
		return err
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, f := range all {
		value := reflect.New(v.Type().Elem()).Elem()
		if err := r.value(f.value, f.path, value, ""); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(f.name), value)
	}
	return nil
}

func (r *reader) text(n *yaml.Node, path string, v encoding.TextUnmarshaler) error {
	s, err := r.scalar(n, path)
	if err != nil {
		return err
	}
	if err := v.UnmarshalText([]byte(s)); err != nil {
		what := err.Error()
		switch v.(type) {
		case *netip.Prefix:
			what = strconv.Quote(s) + " is no address with the length of its network's prefix, like 10.0.0.1/24"
		case *netip.Addr:
			what = strconv.Quote(s) + " is no address, like 10.0.0.1"
		}
		return r.fault(n, path, "%s", oneLine(what))
	}
	return nil
}

func (r *reader) plain(n *yaml.Node, path string, v reflect.Value, how string) error {
	s, err := r.scalar(n, path)
	if err != nil {
		return err
	}
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		var d time.Duration
		if d, err = ParseTime(s); err == nil {
			v.SetInt(int64(d))
		}
	case how == "share":
		var f float64
		if f, err = ParseShare(s); err == nil {
			v.SetFloat(f)
		}
	case how == "bits":
		var b int64
		if b, err = ParseRate(s); err == nil {
			v.SetInt(b)
		}
	case v.Kind() == reflect.String:
		v.SetString(s)
	case v.Kind() == reflect.Bool:
		if s != "true" && s != "false" {
			return r.fault(n, path, "%q is neither true nor false", s)
		}
		v.SetBool(s == "true")
	case v.CanInt():
		var i int64
		if i, err = parseNumber(s, v.Type().Bits()); err == nil {
			v.SetInt(i)
		}
	case v.CanUint():
		i, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil {
			return r.fault(n, path, "%q is no number from 0 to %d", s, uint64(math.MaxUint64)>>(64-v.Type().Bits()))
		}
		v.SetUint(i)
	default:
		panic("scenario: no file can hold a " + v.Type().String())
	}
	if err != nil {
		return r.fault(n, path, "%v", err)
	}
	return nil
}
