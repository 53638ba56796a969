package server

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
)

func slotAt(index uint32, endpoint string) rendezvous.Slot {
	s := rendezvous.Slot{Index: index, Handle: rendezvous.Handle{byte(index), 1, 2, 3, 4, 5, 6, 7}}
	if endpoint != "" {
		s.Endpoint = netip.MustParseAddrPort(endpoint)
	}
	return s
}

func openedState(t *testing.T, path string) (*stateFile, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	s, err := openState(path, seed(1).ID(), slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.f.Close() })
	return s, log
}

// filled is a restart file of three peers in slots 0, 2 and 5000.
func filled(t *testing.T) (path string, want []remembered) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "peers")
	s, _ := openedState(t, path)
	want = []remembered{
		{slotAt(0, "192.0.2.1:1000"), 0},
		{slotAt(2, "[2001:db8::1]:2000"), 3},
		{slotAt(5000, "192.0.2.3:3000"), 1},
	}
	s.put(slotAt(0, "198.51.100.1:1"), 0)
	s.put(slotAt(1, "198.51.100.2:2"), 0)
	s.flush()
	for _, r := range want {
		s.put(r.slot, r.socket)
	}
	s.put(slotAt(1, ""), 0) // freed
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	return path, want
}

func TestStateIsReadBack(t *testing.T) {
	path, want := filled(t)
	s, log := openedState(t, path)
	if !slices.Equal(s.old, want) {
		t.Errorf("read %v, want %v", s.old, want)
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", log)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != stateHeader+5001*recordLen {
		t.Errorf("%v, %v bytes, %v", info.Mode(), info.Size(), err)
	}
}

func TestDamagedState(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(b []byte) []byte
		slots  []uint32
		log    string // empty: nothing to say
		aside  bool
	}{
		{"a bit flipped", func(b []byte) []byte { b[stateHeader+5] ^= 1; return b }, []uint32{2, 5000}, "damaged=1", false},
		{"a record of another place", func(b []byte) []byte {
			copy(b[stateHeader+recordLen:], b[stateHeader:][:recordLen])
			return b
		}, []uint32{0, 2, 5000}, "damaged=1", false},
		{"cut in a record", func(b []byte) []byte { return b[:len(b)-1] }, []uint32{0, 2}, "damaged=1", false},
		{"cut in the header", func(b []byte) []byte { return b[:20] }, nil, "set aside", true},
		{"empty", func(b []byte) []byte { return nil }, nil, "", false},
		{"foreign", func(b []byte) []byte { return []byte(strings.Repeat("a letter to a friend\n", 20)) }, nil, "set aside", true},
		{"another key's", func(b []byte) []byte { b[30] ^= 1; return b }, nil, "another key", false},
		{"garbage behind the header", func(b []byte) []byte {
			return append(b[:stateHeader], bytes.Repeat([]byte{0xee}, 1<<20)...)
		}, nil, "damaged=32768", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, _ := filled(t)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b = c.damage(b)
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			s, log := openedState(t, path)
			var got []uint32
			for _, r := range s.old {
				got = append(got, r.slot.Index)
			}
			if !slices.Equal(got, c.slots) {
				t.Errorf("slots %v, want %v", got, c.slots)
			}
			if !strings.Contains(log.String(), c.log) || (c.log == "") != (log.Len() == 0) {
				t.Errorf("logged %q, want %q", log, c.log)
			}
			if aside, err := os.ReadFile(path + ".bad"); c.aside != (err == nil) || (c.aside && !bytes.Equal(aside, b)) {
				t.Errorf("set aside: %v, want %v", err == nil, c.aside)
			}
			s.put(slotAt(7, "192.0.2.7:7"), 0)
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			again, _ := openedState(t, path)
			if len(again.old) != len(c.slots)+1 {
				t.Errorf("%d peers after one more", len(again.old))
			}
		})
	}
}

func TestStateServesOneServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers")
	cfg := open(t, "127.0.0.1")
	cfg.StateFile = path
	first := start(t, cfg)
	second := open(t, "127.0.0.1")
	second.StateFile = path
	if _, err := New(second); !errors.Is(err, ErrStateInUse) {
		t.Errorf("a second server: %v", err)
	}
	first.stop()
	s, err := New(second)
	if err != nil {
		t.Fatalf("after the first one's end: %v", err)
	}
	s.Close()
}

func TestWhoStaysAwayIsForgotten(t *testing.T) {
	path, want := filled(t)
	s, _ := openedState(t, path)
	s.put(slotAt(2, "192.0.2.1:1000"), 0) // the first peer is back, in the second one's slot
	if s.missing(want[0].slot.Endpoint) || !s.missing(want[1].slot.Endpoint) {
		t.Error("the wrong ones are missing")
	}
	s.expire()
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	again, _ := openedState(t, path)
	if len(again.old) != 1 || again.old[0].slot != slotAt(2, "192.0.2.1:1000") {
		t.Errorf("left: %v", again.old)
	}
}
