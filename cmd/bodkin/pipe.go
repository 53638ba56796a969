package main

import (
	"context"
	"io"
	"os"

	"github.com/bodkin-net/bodkin"
)

// pipe copies standard input to the stream and the stream to standard output.
// The end of the input is a half-close. It returns nil only when both
// directions ended cleanly.
func pipe(ctx context.Context, conn *bodkin.Conn, in io.Reader, out io.Writer) error {
	return whileRunning(ctx, func() error {
		sent := make(chan error, 1)
		go func() {
			_, err := io.Copy(conn, in)
			if err == nil {
				err = conn.CloseWrite()
			}
			sent <- err
		}()
		received := make(chan error, 1)
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
			}
			if err != nil {
				return err // the other direction has no end to wait for
			}
		}
		return conn.Flush(ctx)
	})
}

// output is standard output; the end of the peer's stream closes it, so that
// whatever reads there goes on while standard input is still open.
type output struct{ *os.File }

func (o output) CloseWrite() error { return o.Close() }
