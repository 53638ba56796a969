package scenario

import (
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var oneLineError = regexp.MustCompile(`^f\.yaml:[1-9][0-9]*: [^\n]+$`)

// roundTrip writes a topology and reads it again.
func roundTrip(t *testing.T, top Topology) {
	t.Helper()
	data, err := Marshal(top)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load("f.yaml", data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if d := cmp.Diff(top, again, same...); d != "" {
		t.Fatalf("%s\n%s", d, data)
	}
}

func TestMarshal(t *testing.T) {
	for _, c := range Cases() {
		roundTrip(t, c.Topology)
	}
	data, err := os.ReadFile("testdata/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	top, err := Load("f.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, top)
}

// No input panics. What is wrong is one line with file and line; what is right
// is the same after it was written and read again.
func FuzzLoad(f *testing.F) {
	data, err := os.ReadFile("testdata/everything.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(data))
	for _, c := range Cases() {
		data, err := Marshal(c.Topology)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add("hosts: {a: &x [*x]}\n")
	f.Fuzz(func(t *testing.T, data string) {
		top, err := Load("f.yaml", []byte(data))
		if err != nil {
			if !oneLineError.MatchString(err.Error()) {
				t.Fatalf("%q", err)
			}
			return
		}
		roundTrip(t, top)
	})
}
