package names

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/pathguard"
)

func table(t *testing.T, text string) (*Table, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "names.csv")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	made := New("main", file)
	return made, made.Reload(context.Background())
}

func path(t testing.TB, text string) pathguard.Path {
	t.Helper()
	p, err := pathguard.New(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhatIsOpenedForAName(t *testing.T) {
	made, err := table(t, strings.Join([]string{
		"# releases",
		"/latest.zip, /v2.3.1.zip",
		`"/a, b.txt", /c.txt `,
		"/stable/, /2026-11/",
		"/stable/notes/, /notes/",
		"/stable/readme.txt, /README",
		"",
		"/%41, /percent",
		"/ä/ö.txt, /x/#1.txt",
	}, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]string{
		"/latest.zip":          "/v2.3.1.zip",
		"/v2.3.1.zip":          "/v2.3.1.zip",
		"/a, b.txt":            "/c.txt",
		"/stable/x":            "/2026-11/x",
		"/stable/x/latest":     "/2026-11/x/latest",
		"/stable/notes/x":      "/notes/x",
		"/stable/notes":        "/2026-11/notes",
		"/stable/readme.txt":   "/README",
		"/stable":              "/stable",
		"/stables/x":           "/stables/x",
		"/x/stable/x":          "/x/stable/x",
		"/latest.zip/x":        "/latest.zip/x",
		"/LATEST.zip":          "/LATEST.zip",
		"/A":                   "/A",
		"/%41":                 "/percent",
		"/ä/ö.txt":             "/x/#1.txt",
		"/a\u0308/o\u0308.txt": "/a\u0308/o\u0308.txt",
	} {
		got, err := made.Object(path(t, asked))
		if err != nil || got.String() != want {
			t.Errorf("%s: %q, %v, want %q", asked, got, err, want)
		}
	}
	if got, err := made.Object(path(t, "/stable/"+strings.Repeat("0123456789/", 371)+"0123456")); err == nil {
		t.Errorf("what would be too long: %d bytes", len(got.String()))
	}
}

func TestATableThatCannotBeMeantIsRefusedByItsLine(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"/a\n", "1: there must be a name and what is opened for it: /latest.zip, /v2.3.1.zip"},
		{"/a, /b\n/c, /d, /e\n", "2: there must be a name and what is opened for it: /latest.zip, /v2.3.1.zip"},
		{"a, /b\n", `1: "a": the path does not begin with a slash`},
		{"/a, ../b\n", `1: "../b": the path does not begin with a slash`},
		{"/a, /b/../c\n", `1: "/b/../c": the path has a dot segment`},
		{"/a, /b//c\n", `1: "/b//c": the path has an empty segment or ends with a slash`},
		{"/a, /b\\c\n", `1: "/b\\c": the path holds a backslash`},
		{"/a, \"/b\nc\"\n", `1: "/b\nc": the path holds a control character`},
		{"/a, /b\xff\n", `1: "/b\xff": the path is not valid UTF-8`},
		{"/, /b/\n", `1: "/": the path does not begin with a slash`},
		{"/a/, /\n", `1: "/": the path does not begin with a slash`},
		{"/a/, /b\n", "1: a final slash means all that is below: write it on both, or on none"},
		{"/a, /b/\n", "1: a final slash means all that is below: write it on both, or on none"},
		{"/a, \"/b\n", `1: extraneous or missing " in quoted-field`},
		{"# one\n/a, /b\n\n/a, /c\n", "4: /a has a line already, 2"},
		{"/a, /b\n/b, /c\n", "1: /a leads to /b, of which line 2 makes something else: name the file itself"},
		{"/a, /a\n", "1: /a leads to /a, of which line 1 makes something else: name the file itself"},
		{"/a, /d/b\n/d/, /e/\n", "1: /a leads to /d/b, of which line 2 makes something else: name the file itself"},
		{"/a/, /d/b/\n/d/, /e/\n", "1: /a/ leads to /d/b/, of which line 2 makes something else: name the file itself"},
		{"/a/, /d/\n/d/x, /e\n", "1: /a/ leads to /d/, of which line 2 makes something else: name the file itself"},
		{"/a/, /a/b/\n", "1: /a/ leads to /a/b/, of which line 1 makes something else: name the file itself"},
	} {
		made, err := table(t, row.text)
		if err == nil || !strings.HasSuffix(err.Error(), "names.csv:"+row.want) {
			t.Errorf("%q: %v, want %s", row.text, err, row.want)
		}
		if got, err := made.Object(path(t, "/a")); err != nil || got.String() != "/a" {
			t.Errorf("%q: it is used: %q, %v", row.text, got, err)
		}
	}
}

func TestARefusedTableLeavesTheOneBefore(t *testing.T) {
	made, err := table(t, "/a, /b\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func() error{
		func() error { return os.WriteFile(made.file, []byte("/a\n"), 0o600) },
		func() error { return os.Remove(made.file) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if err := made.Reload(context.Background()); err == nil {
			t.Error("no error")
		}
		if got, err := made.Object(path(t, "/a")); err != nil || got.String() != "/b" || made.Generation() != 1 {
			t.Errorf("%q, %v, generation %d", got, err, made.Generation())
		}
	}
}

// Whatever a table holds, what is opened is a path that pathguard makes, of one step.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"/latest.zip, /v1.zip\n", "/a/, /b/\n/a/c, /d\n", "# x\n\"/a,b\", /c\n", "/a/, /a/b/\n", "/a, /b\n/b, /c\n"} {
		f.Add(seed, "/a/c")
	}
	f.Fuzz(func(t *testing.T, text, asked string) {
		objects, err := parse(strings.NewReader(text))
		if err != nil {
			return
		}
		made := &Table{}
		made.version.Store(&version{objects, 1})
		p, err := pathguard.New(asked)
		if err != nil {
			return
		}
		object, err := made.Object(p)
		if err != nil {
			return
		}
		if again, err := made.Object(object); object != p && (err != nil || again != object) {
			t.Errorf("%q: %s leads to %s, and that to %s, %v", text, p, object, again, err)
		}
	})
}
