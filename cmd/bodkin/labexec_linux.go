package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/control"
)

// Exit codes of a command that was not run, as shells have them.
const (
	exitNotRunnable = 126
	exitNotFound    = 127
)

const execCodes = `Exit codes beside those of CMD: 1 and 2 as everywhere, if the lab or the host is
not there; 126 if CMD cannot be run; 127 if there is none; 128 and the signal's
number if it was killed.`

func newLabExec() *cobra.Command {
	var flags labFlags
	var command []string
	cmd := &cobra.Command{
		Use:   "exec HOST -- CMD [ARG...]",
		Short: "Run a command on a host or gateway",
		Long: `Run CMD on a host or gateway of the lab, in its network namespace; all else is
as outside: the terminal, the environment, the directory, the files. In the
environment BODKIN_LAB_NAME and BODKIN_LAB_HOST say where it is. A lab of a user
who is not root is in a user namespace, where CMD believes to be root.

` + execCodes,
		Example: `  bodkin lab exec a -- ping -c 3 198.51.100.1
  bodkin lab exec ga -- ip address
  bodkin lab exec a -- bash`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || cmd.ArgsLenAtDash() == 0 {
				return missing(cmd, "HOST")
			}
			// Flags may stand behind HOST too, but not behind CMD.
			if err := cmd.ParseFlags(args[1:]); err != nil {
				return cmd.FlagErrorFunc()(cmd, err)
			}
			command = cmd.Flags().Args()
			if len(command) == 0 && !cmd.Flags().Changed("help") {
				return missing(cmd, "command")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("help") {
				return cmd.Help()
			}
			asJSON = false // it is the command's, if anywhere
			c, err := flags.open()
			if err != nil {
				return err
			}
			defer c.Close()
			space, err := c.Enter(args[0])
			if err != nil {
				return err
			}
			defer space.Close()
			return execIn(space, args[0], command)
		},
	}
	flags.add(cmd)
	cmd.Flags().SetInterspersed(false)
	flags.complete(cmd, nodesOf)
	return cmd
}

func missing(cmd *cobra.Command, what string) error {
	return usageError{fmt.Errorf("no %s given", what), fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
}

func execIn(space *control.Space, host string, args []string) error {
	path, err := lookUp(args[0])
	if err != nil {
		return err
	}
	// Within another exec both are there already, and programs differ on which of
	// two counts.
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return name == control.NameVariable || name == control.HostVariable
	})
	env = append(env, control.NameVariable+"="+space.Lab, control.HostVariable+"="+host)
	foreign, err := space.Foreign()
	if err != nil {
		return err
	}
	inheritSignals()
	if !foreign {
		return notRun(args[0], space.Exec(path, args, env))
	}
	runtime.LockOSThread() // with whose end the child would die
	defer runtime.UnlockOSThread()
	signals := forwarded() // before there is somebody to miss one
	child, err := space.Start(path, args, env)
	if err != nil {
		return notRun(args[0], err)
	}
	return supervise(child, signals)
}

// lookUp finds a program as a shell does.
func lookUp(name string) (string, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		err = nil // the caller's PATH is the caller's choice
	}
	if err != nil {
		return "", notRun(name, err)
	}
	return path, nil
}

func notRun(name string, err error) error {
	var path *fs.PathError
	var look *exec.Error
	switch {
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		return exitStatus{exitNotFound, fmt.Errorf("%s: command not found", name)}
	case errors.As(err, &look):
		return exitStatus{exitNotRunnable, fmt.Errorf("%s: %v", name, look.Err)}
	case errors.As(err, &path):
		return exitStatus{exitNotRunnable, fmt.Errorf("%s: %v", name, path.Err)}
	case errors.Is(err, fs.ErrPermission):
		return exitStatus{exitNotRunnable, fmt.Errorf("%s: permission denied", name)}
	}
	return err
}

var interruptIgnored = signal.Ignored(os.Interrupt)

// inheritSignals leaves a program that this one starts, or becomes, with the
// signals as they were: one that is caught here is its own again, and one that
// is ignored here would be ignored there.
func inheritSignals() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if interruptIgnored {
		signal.Ignore(os.Interrupt)
	}
}

// forwarded are the signals for a child that is about to start.
func forwarded() chan os.Signal {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM)
	return signals
}

// supervise waits for a child that stands for this process, and hands it the
// signals that this process gets. Those of the terminal it has got already.
func supervise(child *os.Process, signals chan os.Signal) error {
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case s := <-signals:
				fromTerminal := s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGHUP
				if !fromTerminal || !inForeground() {
					child.Signal(s)
				}
			case <-done:
				return
			}
		}
	}()
	state, err := child.Wait()
	close(done)
	<-stopped
	signal.Stop(signals)
	if err != nil {
		return err
	}
	code := state.ExitCode()
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return exitStatus{code: code}
}

// inForeground says whether the terminal's signals reach this process group.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
