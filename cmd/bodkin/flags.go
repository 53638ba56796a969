package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bodkin-net/bodkin"
)

// nodeFlags are what every verb that talks to a peer takes.
type nodeFlags struct {
	server     string
	key        string
	port       uint16
	relayOnly  bool
	directOnly bool
	techniques []string
}

func (f *nodeFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.server, "server", "", "server `STRING`, as 'bodkin serve' prints it, or HOST:PORT (BODKIN_SERVER)")
	addKey(cmd, &f.key)
	addJSON(cmd)
	fs.Uint16Var(&f.port, "port", 0, "local UDP `PORT`, 0 for any")
	fs.BoolVar(&f.relayOnly, "relay-only", false, "never try a direct path; tells the peer no address")
	fs.BoolVar(&f.directOnly, "direct-only", false, "never use the relay; fail if no hole can be made")
	fs.StringSliceVar(&f.techniques, "technique", nil, "use only the technique `NAME` for the direct path (repeatable); all of\n"+strings.Join(bodkin.Techniques(), ", ")+" if not given")
	cmd.PreRunE = settle
}

func addKey(cmd *cobra.Command, key *string) {
	cmd.Flags().StringVar(key, "key", "", "identity key `FILE` (BODKIN_KEY); $XDG_DATA_HOME/bodkin/key if not given")
}

func addJSON(cmd *cobra.Command) {
	cmd.Flags().Bool("json", false, "write events to standard error, one JSON object a line")
}

func loadKey(file string) (bodkin.Key, error) {
	if file == "" {
		dir, err := dataDir()
		if err != nil {
			return bodkin.Key{}, err
		}
		file = filepath.Join(dir, "key")
	}
	return bodkin.LoadKey(file)
}

// open starts a node with these flags.
func (f *nodeFlags) open(observe func(bodkin.Event)) (*bodkin.Node, error) {
	key, err := loadKey(f.key)
	if err != nil {
		return nil, err
	}
	return bodkin.New(bodkin.Config{
		Key:        key,
		Server:     f.server,
		Port:       f.port,
		RelayOnly:  f.relayOnly,
		DirectOnly: f.directOnly,
		Techniques: f.techniques,
		Observe:    observe,
	})
}
