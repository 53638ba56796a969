package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// scratch is removed after the last test.
var scratch string

func TestMain(m *testing.M) {
	// Most tests wait more than they work: let more of them run at once than
	// there are processors, unless the command line says how many.
	flag.Parse()
	byHand := false
	flag.Visit(func(f *flag.Flag) { byHand = byHand || f.Name == "test.parallel" })
	if !byHand {
		flag.Set("test.parallel", fmt.Sprint(2*runtime.GOMAXPROCS(0)))
	}
	var err error
	if scratch, err = os.MkdirTemp("", "bodkin-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(scratch)
		os.Exit(code)
	}))
}

// program is the command, built once.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "bodkin")
	out, err := exec.Command("go", "build", "-o", path, "github.com/bodkin-net/bodkin/cmd/bodkin").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})
