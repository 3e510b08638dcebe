package policy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A watcher is a context that looks each time the loader asks whether it must
// stop, which is while it reads a long policy.
type watcher struct {
	context.Context
	look func()
}

func (w watcher) Err() error {
	w.look()
	return w.Context.Err()
}

// While a version is read, no other reload begins.
func TestOneReloadAtATime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.csv")
	write := func(line string) {
		text := strings.Repeat("# long enough for the loader to look up\n", 10_000) + line
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("p, alice, /a, read, allow\n")
	s, err := Open(t.Context(), Files{Policy: file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	write("p, alice, /b, read, allow\n")
	looked := false
	err = s.Reload(watcher{t.Context(), func() {
		looked = true
		if s.loading.TryLock() {
			t.Error("another reload could begin")
		}
	}})
	if err != nil || !looked {
		t.Error(err, looked)
	}
}
