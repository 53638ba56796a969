package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// settle fills every flag of the command that was not given from the
// environment (BODKIN_NAME), and where that has nothing, from the config file.
func settle(cmd *cobra.Command, _ []string) error {
	file, values, err := readConfig()
	if err != nil {
		return err
	}
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || failed != nil {
			return
		}
		env := "BODKIN_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, source := os.Getenv(env), env
		if value == "" {
			v, ok := values[f.Name]
			if !ok {
				return
			}
			value, source = fmt.Sprint(v), file
		}
		if err := f.Value.Set(value); err != nil {
			failed = usageError{fmt.Errorf("%s: %q is no value for %s", source, value, f.Name), fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
		}
	})
	return failed
}

// readConfig reads the XDG config file, which need not be there. A name that no
// verb knows is an error, so that a typo does not pass for a setting.
func readConfig() (string, map[string]any, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", nil, nil // no home, no config file
		}
		dir = filepath.Join(home, ".config")
	}
	file := filepath.Join(dir, "bodkin", "config.toml")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil, nil
	}
	if err != nil {
		return file, nil, err
	}
	values := map[string]any{}
	if err := toml.Unmarshal(text, &values); err != nil {
		return file, nil, usageError{fmt.Errorf("%s: %s", file, firstLine(err.Error())), "a line reads NAME = VALUE, text in quotes"}
	}
	for name, v := range values {
		switch v.(type) {
		case string, bool, int64:
		default:
			return file, nil, usageError{fmt.Errorf("%s: %s: expected text, a number, true or false", file, name), ""}
		}
		if !knownFlag(name) {
			return file, nil, usageError{fmt.Errorf("%s: unknown setting %s", file, strconv.Quote(name)), "settings have the names of the flags: server = \"...\""}
		}
	}
	return file, values, nil
}

func knownFlag(name string) bool {
	for _, cmd := range newRoot().Commands() {
		if cmd.Flags().Lookup(name) != nil {
			return true
		}
	}
	return false
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// dataDir is where keys live: XDG_DATA_HOME/bodkin, or its like.
func dataDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "bodkin"), nil
	}
	if runtime.GOOS == "windows" {
		if dir := os.Getenv("LocalAppData"); dir != "" {
			return filepath.Join(dir, "bodkin"), nil
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", usageError{errors.New("no home directory to keep the key in"), "name a file with --key, or set XDG_DATA_HOME"}
	}
	return filepath.Join(home, ".local", "share", "bodkin"), nil
}
