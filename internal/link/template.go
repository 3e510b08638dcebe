package link

import (
	"bytes"
	"context"
	_ "embed" // the page
	"errors"
	"fmt"
	"html/template"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/net/html"

	"securefiles/internal/regular"
)

// Page is the service's own page of links, an html/template: what to begin one's own with.
//
//go:embed page.html
var Page string

// Limits of a page.
const (
	maxTemplate = 256 << 10
	maxPage     = 1 << 20 // of what a template makes
)

// own is the page that the binary has.
var own = template.Must(template.New("page.html").Parse(Page))

// A Template is what pages of links look like: the service's own, or an html/template in a
// file. It is safe for concurrent use.
type Template struct {
	file string
	now  atomic.Pointer[loadedTemplate]
}

type loadedTemplate struct {
	page       *template.Template
	generation uint64
}

// NewTemplate returns the template of a file, which Reload reads; without a file, the
// service's own.
func NewTemplate(file string) *Template {
	t := &Template{file: file}
	t.now.Store(&loadedTemplate{page: own})
	return t
}

// Files are the files that the template is in.
func (t *Template) Files() []string {
	if t == nil || t.file == "" {
		return nil
	}
	return []string{t.file}
}

// Generation counts the versions that were read.
func (t *Template) Generation() uint64 { return t.now.Load().generation }

// A TemplateError says what is wrong with a template, and where.
type TemplateError struct {
	File    string
	Line    int // 0 where it is about the whole
	Problem string
}

func (e *TemplateError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Problem
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Problem)
}

// Reload reads the file again, and makes each kind of page of it, in each language, before
// it is used. On an error, which is a [*TemplateError] where the text is wrong, what was
// read before goes on.
func (t *Template) Reload(context.Context) error {
	if t.file == "" {
		return nil
	}
	text, err := regular.Read(t.file, maxTemplate)
	if err != nil {
		return fmt.Errorf("read the page of links: %w: `securefiles link page` prints one to begin with", err)
	}
	page, err := template.New(filepath.Base(t.file)).Parse(string(text))
	if err != nil {
		return t.wrong(err)
	}
	for _, v := range samples() {
		body, err := fill(page, &v)
		if err != nil {
			return t.wrong(err)
		}
		if problem := lacks(body, &v); problem != "" {
			return &TemplateError{File: t.file, Problem: fmt.Sprintf("where it asks for a %s, it %s: begin with what `securefiles link page` prints", asksFor(&v), problem)}
		}
	}
	t.now.Store(&loadedTemplate{page, t.Generation() + 1})
	return nil
}

// placed takes apart what html/template says of a problem.
var placed = regexp.MustCompile(`^(?:html/)?template: ?[^:]*:(\d+)(?::\d+)?: (?s:(.*))$`)

func (t *Template) wrong(err error) error {
	e := &TemplateError{File: t.file, Problem: err.Error()}
	if m := placed.FindStringSubmatch(e.Problem); m != nil {
		e.Line, _ = strconv.Atoi(m[1]) // it is a number
		e.Problem = m[2]
	}
	e.Problem += ": correct it; docs/links.md says what there is to show"
	return e
}

// write makes a page. Where the template of the file cannot show it, though it could show
// all samples, the service's own does, and the error says why.
func (t *Template) write(v *view) ([]byte, error) {
	page := t.now.Load().page
	body, err := fill(page, v)
	if err == nil || page == own {
		return body, err
	}
	body, failed := fill(own, v)
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	return body, t.wrong(err)
}

// fill makes a page of a template.
func fill(page *template.Template, v *view) ([]byte, error) {
	var body bytes.Buffer
	if err := page.Execute(&bounded{&body}, v); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}

// bounded is a page that does not grow without end.
type bounded struct{ *bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxPage {
		return 0, fmt.Errorf("the page is longer than %d bytes", maxPage)
	}
	return b.Buffer.Write(p)
}

// samples are a page of each kind, in each language.
func samples() []view {
	const link = "/downloads/report.pdf?link=eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiJleGFtcGxlIn0.c2lnbmF0dXJl"
	var all []view
	for i, t := range languages() {
		lang := tongues[i].String()
		asked := view{T: t, Lang: lang, Kind: "link", Title: t.Confirm, Text: t.ConfirmText, Action: ConfirmPath, URL: link, File: "report.pdf", Until: "1 January 2030", Left: "3", Size: "1.2 MiB"}
		secret := asked
		secret.Kind, secret.Text, secret.Password = "password", t.NeedsPassword, true
		bare := view{T: t, Lang: lang, Kind: "password", Title: t.Confirm, Text: t.NeedsPassword, Problem: t.WrongPassword, Action: ConfirmPath, URL: link, Password: true}
		all = append(all, asked, secret, bare, view{T: t, Lang: lang, Kind: "failed", Title: t.Failed, Text: t.FailedText, Problem: t.TooMany})
		for _, title := range []string{t.Expired, t.UsedUp, t.Revoked} {
			all = append(all, view{T: t, Lang: lang, Kind: "ended", Title: title, Text: t.EndedText})
		}
	}
	return all
}

func asksFor(v *view) string {
	if v.Password {
		return "password"
	}
	return "confirmation"
}

// lacks says what a page must have and does not: without it, nobody can answer it.
func lacks(body []byte, v *view) string {
	if v.Action == "" {
		return ""
	}
	var inForm, sent, url, password bool
	for tokens := html.NewTokenizer(bytes.NewReader(body)); ; {
		kind := tokens.Next()
		if kind == html.ErrorToken {
			if !errors.Is(tokens.Err(), io.EOF) {
				return "is no HTML: " + tokens.Err().Error()
			}
			break
		}
		token := tokens.Token()
		attribute := map[string]string{}
		for _, a := range token.Attr {
			attribute[a.Key] = a.Val
		}
		switch {
		case token.Data == "form" && kind != html.TextToken:
			inForm = kind == html.StartTagToken && attribute["action"] == v.Action && strings.EqualFold(attribute["method"], "post") && attribute["enctype"] == ""
			sent = sent || inForm
		case token.Data == "input" && inForm && kind != html.TextToken:
			url = url || attribute["name"] == "url" && attribute["value"] == v.URL
			password = password || attribute["name"] == "password"
		}
	}
	switch {
	case !sent:
		return `has no form with method="post" and action="{{.Action}}"`
	case !url:
		return `has no hidden field in its form that is called url and holds {{.URL}}`
	case v.Password && !password:
		return `has no field in its form that is called password`
	}
	return ""
}
