package main

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/spf13/cobra"

	"github.com/bodkin-net/bodkin"
)

func newListen() *cobra.Command {
	var flags nodeFlags
	var keep bool
	var allow []string
	var to string
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Wait for a peer; its stream is standard input and output",
		Long: `Wait for a peer, copy what it sends to standard output and standard input to it,
and exit when the stream ends. With --keep, serve one stream after another; with
--to, connect each stream to a TCP address instead of standard input and output,
many at once.

Anyone who knows this machine's id may connect, unless --allow names who may.`,
		Example: `  bodkin listen > file
  bodkin listen --keep --allow PEER --to 127.0.0.1:22`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ids, err := parseIDs(allow)
			if err != nil {
				return err
			}
			if to != "" {
				if !dialable(to) {
					return usageError{fmt.Errorf("--to %q is no host:port", to), "for example --to 127.0.0.1:22"}
				}
			}
			node, err := flags.open(show)
			if err != nil {
				return err
			}
			defer node.Close()
			l, err := node.Listen(ids...)
			if err != nil {
				return err
			}
			defer l.Close()
			say("this machine is %s", node.ID())
			ctx := cmd.Context()
			go func() { // say early what would otherwise show as a peer that never comes
				if err := node.Ready(ctx); err != nil && ctx.Err() == nil {
					report(err)
					say("still trying")
				}
			}()
			if to != "" {
				return serveTo(ctx, l, to, keep)
			}
			return servePipe(ctx, l, keep)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&keep, "keep", false, "go on after the first stream, until SIGINT or SIGTERM")
	cmd.Flags().StringSliceVar(&allow, "allow", nil, "let the peer with this `ID` connect (repeatable); anyone if not given")
	cmd.Flags().StringVar(&to, "to", "", "connect each stream to the TCP address `HOST:PORT`")
	return cmd
}

// dialable tells whether the text can be an address to connect to.
func dialable(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	n, err := net.LookupPort("tcp", port)
	return err == nil && n != 0
}

func parseIDs(texts []string) ([]bodkin.ID, error) {
	var ids []bodkin.ID
	for _, text := range texts {
		id, err := bodkin.ParseID(text)
		if err != nil {
			return nil, fmt.Errorf("--allow %s: %w", text, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// servePipe gives standard input and output to one stream at a time.
func servePipe(ctx context.Context, l *bodkin.Listener, keep bool) error {
	for {
		conn, err := l.AcceptConn(ctx)
		if err != nil {
			return err
		}
		err = pipeStandard(ctx, conn, !keep)
		conn.Close()
		if !keep || ctx.Err() != nil {
			return err
		}
		if err != nil {
			report(err)
		}
	}
}

// serveTo connects streams to a TCP address, each for itself.
func serveTo(ctx context.Context, l *bodkin.Listener, to string, keep bool) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.AcceptConn(ctx)
		if err != nil {
			return err
		}
		if !keep {
			return bridge(ctx, conn, to)
		}
		wg.Go(func() {
			if err := bridge(ctx, conn, to); err != nil && ctx.Err() == nil {
				report(err)
			}
		})
	}
}

func bridge(ctx context.Context, conn *bodkin.Conn, to string) error {
	defer conn.Close()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		conn.Reset()
		return hintError{err, "--to names where the streams go"}
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	return pipe(ctx, conn, c, c)
}
