//go:build !race

package bodkin_test

const raceEnabled = false
