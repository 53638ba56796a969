package main

import (
	"sync"

	"github.com/bodkin-net/bodkin"
)

// reasons remembers what came of the attempts, to say why a path is in use.
type reasons struct {
	mu             sync.Mutex
	worked, failed string
}

func (r *reasons) note(e bodkin.Event) {
	if e.Type != bodkin.EventAttempt || e.Technique == "relay" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Result == "ok" {
		r.worked = e.Technique + ": " + e.Reason
	} else {
		r.failed = e.Technique + " " + e.Result + ": " + e.Reason
	}
}

func (r *reasons) of(p bodkin.Path) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case p.Kind == bodkin.Direct && r.worked != "":
		return r.worked
	case p.Kind == bodkin.Direct:
		return "hole punching worked"
	case r.failed != "":
		return r.failed
	}
	return "no direct path was found yet"
}
