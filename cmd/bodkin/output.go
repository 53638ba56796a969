package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/identity"
)

// usageError is a mistake on the command line or in the configuration.
type usageError struct {
	error
	hint string
}

// hintError is a failure for which there is a hint.
type hintError struct {
	error
	hint string
}

func (e hintError) Unwrap() error { return e.error }

// asJSON is set by --json, before anything runs: what is said on standard error
// is NDJSON.
var asJSON bool

var stderr sync.Mutex

// say writes a line of words; with --json words are left out.
func say(format string, args ...any) {
	if asJSON {
		return
	}
	stderr.Lock()
	defer stderr.Unlock()
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// tell writes an event as one line.
func tell(e bodkin.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	tellLine(e)
}

func tellLine(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err) // events are made of what always marshals
	}
	stderr.Lock()
	defer stderr.Unlock()
	os.Stderr.Write(append(line, '\n'))
}

// warn says that something may not be as it was meant: with --json as an event
// that nodes have none of, with "type" "warning" and a "message".
func warn(text string) {
	if !asJSON {
		say("warning: %s", text)
		return
	}
	tellLine(struct {
		V       int       `json:"v"`
		Type    string    `json:"type"`
		Time    time.Time `json:"time"`
		Message string    `json:"message"`
	}{1, "warning", time.Now(), text})
}

// report says what went wrong in one line, and a hint in another, and returns
// the exit code.
func report(err error) int {
	code, hint, exit := explain(err)
	text := oneLine(err.Error())
	if asJSON {
		tell(bodkin.Event{Type: bodkin.EventError, Code: bodkin.Code(code), Message: text, Hint: hint})
		return exit
	}
	say("error: %s", text)
	if hint != "" {
		say("hint: %s", hint)
	}
	return exit
}

// oneLine joins the lines of a text that came from elsewhere.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func explain(err error) (code, hint string, exit int) {
	var usage usageError
	var hinted hintError
	var known *bodkin.Error
	switch {
	case errors.As(err, &usage):
		return "usage", usage.hint, exitUsage
	case errors.As(err, &hinted):
		return "failed", hinted.hint, exitFailed
	case errors.As(err, &known):
		exit = exitFailed
		if known.Code == bodkin.BadConfig {
			exit = exitUsage
		}
		return string(known.Code), known.Hint, exit
	case errors.Is(err, identity.ErrTypo):
		return "usage", "copy the id again; `bodkin id` prints it on the other machine", exitUsage
	case errors.Is(err, identity.ErrID):
		return "usage", "`bodkin id` prints the id on the other machine", exitUsage
	case errors.Is(err, identity.ErrKeyExposed):
		return "key-file", "chmod 600 the file, or make a new key: others may have read this one", exitUsage
	case errors.Is(err, identity.ErrKeyFile):
		return "key-file", "name another file with --key, or move this one away to get a new key", exitUsage
	case errors.Is(err, fs.ErrPermission):
		return "permission", "check who owns it, or name another place", exitFailed
	}
	return "failed", "", exitFailed
}

// show prints an event in words.
func show(e bodkin.Event) {
	if asJSON {
		tell(e)
		return
	}
	switch e.Type {
	case bodkin.EventRegistered:
		say("registered at %s over %s", e.Server, e.Transport)
	case bodkin.EventRequest:
		say("%s asks to connect", e.Peer)
	case bodkin.EventPath:
		say("path: %s", e.Path)
	case bodkin.EventError:
		say("error: %s", e.Message)
		if e.Hint != "" {
			say("hint: %s", e.Hint)
		}
	case bodkin.EventAttempt:
		if e.Reason != "" {
			say("%s: %s: %s", e.Technique, e.Result, e.Reason)
		} else {
			say("%s: %s", e.Technique, e.Result)
		}
	}
}

func writeResult(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}
