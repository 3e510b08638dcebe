package link

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// A configuration with links is checked before there is a key: the finding says how to make one.
func TestMissingKeysSayHowToMakeThem(t *testing.T) {
	k := &Keys{file: filepath.Join(t.TempDir(), "link-keys.json")}
	err := k.Reload(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "securefiles link key new") {
		t.Errorf("got %v, want the command that makes the file", err)
	}
}
