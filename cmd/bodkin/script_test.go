package main

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bodkin-net/bodkin/internal/identity"
)

func TestMain(m *testing.M) {
	testscript.Main(m, programs)
}

// programs are what scripts run of this package, by name.
var programs = map[string]func(){"bodkin": main}

// TestScripts runs the command as its users do, over the loopback interface.
// Every script has three machines' keys, a.key, b.key and c.key, whose ids are
// $A, $B and $C, in capitals $LOUD_A and so on.
//
//	serve [ARG...]              starts a server on free ports; sets $BODKIN_SERVER, $PLACE without its id, $UDP, $TCP
//	start NAME [<IN] PROGRAM... starts a process; IN is a file, or - for an input that stays open
//	await NAME out|err REGEXP   waits until its output matches
//	write NAME TEXT|<FILE       gives it input, TEXT as a line
//	close NAME                  ends its input
//	signal NAME INT|TERM|KILL
//	finish NAME CODE            waits for its end; leaves NAME.out and NAME.err
//	fails CODE PROGRAM...       runs to the end: exit code, and one error line, at most one hint line
//	one-error FILE              the second half of this
//	ndjson FILE [TYPE...]       nothing but documented events, with these among them
//	echoing                     sets $ECHO to the endpoint of a TCP server that sends back what it gets
//	random FILE BYTES
//	refusing, silent            set $REFUSING, $SILENT to the endpoint of such a server
//	greeted                     waits until somebody has spoken to the silent one
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		Setup:              setup,
		Condition:          condition,
		RequireUniqueNames: true,
		Cmds:               scriptCmds,
	})
}

var scriptCmds = map[string]func(*testscript.TestScript, bool, []string){
	"serve":     serveCmd,
	"start":     startCmd,
	"await":     awaitCmd,
	"write":     writeCmd,
	"close":     closeCmd,
	"signal":    signalCmd,
	"finish":    finishCmd,
	"fails":     failsCmd,
	"one-error": oneErrorCmd,
	"ndjson":    ndjsonCmd,
	"random":    randomCmd,
	"refusing":  refusingCmd,
	"silent":    silentCmd,
	"greeted":   greetedCmd,
	"echoing":   echoingCmd,
}

func setup(env *testscript.Env) error {
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
	env.Setenv("XDG_DATA_HOME", filepath.Join(env.WorkDir, "data"))
	for _, name := range []string{"a", "b", "c"} {
		key, err := identity.LoadOrCreate(filepath.Join(env.WorkDir, name+".key"))
		if err != nil {
			return err
		}
		env.Setenv(strings.ToUpper(name), key.ID().String())
		env.Setenv("LOUD_"+strings.ToUpper(name), strings.ToUpper(key.ID().String()))
	}
	env.Setenv("LF", "\n")
	procs := make(processes)
	env.Values[processesKey{}] = procs
	env.Values[greetedKey{}] = make(chan struct{}, 1)
	env.Defer(procs.end)
	return nil
}

func condition(name string) (bool, error) {
	return name == "root" && os.Geteuid() == 0, nil
}

func randomCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: random FILE BYTES")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := make([]byte, n)
	rand.Read(b)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o666))
}
