package audit

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DiskFree is the share, from 0 to 1, of the file system that holds a file that is
// free for those who are not root.
func DiskFree(file string) (float64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(file), &s); err != nil {
		return 0, fmt.Errorf("look how much room is left for %s: %w", file, err)
	}
	used := s.Blocks - s.Bfree
	total := used + uint64(s.Bavail) // what is kept for root is nobody's
	if total == 0 {
		return 0, fmt.Errorf("look how much room is left for %s: its file system does not tell", file)
	}
	return float64(s.Bavail) / float64(total), nil
}
