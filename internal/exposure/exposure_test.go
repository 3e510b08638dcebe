package exposure

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever can write where the socket is listens there while the service is down; that
// nobody may remove what is another's does not help then.
func TestASocketInADirectoryOfEverybodysIsFound(t *testing.T) {
	for mode, found := range map[os.FileMode]bool{0o755: false, 0o2750: false, 0o770: false, 0o777: true, 0o777 | os.ModeSticky: true} {
		dir := filepath.Join(t.TempDir(), "run")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		got := Socket(filepath.Join(dir, "auth.sock")) // the service is down: it is not there
		if (len(got) == 1) != found || found && (got[0].Rule != RuleWritable || !strings.Contains(got[0].Message, "can listen in its place")) {
			t.Errorf("%v: %v", mode, got)
		}
	}
}
