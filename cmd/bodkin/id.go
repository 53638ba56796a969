package main

import (
	"github.com/spf13/cobra"
)

func newID() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:   "id",
		Short: "Print this machine's id, creating its key on first use",
		Long: `Print the id of this machine and nothing else.

The id is the public half of the key; give it to whoever is to connect here.
It carries a checksum, so that a typo is told as one.`,
		Example: "  bodkin id",
		Args:    noArgs,
		PreRunE: settle,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := loadKey(key)
			if err != nil {
				return err
			}
			return writeResult(cmd.OutOrStdout(), k.ID().String()+"\n")
		},
	}
	addKey(cmd, &key)
	addJSON(cmd)
	return cmd
}
