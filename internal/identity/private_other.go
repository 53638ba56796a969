//go:build !unix

package identity

import (
	"fmt"
	"os"
)

// private only checks what kind of file it is: access here is by the lists of
// the folder, which the user's profile keeps private, not by mode bits.
func private(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file", ErrKeyFile)
	}
	return nil
}
