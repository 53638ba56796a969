package interop

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// scratch is removed after the last test.
var scratch string

func TestMain(m *testing.M) {
	// The programs wait for answers that do not come more than they work.
	flag.Parse()
	byHand := false
	flag.Visit(func(f *flag.Flag) { byHand = byHand || f.Name == "test.parallel" })
	if !byHand {
		flag.Set("test.parallel", "16")
	}
	var err error
	if scratch, err = os.MkdirTemp("", "bodkin-interop-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(scratch)
	os.Exit(code)
}
