//go:build !linux

package main

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// labVerbs say why there is no lab here.
func labVerbs() (all []*cobra.Command) {
	for _, verb := range []string{"up", "exec", "status", "set", "capture", "down", "list", "run"} {
		all = append(all, &cobra.Command{
			Use:                verb,
			Short:              "(Linux only)",
			DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error {
				return hintError{errors.New("labs are made of Linux network namespaces; this is " + runtime.GOOS), fmt.Sprintf("in a Linux virtual machine `bodkin lab %s` works", verb)}
			},
		})
	}
	return all
}
