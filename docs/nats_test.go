package docs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/conformance"
)

//go:generate go test . -run TestNATs -update

var update = flag.Bool("update", false, "write NATS.md anew")

// NATS.md says what the presets are and do. It is made here.
func TestNATs(t *testing.T) {
	want := nats(t)
	if *update {
		if err := os.WriteFile("NATS.md", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile("NATS.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range bytes.Split(want, []byte("\n")) {
		rest, _, _ := bytes.Cut(got, []byte("\n"))
		if !bytes.Equal(rest, line) {
			t.Fatalf("NATS.md:%d is\n%s\nand should be\n%s\n(go generate ./docs writes it anew)", i+1, rest, line)
		}
		got = got[min(len(got), len(rest)+1):]
	}
}

func nats(t *testing.T) []byte {
	var doc bytes.Buffer
	write := func(format string, args ...any) { fmt.Fprintf(&doc, format, args...) }
	write(`# The gateways that have names

Made by the code (%s); do not edit. A preset is data: a scenario file takes one by its name, or
as what to start from (%s). The zero behaviour is full-cone.

| preset | what it is | from |
|---|---|---|
`, "`go generate ./docs`", "`nat: {preset: linux, hairpin: external-source}`")
	presets := nat.Presets()
	for _, p := range presets {
		write("| [%s](#%s) | %s | %s |\n", p.Name, p.Name, p.What, p.Source)
	}

	write(`
## What each of them breaks

The rules are those of RFC 4787 (UDP), RFC 5382 (TCP), RFC 5508 (ICMP), RFC 7857 (updates to these) and, for gateways that
bound what a subscriber gets, RFC 6888 (carrier NATs). Each is tried on a gateway that runs, packet by packet. Below, a preset's fields are
those that differ from the zero behaviour. The rules, and those that no packet can show, are at [the end](#the-rules).

| preset | mapping | filtering | hairpinning | MUST broken | SHOULD broken |
|---|---|---|---|---|---|
`)
	broken := map[string][]fault{}
	for _, p := range presets {
		b := p.Behaviour
		if b.Mode != nat.Translate {
			write("| %s | none | %s | none | - | - |\n", p.Name, map[bool]string{true: b.Filtering.String(), false: "none"}[b.Mode == nat.Firewall])
			continue
		}
		broken[p.Name] = faults(t, b)
		count := map[conformance.Level]int{}
		for _, f := range broken[p.Name] {
			count[f.level] += len(f.numbers)
		}
		write("| %s | %s | %s | %s | %d | %d |\n", p.Name, b.Mapping, b.Filtering, b.Hairpin, count[conformance.Must], count[conformance.Should])
	}

	for _, p := range presets {
		write("\n### %s\n", p.Name)
		fields, err := scenario.MarshalBehaviour(p.Behaviour)
		if err != nil {
			t.Fatal(err)
		}
		if string(fields) != "{}\n" {
			write("\n```yaml\n%s```\n", fields)
		}
		switch all := broken[p.Name]; {
		case p.Behaviour.Mode != nat.Translate:
			write("\nIt does not translate: the rules are not for it.\n")
		case len(all) == 0:
			write("\nIt breaks no rule.\n")
		default:
			write("\n| rules | level | why |\n|---|---|---|\n")
			for _, f := range all {
				write("| RFC %d: %s | %s | %s |\n", f.rfc, strings.Join(f.numbers, ", "), f.level, f.why)
			}
		}
	}

	write("\n## The rules\n")
	rfc := 0
	for _, r := range conformance.Requirements() {
		if r.RFC != rfc {
			rfc = r.RFC
			write("\n### RFC %d\n\n| rule | level | what it wants | tried |\n|---|---|---|---|\n", rfc)
		}
		tried := "yes"
		if !r.Checked() {
			tried = "no: " + r.Why
		}
		write("| %s | %s | %s | %s |\n", r.Number, r.Level, r.Text, tried)
	}
	return doc.Bytes()
}

// fault is rules of an RFC that are broken in the same way.
type fault struct {
	rfc     int
	numbers []string
	level   conformance.Level
	why     string
}

func faults(t *testing.T, b nat.Behaviour) (all []fault) {
	for _, r := range conformance.Requirements() {
		err := r.Check(b)
		if err == nil || errors.Is(err, conformance.ErrNotFor) {
			continue
		}
		if r.Level == conformance.May {
			t.Errorf("%s is optional, and broken: %v", r.Name(), err)
		}
		f := fault{r.RFC, []string{r.Number}, r.Level, err.Error()}
		known := false
		for i := range all {
			if o := &all[i]; o.rfc == f.rfc && o.level == f.level && o.why == f.why {
				o.numbers = append(o.numbers, r.Number)
				known = true
			}
		}
		if !known {
			all = append(all, f)
		}
	}
	return all
}
