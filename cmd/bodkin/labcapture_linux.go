package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/control"
)

func newLabCapture() *cobra.Command {
	var flags labFlags
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "capture NETWORK FILE|-",
		Short: "Write the packets of a network to a file for Wireshark",
		Long: `Write every packet that a network is given to carry, also those that it then
loses, to FILE as pcapng, or to standard output; one interface for each port. It
ends with Ctrl-C, after --duration, or with the lab.`,
		Example: `  bodkin lab capture internet trace.pcapng --duration 10s
  bodkin lab capture internet - | wireshark -k -i -`,
		Args: words("NETWORK", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("duration") && limit <= 0 {
				return usageError{fmt.Errorf("--duration %v is no time", limit), ""}
			}
			c, err := flags.open()
			if err != nil {
				return err
			}
			defer c.Close()
			ctx := cmd.Context()
			if limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, limit)
				defer cancel()
			}
			return capture(ctx, c, args[0], args[1])
		},
	}
	flags.add(cmd)
	cmd.Flags().DurationVar(&limit, "duration", 0, "end after this `TIME`; without it, with Ctrl-C")
	flags.complete(cmd, func(i control.Info) []string { return i.Networks })
	return cmd
}

func capture(ctx context.Context, c *control.Client, network, file string) error {
	out := os.Stdout
	if file == "-" {
		if _, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS); err == nil {
			return usageError{errors.New("a capture is nothing for a terminal"), "name a file, or: bodkin lab capture " + network + " - | wireshark -k -i -"}
		}
	}
	err := c.Capture(ctx, network, func() (w io.Writer, err error) {
		if file == "-" {
			return out, nil
		}
		// Not before, so that a capture that cannot be leaves no file.
		if out, err = os.Create(file); err == nil {
			say("capturing to %s; Ctrl-C ends it", file)
		}
		return out, err
	})
	if file == "-" && errors.Is(err, syscall.EPIPE) {
		return nil // its reader has seen enough
	}
	if file != "-" && out != os.Stdout && out != nil {
		err = errors.Join(err, out.Close())
	}
	return err
}
