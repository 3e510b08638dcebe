package regular

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// within fails where reading waits: the goroutine that does is left behind.
func within(t *testing.T, name string, limit int64) ([]byte, error) {
	t.Helper()
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := Read(name, limit)
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-time.After(30 * time.Second):
		t.Fatalf("reading %s waits", name)
		return nil, nil
	}
}

func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(in("file"), []byte("text"), 0o600),
		os.WriteFile(in("empty"), nil, 0o600),
		os.Mkdir(in("directory"), 0o700),
		unix.Mkfifo(in("pipe"), 0o600),
		os.Symlink("file", in("link")),
		os.Symlink("pipe", in("link to pipe")),
		os.Symlink("nothing", in("link to nothing")),
	); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close() // the test is over
	for _, row := range []struct {
		name, want string
		err        error
	}{
		{in("file"), "text", nil},
		{in("empty"), "", nil},
		{in("link"), "text", nil},
		{in("directory"), "", ErrNotRegular},
		{in("pipe"), "", ErrNotRegular},
		{in("link to pipe"), "", ErrNotRegular},
		{in("socket"), "", ErrNotRegular},
		{"/dev/null", "", ErrNotRegular},
		{"/dev/zero", "", ErrNotRegular},
		{in("link to nothing"), "", fs.ErrNotExist},
		{in("nothing"), "", fs.ErrNotExist},
		{in("file/below"), "", unix.ENOTDIR},
	} {
		text, err := within(t, row.name, 4)
		if string(text) != row.want || !errors.Is(err, row.err) {
			t.Errorf("%s: %q, %v, want %q, %v", row.name, text, err, row.want, row.err)
		}
		var where *fs.PathError
		if err != nil && !errors.As(err, &where) {
			t.Errorf("%s: %v does not say where", row.name, err)
		}
	}
}

// A pipe that takes a file's name between a look at it and its opening.
func TestNoSwapMakesReadingWait(t *testing.T) {
	dir := t.TempDir()
	name, pipe, file := filepath.Join(dir, "name"), filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(file, []byte("text"), 0o600), unix.Mkfifo(pipe, 0o600), os.Link(file, name)); err != nil {
		t.Fatal(err)
	}
	stop, swapped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(swapped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			from := []string{pipe, file}[i%2]
			if err := errors.Join(os.Link(from, name+".new"), os.Rename(name+".new", name)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	seen := map[bool]int{}
	for i := 0; i < 2000 || len(seen) < 2 && i < 200_000; i++ {
		text, err := within(t, name, 10)
		if err == nil && string(text) != "text" || err != nil && !errors.Is(err, ErrNotRegular) {
			t.Fatalf("%q, %v", text, err)
		}
		seen[err == nil]++
	}
	close(stop)
	<-swapped
	if len(seen) != 2 {
		t.Errorf("both were not met: %v", seen)
	}
}

func TestSizeIsBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	for _, row := range []struct {
		size    int
		refused bool
	}{{0, false}, {99, false}, {100, false}, {101, true}, {1 << 20, true}} {
		if err := os.WriteFile(name, []byte(strings.Repeat("x", row.size)), 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := Read(name, 100)
		if errors.Is(err, ErrTooLarge) != row.refused || !row.refused && (err != nil || len(text) != row.size) {
			t.Errorf("%d bytes: read %d, %v", row.size, len(text), err)
		}
	}
}
