// Package world makes what tests of policies need: models, policies and requests,
// drawn at random or written at scale, and files of them.
package world

import (
	"embed"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"

	"github.com/google/go-cmp/cmp"
)

// models are the models of testdata/model.
//
//go:embed testdata/model
var models embed.FS

// ModelText returns the text of testdata/model/NAME.conf, or of the built-in
// model, which is called default.
func ModelText(t testing.TB, name string) string {
	t.Helper()
	if name == "default" {
		return model.Default
	}
	text, err := models.ReadFile("testdata/model/" + name + ".conf")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// ModelFile writes a model and returns its file, called like the model; empty for
// the built-in one.
func ModelFile(t testing.TB, name string) string {
	t.Helper()
	if name == "default" {
		return ""
	}
	file := filepath.Join(t.TempDir(), name+".conf")
	Write(t, file, ModelText(t, name))
	return file
}

// ModelNames returns the names of the models of testdata, in their order.
func ModelNames(t testing.TB) []string {
	t.Helper()
	entries, err := models.ReadDir("testdata/model")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".conf"))
	}
	return names
}

// Model parses a model, which is called NAME.conf in messages.
func Model(t testing.TB, name string) *model.Model {
	t.Helper()
	m, err := model.Parse(name+".conf", ModelText(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// File returns what a file holds.
func File(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// CompareFindings compares findings with those that a directory's want.txt
// expects.
func CompareFindings(t *testing.T, dir string, atLeast int, findings []finding.Finding) {
	t.Helper()
	want := strings.Split(strings.TrimSpace(File(t, filepath.Join(dir, "want.txt"))), "\n")
	if len(want) < atLeast {
		t.Errorf("%s expects only %d findings", dir, len(want))
	}
	var got []string
	for _, f := range findings {
		got = append(got, f.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings: -want +got\n%s", diff)
	}
}

// Write replaces a file's content in place.
func Write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Query is a question for a download, of a subject without built-in groups.
func Query(subject, object string, groups ...string) authz.Query {
	return authz.Query{Principal: authz.Principal{Subject: subject, Groups: groups}, Object: object, Action: authz.ActionRead}
}
