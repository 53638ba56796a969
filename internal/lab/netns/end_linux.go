package netns

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// End kills every process in network namespaces, as Close does for a lab. It is
// for who outlives the process that had the lab; the files, from Host.NetNS,
// keep the namespaces from being taken for others.
func End(spaces []*os.File) error {
	var all []*namespace
	for _, f := range spaces {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return fmt.Errorf("netns: stat namespace: %w", err)
		}
		all = append(all, &namespace{inode: st.Ino})
	}
	return killInside(all)
}
