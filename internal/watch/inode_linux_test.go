package watch

import (
	"io/fs"
	"syscall"
	"testing"
	"time"
)

// A fileInfo is what the kernel said of a file.
type fileInfo struct {
	fs.FileInfo
	stat syscall.Stat_t
}

func (i *fileInfo) Sys() any { return &i.stat }

// Files may have one size and one time, and yet be two: each number that tells
// them apart counts by itself.
func TestInodeTellsFilesApart(t *testing.T) {
	at := syscall.NsecToTimespec(time.Date(2026, 1, 1, 0, 0, 0, 5, time.UTC).UnixNano())
	was := &fileInfo{stat: syscall.Stat_t{Dev: 1, Ino: 2, Ctim: at}}
	for name, change := range map[string]func(*syscall.Stat_t){
		"another inode":                        func(s *syscall.Stat_t) { s.Ino++ },
		"another file system":                  func(s *syscall.Stat_t) { s.Dev++ },
		"changed a second later":               func(s *syscall.Stat_t) { s.Ctim.Sec++ },
		"changed a moment later in the second": func(s *syscall.Stat_t) { s.Ctim.Nsec++ },
	} {
		is := &fileInfo{stat: was.stat}
		if inode(is) != inode(was) {
			t.Error("the same file looks different")
		}
		change(&is.stat)
		if inode(is) == inode(was) {
			t.Errorf("%s: looks the same", name)
		}
	}
}
