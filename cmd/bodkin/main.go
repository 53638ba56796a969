// Command bodkin connects two machines that both sit behind NATs and firewalls.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, the same for every verb.
const (
	exitOK          = 0
	exitFailed      = 1   // the connection, the server or a file failed
	exitUsage       = 2   // the command line or the configuration is wrong
	exitInterrupted = 130 // SIGINT or SIGTERM
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once, whatever is still going on.
	context.AfterFunc(ctx, stop)
	// Who reads our output may go away; the peer is still to be told.
	signal.Ignore(syscall.SIGPIPE)

	// Mistakes in the flags themselves are told the same way.
	ours := args
	if end := slices.Index(args, "--"); end >= 0 {
		ours = args[:end] // what follows is another command's
	}
	asJSON = slices.Contains(ours, "--json")
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var status exitStatus
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		if status.error != nil {
			report(status.error)
		}
		return status.code
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, syscall.EPIPE):
		err = errors.New("standard output was closed by its reader")
	}
	return report(err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "bodkin",
		Short: "Connect two machines behind NATs and firewalls",
		Long: `bodkin connects two machines that both sit behind NATs and firewalls.

One machine that both can reach runs "bodkin serve". Bytes flow through it at
once, encrypted from end to end, until a hole is punched; then they take the
direct path.

Flags can be set in the environment too, --server as BODKIN_SERVER, and in the
file config.toml in $XDG_CONFIG_HOME/bodkin (or ~/.config/bodkin), as lines like
server = "bk...@host:3478". A flag comes first, then the environment.

Exit codes:
  0    all went well
  1    the connection, the server or a file failed
  2    the command line, the configuration or the key file is wrong
  130  ended by SIGINT or SIGTERM ("bodkin serve" ends with 0 then)`,
		Example: `  bodkin serve                      # on a machine with a public address; prints the server string
  export BODKIN_SERVER=bk...@host:3478
  bodkin id                         # on the first machine: its id
  bodkin listen > file              # ... waits for a peer
  bodkin connect PEER < file        # on the second machine`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{err, fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
	})
	root.AddCommand(newServe(), newID(), newListen(), newConnect(), newPing(), newDemo(), newLab())
	root.SuggestionsMinimumDistance = 2
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpCommand(newHelp())
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil {
		c.Short = "Print the script with which a shell completes bodkin's words"
		c.Example = "  source <(bodkin completion bash)"
		for _, shell := range c.Commands() {
			shell.Example = fmt.Sprintf("  bodkin completion %s > FILE", shell.Name())
		}
		c.Args = noArgs
		c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	return root
}

const usageTemplate = `Usage:
{{- if .HasAvailableSubCommands}}
  {{.CommandPath}} VERB [flags]
{{- else}}
  {{.UseLine}}
{{- end}}
{{- if .HasExample}}

Examples:
{{.Example}}
{{- end}}
{{- if .HasAvailableSubCommands}}

Verbs:
{{- range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}
{{- end}}{{end}}
{{- end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{- end}}
{{- if .HasAvailableSubCommands}}

See "{{.CommandPath}} VERB --help" for more about a verb.
{{- end}}
`

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [VERB]",
		Short:   "Explain a verb",
		Example: "  bodkin help connect",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return noArgs(cmd.Root(), args)
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// noArgs and exactArgs say what is wrong in the words of the command.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		hint := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			// All are near; the one that was begun, or else the nearest.
			best := slices.MinFunc(near, func(a, b string) int { return detour(args[0], a) - detour(args[0], b) })
			hint = fmt.Sprintf("did you mean `%s %s`?", cmd.CommandPath(), best)
		}
		return usageError{fmt.Errorf("unknown verb %q", args[0]), hint}
	}
	return usageError{fmt.Errorf("unexpected argument %q", args[0]), fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
}

// detour is how far a typed word is from a verb: nothing, if it begins it.
func detour(typed, verb string) int {
	if strings.HasPrefix(verb, typed) {
		return 0
	}
	return distance(typed, verb)
}

func peerArg(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	hint := "it is what `bodkin id` prints on the other machine"
	if len(args) == 0 {
		return usageError{errors.New("no peer given"), hint}
	}
	return usageError{fmt.Errorf("one peer expected, got %d arguments", len(args)), hint}
}
