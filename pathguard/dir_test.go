package pathguard_test

import (
	"errors"
	"strings"
	"testing"

	"securefiles/pathguard"
)

func TestADirectoryHasOneSlashAtItsEnd(t *testing.T) {
	for target, want := range map[string]string{
		"/downloads/": "/", "/downloads/?sort=size": "/", "/downloads/project/": "/project/", "/downloads/a/b%20c/?x=/": "/a/b c/",
		"/downloads/" + strings.Repeat("a", 255) + "/": "/" + strings.Repeat("a", 255) + "/",

		"/downloads/project": "", "/downloads//": "", "/downloads/a//": "", "/downloads/a//b/": "", "/downloads/./": "", "/downloads/../": "", "/downloads/a/../": "",
		"/downloads/%2e%2e/": "", "/downloads/a%2f": "", "/downloads/a%2F/": "", "/downloads/%2f": "", "/downloads/a%00/": "", "/downloads/a /": "", "/downloads/a%20/": "", "/downloads/%20a/": "",
		"/downloads/a%5c/": "", "/downloads/a%0a/": "", "/downloads/%ff/": "", "/downloads/a#/": "", "/downloads/a/#": "", "/downloads/%zz/": "",
		"/downloads/" + strings.Repeat("a", 256) + "/": "", "/downloads/" + strings.Repeat("a/", 2049): "",
		"/downloads": "", "/download/": "", "": "",
	} {
		got, err := pathguard.ParseDir(target, "/downloads/")
		if got.String() != want || (err == nil) != (want != "") || got.IsZero() != (want == "") {
			t.Errorf("%.80q: %.80q, %v; want %.80q", target, got, err, want)
		}
		if err != nil && !errors.As(err, new(*pathguard.Error)) {
			t.Errorf("%.80q: %T", target, err)
		}
		if _, err := pathguard.Parse(target, "/downloads/"); want != "" && err == nil {
			t.Errorf("%.80q is a file, too", target)
		}
	}
}

func TestWhatIsInADirectoryIsBelowIt(t *testing.T) {
	root, err := pathguard.NewDir("/")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := root.Dir("a b")
	if err != nil || sub.String() != "/a b/" || sub.URL("/d/") != "/d/a%20b/" || sub.Base() != "a b" {
		t.Fatalf("%q %v", sub, err)
	}
	if up, ok := sub.Up(); !ok || up != root {
		t.Errorf("up from %q: %q", sub, up)
	}
	if up, ok := root.Up(); ok {
		t.Errorf("up from the root: %q", up)
	}
	if f, err := sub.File("x.txt"); err != nil || f.String() != "/a b/x.txt" {
		t.Errorf("%q %v", f, err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "/", "a\x00", "a\n", " a", "a\\b", "\xff", strings.Repeat("a", 256)} {
		if f, err := sub.File(name); err == nil {
			t.Errorf("file %q: %q", name, f)
		}
		if d, err := sub.Dir(name); err == nil {
			t.Errorf("directory %q: %q", name, d)
		}
	}
	var zero pathguard.Dir
	if _, err := zero.File("a"); err == nil || zero.URL("/d/") != "" || zero.Base() != "" {
		t.Error("the zero Dir holds something")
	}
}

// What is a directory is no file and the other way round, and comes back from its URL.
func FuzzParseDir(f *testing.F) {
	for _, row := range readCorpus(f) {
		f.Add(row.raw())
		f.Add(row.raw() + "/")
	}
	f.Fuzz(func(t *testing.T, rest string) {
		dir, err := pathguard.ParseDir("/d/"+rest, "/d/")
		if err != nil {
			return
		}
		if _, err := pathguard.Parse("/d/"+rest, "/d/"); err == nil {
			t.Fatalf("%q is a file, too", rest)
		}
		if s := dir.String(); !strings.HasSuffix(s, "/") || strings.Contains(s, "//") || strings.Contains(s, "/../") || strings.Contains(s, "/./") {
			t.Fatalf("%q names %q", rest, s)
		}
		if again, err := pathguard.ParseDir(dir.URL("/d/"), "/d/"); err != nil || again != dir {
			t.Fatalf("%q: %q comes back as %q, %v", rest, dir, again, err)
		}
		for up, ok := dir, true; ok; up, ok = up.Up() {
			if !strings.HasPrefix(dir.String(), up.String()) {
				t.Fatalf("%q is not in %q", dir, up)
			}
		}
	})
}
