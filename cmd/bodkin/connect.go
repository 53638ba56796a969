package main

import (
	"github.com/spf13/cobra"

	"github.com/bodkin-net/bodkin"
)

func newConnect() *cobra.Command {
	var flags nodeFlags
	cmd := &cobra.Command{
		Use:   "connect PEER",
		Short: "Connect to a peer; standard input and output are the stream",
		Long: `Connect to the peer with this id, copy standard input to it and what it sends
to standard output. The end of the input is passed on as a half-close.

Bytes flow through the server's relay at once and move to a direct path as soon
as one is found. The exit code is 0 only when both directions ended cleanly.`,
		Example: `  bodkin connect PEER < file
  ssh -o ProxyCommand="bodkin connect PEER" user@host   # PEER runs: bodkin listen --keep --to 127.0.0.1:22`,
		Args: peerArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			peer, err := bodkin.ParseID(args[0])
			if err != nil {
				return err
			}
			node, err := flags.open(show)
			if err != nil {
				return err
			}
			defer node.Close()
			conn, err := node.Dial(cmd.Context(), peer)
			if err != nil {
				return err
			}
			defer conn.Close()
			return pipeStandard(cmd.Context(), conn, true)
		},
	}
	flags.add(cmd)
	return cmd
}
