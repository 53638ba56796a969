// Package docs_test holds what the documents say against the code.
package docs_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/wire/frame"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// row is a line of a Markdown table, by the head of its column.
type row map[string]string

// tables returns the rows of all tables of a document that have these columns.
func tables(t *testing.T, columns ...string) (rows []row) {
	t.Helper()
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	var head []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			head = nil
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case head == nil:
			head = cells
			continue
		case strings.HasPrefix(cells[0], "---") || slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(head, c) }):
			continue
		case len(cells) != len(head):
			t.Errorf("%d cells under %d heads: %s", len(cells), len(head), line)
			continue
		}
		r := row{}
		for i, c := range cells {
			r[head[i]] = c
		}
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		t.Fatalf("no table with the columns %q", columns)
	}
	return rows
}

// lengths are those of the messages with nothing sealed and without their MACs.
var lengths = map[wire.Type]int{
	wire.TypeHello:      len(wire.Hello{}.Append(nil)),
	wire.TypeCookie:     len(wire.Cookie{}.Append(nil)),
	wire.TypeRegister:   len(wire.Register{}.Append(nil)),
	wire.TypeRegistered: len(wire.Registered{}.Append(nil)),
	wire.TypeKeepAlive:  len(wire.KeepAlive{}.Append(nil)),
	wire.TypeAlive:      len(wire.Alive{}.Append(nil)),
	wire.TypeWho:        len(wire.Who{}.Append(nil)),
	wire.TypeConnect:    len(wire.Connect{}.Append(nil)),
	wire.TypeConnected:  len(wire.Connected{}.Append(nil)),
	wire.TypeRequest:    len(wire.Request{}.Append(nil)),
	wire.TypeSignal:     len(wire.Signal{}.Append(nil)),
	wire.TypeSignalled:  len(wire.Signalled{}.Append(nil)),
	wire.TypeBye:        len(wire.Bye{}.Append(nil)),
	wire.TypeRefused:    len(wire.Refused{}.Append(nil)),
	wire.TypeDisplaced:  len(wire.Displaced{}.Append(nil)),
}

var field = regexp.MustCompile(`\[(\w+)\]`)

func TestMessages(t *testing.T) {
	rows := tables(t, "type", "name", "way", "body", "bytes")
	if len(rows) != wire.Types-1 {
		t.Errorf("%d messages, the code has %d", len(rows), wire.Types-1)
	}
	for i, r := range rows {
		typ := wire.Type(i + 1)
		want, fields := lengths[typ], wire.HeaderLen
		if strings.Contains(r["body"], "MAC[16]") {
			want += wire.MACLen
		}
		total := strconv.Itoa(want)
		for _, f := range field.FindAllStringSubmatch(r["body"], -1) {
			if f[1] == "n" {
				total += "+n"
				continue
			}
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Errorf("%s: a field of %s bytes", r["name"], f[1])
			}
			fields += n
		}
		if r["type"] != strconv.Itoa(i+1) || r["name"] != typ.String() || r["bytes"] != total || fields != want {
			t.Errorf("document: %s %s, %s bytes, fields of %d; code: %d %v, %s bytes",
				r["type"], r["name"], r["bytes"], fields, typ, typ, total)
		}
	}
}

func TestFrames(t *testing.T) {
	var rows []row
	for _, r := range tables(t, "type", "name", "body") {
		if _, message := r["way"]; !message {
			rows = append(rows, r)
		}
	}
	for i, r := range rows {
		if r["type"] != strconv.Itoa(i+1) || r["name"] != frame.Type(i+1).String() {
			t.Errorf("document: %s %s, code: %d %v", r["type"], r["name"], i+1, frame.Type(i+1))
		}
	}
	if next := frame.Type(len(rows) + 1); next.String() != fmt.Sprintf("type %d", next) {
		t.Errorf("the document lacks %v", next)
	}
}

// TestNumbers holds every row that names a constant or a default in a column
// "code" against it.
func TestNumbers(t *testing.T) {
	code := newSource(t)
	for _, r := range tables(t, "value", "code") {
		want, err := code.value(r["code"])
		switch {
		case err != nil:
			t.Errorf("%s: %v", r["code"], err)
		case !slices.Equal(quantities(r["value"]), want):
			t.Errorf("document: %s = %s, code: %q", r["code"], r["value"], want)
		}
	}
}

// quantities takes a cell apart: numbers without their units, durations in
// nanoseconds, text as it is.
func quantities(cell string) (all []string) {
	if text, ok := strings.CutPrefix(cell, "`"); ok {
		return []string{strings.TrimSuffix(text, "`")}
	}
	units := map[string]int64{"": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20,
		"ms": 1e6, "s": 1e9, "min": 60e9}
	for part := range strings.SplitSeq(cell, ", ") {
		number, unit, _ := strings.Cut(part, " ")
		n, err := strconv.ParseInt(strings.ReplaceAll(number, ",", ""), 0, 64)
		if scale, ok := units[unit]; ok && err == nil {
			all = append(all, strconv.FormatInt(n*scale, 10))
		} else {
			all = append(all, part)
		}
	}
	return all
}
