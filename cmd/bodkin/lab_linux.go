package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bodkin-net/bodkin/internal/lab/control"
)

func labVerbs() []*cobra.Command {
	verbs := []*cobra.Command{newLabUp(), newLabExec(), newLabStatus(), newLabSet(), newLabCapture(), newLabDown(), newLabList(), newLabRun(), newLabHold(), newLabGuard()}
	for _, v := range verbs {
		run := v.RunE
		v.RunE = func(cmd *cobra.Command, args []string) error { return labError(run(cmd, args)) }
	}
	return verbs
}

// labError gives a failure of a lab its hint and its exit code.
func labError(err error) error {
	var e *control.Error
	if !errors.As(err, &e) {
		return err
	}
	hint := e.Hint
	if _, asked, ok := strings.Cut(e.Message, `"`); ok {
		asked, _, _ = strings.Cut(asked, `"`)
		if near := nearest(asked, e.Known); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
	}
	if hint == "" && len(e.Known) > 0 {
		hint = "there are " + strings.Join(e.Known, ", ")
	}
	switch e.Code {
	case control.Clash, control.NoLab, control.Privilege, control.Failed:
		return hintError{err, hint}
	}
	return usageError{err, hint}
}

// labFlags are what every verb takes that talks to a lab.
type labFlags struct{ name string }

func (f *labFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "name", "", "`NAME` of the lab ("+control.NameVariable+"); not needed if only one is up")
	cmd.RegisterFlagCompletionFunc("name", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		names, _ := control.Names()
		return names, cobra.ShellCompDirectiveNoFileComp
	})
}

func (f *labFlags) open() (*control.Client, error) {
	if f.name == "" {
		f.name = os.Getenv(control.NameVariable)
	}
	return control.Open(f.name)
}

// complete offers what the lab has: for each argument a list of names.
func (f *labFlags) complete(cmd *cobra.Command, names func(control.Info) []string) {
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		c, err := f.open()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		info, err := c.Info()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(info), cobra.ShellCompDirectiveNoFileComp
	}
}

func nodesOf(i control.Info) []string { return append(i.Hosts, i.Gateways...) }

// words refuses too few and too many arguments in the words of the usage line.
func words(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return missing(cmd, names[len(args)])
		}
		if len(args) > len(names) {
			return usageError{fmt.Errorf("unexpected argument %q", args[len(names)]), fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
		}
		return nil
	}
}

func newLabDown() *cobra.Command {
	var flags labFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End a lab and everything that runs in it",
		Long: `End the lab: what runs in its hosts and gateways is killed, and every namespace
and interface is gone when this returns. If the process that holds it does not
answer, it is killed.`,
		Example: `  bodkin lab down
  bodkin lab down --name two-homes
  bodkin lab down --all`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if all && flags.name != "" {
				return usageError{errors.New("--name and --all exclude each other"), ""}
			}
			if all {
				return downAll()
			}
			c, err := flags.open()
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Down()
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "end every lab of this user")
	return cmd
}

func downAll() error {
	names, err := control.Names()
	for _, name := range names {
		c, e := control.Open(name)
		if e == nil {
			e = c.Down()
			c.Close()
		}
		err = errors.Join(err, e)
	}
	return err
}

func newLabList() *cobra.Command {
	var asData bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the labs that are up",
		Long: `List the labs of this user: those that are up, those that are coming up, those
whose process is stopped, and those that have not answered within a second.`,
		Example: "  bodkin lab list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			labs, err := control.List()
			if err != nil {
				return err
			}
			if asData {
				return writeJSON(cmd.OutOrStdout(), labs)
			}
			return writeResult(cmd.OutOrStdout(), listOfLabs(labs))
		},
	}
	cmd.Flags().BoolVar(&asData, "json", false, "print an array of JSON objects")
	return cmd
}
