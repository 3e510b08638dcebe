package policytest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expected messages")

func TestCasesOfSeveralDocumentsAreRead(t *testing.T) {
	const file = "testdata/cases/valid.yaml"
	got, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []*Case{
		{Name: "editors read plans", Subject: "alice", Groups: []string{"staff"}, Path: "/project/plan.pdf", Want: "allow", DecidingLine: 2, Role: "editor", File: file, Line: 3, Column: 5},
		{Subject: "anonymous", Path: "/a", Action: "list", Want: "deny", Reason: "anonymous", File: file, Line: 10, Column: 6},
		{Subject: "bob", Path: "/media/x.mp4", Download: "media", IP: "192.0.2.1", Host: "files.example.org", Want: "deny", File: file, Line: 13, Column: 5},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Each testdata/cases/invalid-*.yaml is one mistake; the .err file beside it is
// the exact message.
func TestInvalidCasesAreRefusedWithPlaceAndRemedy(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/invalid-*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d invalid files, want at least 20: %v", len(files), err)
	}
	for _, file := range files {
		_, err := Load(file)
		if err == nil {
			t.Errorf("%s: was accepted", file)
			continue
		}
		got, golden := err.Error()+"\n", strings.TrimSuffix(file, ".yaml")+".err"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: message differs (-want +got):\n%s", file, diff)
		}
	}
}

// What is accepted is complete, and says where it stands.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) < 20 {
		f.Fatalf("found %d seeds: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "fuzz.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		cases, err := Load(file)
		if err != nil {
			return
		}
		for _, c := range cases {
			if c.Subject == "" || c.Path == "" || c.Want != "allow" && c.Want != "deny" || c.Line < 1 {
				t.Fatalf("incomplete: %+v", c)
			}
		}
	})
}

// A pipe without a writer, too: nobody is waited for.
func TestPipeIsNoPolicyTest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipe.yaml")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, "/dev/zero", t.TempDir()} {
		if _, err := Load(name); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("got %v", err)
		}
	}
}
