package docs_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// labSections are the parts of the file's reference, with what they describe.
var labSections = map[string]any{
	"Host": scenario.Host{}, "Gateway": scenario.Gateway{}, "Port": scenario.Port{}, "Link": scenario.Link{}, "Proxy": scenario.Proxy{},
	"Behaviour": nat.Behaviour{}, "Policy": nat.Policy{}, "Ports": nat.Ports{}, "Timers": nat.Timers{}, "TCP": nat.TCP{}, "ICMP": nat.ICMP{},
	"Unsolicited": nat.Unsolicited{}, "Remotes": nat.Remotes{}, "Static": nat.Static{}, "Rule": nat.Rule{}, "Content": nat.Content{},
	"Pool": dhcp.Pool{}, "PortMapping": portmap.Behaviour{},
}

// TestLabReference: the reference has every field of a lab's file, and no other.
func TestLabReference(t *testing.T) {
	text, err := os.ReadFile("LAB.md")
	if err != nil {
		t.Fatal(err)
	}
	_, reference, _ := strings.Cut(string(text), "\n## The file\n")
	sections := map[string][]string{}
	var name string
	quoted := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(reference) {
		if head, ok := strings.CutPrefix(line, "### "); ok {
			name = strings.TrimSpace(head)
			sections[name] = nil
		}
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, field := range quoted.FindAllStringSubmatch(cells[1], -1) {
				sections[name] = append(sections[name], field[1])
			}
		}
	}
	for name, fields := range sections {
		what, ok := labSections[name]
		if !ok {
			t.Errorf("section %s describes nothing", name)
			continue
		}
		var want []string
		for f := range reflect.TypeOf(what).Fields() {
			if tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); tag != "" {
				want = append(want, tag)
			}
		}
		slices.Sort(fields)
		slices.Sort(want)
		if !slices.Equal(fields, want) {
			t.Errorf("section %s has %q, the file %q", name, fields, want)
		}
	}
	for name := range labSections {
		if _, ok := sections[name]; !ok {
			t.Errorf("no section %s", name)
		}
	}
}

// TestLabFiles: what the document shows as a file, and the examples, can be.
func TestLabFiles(t *testing.T) {
	files := map[string][]byte{}
	text, err := os.ReadFile("LAB.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1) {
		files["LAB.md"] = block[1]
	}
	examples, err := filepath.Glob("labs/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range examples {
		if files[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	if len(files) < 6 {
		t.Errorf("only %d files", len(files))
	}
	for name, text := range files {
		if _, err := scenario.Load(name, text); err != nil {
			t.Error(err)
		}
	}
}
