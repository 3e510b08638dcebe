package watch

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

// What is no longer on the way to a file is watched no more: the kernel has
// room for so many.
func TestNothingElseStaysWatched(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "link")
	must(t, os.Symlink(newFile(t, "one"), file))
	s := listening(t, file)
	for range 20 {
		must(t, os.Remove(file), os.Symlink(newFile(t, "next"), file))
		s.look(time.Time{})
	}
	var info []byte
	must(t, s.notifier.conn.Control(func(fd uintptr) {
		var err error
		info, err = os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
		must(t, err)
	}))
	if n := strings.Count(string(info), "inotify wd:"); n != 3 { // of the link, of the file, and the file
		t.Errorf("%d are watched, want 3:\n%s", n, info)
	}
}
