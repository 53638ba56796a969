package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestPictureReplacesFilesAlone: root could have put a file in the place of
// /dev/null.
func TestPictureReplacesFilesAlone(t *testing.T) {
	dir := t.TempDir()
	pipe, file, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("a longer picture"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	// Both ends, so that neither opening waits for the other.
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, name := range []string{pipe, link} {
		if err := replaceFile(name, "picture"); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]fs.FileMode{pipe: fs.ModeNamedPipe, file: 0, link: fs.ModeSymlink} {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Type() != want {
			t.Errorf("%s is %v, want %v", name, info.Mode(), want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "picture" {
		t.Errorf("behind the link stands %q, %v", text, err)
	}
}

// TestPresetsFailOnce: one output that is full is one failure.
func TestPresetsFailOnce(t *testing.T) {
	w := &fullWriter{}
	if err := listPresets(w); err == nil || w.writes != 1 {
		t.Errorf("%d writes, %v; want one that fails", w.writes, err)
	}
}

type fullWriter struct{ writes int }

func (w *fullWriter) Write([]byte) (int, error) {
	w.writes++
	return 0, syscall.ENOSPC
}
