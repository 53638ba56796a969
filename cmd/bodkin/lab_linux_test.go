package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

func init() { programs["knock"] = knock }

// quickRace keeps the race detector from making every command wait a second at
// its end.
const quickRace = "GORACE=atexit_sleep_ms=0"

// TestLabScripts runs `bodkin lab` as its users do. Beside what TestScripts
// has, there is
//
//	knock ADDR [LIMIT]   a ping: prints the round trip in ms; fails without an answer within LIMIT, 5s
//	nothing-left         no process, file or interface of a lab is there
func TestLabScripts(t *testing.T) {
	netns.Need(t)
	cmds := map[string]func(*testscript.TestScript, bool, []string){"nothing-left": nothingLeftCmd}
	for name, f := range scriptCmds {
		cmds[name] = f
	}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/lab",
		RequireUniqueNames: true,
		Cmds:               cmds,
		Condition:          condition,
		Setup: func(env *testscript.Env) error {
			if err := setup(env); err != nil {
				return err
			}
			labs, err := filepath.Abs("../../docs/labs")
			if err != nil {
				return err
			}
			run := filepath.Join(env.WorkDir, "run")
			env.Setenv("XDG_RUNTIME_DIR", run)
			env.Setenv("LABS", labs)
			name, value, _ := strings.Cut(quickRace, "=")
			env.Setenv(name, value)
			env.Defer(func() { downAllOf(env) })
			return os.Mkdir(run, 0o700)
		},
	})
}

// downAllOf ends what a script that failed has left.
func downAllOf(env *testscript.Env) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	program, _ := exec.LookPath("bodkin")
	cmd := exec.CommandContext(ctx, program, "lab", "down", "--all")
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+env.Getenv("XDG_RUNTIME_DIR"))
	cmd.Run()
}

// nothingLeftCmd looks for what labs of this script could leave.
func nothingLeftCmd(ts *testscript.TestScript, _ bool, args []string) {
	run := ts.Getenv("XDG_RUNTIME_DIR")
	// Holders, and what ran in their labs, have the directory of this script in
	// their environment. They end a moment after who waits for them is told.
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(run, "bodkin/lab/*"))
		ts.Check(err)
		left := append(files, processesWith("XDG_RUNTIME_DIR="+run)...)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("left are\n%s", strings.Join(left, "\n"))
		}
	}
}

// processesWith lists those that have this in their environment.
func processesWith(variable string) (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range all {
		env, err := os.ReadFile(file)
		if err == nil && strings.Contains("\x00"+string(env), "\x00"+variable+"\x00") {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
			found = append(found, fmt.Sprintf("%s %q", filepath.Base(filepath.Dir(file)), line))
		}
	}
	return found
}

// knock is a ping without privileges.
func knock() {
	limit := 5 * time.Second
	if len(os.Args) > 2 {
		limit, _ = time.ParseDuration(os.Args[2])
	}
	trip, err := ping(os.Args[1], limit)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%d ms\n", trip/time.Millisecond)
}

func ping(address string, limit time.Duration) (time.Duration, error) {
	c, err := icmp.ListenPacket("udp4", "0.0.0.0")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	question, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{Seq: 1, Data: []byte("knock")}}).Marshal(nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := c.WriteTo(question, &net.UDPAddr{IP: net.ParseIP(address)}); err != nil {
		return 0, err
	}
	c.SetReadDeadline(start.Add(limit))
	buf := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		m, err := icmp.ParseMessage(1, buf[:n])
		switch {
		case err != nil:
			return 0, err
		case m.Type == ipv4.ICMPTypeEchoReply:
			return time.Since(start), nil
		case m.Type != ipv4.ICMPTypeEcho:
			return 0, errors.New(fmt.Sprint(m.Type))
		}
	}
}
