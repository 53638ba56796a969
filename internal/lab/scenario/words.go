package scenario

import (
	"reflect"

	"go.yaml.in/yaml/v4"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// ParseShare reads a share of packets as a file has it: 1% or 0.01.
func ParseShare(s string) (float64, bool) { return share(s) }

// ParseRate reads bits a second as a file has them: 500kbit or 1.5gbit.
func ParseRate(s string) (int64, bool) { return bits(s) }

// MarshalBehaviour writes the fields of a behaviour, never the name of a
// preset.
func MarshalBehaviour(b nat.Behaviour) ([]byte, error) {
	n, err := encodeStruct(reflect.ValueOf(b))
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(n)
}
