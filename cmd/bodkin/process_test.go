package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience is what no step of a script may take, on a machine with other work.
const patience = 40 * time.Second

// obedience is how long a process may go on after a signal: less than anything
// it could be waiting for.
const obedience = 8 * time.Second

type processesKey struct{}

// processes are those of a script, by name.
type processes map[string]*process

type process struct {
	cmd      *exec.Cmd
	in       io.WriteCloser // nil when it was given a file
	out, err transcript
	done     chan struct{}
	told     time.Time // to end; zero: it was not
}

// transcript is what a process has written so far.
type transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed and replaced when it grows
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.grown != nil {
		close(o.grown)
		o.grown = nil
	}
	return o.text.Write(p)
}

func (o *transcript) now() (text []byte, grown chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.grown == nil {
		o.grown = make(chan struct{})
	}
	return slices.Clone(o.text.Bytes()), o.grown
}

// end kills what still runs.
func (ps processes) end() {
	for _, p := range ps {
		p.cmd.Process.Kill()
		<-p.done
	}
}

func all(ts *testscript.TestScript) processes {
	return ts.Value(processesKey{}).(processes)
}

func named(ts *testscript.TestScript, name string) *process {
	p := all(ts)[name]
	if p == nil {
		ts.Fatalf("no process %q", name)
	}
	return p
}

func startCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: start NAME [<IN] PROGRAM...")
	}
	name, args := args[0], args[1:]
	var in string
	if strings.HasPrefix(args[0], "<") {
		in, args = args[0][1:], args[1:]
	}
	start(ts, name, in, args)
}

func start(ts *testscript.TestScript, name, in string, args []string) *process {
	program, err := exec.LookPath(args[0])
	ts.Check(err)
	p := &process{cmd: exec.Command(program, args[1:]...), done: make(chan struct{})}
	p.cmd.Dir = ts.MkAbs(".")
	p.cmd.Env = environment(ts)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	p.cmd.WaitDelay = 2 * time.Second // for what a killed shell has left running
	switch in {
	case "":
	case "-":
		r, w, err := os.Pipe()
		ts.Check(err)
		defer r.Close()
		p.cmd.Stdin, p.in = r, w
	default:
		f, err := os.Open(ts.MkAbs(in))
		ts.Check(err)
		defer f.Close()
		p.cmd.Stdin = f
	}
	if old := all(ts)[name]; old != nil {
		select {
		case <-old.done:
		default:
			ts.Fatalf("process %q still runs", name)
		}
	}
	ts.Check(p.cmd.Start())
	all(ts)[name] = p
	go func() {
		defer close(p.done)
		p.cmd.Wait()
		if p.in != nil {
			p.in.Close()
		}
	}()
	return p
}

// environment is the part of the script's environment that matters here.
func environment(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TMP", "SYSTEMROOT", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR",
		"BODKIN_SERVER", "BODKIN_KEY", "BODKIN_RELAY_ONLY", "A", "B", "C", "GOCOVERDIR", "GORACE"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func awaitCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: await NAME out|err REGEXP")
	}
	await(ts, args[0], args[1], args[2])
}

// await returns what the expression's last group matches.
func await(ts *testscript.TestScript, name, which, expr string) string {
	p := named(ts, name)
	o := &p.out
	if which == "err" {
		o = &p.err
	}
	re, err := regexp.Compile("(?m)" + expr)
	ts.Check(err)
	late := time.After(patience)
	for over := false; ; {
		text, grown := o.now()
		if m := re.FindSubmatch(text); m != nil {
			return string(m[len(m)-1])
		}
		if over {
			break
		}
		select {
		case <-grown:
		case <-p.done:
			over = true
		case <-late:
			over = true
		}
	}
	p.fatal(ts, name, "its std%s never matched %q", which, expr)
	return ""
}

func (p *process) fatal(ts *testscript.TestScript, name, format string, args ...any) {
	out, _ := p.out.now()
	err, _ := p.err.now()
	ts.Logf("[%s stdout, %d bytes]\n%.2000q\n[%s stderr]\n%s", name, len(out), out, name, err)
	ts.Fatalf(name+": "+format, args...)
}

func writeCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: write NAME TEXT|<FILE")
	}
	text := args[1] + "\n"
	if file, ok := strings.CutPrefix(args[1], "<"); ok {
		text = ts.ReadFile(file)
	}
	_, err := io.WriteString(named(ts, args[0]).in, text)
	ts.Check(err)
}

func closeCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: close NAME")
	}
	ts.Check(named(ts, args[0]).in.Close())
}

func signalCmd(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill}
	if len(args) != 2 || signals[args[1]] == nil {
		ts.Fatalf("usage: signal NAME INT|TERM|KILL")
	}
	p := named(ts, args[0])
	p.told = time.Now()
	ts.Check(p.cmd.Process.Signal(signals[args[1]]))
}

func finishCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: finish NAME CODE")
	}
	name := args[0]
	out, err := finish(ts, name, args[1])
	ts.Check(os.WriteFile(ts.MkAbs(name+".out"), out, 0o666))
	ts.Check(os.WriteFile(ts.MkAbs(name+".err"), err, 0o666))
}

// finish waits for the end of a process and returns its output.
func finish(ts *testscript.TestScript, name, code string) (stdout, stderr []byte) {
	p := named(ts, name)
	limit := patience
	if !p.told.IsZero() {
		limit = obedience - time.Since(p.told)
	}
	select {
	case <-p.done:
	case <-time.After(limit):
		p.cmd.Process.Signal(syscall.SIGQUIT) // show where it hangs
		<-p.done
		p.fatal(ts, name, "does not end")
	}
	stdout, _ = p.out.now()
	stderr, _ = p.err.now()
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != code {
		p.fatal(ts, name, "exit code is %s (%v)", got, p.cmd.ProcessState)
	}
	if bytes.Contains(stderr, []byte("goroutine ")) {
		p.fatal(ts, name, "a stack trace")
	}
	return stdout, stderr
}

func failsCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: fails CODE PROGRAM...")
	}
	start(ts, "fails", "", args[1:])
	stdout, stderr := finish(ts, "fails", args[0])
	ts.Stdout().Write(stdout)
	ts.Stderr().Write(stderr)
	if slices.Contains(args, "--json") {
		checkEvents(ts, "the events", string(stderr))
		return
	}
	oneError(ts, "the words", string(stderr))
}

func oneErrorCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: one-error FILE")
	}
	oneError(ts, args[0], ts.ReadFile(args[0]))
}

// oneError checks that words about what went wrong are one line that begins
// with "error: " and at most one more, with "hint: ", after it.
func oneError(ts *testscript.TestScript, file, text string) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	var kinds string
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "error: "):
			kinds += "e"
		case strings.HasPrefix(line, "hint: "):
			kinds += "h"
		default:
			kinds += "."
		}
	}
	if last := strings.TrimLeft(kinds, "."); last != "e" && last != "eh" {
		ts.Logf("%s", text)
		ts.Fatalf("%s: not one error line and at most one hint line at the end", file)
	}
}
