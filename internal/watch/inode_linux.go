package watch

import (
	"fmt"
	"io/fs"
	"syscall"
)

// inode tells a file from another that took its name, with the time of its
// last change of any kind (ctime), which nobody can set.
func inode(info fs.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d %d.%09d", stat.Dev, stat.Ino, stat.Ctim.Sec, stat.Ctim.Nsec)
}
