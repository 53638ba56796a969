package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// maxFile bounds a scenario file.
const maxFile = 1 << 20

// Load reads a topology from YAML and checks it; those who can build less than
// others have checks to add, which say so with a *Fault. name is that of the
// file, for errors: they are one line, FILE:LINE: where: what is wrong.
//
//	name: two homes
//	presets:                       # behaviours of this file
//	  mine: {base: linux, hairpin: external-source}
//	hosts:
//	  server: internet             # a port: the name of its network,
//	  a: {network: home, link: {delay: 5ms, loss: 1%, rate: 100mbit}}
//	  b: {network: office, address: 10.2.0.7/24, firewall: symmetric-firewall}
//	gateways:
//	  home: {inside: home, outside: internet, nat: mine, dhcp: true}
//	  office:
//	    inside: {network: office, address: [10.2.0.1/24, 2001:db8:2::1/64]}
//	    outside: {network: internet, link: {delay: 20ms}}
//	    nat: {preset: symmetric, timers: {udp: 30s}}
//
// Fields have the names of the yaml tags of Topology's types; a list of one
// need not be a list. Networks are whatever ports name; one of them is
// Internet. What is not said has these defaults:
//
//   - A port without an address gets it by DHCP where its network's gateway
//     serves that and the port does not say dhcp: false. Else it gets the next
//     free address of its network, gateways first: an IPv6 one where no IPv4
//     address is given. A network of which none is given is 10.N.0.0/24 with the
//     lowest N that is free; the internet is 198.51.100.0/24, or another such
//     one if that is taken.
//   - A gateway without nat is the zero Behaviour, full-cone. Fields beside
//     preset replace those of the preset, and tcp-policy starts from what UDP
//     has. A host's firewall is in mode firewall.
//   - dhcp: true is the zero Pool.
//   - rate is in bit, kbit, mbit or gbit a second, loss and the like in percent
//     or a share, time with its unit: 20ms, 1m30s.
func Load(name string, data []byte, more ...func(Topology) error) (Topology, error) {
	r := newReader(name)
	t, err := r.load(data)
	for _, check := range more {
		if err == nil {
			err = r.place(check(t))
		}
	}
	if err != nil {
		return Topology{}, err
	}
	return t, nil
}

// Warnings are what may be a mistake in a file that Load takes, in the form of
// its errors.
func Warnings(name string, data []byte) (all []string) {
	r := newReader(name)
	t, err := r.load(data)
	if err != nil {
		return nil
	}
	for _, f := range doubts(t) {
		all = append(all, r.place(f).Error())
	}
	return all
}

// reader is one Load.
type reader struct {
	file    string
	lines   map[string]int // of paths
	presets map[string]nat.Behaviour
	noDHCP  map[string]bool // ports, by path, that say dhcp: false
}

func newReader(name string) *reader {
	return &reader{file: name, lines: map[string]int{}, presets: map[string]nat.Behaviour{}, noDHCP: map[string]bool{}}
}

func (r *reader) load(data []byte) (Topology, error) {
	root, err := r.parse(data)
	if err != nil {
		return Topology{}, err
	}
	t, err := r.topology(root)
	if err != nil {
		return Topology{}, err
	}
	if err := r.complete(&t); err != nil {
		return Topology{}, r.place(err)
	}
	return t, r.place(Check(t))
}

// place says in which line of the file a *Fault is.
func (r *reader) place(err error) error {
	var f *Fault
	switch {
	case errors.As(err, &f):
		return fmt.Errorf("%s:%d: %w", r.file, r.line(f.Path), err)
	case err != nil:
		return fmt.Errorf("%s: %w", r.file, err)
	}
	return nil
}

// line is where a path stands, or what it is part of.
func (r *reader) line(path string) int {
	for path != "" {
		if n := r.lines[path]; n > 0 {
			return n
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return 1
}

func (r *reader) fault(n *yaml.Node, path, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if path != "" {
		what = path + ": " + what
	}
	return fmt.Errorf("%s:%d: %s", r.file, max(n.Line, 1), what)
}

func (r *reader) parse(data []byte) (*yaml.Node, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s:1: a file of %d bytes; %d is the most", r.file, len(data), maxFile)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := d.Decode(&doc)
	if err == nil {
		if err = d.Decode(&more); err == nil {
			return nil, r.fault(&more, "", "a second document; one file is one topology")
		}
	}
	if err == io.EOF && doc.Kind != 0 {
		root := doc.Content[0]
		if root.Kind != yaml.MappingNode {
			return nil, r.fault(root, "", "fields are wanted here: name, presets, hosts, gateways")
		}
		return root, nil
	}
	if err == io.EOF {
		return nil, fmt.Errorf("%s:1: nothing stands in it", r.file)
	}
	var wrong *yaml.LoadError
	if errors.As(err, &wrong) {
		return nil, fmt.Errorf("%s:%d: %s", r.file, max(wrong.Mark.Line, 1), oneLine(wrong.Message))
	}
	return nil, fmt.Errorf("%s:1: %s", r.file, oneLine(strings.TrimPrefix(err.Error(), "yaml: ")))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// field is an entry of a mapping.
type field struct {
	name  string
	path  string
	value *yaml.Node
}

// fields are the entries of n, in order.
func (r *reader) fields(n *yaml.Node, path string) ([]field, error) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return nil, r.fault(n, path, "no anchors and aliases; a behaviour that is used again is a preset")
	}
	if n.Kind != yaml.MappingNode {
		return nil, r.fault(n, path, "fields are wanted here, like {name: value}")
	}
	var all []field
	names := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		name, err := r.scalar(key, path)
		if err != nil {
			return nil, err
		}
		if strings.ContainsFunc(name, unicode.IsControl) {
			return nil, r.fault(key, path, "%q is no name", name)
		}
		f := field{name: name, path: name, value: n.Content[i+1]}
		if path != "" {
			f.path = path + "." + name
		}
		if names[name] {
			return nil, r.fault(key, f.path, "stands here twice")
		}
		names[name] = true
		r.lines[f.path] = key.Line
		all = append(all, f)
	}
	return all, nil
}

func (r *reader) topology(root *yaml.Node) (t Topology, err error) {
	all, err := r.fields(root, "")
	if err != nil {
		return t, err
	}
	// Presets may stand behind those who use them.
	for _, f := range all {
		if f.name == "presets" {
			if err := r.ownPresets(f); err != nil {
				return t, err
			}
		}
	}
	for _, f := range all {
		switch f.name {
		case "name":
			err = r.value(f.value, f.path, reflect.ValueOf(&t.Name).Elem(), "")
		case "hosts":
			err = r.each(f, func(name string, f field) error {
				t.Hosts = append(t.Hosts, Host{Name: name})
				return r.host(f, &t.Hosts[len(t.Hosts)-1])
			})
		case "gateways":
			err = r.each(f, func(name string, f field) error {
				t.Gateways = append(t.Gateways, Gateway{Name: name})
				return r.gateway(f, &t.Gateways[len(t.Gateways)-1])
			})
		case "presets":
		default:
			err = r.unknown(f, []string{"name", "presets", "hosts", "gateways"})
		}
		if err != nil {
			return t, err
		}
	}
	return t, nil
}

func (r *reader) each(f field, read func(name string, f field) error) error {
	all, err := r.fields(f.value, f.path)
	for _, f := range all {
		if err == nil {
			err = read(f.name, f)
		}
	}
	return err
}

func (r *reader) unknown(f field, known []string) error {
	return r.fault(f.value, f.path, "no such field; there are %s", strings.Join(known, ", "))
}

// host is a port with a firewall, all in one mapping.
func (r *reader) host(f field, h *Host) error {
	if f.value.Kind != yaml.MappingNode {
		return r.port(f.value, f.path, &h.Port)
	}
	n, wall := without(f.value, "firewall")
	if wall != nil {
		r.lines[f.path+".firewall"] = wall.Line
		h.Firewall = &nat.Behaviour{Mode: nat.Firewall}
		if err := r.behaviour(wall, f.path+".firewall", "preset", h.Firewall); err != nil {
			return err
		}
	}
	return r.port(n, f.path, &h.Port, "firewall")
}

func (r *reader) gateway(f field, g *Gateway) error {
	all, err := r.fields(f.value, f.path)
	if err != nil {
		return err
	}
	v := reflect.ValueOf(g).Elem()
	for _, f := range all {
		if err := r.member(f, v); err != nil {
			return err
		}
	}
	return nil
}

// port may be the name of its network alone.
func (r *reader) port(n *yaml.Node, path string, p *Port, beside ...string) error {
	if n.Kind == yaml.ScalarNode {
		return r.value(n, path, reflect.ValueOf(&p.Network).Elem(), "")
	}
	all, err := r.fields(n, path)
	if err != nil {
		return err
	}
	v := reflect.ValueOf(p).Elem()
	for _, f := range all {
		if err := r.member(f, v, beside...); err != nil {
			return err
		}
		if f.name == "dhcp" && !p.DHCP {
			r.noDHCP[path] = true
		}
	}
	return nil
}

// without is a mapping without one of its fields, and that field's value.
func without(n *yaml.Node, name string) (rest, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; k.Kind == yaml.ScalarNode && k.Value == name {
			less := *n
			less.Content = slices.Concat(n.Content[:i], n.Content[i+2:])
			return &less, n.Content[i+1]
		}
	}
	return n, nil
}
