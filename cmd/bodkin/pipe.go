package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/bodkin-net/bodkin"
)

// pipe copies in to the stream and the stream to out. The end of either is a
// half-close of the other. It returns nil only when both directions ended
// cleanly and the peer has all that was sent; otherwise the peer is told that
// it has not.
func pipe(ctx context.Context, conn *bodkin.Conn, in io.Reader, out io.Writer) error {
	err := copyBoth(ctx, conn, in, out)
	if err != nil {
		conn.Reset()
	}
	return reason(err)
}

func copyBoth(ctx context.Context, conn *bodkin.Conn, in io.Reader, out io.Writer) error {
	sent, received := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, in)
		if err == nil {
			err = conn.CloseWrite()
		}
		sent <- err
	}()
	go func() {
		_, err := io.Copy(out, conn)
		if w, ok := out.(interface{ CloseWrite() error }); ok && err == nil {
			err = w.CloseWrite()
		}
		received <- err
	}()
	for range 2 {
		var err error
		select {
		case err = <-sent:
		case err = <-received:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err // the other direction has no end to wait for
		}
	}
	return conn.Flush(ctx)
}

// reason takes the addresses off an error of a connection: there is only one
// peer here.
func reason(err error) error {
	if known, ok := errors.AsType[*bodkin.Error](err); ok {
		return known
	}
	return err
}

// pipeStandard gives standard input and output to a stream.
func pipeStandard(ctx context.Context, conn *bodkin.Conn, closeOutput bool) error {
	over := make(chan struct{})
	defer close(over)
	var out io.Writer = plainOutput{os.Stdout}
	if closeOutput {
		out = output{os.Stdout}
	}
	return pipe(ctx, conn, stdin.until(over), out)
}

// output is standard output; the end of the peer's stream closes it, so that
// whatever reads there goes on while standard input is still open.
type output struct{ *os.File }

func (o output) CloseWrite() error { return o.Close() }

// plainOutput stays open for the next stream.
type plainOutput struct{ io.Writer }
