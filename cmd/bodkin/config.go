package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
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
		source := "BODKIN_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		given := []string{os.Getenv(source)}
		if given[0] == "" {
			source, given = file, values[f.Name]
		}
		for _, value := range given {
			if err := f.Value.Set(value); err != nil {
				failed = usageError{fmt.Errorf("%s: %q is no value for %s", source, value, f.Name), fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
				return
			}
		}
	})
	if f := cmd.Flags().Lookup("json"); f != nil {
		asJSON = f.Value.String() == "true"
	}
	return failed
}

// readConfig reads the XDG config file, which need not be there: the values of
// each setting. A name that no verb knows is an error, so that a typo does not
// pass for a setting.
func readConfig() (string, map[string][]string, error) {
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
	var raw map[string]any
	if err := toml.Unmarshal(text, &raw); err != nil {
		return file, nil, usageError{fmt.Errorf("%s: %w", file, err), "a line reads NAME = VALUE, text in quotes"}
	}
	flags := settingFlags()
	values := make(map[string][]string)
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		flag := flags[name]
		if flag == nil {
			return file, nil, usageError{fmt.Errorf("%s: unknown setting %q", file, name), nearestSetting(name)}
		}
		_, repeatable := flag.Value.(pflag.SliceValue)
		v, ok := settings(raw[name], repeatable)
		if !ok {
			return file, nil, usageError{fmt.Errorf("%s: %s: expected %s", file, name, kindOf(flag)), ""}
		}
		values[name] = v
	}
	return file, values, nil
}

// settings are the texts of a value in the config file.
func settings(v any, repeatable bool) ([]string, bool) {
	switch v := v.(type) {
	case string, bool, int64:
		return []string{fmt.Sprint(v)}, true
	case []any:
		var all []string
		for _, one := range v {
			text, ok := one.(string)
			if !ok {
				return nil, false
			}
			all = append(all, text)
		}
		return all, repeatable
	}
	return nil, false
}

func kindOf(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true or false"
	case "int", "uint16":
		return "a number"
	case "stringSlice":
		return "text, or a list of texts"
	}
	return "text"
}

// settingFlags are the flags of all verbs, by name.
func settingFlags() map[string]*pflag.Flag {
	flags := make(map[string]*pflag.Flag)
	for _, cmd := range newRoot().Commands() {
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = f })
	}
	delete(flags, "help")
	return flags
}

// nearestSetting is a hint at what a mistyped name was to be.
func nearestSetting(name string) string {
	known := slices.Sorted(maps.Keys(settingFlags()))
	if near := nearest(strings.ToLower(strings.ReplaceAll(name, "_", "-")), known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return "settings have the names of the flags: server = \"...\""
}

// distance is Levenshtein's: how many letters to add, drop or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last = row[j+1]
			row[j+1] = min(change, row[j]+1, last+1)
		}
	}
	return row[len(b)]
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
