package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bodkin-net/bodkin"
)

func newPing() *cobra.Command {
	var flags nodeFlags
	var count int
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "ping PEER",
		Short: "Show the paths to a peer, their round trips, and why this path",
		Long: `Connect to a peer that runs "bodkin listen" and measure round trips to it,
through the relay first and over the direct path as soon as there is one. What
was tried to get there, and what came of it, is told as it happens. The peer's
streams are left alone.

The exit code is 0 when the last ping was answered.`,
		Example: "  bodkin ping PEER --count 10",
		Args:    peerArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			peer, err := bodkin.ParseID(args[0])
			if err != nil {
				return err
			}
			if count < 0 || interval < 10*time.Millisecond {
				return usageError{errors.New("--count must not be negative, --interval at least 10ms"), ""}
			}
			var why reasons
			node, err := flags.open(func(e bodkin.Event) {
				show(e)
				why.note(e)
			})
			if err != nil {
				return err
			}
			defer node.Close()
			p, err := node.NewPinger(cmd.Context(), peer)
			if err != nil {
				return err
			}
			defer p.Close()
			err = pings(cmd, p, count, interval)
			if !asJSON {
				if path := p.Path(); path.Kind != "" {
					writeResult(cmd.OutOrStdout(), fmt.Sprintf("in use: %v\nbecause: %s\n", path, why.of(path)))
				}
			}
			return err
		},
	}
	flags.add(cmd)
	cmd.Flags().IntVar(&count, "count", 5, "pings to send, `N`; 0 for no end")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "`TIME` between pings, like 200ms or 2s")
	return cmd
}

// pings sends pings and returns why the last one had no answer.
func pings(cmd *cobra.Command, p *bodkin.Pinger, count int, interval time.Duration) (last error) {
	ctx := cmd.Context()
	for i := 1; count == 0 || i <= count; i++ {
		one, cancel := context.WithTimeout(ctx, max(interval, 2*time.Second))
		pong, err := p.Ping(one)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			last = errors.New("no answer to the last ping")
			err = writeResult(cmd.OutOrStdout(), fmt.Sprintf("%d: no answer\n", i))
		case err == nil:
			last = nil
			err = writeResult(cmd.OutOrStdout(), fmt.Sprintf("%d: %.1f ms, %s over %s, %v\n", i,
				float64(pong.RTT)/float64(time.Millisecond), pong.Path.Kind, pong.Path.Transport, pong.Path.Remote))
		}
		if err != nil {
			return err
		}
		if i == count {
			break
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return last
}
