package bodkin_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The architecture, as rules. docs/ARCHITECTURE.md draws it; here it is held.
// All source files count, whatever system they are for.

// layer says what the packages at and below a directory may import. The row of
// the longest directory counts. A new directory needs a row of its own.
type layer struct {
	dir  string
	ours string // directories of this module, with what is below them, but for those after "but"
	libs string // modules of others; "any" is any
	not  string // packages of the standard library, with what is below them
	why  string
}

const (
	outside = "context log net os sync syscall testing time unsafe"
	pure    = "context crypto/rand log net os sync syscall testing unsafe" // time is for types and durations: see words
)

var layers = []layer{
	{"internal/identity", "", "filippo.io/edwards25519", "context log net sync testing",
		"everything stands on it"},
	{"internal/wire", "internal/identity internal/wire", "", outside,
		"codecs turn bytes into structs and back; they know nobody who does anything with them"},
	{"internal/wire/locator", "internal/identity", "", strings.Replace(outside, "net ", "", 1),
		"the same; it takes net's functions for host:port, which are text"},
	{"internal/machine", "internal/identity internal/wire", "", pure,
		"a machine runs on sockets, in virtual time and step by step alike, so it knows none of them, nor another machine"},
	{"internal/machine/nat", "internal/machine/nat/ip", "", pure,
		"the gateway knows IP, and nothing of bodkin"},
	{"internal/machine/nat/conformance", "internal/machine/nat", "", pure,
		"it knows the gateway as those do who drive it"},
	{"internal/machine/nat/ip", "", "", pure,
		"IP is a codec, kept by its only machine"},
	{"internal/machine/dhcp", "internal/machine/nat/ip", "github.com/insomniacslk/dhcp", strings.Replace(pure, "net ", "", 1),
		"as all machines; the DHCP library speaks in net's addresses"},
	{"internal/machine/portmap", "internal/machine/nat/ip", "", pure,
		"it asks for mappings through a seam of its own, and knows no gateway"},
	{"internal/machine/redirect", "internal/machine/nat/ip", "", pure,
		"it stands before the gateway, and knows nothing of it"},
	{"internal/machine/router", "internal/machine/nat internal/machine/dhcp internal/machine/portmap internal/machine/redirect", "", pure,
		"the one machine that is made of others: the box around the gateway"},
	{"internal/machine/rendezvous", "internal/identity internal/wire", "", strings.Replace(pure, "crypto/rand ", "", 1),
		"as all machines; a client whose owner gives it no randomness seeds itself"},
	{"internal/netio", "internal/identity internal/wire internal/machine", "golang.org/x/net golang.org/x/sys", "log testing",
		"the shell beside the machines, beneath nobody's policy"},
	{"internal/link", "internal/identity internal/wire internal/machine", "github.com/quic-go/quic-go", "log testing",
		"links know packet connections, not which socket is behind them; QUIC is known here alone"},
	{"internal/server", "internal/identity internal/wire internal/machine internal/netio internal/link", "golang.org/x/net golang.org/x/sys", "testing",
		"the server and the library share machines, not each other"},
	{"internal/server/load", "internal/identity internal/wire internal/machine", "golang.org/x/sys", "testing",
		"it measures the server from outside; only tests use it"},
	{"", "internal/identity internal/wire internal/machine internal/netio internal/link", "", "testing",
		"the library brings its users no server, no lab and no command line"},
	{"internal/lab/scenario", "internal/machine/nat internal/machine/dhcp internal/machine/portmap internal/wire", "go.yaml.in/yaml/v4", strings.Replace(outside, "time ", "", 1),
		"scenarios are data"},
	{"internal/lab", "internal/lab internal/machine/nat internal/machine/dhcp internal/machine/portmap internal/machine/router internal/wire", "any", "testing",
		"a lab that knew the product could not put it to the test"},
	{"internal/lab/draw", "internal/lab/snapshot internal/lab/scenario internal/machine/nat", "", "context log net os sync syscall testing unsafe",
		"pictures are made of data, whatever lab it is from"},
	{"internal/lab/apart", "internal/lab/snapshot internal/lab/scenario", "", "context log net os sync syscall testing time unsafe",
		"it works on data, whatever lab it is from"},
	{"lab", "internal/lab internal/machine/nat internal/machine/dhcp internal/machine/portmap", "", "",
		"the lab for everyone's programs and tests: names for what internal/lab does"},
	{"cmd", "", "any", "testing",
		"the top: it may use everything"},
	{"docs", "", "", "",
		"documents and their tests"},
}

// onlyHere are directories that only those named may import, beside tests.
var onlyHere = map[string]string{
	"internal/lab":         "internal/lab lab cmd",
	"lab":                  "cmd",
	"internal/server/load": "",
}

// words must not be used in the files below these directories.
var words = []struct{ dirs, not, why string }{
	{"internal/wire internal/machine", "time.Now time.Since time.Until time.After time.AfterFunc time.Sleep time.Tick time.NewTimer time.NewTicker go",
		"the time is a parameter, and nothing happens beside the caller"},
	{"internal/machine", "rand.Int rand.IntN rand.Int32 rand.Int32N rand.Int64 rand.Int64N rand.Uint32 rand.Uint32N rand.Uint64 rand.Uint64N rand.N rand.Float32 rand.Float64 rand.Perm rand.Shuffle",
		"randomness is a parameter: a run can be repeated"},
	{"internal", "fmt.Print fmt.Printf fmt.Println log.Print log.Printf log.Println log.Fatal log.Fatalf os.Stdout os.Stderr os.Exit print println",
		"libraries never print, nor end the program"},
}

var badNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared"}

const maxLines = 600

func TestArchitecture(t *testing.T) {
	used := map[string]bool{}
	for _, f := range sources(t) {
		for _, fault := range f.faults() {
			t.Errorf("%s: %s", f.name, fault)
		}
		if l, ok := layerOf(f.dir()); ok {
			used[l.dir] = true
		}
	}
	for _, l := range layers {
		if !used[l.dir] {
			t.Errorf("the row of %q is for nobody", l.dir)
		}
	}
}

// source is one Go file; its name is relative to the module, with slashes.
type source struct {
	name string
	text []byte
	file *ast.File
}

func parseSource(name string, text []byte) (source, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
	return source{name, text, file}, err
}

// sources reads this module's files. A directory with a go.mod of its own is
// another module.
func sources(t *testing.T) (all []source) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch base := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && name != ".":
			_, err := os.Stat(filepath.Join(name, "go.mod"))
			if err == nil || base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
				return fs.SkipDir
			}
		case strings.HasSuffix(base, ".go"):
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			s, err := parseSource(filepath.ToSlash(name), text)
			all = append(all, s)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (s source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

// dir is the directory of the package, empty for the root.
func (s source) dir() string { return strings.TrimPrefix(path.Dir(s.name), ".") }

func layerOf(dir string) (best layer, ok bool) {
	for _, l := range layers {
		if below(dir, l.dir) && (!ok || len(l.dir) > len(best.dir)) {
			best, ok = l, true
		}
	}
	return best, ok
}

// below tells whether dir is top or lies beneath it. Nothing lies beneath the
// root: who is there has a row of its own.
func below(dir, top string) bool {
	return dir == top || top != "" && strings.HasPrefix(dir, top+"/")
}

func anyAbove(dir, tops string) bool {
	return slices.ContainsFunc(strings.Fields(tops), func(top string) bool { return below(dir, top) })
}

// faults is what breaks the rules in a file.
func (s source) faults() (all []string) {
	fault := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if n := bytes.Count(s.text, []byte("\n")); n > maxLines {
		fault("%d lines; %d is the most, and 200 are enough", n, maxLines)
	}
	if name := strings.TrimSuffix(s.file.Name.Name, "_test"); slices.Contains(badNames, name) {
		fault("a package called %s says nothing about what is in it", name)
	}
	l, ok := layerOf(s.dir())
	if !ok {
		fault("no row in layers: say what %s may import, and why", s.dir())
	}
	if s.isTest() || !ok {
		return all
	}
	for _, spec := range s.file.Imports {
		if why := l.refuses(s.dir(), strings.Trim(spec.Path.Value, `"`)); why != "" {
			fault("imports %s: %s", spec.Path.Value, why)
		}
	}
	for _, w := range words {
		if anyAbove(s.dir(), w.dirs) {
			for _, word := range s.uses(strings.Fields(w.not)) {
				fault("uses %s: %s", word, w.why)
			}
		}
	}
	return all
}

// refuses says why a package at dir must not import another, if so.
func (l layer) refuses(dir, imported string) string {
	const module = "github.com/bodkin-net/bodkin"
	rest, ours := strings.CutPrefix(imported+"/", module+"/")
	rest = strings.TrimSuffix(rest, "/")
	first, _, _ := strings.Cut(imported, "/")
	switch {
	case ours:
		for place, who := range onlyHere {
			if below(rest, place) && !below(dir, place) && !anyAbove(dir, who) {
				return "only tests and [" + who + "] use " + place
			}
		}
		if l.dir != "cmd" && !anyAbove(rest, l.ours) {
			return l.why
		}
	case strings.Contains(first, "."):
		if l.libs != "any" && !anyAbove(imported, l.libs) {
			return "others' modules here: [" + l.libs + "], because " + l.why
		}
	case imported != "net/netip" && anyAbove(imported, l.not):
		return l.why
	}
	return ""
}

// uses finds which of the words a file has: statements, builtins, or names of
// imported packages.
func (s source) uses(not []string) (found []string) {
	paths := map[string]string{} // of the packages, by their names in this file
	for _, spec := range s.file.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		name := path.Base(strings.TrimSuffix(p, "/v2"))
		if spec.Name != nil {
			name = spec.Name.Name
		}
		paths[name] = path.Base(strings.TrimSuffix(p, "/v2"))
	}
	add := func(word string) {
		if slices.Contains(not, word) {
			found = append(found, word)
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			add("go")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && paths[x.Name] != "" {
				add(paths[x.Name] + "." + n.Sel.Name)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok {
				add(f.Name)
			}
		}
		return true
	})
	return found
}

// TestRulesBite breaks each rule once.
func TestRulesBite(t *testing.T) {
	const ours = "github.com/bodkin-net/bodkin/internal/"
	for _, c := range []struct{ name, text, fault string }{
		{"internal/wire/a/a.go", `package a; import "` + ours + `machine/punch"`, "imports"},
		{"internal/wire/a/a.go", `package a; import "net"`, "imports"},
		{"internal/wire/a/a.go", `package a; import "net/netip"`, ""},
		{"internal/wire/locator/a.go", `package locator; import "net"`, ""},
		{"internal/machine/a/a.go", `package a; import "` + ours + `wire/stun"`, ""},
		{"internal/machine/a/a.go", `package a; import "` + ours + `machine/punch"`, "imports"},
		{"internal/machine/a/a.go", `package a; import "` + ours + `netio"`, "imports"},
		{"internal/machine/a/a.go", `package a; import "sync/atomic"`, "imports"},
		{"internal/machine/a/a.go", `package a; import "log/slog"`, "imports"},
		{"internal/machine/a/a.go", `package a; import "golang.org/x/net/ipv4"`, "others' modules"},
		{"internal/machine/a/a.go", `package a; import "time"; var now = time.Now()`, "time.Now"},
		{"internal/machine/a/a.go", `package a; import clock "time"; func f() { clock.Sleep(1) }`, "time.Sleep"},
		{"internal/machine/a/a.go", `package a; import "time"; const second = time.Second`, ""},
		{"internal/machine/a/a.go", `package a; func f() { go f() }`, "uses go"},
		{"internal/machine/a/a.go", `package a; import "math/rand/v2"; var x = rand.IntN(3)`, "rand.IntN"},
		{"internal/machine/a/a.go", `package a; import "math/rand/v2"; var x = rand.New(nil)`, ""},
		{"internal/machine/a/a_test.go", `package a; import "time"; func f() { go time.Sleep(1) }`, ""},
		{"internal/netio/a.go", `package netio; import "` + ours + `link"`, "imports"},
		{"internal/netio/a.go", `package netio; func f() { println() }`, "println"},
		{"internal/link/a.go", `package link; import "` + ours + `netio"`, "imports"},
		{"internal/server/a.go", `package server; import "github.com/bodkin-net/bodkin"`, "imports"},
		{"internal/server/a.go", `package server; import "` + ours + `server/load"`, "only tests"},
		{"a.go", `package bodkin; import "` + ours + `server"`, "imports"},
		{"a.go", `package bodkin; import "` + ours + `lab/sim"`, "only tests"},
		{"a.go", `package bodkin; import "github.com/quic-go/quic-go"`, "others' modules"},
		{"a.go", `package bodkin; import "testing"`, "imports"},
		{"a_test.go", `package bodkin; import "` + ours + `lab/sim"`, ""},
		{"cmd/bodkin/a.go", `package main; import "` + ours + `lab/sim"`, ""},
		{"internal/lab/sim/a.go", `package sim; import "` + ours + `server"`, "imports"},
		{"internal/lab/sim/a.go", `package sim; import "github.com/bodkin-net/bodkin"`, "imports"},
		{"internal/new/a.go", `package new`, "no row"},
		{"internal/lab/helpers/a.go", `package helpers`, "says nothing"},
		{"cmd/bodkin/a.go", "package main\n" + strings.Repeat("\n", maxLines), "lines"},
	} {
		s, err := parseSource(c.name, []byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		faults := s.faults()
		if good := len(faults) == 0; good != (c.fault == "") || !good && !strings.Contains(faults[0], c.fault) {
			t.Errorf("%s: %.80s: %q, want %q", c.name, c.text, faults, c.fault)
		}
	}
}
