package lab

import (
	"errors"
	"os"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// TB is what Start wants of a *testing.T or *testing.B.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Skip(args ...any)
	Fatal(args ...any)
}

// Start builds a topology for a test and closes it after. It skips the test
// where no labs can be built, saying why, and logs the warnings. If the test fails, the lab is logged
// as it was at the end.
func Start(t TB, topology Topology) *Lab { t.Helper(); return start(t, topology, Options{}) }

// StartFile is Start with a topology from a YAML file.
func StartFile(t TB, file string) *Lab {
	t.Helper()
	topology, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, topology, Options{})
}

// StartOptions is Start with options.
func StartOptions(t TB, topology Topology, opt Options) *Lab {
	t.Helper()
	return start(t, topology, opt)
}

func start(t TB, topology Topology, opt Options) *Lab {
	t.Helper()
	netns.Need(t)
	l, err := New(topology, opt)
	switch {
	case errors.Is(err, errors.ErrUnsupported) && os.Getenv(netns.Required) != "required":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	for _, w := range l.Warnings() {
		t.Logf("warning: %s", w)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the lab at the end:\n%v", l)
		}
		if err := l.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return l
}
