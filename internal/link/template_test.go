package link

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/internal/page"
	"securefiles/pathguard"
)

// least is the least that a page can be made of.
const least = `<h1>Acme: {{.Title}}</h1>{{.Problem}}
{{if .Action}}<form method="post" action="{{.Action}}">
<input type="hidden" name="url" value="{{.URL}}">
{{if .Password}}<input name="password" type="password">{{end}}
<button>ok</button></form>{{end}}{{.Link}}
`

// templateOf is the template of a file.
func templateOf(t *testing.T, file string) *page.Template {
	t.Helper()
	one, err := NewTemplate(file)
	if err != nil {
		t.Fatal(err)
	}
	return one
}

func templateFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "link.html")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A template that makes no page that can be answered is refused, where it is wrong, before
// anybody sees it.
func TestTemplatesThatMakeNoPage(t *testing.T) {
	for name, row := range map[string]struct {
		text, want string
		line       int
	}{
		"the service's own":            {Page, "", 0},
		"the least":                    {least, "", 0},
		"no template":                  {"<p>\n{{if}}", "missing value for if", 2},
		"no end":                       {"<p>\n{{if .Action}}\n", "unexpected EOF", 3},
		"a field that is not there":    {least + "\n{{.Nope}}", "can't evaluate field Nope", 7},
		"in the page of an end":        {least + `{{if eq .Kind "ended"}}{{.Nope}}{{end}}`, "can't evaluate field Nope", 6},
		"in the page of a failure":     {least + `{{if eq .Kind "failed"}}{{.Nope}}{{end}}`, "can't evaluate field Nope", 6},
		"in German":                    {least + `{{if eq .Lang "de"}}{{.Nope}}{{end}}`, "can't evaluate field Nope", 6},
		"in a place without a meaning": {least + "<script>\nvar x = `{{.File}}", "ends in a non-text context", 0},
		"nothing":                      {"", "has no form", 0},
		"a form by GET":                {strings.Replace(least, "post", "get", 1), "has no form", 0},
		"a form to somewhere else":     {strings.Replace(least, "{{.Action}}\"", "/elsewhere\"", 1), "has no form", 0},
		"no link in the form":          {strings.Replace(least, `name="url"`, `name="link"`, 1), "called url", 0},
		"another link":                 {strings.Replace(least, "{{.URL}}", "{{.File}}", 1), "called url", 0},
		"no password":                  {strings.Replace(least, `name="password"`, "", 1), "called password", 0},
		"no link that was made":        {strings.Replace(least, "{{.Link}}", "", 1), "where it tells a link that was made, it does not show {{.Link}}", 0},
		"without an end":               {strings.Repeat("x", 256<<10+1), "too large", 0},
	} {
		t.Run(name, func(t *testing.T) {
			file := templateFile(t, row.text)
			one := templateOf(t, file)
			err := one.Reload(t.Context())
			if row.want == "" {
				if err != nil || one.Generation() != 1 {
					t.Errorf("%v, generation %d", err, one.Generation())
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), file) || one.Generation() != 0 {
				t.Fatalf("%v, want %s; generation %d", err, row.want, one.Generation())
			}
			var wrong *page.Error
			if errors.As(err, &wrong) && row.line > 0 && wrong.Line != row.line {
				t.Errorf("line %d, want %d: %v", wrong.Line, row.line, err)
			}
		})
	}
	if err := templateOf(t, filepath.Join(t.TempDir(), "none")).Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "securefiles link page") {
		t.Errorf("no file: %v", err)
	}
}

// shown is the page of a link that is to be confirmed.
func (b *pageBench) shown(filename string) string {
	b.t.Helper()
	c := some()
	c.Uses, c.Filename = 3, filename
	path, err := pathguard.New(c.Path)
	if err != nil {
		b.t.Fatal(err)
	}
	out := &authz.Outcome{Page: authz.PageLink, Question: &authz.Question{Target: b.url(c), Path: path, Download: b.pages.downloads.All()[0]}, Principal: authz.Principal{Scope: c.scope()}}
	body, ok, err := b.pages.Render(b.t.Context(), out)
	if err != nil || !ok {
		b.t.Fatalf("%v, %v", ok, err)
	}
	return string(body)
}

// What a file holds is shown as soon as it is read; what cannot be shown goes on as before,
// or, where that comes out in the middle of a request, as the service's own.
func TestTemplateIsReloaded(t *testing.T) {
	b := newPageBench(t)
	file := templateFile(t, least)
	var log strings.Builder
	b.pages.opts = PageOptions{Template: templateOf(t, file), Logger: slog.New(slog.NewTextHandler(&log, nil)), Size: func(download, path string) (int64, bool) {
		return 5 << 20, download == "main" && path == "/reports/q3.pdf"
	}}
	if got := b.shown(""); !strings.Contains(got, "<!DOCTYPE html>") || !strings.Contains(got, "5.0 MiB") {
		t.Errorf("before it is read: %s", got)
	}
	load := func() error { return b.pages.opts.Template.Reload(context.Background()) }
	if err := load(); err != nil {
		t.Fatal(err)
	}
	if got := b.shown(""); !strings.Contains(got, "<h1>Acme: Download a file</h1>") {
		t.Errorf("its page: %s", got)
	}
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("{{.Nope}}")
	if err := load(); err == nil {
		t.Error("a page that is none was taken")
	}
	if got := b.shown(""); !strings.Contains(got, "Acme") {
		t.Errorf("the one before does not go on: %s", got)
	}
	write(least + `{{slice .File 0 1}}{{if eq .File "x"}}{{slice .File 0 9}}{{end}}`)
	if err := load(); err == nil {
		t.Error("pages without a file were not tried")
	}
	write(least + `{{if eq .File "x"}}{{slice .File 0 9}}{{end}}`)
	if err := load(); err != nil {
		t.Fatal(err)
	}
	if got := b.shown("x"); !strings.Contains(got, "<!DOCTYPE html>") || !strings.Contains(log.String(), file) {
		t.Errorf("a page that fails later: %s, %s", got, log.String())
	}
}
