package pathguard_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"securefiles/pathguard"
)

const attacks = "../integration_test/testdata/attacks/"

// A row is one request of the attack corpus.
type row struct {
	ID   string `json:"id"`
	Path string `json:"raw_path"` // one character, U+0000 to U+00FF, a byte
	Must string `json:"must"`     // deny, either, or serve: and the percent-encoded file
	May  string `json:"may"`      // with either: the percent-encoded file that may be served
}

// raw returns the bytes that the client sends after the prefix.
func (r row) raw() string {
	var b []byte
	for _, c := range r.Path {
		b = append(b, byte(c))
	}
	return string(b)
}

func readCorpus(t testing.TB) []row {
	t.Helper()
	f, err := os.Open(attacks + "corpus.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows []row
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("line %d: %v", len(rows)+1, err)
		}
		rows = append(rows, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(rows) < 500 {
		t.Fatalf("the corpus has %d rows, want at least 500", len(rows))
	}
	return rows
}

// unescape decodes a path of the corpus or of its tree.
func unescape(t *testing.T, s string) string {
	t.Helper()
	decoded, err := url.PathUnescape(s)
	if err != nil {
		t.Fatal(err)
	}
	return "/" + decoded
}

// readTree returns the kinds of what the caller of the corpus may have, by path
// below the root.
func readTree(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(attacks + "tree.txt")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(line, "\t") // kind, access, set, path, content
		if len(fields) < 5 || fields[1] != "allow" && fields[1] != "either" {
			continue
		}
		if file, ok := strings.CutPrefix(fields[3], "files/"); ok {
			allowed[unescape(t, file)] = fields[0]
		}
	}
	if len(allowed) < 50 {
		t.Fatalf("the tree has %d allowed files, want at least 50", len(allowed))
	}
	return allowed
}

// S3, S5, S28 (CVE-2026-63177, CVE-2021-43557, CVE-2026-42272, CVE-2026-26205,
// CVE-2026-41059, ingress-nginx #8644): every request of the corpus. One that must be served is parsed to
// that very file. One that must be denied is refused here, or becomes a path
// that a policy is asked about and that is none of the allowed files: those are
// listed in testdata/asked.txt.
func TestCorpus(t *testing.T) {
	allowed := readTree(t)
	var asked strings.Builder
	for _, r := range readCorpus(t) {
		p, err := pathguard.Parse(prefix+r.raw(), prefix)
		verdict, file, _ := strings.Cut(r.Must, ":")
		switch verdict {
		case "serve":
			if err != nil || p.String() != unescape(t, file) {
				t.Errorf("%s: %q gives %q, %v; want %q", r.ID, r.Path, p, err, unescape(t, file))
			}
		case "either":
			// The one symbolic link among these stands under its own name.
			if err == nil && p.String() != unescape(t, r.May) && allowed[p.String()] != "symlink" {
				t.Errorf("%s: %q gives %q; want a refusal or %q", r.ID, r.Path, p, r.May)
			}
		case "deny":
			if err != nil {
				break
			}
			if allowed[p.String()] != "" {
				t.Errorf("%s: %q must be denied and gives the allowed file %q", r.ID, r.Path, p)
			}
			fmt.Fprintf(&asked, "%s %q\n", r.ID, p)
		default:
			t.Errorf("%s: unknown verdict %q", r.ID, r.Must)
		}
	}
	want, err := os.ReadFile("testdata/asked.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), asked.String()); diff != "" {
		t.Errorf("denied requests that reach the policy, -listed +found:\n%s", diff)
	}
}
