package server

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile locks f until it is closed. The locked byte is far behind the data,
// because Windows forbids others to read what is locked.
func lockFile(f *os.File) error {
	at := &windows.Overlapped{OffsetHigh: 1 << 30}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if err == windows.ERROR_LOCK_VIOLATION {
		return ErrStateInUse
	}
	return err
}
