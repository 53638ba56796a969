package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// event is a line that the command writes with --json.
type event struct {
	Type      string
	Time      time.Time
	Kind      string
	Transport string
	Technique string
	Remote    netip.AddrPort
	Result    string
	Reason    string
	Code      string
	Message   string
	ID        string
}

// line is one of standard error.
type line struct {
	text  string
	at    time.Time
	event event // zero if it is not JSON
}

// process is a program on a host of the lab. Its output must be read while it
// runs; standard error is kept.
type process struct {
	t              testing.TB
	name           string
	host           *netns.Host
	cmd            *exec.Cmd
	stdin, stdout  *os.File
	ends           []*os.File // the process's own ends of its pipes, and of stderr
	begun          time.Time
	exited, silent chan struct{} // closed at the exit, and at the end of standard error

	mu    sync.Mutex
	lines []line
	more  chan struct{} // closed and replaced when there are more lines
}

// command prepares a program. What is written to stdin before the start is
// there when it begins.
func (w *world) command(host, path string, args ...string) *process {
	w.t.Helper()
	h := w.lab.Host(host)
	p := &process{t: w.t, name: strings.Join(append([]string{host + ":"}, args...), " "), host: h,
		cmd:    h.Command(w.t.Context(), path, args...),
		exited: make(chan struct{}), silent: make(chan struct{}), more: make(chan struct{})}
	p.cmd.Env = w.environment(host)
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			p.t.Fatal(err)
		}
		return r, w
	}
	var in, out, errOut, errIn *os.File
	in, p.stdin = pipe()
	p.stdout, out = pipe()
	errOut, errIn = pipe()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = in, out, errIn
	p.ends = []*os.File{in, out, errIn, errOut}
	return p
}

func (p *process) start() *process {
	p.t.Helper()
	p.begun = time.Now()
	err := p.host.Start(p.cmd)
	for _, f := range p.ends[:3] {
		f.Close()
	}
	if err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	go p.watch(p.ends[3])
	go func() {
		defer close(p.exited)
		p.cmd.Wait() // its word is in ProcessState
	}()
	p.t.Cleanup(p.end)
	return p
}

// end kills the process if it still runs, and shows what it said if the test
// has failed.
func (p *process) end() {
	p.cmd.Process.Kill() // an error means that it has exited
	p.stdin.Close()
	p.stdout.Close()
	<-p.exited
	<-p.silent
	if !p.t.Failed() {
		return
	}
	var all strings.Builder
	for _, l := range p.said() {
		fmt.Fprintf(&all, "\n  %v %s", l.at.Sub(p.begun).Round(time.Millisecond), l.text)
	}
	p.t.Logf("%s: %v%s", p.name, p.cmd.ProcessState, all.String())
}

func (p *process) watch(stderr *os.File) {
	defer close(p.silent)
	defer stderr.Close()
	for s := bufio.NewScanner(stderr); s.Scan(); {
		l := line{text: s.Text(), at: time.Now()}
		json.Unmarshal(s.Bytes(), &l.event) // lines of words have no event
		p.mu.Lock()
		p.lines = append(p.lines, l)
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
}

func (p *process) said() []line {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines
}

// await is the first line, after the first `skip` ones, that is as wanted; and
// how many lines there are up to it.
func (p *process) await(what string, skip int, limit time.Duration, wanted func(line) bool) (line, int) {
	p.t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	silent := p.silent
	for {
		p.mu.Lock()
		lines, more := p.lines, p.more
		p.mu.Unlock()
		for ; skip < len(lines); skip++ {
			if wanted(lines[skip]) {
				return lines[skip], skip + 1
			}
		}
		select {
		case <-more:
		case <-silent:
			if silent == nil {
				continue
			}
			silent = nil // look once more
			p.mu.Lock()
			lines = p.lines
			p.mu.Unlock()
			if len(lines) == skip {
				p.t.Fatalf("%s: ended without %s", p.name, what)
			}
		case <-timer.C:
			p.t.Fatalf("%s: no %s within %v", p.name, what, limit)
		}
	}
}

// awaitEvent waits for an event of a type.
func (p *process) awaitEvent(kind string, skip int, limit time.Duration) (event, int) {
	p.t.Helper()
	l, n := p.await("event "+kind, skip, limit, func(l line) bool { return l.event.Type == kind })
	return l.event, n
}

// awaitPath waits until a path of a kind is in use.
func (p *process) awaitPath(kind string, skip int, limit time.Duration) (event, int) {
	p.t.Helper()
	l, n := p.await(kind+" path", skip, limit, func(l line) bool { return l.event.Type == "path" && l.event.Kind == kind })
	return l.event, n
}

// awaitWords waits for a line of words.
func (p *process) awaitWords(pattern string, limit time.Duration) line {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	l, _ := p.await("line "+pattern, 0, limit, func(l line) bool { return re.MatchString(l.text) })
	return l
}

// paths are the paths that were in use, in order.
func (p *process) paths() (all []event) {
	for _, l := range p.said() {
		if l.event.Type == "path" {
			all = append(all, l.event)
		}
	}
	return all
}

// exit waits for the end of the process and returns its exit code.
func (p *process) exit(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(limit):
		p.t.Fatalf("%s: does not exit within %v", p.name, limit)
	}
	<-p.silent
	return p.cmd.ProcessState.ExitCode()
}

// mustExit waits for a clean end.
func (p *process) mustExit(limit time.Duration) {
	p.t.Helper()
	if code := p.exit(limit); code != 0 {
		p.t.Fatalf("%s: exit code %d", p.name, code)
	}
}

// kill is kill -9.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	<-p.exited
}
