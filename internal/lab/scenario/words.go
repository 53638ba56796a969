package scenario

import (
	"fmt"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// ParseTime reads a time as a file has it: 20ms, 1m30s.
func ParseTime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no time with a unit, like 20ms or 1m30s", s)
	}
	return d, nil
}

// ParseShare reads a share of packets: 1% or 0.01.
func ParseShare(s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	f, err := strconv.ParseFloat(number, 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f >= 0 && f <= 1) { // or NaN
		return 0, fmt.Errorf("%q is no share from 0%% to 100%%, like 1%% or 0.01", s)
	}
	return f, nil
}

// ParseRate reads bits a second: 1500000, 500kbit and 1.5gbit; unlimited is 0.
func ParseRate(s string) (int64, error) {
	b, ok := bits(s)
	if !ok {
		return 0, fmt.Errorf("%q is no rate, like 500kbit, 100mbit, 1gbit or unlimited", s)
	}
	return b, nil
}

func bits(s string) (int64, bool) {
	s = strings.ToLower(s)
	if s == "unlimited" {
		return 0, true
	}
	factor := int64(1)
	for _, u := range []struct {
		unit   string
		factor int64
	}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"bit", 1}} {
		if number, ok := strings.CutSuffix(s, u.unit); ok {
			s, factor = number, u.factor
			break
		}
	}
	if len(s) > 20 || strings.ContainsAny(s, "e/_") {
		return 0, false // such numbers may be slow to read
	}
	x, ok := new(big.Rat).SetString(s)
	if !ok {
		return 0, false
	}
	x.Mul(x, new(big.Rat).SetInt64(factor))
	if !x.IsInt() || !x.Num().IsInt64() || x.Sign() < 0 {
		return 0, false
	}
	return x.Num().Int64(), true
}

// ParseSize reads a number of bytes.
func ParseSize(s string) (int, error) {
	i, err := parseNumber(s, strconv.IntSize)
	return int(i), err
}

func parseNumber(s string, bits int) (int64, error) {
	i, err := strconv.ParseInt(s, 10, bits)
	if err != nil {
		return 0, fmt.Errorf("%q is no number that fits here", s)
	}
	return i, nil
}

// MarshalBehaviour writes the fields of a behaviour, never the name of a
// preset.
func MarshalBehaviour(b nat.Behaviour) ([]byte, error) {
	n, err := encodeStruct(reflect.ValueOf(b))
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(n)
}
