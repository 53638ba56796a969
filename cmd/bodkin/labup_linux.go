package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bodkin-net/bodkin/internal/lab/control"
)

func newLabUp() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "up FILE",
		Short: "Build the lab that a file describes, and keep it",
		Long: `Build the lab that FILE describes, - for standard input, and keep it in a process
of its own until "bodkin lab down". The name of the lab, that of the file unless
--name says another, is printed when it is ready. Two labs can be up beside each
other, with the same addresses inside, but not with the same name.

A small file; what it does not say is chosen:

  hosts: {server: internet, a: home}
  gateways: {router: {inside: home, outside: internet, nat: port-restricted}}`,
		Example: `  bodkin lab up docs/labs/two-homes.yaml
  bodkin lab up two-homes.yaml --name other`,
		Args: words("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, _ = cmd.Flags().GetBool("json")
			begin := time.Now()
			lab, err := startLab(cmd.Context(), args[0], name, false)
			if err != nil {
				return err
			}
			say("%s in %.2f s; try:", contents(lab.Info), time.Since(begin).Seconds())
			if len(lab.Hosts) > 0 {
				say("  bodkin lab exec%s %s -- sh", option(lab.Name), lab.Hosts[0])
			}
			say("  bodkin lab status%s --watch", option(lab.Name))
			return writeResult(cmd.OutOrStdout(), lab.Name+"\n")
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "`NAME` of the lab; that of the file if not given")
	cmd.Flags().Bool("json", false, "write warnings and errors to standard error, one JSON object a line")
	return cmd
}

// option is what names this lab where it is not the only one.
func option(name string) string {
	if labs, err := control.Names(); err == nil && len(labs) == 1 {
		return ""
	}
	return " --name " + name
}

func contents(i control.Info) string {
	count := func(n int, what string) string {
		if n == 1 {
			return "1 " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	return fmt.Sprintf("%s and %s", count(len(i.Hosts), "host"), count(len(i.Gateways), "gateway"))
}

// startLab starts the lab of a file.
func startLab(ctx context.Context, file, name string, tied bool) (*control.Started, error) {
	text, err := readLab(file)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = nameOf(file)
	}
	lab, err := control.Start(ctx, control.Spec{Name: name, File: file, Text: text, Verbs: []string{"lab"}, Tied: tied})
	if err != nil {
		return nil, err
	}
	for _, w := range lab.Warnings {
		warn(w)
	}
	return lab, nil
}

// readLab reads a file that is no larger than a lab's may be.
func readLab(file string) ([]byte, error) {
	f := os.Stdin
	if file != "-" {
		var err error
		if f, err = os.Open(file); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	return io.ReadAll(io.LimitReader(f, control.MaxTopology+1))
}

// nameOf makes the name of a lab from that of its file.
func nameOf(file string) string {
	base := filepath.Base(file)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	name := strings.TrimLeft(strings.Map(func(r rune) rune {
		if r < 128 && control.CheckName("x"+string(r)) == nil {
			return r
		}
		return '-'
	}, base), "-_.")
	if name == "" {
		return "lab"
	}
	return name[:min(len(name), control.MaxName)]
}

func newLabHold() *cobra.Command {
	return &cobra.Command{
		Use:    control.Verb + " NAME",
		Short:  "Hold a lab; for `bodkin lab up` alone",
		Hidden: true,
		Args:   words("NAME"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(syscall.SIGHUP)
			return control.Hold(cmd.Context())
		},
	}
}

func newLabGuard() *cobra.Command {
	return &cobra.Command{
		Use:    control.GuardVerb + " NAME NUMBER",
		Short:  "Wait for the end of a lab; for `bodkin lab up` alone",
		Hidden: true,
		Args:   words("NAME", "NUMBER"),
		RunE:   func(_ *cobra.Command, args []string) error { return control.Guard(args[0], args[1]) },
	}
}

func newLabRun() *cobra.Command {
	var name, on string
	cmd := &cobra.Command{
		Use:   "run FILE -- CMD [ARG...]",
		Short: "Build a lab, run one command, end the lab",
		Long: `Build the lab that FILE describes, run CMD, and end the lab when it ends. The
exit code is that of CMD. CMD runs outside of the lab unless --on says where; it
finds the lab's name in BODKIN_LAB_NAME, so that "bodkin lab exec" and all other
verbs work in it.

` + execCodes,
		Example: `  bodkin lab run two-homes.yaml -- ./test.sh
  bodkin lab run two-homes.yaml --on a -- ping -c 1 198.51.100.1`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 || cmd.ArgsLenAtDash() == 0:
				return missing(cmd, "FILE")
			case len(args) == 1:
				return missing(cmd, "command")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON = false // it is the command's, if anywhere
			if name == "" {
				name = fmt.Sprintf("%.*s-%d", control.MaxName-8, nameOf(args[0]), os.Getpid())
			}
			return runLab(cmd.Context(), args[0], name, on, args[1:])
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "`NAME` of the lab; made up if not given")
	cmd.Flags().StringVar(&on, "on", "", "run CMD on this `HOST` or gateway")
	return cmd
}

func runLab(ctx context.Context, file, name, on string, args []string) (err error) {
	lab, err := startLab(ctx, file, name, true)
	if err != nil {
		return err
	}
	defer func() {
		c, down := control.Open(name)
		if down == nil {
			down = c.Down()
			c.Close()
		}
		ended := lab.Release()
		var gone *control.Error
		if ended == nil && errors.As(down, &gone) && gone.Code == control.NoLab {
			down = nil // the command has ended it
		}
		var status exitStatus
		if down != nil && (err == nil || errors.As(err, &status) && status.code == 0) {
			err = down
		}
	}()
	if on != "" {
		args = append([]string{os.Args[0], "lab", "exec", "--name", name, on, "--"}, args...)
	}
	var path string
	if on != "" {
		path = "/proc/self/exe"
	} else if path, err = lookUp(args[0]); err != nil {
		return err
	}
	cmd := &exec.Cmd{Path: path, Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	cmd.Env = append(os.Environ(), control.NameVariable+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // with whose end the child would die
	defer runtime.UnlockOSThread()
	inheritSignals()
	signals := forwarded()
	if err := cmd.Start(); err != nil {
		return notRun(args[0], err)
	}
	return supervise(cmd.Process, signals)
}

// silent is why a lab says nothing, in words.
var silent = map[control.Silence]string{
	control.ComingUp: "coming up",
	control.Stopped:  "stopped",
	control.Slow:     "no answer yet",
}

func listOfLabs(labs []control.Info) string {
	if len(labs) == 0 {
		return ""
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tUP\tHOSTS\tGATEWAYS\tPID\tFILE")
	for _, l := range labs {
		if l.Silent {
			fmt.Fprintf(w, "%s\t%s\t\t\t%d\t\n", l.Name, silent[l.Why], l.PID)
			continue
		}
		fmt.Fprintf(w, "%s\t%v\t%d\t%d\t%d\t%s\n", l.Name, time.Since(l.Started).Round(time.Second), len(l.Hosts), len(l.Gateways), l.PID, l.File)
	}
	w.Flush()
	return b.String()
}

func writeJSON(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeResult(w, string(text)+"\n")
}
