// Package page makes pages for people: by the service's own template, or by one in a file,
// which is tried before it is used.
//
// It does not protect against whoever writes that file: what stands there is in the page.
package page

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"

	"golang.org/x/net/html"

	"securefiles/internal/regular"
)

// maxTemplate bounds a template, in bytes.
const maxTemplate = 256 << 10

// A Kind is what pages are for.
type Kind struct {
	// Of is what they are of: links.
	Of string
	// Own is the service's own html/template.
	Own string
	// Command prints one to begin with, and Docs is where it stands what there is to show.
	Command, Docs string
	// Max bounds a page, in bytes.
	Max int
	// Samples are what a template must be able to show.
	Samples func() []Sample
}

// A Sample is what a page may have to show.
type Sample struct {
	View any
	// When says when that is: `it asks for a password`.
	When string
	// Lacks says what a page must have and does not, and is empty where it has all.
	Lacks func(body []byte) string
}

// A Template is what pages of a kind look like. It is safe for concurrent use.
type Template struct {
	kind Kind
	own  *template.Template
	file string
	now  atomic.Pointer[loaded]
}

type loaded struct {
	page       *template.Template
	generation uint64
}

// New returns the template of a file, which Reload reads; without a file, the service's own.
func New(kind Kind, file string) (*Template, error) {
	own, err := template.New("own").Parse(kind.Own)
	if err != nil {
		return nil, fmt.Errorf("read the page of %s: %w", kind.Of, err)
	}
	t := &Template{kind: kind, own: own, file: file}
	t.now.Store(&loaded{page: own})
	return t, nil
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

// An Error says what is wrong with a template, and where.
type Error struct {
	File    string
	Line    int // 0 where it is about the whole
	Problem string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Problem
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Problem)
}

// Reload reads the file again, and makes a page of each sample before it is used. On an
// error, which is an [*Error] where the text is wrong, what was read before goes on.
func (t *Template) Reload(context.Context) error {
	if t == nil || t.file == "" {
		return nil
	}
	text, err := regular.Read(t.file, maxTemplate)
	if err != nil {
		return fmt.Errorf("read the page of %s: %w: `%s` prints one to begin with", t.kind.Of, err, t.kind.Command)
	}
	page, err := template.New(filepath.Base(t.file)).Parse(string(text))
	if err != nil {
		return t.wrong(err)
	}
	for _, s := range t.kind.Samples() {
		body, err := t.fill(page, s.View)
		if err != nil {
			return t.wrong(err)
		}
		if problem := s.Lacks(body); problem != "" {
			return &Error{File: t.file, Problem: fmt.Sprintf("where %s, it %s: begin with what `%s` prints", s.When, problem, t.kind.Command)}
		}
	}
	t.now.Store(&loaded{page, t.Generation() + 1})
	return nil
}

// placed takes apart what html/template says of a problem.
var placed = regexp.MustCompile(`^(?:html/)?template: ?[^:]*:(\d+)(?::\d+)?: (?s:(.*))$`)

func (t *Template) wrong(err error) error {
	e := &Error{File: t.file, Problem: err.Error()}
	if m := placed.FindStringSubmatch(e.Problem); m != nil {
		e.Line, _ = strconv.Atoi(m[1]) // it is a number
		e.Problem = m[2]
	}
	e.Problem += ": correct it; " + t.kind.Docs + " says what there is to show"
	return e
}

// Write makes a page. Where the template of the file cannot show it, though it could show
// all samples, the service's own does, and the error says why.
func (t *Template) Write(view any) ([]byte, error) {
	page := t.now.Load().page
	body, err := t.fill(page, view)
	if err == nil || page == t.own {
		return body, err
	}
	body, failed := t.fill(t.own, view)
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	return body, t.wrong(err)
}

func (t *Template) fill(page *template.Template, view any) ([]byte, error) {
	var body bytes.Buffer
	if err := page.Execute(&bounded{&body, t.kind.Max}, view); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}

// Tags calls see with each tag of a page, and says what is wrong with what is no HTML; empty
// where it is.
func Tags(body []byte, see func(html.Token)) string {
	for tokens := html.NewTokenizer(bytes.NewReader(body)); ; {
		kind := tokens.Next()
		if kind == html.ErrorToken {
			if !errors.Is(tokens.Err(), io.EOF) {
				return "is no HTML: " + tokens.Err().Error()
			}
			return ""
		}
		if kind == html.StartTagToken || kind == html.EndTagToken || kind == html.SelfClosingTagToken {
			see(tokens.Token())
		}
	}
}

// bounded is a page that does not grow without end.
type bounded struct {
	*bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.most {
		return 0, fmt.Errorf("the page is longer than %d bytes", b.most)
	}
	return b.Buffer.Write(p)
}
