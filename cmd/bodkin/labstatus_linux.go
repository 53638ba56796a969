package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/control"
	"github.com/bodkin-net/bodkin/internal/lab/draw"
)

// statusFlags say what to show of a lab, and how.
type statusFlags struct {
	labFlags
	asData   bool
	svg      string
	watch    bool
	interval time.Duration
	mappings int
}

func newLabStatus() *cobra.Command {
	var flags statusFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the topology, the NATs' live mapping tables, links and counters",
		Long: `Show the lab as it is now: networks with their hosts, gateways with their live
mapping tables, links, counters, cuts, and what has happened lately.`,
		Example: `  bodkin lab status --watch
  bodkin lab status --svg lab.svg
  bodkin lab status --json | jq '.gateways[].mappings'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.interval < 10*time.Millisecond {
				return usageError{fmt.Errorf("--interval %v is too short", flags.interval), ""}
			}
			if flags.asData && flags.svg != "" {
				return usageError{errors.New("--json and --svg exclude each other"), ""}
			}
			if flags.mappings < 0 {
				return usageError{fmt.Errorf("--mappings %d is negative", flags.mappings), ""}
			}
			c, err := flags.open()
			if err != nil {
				return err
			}
			defer c.Close()
			return flags.show(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
	flags.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&flags.asData, "json", false, "print one JSON object")
	f.StringVar(&flags.svg, "svg", "", "draw a picture to `FILE`, - for standard output")
	f.BoolVar(&flags.watch, "watch", false, "show it again and again")
	f.DurationVar(&flags.interval, "interval", time.Second, "`TIME` between, with --watch")
	f.IntVar(&flags.mappings, "mappings", 20, "show at most `N` mappings of each gateway")
	return cmd
}

func (f *statusFlags) show(ctx context.Context, c *control.Client, out io.Writer) error {
	info, err := c.Info()
	if err != nil {
		return err
	}
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	for first := true; ; first = false {
		status, err := c.Status(f.mappings)
		if err != nil {
			var e *control.Error
			if !first && errors.As(err, &e) && e.Code == control.NoLab {
				return nil // it has ended
			}
			return err
		}
		if err := f.print(draw.Lab{Name: info.Name, Title: info.Title, Snapshot: status}, out); err != nil || !f.watch {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (f *statusFlags) print(lab draw.Lab, out io.Writer) error {
	switch {
	case f.asData:
		return writeJSON(out, lab)
	case f.svg == "-":
		return writeResult(out, draw.SVG(lab))
	case f.svg != "":
		return replaceFile(f.svg, draw.SVG(lab))
	}
	width, terminal := screen()
	text := draw.Text(lab, width)
	if f.watch && terminal {
		text = "\x1b[H\x1b[2J" + text
	} else if f.watch {
		text += "\n"
	}
	return writeResult(out, text)
}

// screen is the width of the terminal that standard output is. If it is none,
// lines have the length that they have.
func screen() (width int, terminal bool) {
	size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return math.MaxInt, false
	case size.Col == 0:
		return 100, true
	}
	return max(int(size.Col), 60), true
}

// replaceFile never leaves half a file for who is looking at it. A link stays
// one, and what is no file but a device or a pipe is written to: root could put
// a file in the place of /dev/null.
func replaceFile(name, text string) error {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		return errors.Join(err, f.Close())
	}
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	var where *fs.PathError
	if errors.As(err, &where) {
		where.Path = name
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
