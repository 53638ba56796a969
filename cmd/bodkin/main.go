// Command bodkin connects two machines that both sit behind NATs and firewalls.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
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

	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
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
direct path.`,
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
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newServe(), newID(), newListen(), newConnect(), newPing(), newDemo())
	return root
}

// noArgs and exactArgs say what is wrong in the words of the command.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		hint := "see `bodkin --help`"
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf("did you mean `bodkin %s`?", near[0])
		}
		return usageError{fmt.Errorf("unknown verb %q", args[0]), hint}
	}
	return usageError{fmt.Errorf("unexpected argument %q", args[0]), fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
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
