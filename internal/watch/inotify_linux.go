package watch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// What is asked of a file, and of a directory besides: all ways in which a name
// comes to mean another file. Whoever still writes to a file that has lost its
// name is of no interest.
const (
	ofFile      = unix.IN_MODIFY | unix.IN_CLOSE_WRITE
	ofDirectory = ofFile | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK
)

// A notifier is an inotify instance (inotify(7)).
type notifier struct {
	inotify *os.File
	conn    syscall.RawConn
	// wake is sent to while there are events, until done.
	wake    chan struct{}
	done    chan struct{}
	watched map[int]bool
	buf     []byte
}

func newNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	n := &notifier{
		inotify: os.NewFile(uintptr(fd), "inotify"), wake: make(chan struct{}), done: make(chan struct{}),
		watched: map[int]bool{}, buf: make([]byte, 16<<10),
	}
	if n.conn, err = n.inotify.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("inotify: %w", err), n.inotify.Close())
	}
	go n.wait()
	return n, nil
}

func (n *notifier) close() {
	close(n.done)
	_ = n.inotify.Close() // nothing is left to do
}

// wait wakes the reader, who reads all that there is, so that what it knows is
// never older than when it last looked.
func (n *notifier) wait() {
	readable := func(fd uintptr) bool {
		bytes, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		return bytes > 0 || err != nil
	}
	for n.conn.Read(readable) == nil {
		select {
		case n.wake <- struct{}{}:
		case <-n.done:
			return
		}
	}
}

// file watches a file, and directory a directory and the files in it. What
// cannot be watched is polled.
func (n *notifier) file(name string) (id int, ok bool)      { return n.add(name, ofFile|unix.IN_MASK_ADD) }
func (n *notifier) directory(name string) (id int, ok bool) { return n.add(name, ofDirectory) }

func (n *notifier) add(name string, mask uint32) (id int, ok bool) {
	err := n.conn.Control(func(fd uintptr) {
		if wd, err := unix.InotifyAddWatch(int(fd), name, mask); err == nil {
			id, ok = wd, true
		}
	})
	if err != nil || !ok {
		return 0, false
	}
	n.watched[id] = true
	return id, true
}

// keep watches nothing else than these.
func (n *notifier) keep(ids map[int]bool) {
	for id := range n.watched {
		if ids[id] {
			continue
		}
		_ = n.conn.Control(func(fd uintptr) {
			_, _ = unix.InotifyRmWatch(int(fd), uint32(id)) // it may be gone, and its watch with it
		})
		delete(n.watched, id)
	}
}

// events returns what happened since it was last asked.
func (n *notifier) events() []event {
	var out []event
	for {
		length := 0
		err := n.conn.Control(func(fd uintptr) {
			for {
				var err error
				if length, err = unix.Read(int(fd), n.buf); err != unix.EINTR {
					return
				}
			}
		})
		if err != nil || length <= 0 {
			return out
		}
		for rest := n.buf[:length]; len(rest) >= unix.SizeofInotifyEvent; {
			wd := int(int32(binary.NativeEndian.Uint32(rest))) // as the kernel wrote it
			mask := binary.NativeEndian.Uint32(rest[4:])
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			name, _, _ := bytes.Cut(rest[unix.SizeofInotifyEvent:end], []byte{0})
			rest = rest[end:]
			if mask&unix.IN_IGNORED == 0 { // a watch that has ended
				out = append(out, event{place{wd, string(name)}, kindOf(mask)})
			}
		}
	}
}

func kindOf(mask uint32) kind {
	switch {
	case mask&unix.IN_MODIFY != 0:
		return written
	case mask&unix.IN_CLOSE_WRITE != 0:
		return closed
	case mask&unix.IN_CREATE != 0:
		return created
	case mask&unix.IN_MOVED_TO != 0:
		return arrived
	case mask&(unix.IN_MOVED_FROM|unix.IN_DELETE) != 0:
		return left
	default: // the queue was full, or the directory is gone
		return lost
	}
}
