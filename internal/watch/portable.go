//go:build !linux

package watch

import (
	"errors"
	"io/fs"
)

// A notifier is nothing elsewhere: files are polled.
type notifier struct{ wake chan struct{} }

func newNotifier() (*notifier, error) { return nil, errors.ErrUnsupported }

func (n *notifier) close()                             {}
func (n *notifier) file(string) (id int, ok bool)      { return 0, false }
func (n *notifier) directory(string) (id int, ok bool) { return 0, false }
func (n *notifier) keep(map[int]bool)                  {}
func (n *notifier) events() []event                    { return nil }

func inode(fs.FileInfo) string { return "" }
