package identity

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestIDRoundTrip(t *testing.T) {
	id := Generate().ID()
	for _, text := range []string{id.String(), strings.ToUpper(id.String()), "  " + id.String() + "\n"} {
		got, err := Parse(text)
		if err != nil || got != id {
			t.Errorf("Parse(%q) = %v, %v", text, got, err)
		}
	}
}

func TestIDGolden(t *testing.T) {
	const want = "bkaaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyp742uh"
	var id ID
	for i := range id {
		id[i] = byte(i)
	}
	if got := id.String(); got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
}

// Every change of one character, and every swap of two neighbours, is told as a typo.
func TestIDTypo(t *testing.T) {
	text := FromSeed([32]byte{7}).ID().String()
	check := func(s string) {
		t.Helper()
		if _, err := Parse(s); s != text && !errors.Is(err, ErrTypo) {
			t.Errorf("Parse(%q): %v, want a typo", s, err)
		}
	}
	for i := len(prefix); i < len(text); i++ {
		for _, c := range "abcz27018" {
			check(text[:i] + string(c) + text[i+1:])
		}
		if i+1 < len(text) {
			check(text[:i] + text[i+1:i+2] + text[i:i+1] + text[i+2:])
		}
	}
}

func TestIDMalformed(t *testing.T) {
	good := FromSeed([32]byte{7}).ID().String()
	for _, s := range []string{"", "bk", "hello", good[:len(good)-1], good + "a", "xx" + good[2:], "bk" + strings.Repeat("é", 28)} {
		if _, err := Parse(s); !errors.Is(err, ErrID) {
			t.Errorf("Parse(%q): %v", s, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(FromSeed([32]byte{1}).ID().String())
	f.Fuzz(func(t *testing.T, s string) {
		id, err := Parse(s)
		if err == nil && id.String() != strings.ToLower(strings.TrimSpace(s)) {
			t.Errorf("Parse(%q) prints as %s", s, id)
		}
	})
}

func TestSharedIsSymmetric(t *testing.T) {
	a, b := Generate(), Generate()
	ab, err1 := a.Shared(b.ID())
	ba, err2 := b.Shared(a.ID())
	if err1 != nil || err2 != nil || !bytes.Equal(ab, ba) {
		t.Fatalf("%x %v, %x %v", ab, err1, ba, err2)
	}
	if _, err := a.Shared(ID{1}); err == nil { // the neutral element: of small order
		t.Error("a key of small order was accepted")
	}
}

func TestSealOpen(t *testing.T) {
	a, b := Generate(), Generate()
	sealed, err := Seal(a.ID(), []byte("info"), []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	if msg, err := a.Open([]byte("info"), sealed); err != nil || string(msg) != "message" {
		t.Errorf("Open = %q, %v", msg, err)
	}
	if _, err := b.Open([]byte("info"), sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("another key opened it: %v", err)
	}
	if _, err := a.Open([]byte("other"), sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("another info opened it: %v", err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := a.Open([]byte("info"), sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("a changed message was opened: %v", err)
	}
}

func TestKeyFileIsPrivateAndStable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bodkin", "key")
	first, err := LoadOrCreate(file)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrCreate(file)
	if err != nil || first.ID() != second.ID() {
		t.Fatalf("%v then %v, %v", first.ID(), second.ID(), err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o666} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreate(file); !errors.Is(err, ErrKeyExposed) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestKeyFileBad(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty":   "",
		"text":    "hello\n",
		"damaged": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreate(file); !errors.Is(err, ErrKeyFile) {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := os.ReadFile(file); string(after) != text {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if _, err := LoadOrCreate(dir); err == nil {
		t.Error("a folder was taken for a key file")
	}
}

func TestKeyFileCreatedByManyAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	ids := make([]ID, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			key, err := LoadOrCreate(file)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = key.ID()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("two keys: %v", ids)
		}
	}
	if left, _ := filepath.Glob(file + ".new-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
