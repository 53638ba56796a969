package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// documented are the fields that each type of event always has.
var documented = map[string][]string{
	"registered": {"id", "server"},
	"request":    {"peer"},
	"stream":     {"peer", "dir"},
	"path":       {"kind", "transport", "technique", "local", "remote", "rtt_ms"},
	"attempt":    {"technique", "result"},
	"end":        {"bytes_in", "bytes_out"},
	"error":      {"code", "message"},
	"warning":    {"message"}, // of lab up
}

func ndjsonCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: ndjson FILE [TYPE...]")
	}
	seen := checkEvents(ts, args[0], ts.ReadFile(args[0]))
	for _, t := range args[1:] {
		if seen[t] == neg {
			ts.Fatalf("%s: events of type %q: %v", args[0], t, seen[t])
		}
	}
}

// checkEvents tells which types of events are in the file, if there is nothing
// else.
func checkEvents(ts *testscript.TestScript, file, text string) map[string]bool {
	if text != "" && !strings.HasSuffix(text, "\n") {
		ts.Fatalf("%s: the last line has no end", file)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		if why := badEvent(line, seen); why != "" {
			ts.Fatalf("%s: %s: %s", file, why, line)
		}
	}
	return seen
}

func badEvent(line string, seen map[string]bool) string {
	var e map[string]any
	d := json.NewDecoder(bytes.NewReader([]byte(line)))
	if err := d.Decode(&e); err != nil || d.More() {
		return "not one JSON object"
	}
	if e["v"] != 1.0 {
		return "v is not 1"
	}
	when, _ := e["time"].(string)
	if _, err := time.Parse(time.RFC3339Nano, when); err != nil {
		return "time is not RFC 3339"
	}
	name, _ := e["type"].(string)
	fields, ok := documented[name]
	if !ok {
		return "no documented type"
	}
	seen[name] = true
	for _, f := range fields {
		if _, ok := e[f]; !ok {
			return "no field " + f
		}
	}
	oneOf := func(field string, values ...any) bool {
		v, ok := e[field]
		return !ok || slices.Contains(values, v)
	}
	if !oneOf("kind", "relay", "direct") || !oneOf("transport", "udp", "tcp") || !oneOf("dir", "in", "out") {
		return "a value that is not documented"
	}
	return ""
}
