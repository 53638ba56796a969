package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// exitStatus ends the command with the exit code of another program, or with
// one that says that this could not be run; then there is an error to tell.
type exitStatus struct {
	code int
	error
}

func (e exitStatus) Unwrap() error { return e.error }

func newLab() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "NATs, firewalls and hosts in namespaces; run anything in them",
		Long: `Build a network of hosts, NATs and firewalls on this machine, from a file, and
run any program in it. Every host and every gateway is a network namespace of
Linux; links have a delay, a loss and a rate; no packet reaches the real network.

A lab is held by a process of its own until "bodkin lab down". Commands take the
only lab that is up; where there are several, --name or BODKIN_LAB_NAME says
which. It needs root, or a system that lets users have user namespaces and open
/dev/net/tun. docs/LAB.md has the guide, and the format of the file.`,
		Example: `  bodkin lab up docs/labs/two-homes.yaml     # prints the name of the lab, two-homes
  bodkin lab exec a -- ping -c 3 198.51.100.1
  bodkin lab set ga --delay 40ms --loss 1%
  bodkin lab status --watch
  bodkin lab capture internet - | wireshark -k -i -
  bodkin lab down`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(labVerbs()...)
	cmd.AddCommand(newLabPresets())
	cmd.SuggestionsMinimumDistance = 2
	return cmd
}

func newLabPresets() *cobra.Command {
	return &cobra.Command{
		Use:   "presets [NAME]",
		Short: "List the kinds of NAT that have a name, or show one",
		Long: `List the presets: behaviours of NATs and firewalls that have a name, for the
field "preset" of a gateway. With a name, say where its figures are from and
print it as the fields that a file would have instead.`,
		Example: `  bodkin lab presets
  bodkin lab presets carrier`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("unexpected argument %q", args[1]), fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return presetNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listPresets(cmd.OutOrStdout())
			}
			for _, p := range nat.Presets() {
				if p.Name == args[0] {
					return showPreset(cmd.OutOrStdout(), p)
				}
			}
			hint := "`bodkin lab presets` lists them"
			if near := nearest(args[0], presetNames()); near != "" {
				hint = fmt.Sprintf("did you mean %s?", near)
			}
			return usageError{fmt.Errorf("no preset %q", args[0]), hint}
		},
	}
}

func presetNames() (names []string) {
	for _, p := range nat.Presets() {
		names = append(names, p.Name)
	}
	return names
}

func listPresets(w io.Writer) error {
	wide := 0
	for _, name := range presetNames() {
		wide = max(wide, len(name))
	}
	var b strings.Builder
	for _, p := range nat.Presets() {
		fmt.Fprintf(&b, "%-*s  %s\n", wide, p.Name, p.What)
	}
	return writeResult(w, b.String())
}

// showPreset prints a preset as the fields of a file.
func showPreset(w io.Writer, p nat.Preset) error {
	text, err := scenario.MarshalBehaviour(p.Behaviour)
	if err != nil {
		return err
	}
	return writeResult(w, fmt.Sprintf("# %s: %s\n# %s\n%s", p.Name, p.What, p.Source, text))
}

// nearest is the name that a mistyped one was to be, or nothing.
func nearest(name string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := distance(name, k); d < least && d < len(name) {
			best, least = k, d
		}
	}
	return best
}
