//go:build unix

package identity

import (
	"fmt"
	"os"
)

// private checks the open file, not its name, so that nobody can exchange it
// in between.
func private(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file", ErrKeyFile)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%w (mode %04o)", ErrKeyExposed, mode)
	}
	return nil
}
