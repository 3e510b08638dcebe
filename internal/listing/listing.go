// Package listing shows what somebody may read or list in a directory of a download, as a
// page and as data.
//
// Each entry is decided by itself, all by one version of the policy: a file is shown to
// whom read is allowed, a directory to whom list is. What is not shown is in no count and
// in no address of a page: a page begins behind an entry that was shown before it, by its
// name and what it is sorted by, and that entry is not looked up again.
//
// It does not protect against who can measure how long an answer takes, but for that all
// of a directory is decided for each page.
package listing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"

	"securefiles/authz"
	"securefiles/internal/page"
	"securefiles/internal/rooted"
	"securefiles/pathguard"
)

// PageSize is how many entries a page has.
const PageSize = 500

// maxWait is how long a directory waits for its turn to be read.
const maxWait = time.Second

// A Directory is where the files of a download are: below Root, or in a bucket.
type Directory struct {
	Root           string
	FollowSymlinks bool
	Bucket         Bucket
	// Without are characters that no name is shown with, because the web server opens
	// none.
	Without string
	// Share is where a form asks for a link to a file, of whom share is allowed; empty
	// means nowhere.
	Share string
	// Zip bounds archives of directories, which there are below a Root alone.
	Zip Bounds
}

// A Bucket is where objects are.
type Bucket interface {
	// List returns at most so many entries of a directory, sorted by name, and the cursor
	// of the next page; empty on the last one, and for the first one. A cursor that it has
	// not returned for this directory, and a directory that is none, are fs.ErrNotExist.
	List(ctx context.Context, dir pathguard.Dir, cursor string, most int) (entries []fs.FileInfo, next string, err error)
}

// Options are what a Listing can do without.
type Options struct {
	// Template is what pages look like; nil means the service's own.
	Template *page.Template
	// Logger is told of a template that cannot show a page.
	Logger *slog.Logger
}

// Listing shows directories. It is safe for concurrent use.
type Listing struct {
	policy  func() authz.Decider // by one version
	roots   map[string]Directory // by the download's name
	opts    Options
	tongues language.Matcher
	// turns are one for each directory, or tree of an archive, that is read: a large one
	// takes a core for a moment and memory, however little of it is shown, and files are
	// decided on beside it.
	turns chan struct{}
}

// New returns what shows the directories of downloads, by their names. The policy is asked
// for what decides all that belongs to one answer.
func New(policy func() authz.Decider, roots map[string]Directory, opts *Options) (*Listing, error) {
	if policy == nil {
		return nil, errors.New("a listing needs a policy")
	}
	l := &Listing{
		policy: policy, roots: roots, tongues: language.NewMatcher([]language.Tag{language.English, language.German}),
		turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	if opts != nil {
		l.opts = *opts
	}
	if l.opts.Template == nil {
		var err error
		if l.opts.Template, err = NewTemplate(""); err != nil {
			return nil, err
		}
	}
	l.opts.Logger = cmp.Or(l.opts.Logger, slog.New(slog.DiscardHandler))
	return l, nil
}

// An entry is a file or directory that is shown.
type entry struct {
	name    string
	isDir   bool
	fold    string // the name, for sorting
	size    int64
	changed time.Time
	url     string
	object  string // what policy is asked about
	// decision is what it said.
	decision authz.Decision
}

// Render makes the page of a directory that may be shown; JSON where the query has
// format=json, or the Accept header names it and not HTML. Its error is fs.ErrNotExist
// where there is no such directory.
func (l *Listing) Render(ctx context.Context, out *authz.Outcome) (body []byte, contentType string, err error) {
	if !out.Listed() {
		return nil, "", errors.New("a directory that may not be shown is to be")
	}
	where, ok := l.roots[out.Question.Download.Name]
	if !ok {
		return nil, "", fmt.Errorf("download %q has no directory to show", out.Question.Download.Name)
	}
	var p *shown
	if where.Bucket != nil {
		p, err = l.pageOfBucket(ctx, out, where.Bucket)
	} else {
		if err := l.turn(ctx); err != nil {
			return nil, "", err
		}
		defer func() { <-l.turns }()
		p, err = l.pageOfRoot(ctx, out, where)
	}
	if err != nil {
		return nil, "", err
	}
	if p.asked.json || prefersJSON(out.Question.Header.Get("Accept")) {
		body, err = p.data()
		return body, "application/json", err
	}
	body, err = l.html(ctx, p)
	return body, "text/html; charset=utf-8", err
}

// turn waits for a turn.
func (l *Listing) turn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	select {
	case l.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("read a directory: %d are read at a time: %w", cap(l.turns), ctx.Err())
	}
}

// pageOfRoot is the page of a directory below the root.
func (l *Listing) pageOfRoot(ctx context.Context, out *authz.Outcome, where Directory) (*shown, error) {
	root, err := rooted.Open(where.Root, &rooted.Options{FollowSymlinks: where.FollowSymlinks})
	if err != nil { // none that is not there for a client
		return nil, fmt.Errorf("the service must be able to read the directory of %s to show it: %v", out.Question.Download.Name, err)
	}
	defer root.Close() //nolint:errcheck // it was read
	dir, err := root.Dir(strings.Trim(out.Question.Dir.String(), "/"))
	if errors.Is(err, rooted.ErrKind) {
		err = fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open a directory to show: %w", err)
	}
	defer dir.Close() //nolint:errcheck // it was read
	found, err := dir.Entries()
	if err != nil {
		return nil, fmt.Errorf("read a directory to show: %w", err)
	}
	asked, policy := parseAsked(out.Question.Target), l.policy()
	all, err := l.visible(ctx, policy, out, found)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, asked.compare)
	from := 0
	if asked.after != nil {
		var found bool
		if from, found = slices.BinarySearchFunc(all, *asked.after, asked.compare); found {
			from++
		}
	}
	p := &shown{out: out, asked: asked, policy: policy, total: len(all), first: from == 0}
	p.entries = all[from:min(from+PageSize, len(all))]
	if len(p.entries) > 0 && from+PageSize < len(all) {
		p.next = asked.cursor(p.entries[len(p.entries)-1])
	}
	return p, nil
}

// pageOfBucket is the page of a directory of a bucket: what may be seen of a page of the
// store's, which may be little.
func (l *Listing) pageOfBucket(ctx context.Context, out *authz.Outcome, bucket Bucket) (*shown, error) {
	asked := parseAsked(out.Question.Target)
	asked.sort, asked.down, asked.after = byName, false, nil
	found, next, err := bucket.List(ctx, out.Question.Dir, asked.cursorText, PageSize)
	if err != nil {
		return nil, fmt.Errorf("show a directory of %s: %w", out.Question.Download.Name, err)
	}
	policy := l.policy()
	p := &shown{out: out, asked: asked, policy: policy, bucket: true, first: asked.cursorText == "", next: next}
	p.entries, err = l.visible(ctx, policy, out, found)
	return p, err
}

// visible decides what of a directory is shown.
func (l *Listing) visible(ctx context.Context, policy authz.Decider, out *authz.Outcome, found []fs.FileInfo) ([]entry, error) {
	var all []entry
	query, without := out.Question.Query(out.Principal), l.roots[out.Question.Download.Name].Without
	for _, one := range found {
		if err := ctx.Err(); err != nil { // nobody waits for it any more
			return nil, fmt.Errorf("decide what of a directory is shown: %w", err)
		}
		e := entry{name: one.Name(), isDir: one.IsDir(), changed: told(one.ModTime())}
		if !e.isDir {
			e.size = one.Size()
		}
		if strings.ContainsAny(e.name, without) || !name(out.Question, &e, &query) {
			continue
		}
		decision, err := policy.Decide(ctx, query)
		if err != nil {
			return nil, fmt.Errorf("decide what of a directory is shown: %w", err)
		}
		if decision.Effect == authz.Allow {
			e.fold, e.object, e.decision = strings.ToLower(e.name), query.Object, decision
			all = append(all, e)
		}
	}
	return all, nil
}

// told is the nearest time that a cursor can hold, and data too: a file may be of the year
// 10001, by whoever put it there.
func told(at time.Time) time.Time {
	switch first, last := time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64); {
	case at.IsZero():
		return at // nobody knows
	case at.Before(first):
		return first
	case at.After(last):
		return last
	}
	return at
}

// name says where an entry is asked for, and what policy is asked about it; false where a
// request for it would open nothing, or another file.
func name(q *authz.Question, e *entry, query *authz.Query) bool {
	if e.isDir {
		dir, err := q.Dir.Dir(e.name)
		e.url, query.Object, query.Action = dir.URL(q.Download.URL), dir.String(), authz.ActionList
		return err == nil
	}
	file, err := q.Dir.File(e.name)
	if err != nil {
		return false
	}
	object, err := q.Download.Object(file)
	e.url, query.Object, query.Action = file.URL(q.Download.URL), file.String(), authz.ActionRead
	return err == nil && object == file
}

// How a listing may be sorted.
const (
	byName     = "name"
	bySize     = "size"
	byModified = "modified"
)

// asked is what the query of a request says.
type asked struct {
	sort  string
	down  bool
	json  bool
	after *entry
	// cursorText is what a bucket takes for it.
	cursorText string
}

// parseAsked reads a query. What it does not know it takes for not said.
func parseAsked(target string) asked {
	_, text, _ := strings.Cut(target, "?")
	query, err := url.ParseQuery(text)
	if err != nil {
		query = nil
	}
	a := asked{sort: byName, down: query.Get("order") == "desc", json: query.Get("format") == "json", cursorText: query.Get("after")}
	if s := query.Get("sort"); s == bySize || s == byModified {
		a.sort = s
	}
	kind, rest, ok := strings.Cut(query.Get("after"), ":")
	key, name, named := strings.Cut(rest, ":")
	n, err := strconv.ParseInt(key, 10, 64)
	if ok && named && err == nil && (kind == "d" || kind == "f") {
		a.after = &entry{name: name, fold: strings.ToLower(name), isDir: kind == "d", size: n, changed: time.Unix(0, n)}
	}
	return a
}

// compare sorts entries: directories first, whatever the order.
func (a asked) compare(x, y entry) int {
	if x.isDir != y.isDir {
		if x.isDir {
			return -1
		}
		return 1
	}
	n := 0
	switch {
	case a.sort == bySize && !x.isDir:
		n = cmp.Compare(x.size, y.size)
	case a.sort == byModified:
		n = x.changed.Compare(y.changed)
	}
	n = cmp.Or(n, cmp.Compare(x.fold, y.fold), cmp.Compare(x.name, y.name))
	if a.down {
		return -n
	}
	return n
}

// cursor is what the next page begins behind: nothing but what this one shows.
func (a asked) cursor(e entry) string {
	kind, key := "f", int64(0)
	if e.isDir {
		kind = "d"
	}
	switch a.sort {
	case bySize:
		key = e.size
	case byModified:
		key = e.changed.UnixNano()
	}
	return kind + ":" + strconv.FormatInt(key, 10) + ":" + e.name
}

// query is the query of another page, behind a cursor; an empty one is of the first.
func (a asked) query(after string) string {
	v := url.Values{}
	if a.sort != byName {
		v.Set("sort", a.sort)
	}
	if a.down {
		v.Set("order", "desc")
	}
	if a.json {
		v.Set("format", "json")
	}
	if after != "" {
		v.Set("after", after)
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

// prefersJSON reports whether an Accept header names JSON, and HTML neither before it nor
// after.
func prefersJSON(accept string) bool {
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

// shown is a page of a listing.
type shown struct {
	out     *authz.Outcome
	policy  authz.Decider // that decided all of it
	asked   asked
	entries []entry
	bucket  bool // of which nobody knows how much it holds, and which has one order
	total   int
	first   bool
	next    string // the cursor of the next page; empty on the last one
}

// here is where the directory is asked for.
func (p *shown) here() string { return p.out.Question.Dir.URL(p.out.Question.Download.URL) }

// nextURL is where the next page is; empty where this is the last.
func (p *shown) nextURL() string {
	if p.next == "" {
		return ""
	}
	return p.here() + p.asked.query(p.next)
}

// A File is an entry of a listing as data.
type File struct {
	Name string `json:"name"`
	// Type is file or directory.
	Type string `json:"type"`
	// Size is in bytes; 0 of a directory.
	Size int64 `json:"size"`
	// Modified is left out of a directory of a bucket, which has none.
	Modified time.Time `json:"modified,omitzero"`
	// URL is where it is asked for, on this site.
	URL string `json:"url"`
}

// Data is a page of a listing as data.
type Data struct {
	// Path is the directory, as policies have it, and URL where it is asked for.
	Path string `json:"path"`
	URL  string `json:"url"`
	// Total is how many entries all pages have; left out of a bucket, of which nobody knows.
	Total   *int   `json:"total,omitempty"`
	Entries []File `json:"entries"`
	// Next is where the next page is; left out of the last one.
	Next string `json:"next,omitempty"`
}

func (p *shown) data() ([]byte, error) {
	p.asked.json = true
	d := Data{Path: p.out.Question.Dir.String(), URL: p.here(), Entries: []File{}, Next: p.nextURL()}
	if !p.bucket {
		d.Total = &p.total
	}
	for _, e := range p.entries {
		kind := "file"
		if e.isDir {
			kind = "directory"
		}
		d.Entries = append(d.Entries, File{Name: e.name, Type: kind, Size: e.size, Modified: e.changed.UTC(), URL: e.url})
	}
	return json.Marshal(d)
}
