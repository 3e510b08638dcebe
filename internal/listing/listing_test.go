package listing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/html"

	"securefiles/authz"
	"securefiles/pathguard"
	"securefiles/policy"
)

// decider is a policy: what it says of an action on an object.
type decider func(action, object string) bool

func (d decider) Decide(_ context.Context, q authz.Query) (authz.Decision, error) {
	if d(q.Action, q.Object) {
		return authz.Decision{Effect: authz.Allow, Generation: 1}, nil
	}
	return authz.Decision{Generation: 1}, nil
}

func all(string, string) bool { return true }

// request is a directory that may be shown to alice.
func request(t testing.TB, target string, header ...string) *authz.Outcome {
	t.Helper()
	d := &authz.Download{Name: "main", URL: "/downloads/", Internal: "/protected/", Listing: true}
	downloads, err := authz.NewDownloads(d)
	if err != nil {
		t.Fatal(err)
	}
	_, dir, ok := downloads.FindDir(target)
	if !ok {
		t.Fatalf("%s is no directory", target)
	}
	q := &authz.Question{Method: "GET", Target: target, Action: authz.ActionList, Download: d, Dir: dir, Header: http.Header{}}
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	return &authz.Outcome{Question: q, Reason: authz.ReasonPolicy, Decision: authz.Decision{Effect: authz.Allow, Generation: 1}, Principal: authz.Principal{Subject: "alice"}.WithBuiltinGroups()}
}

// plant makes files, and directories where a name ends with a slash, at one moment.
func plant(t testing.TB, root string, names ...string) {
	t.Helper()
	at := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, name := range names {
		file := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(file), 0o755)
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(file, 0o755)
		} else if err == nil {
			err = os.WriteFile(file, []byte(strings.Repeat("x", len(name))), 0o644)
		}
		if err := errors.Join(err, os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
}

func newListing(t testing.TB, root string, policy authz.Decider) *Listing {
	t.Helper()
	l, err := New(func() authz.Decider { return policy }, map[string]Directory{"main": {Root: root}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *Listing) read(t testing.TB, target string) Data {
	t.Helper()
	body, kind, err := l.Render(t.Context(), request(t, target, "Accept", "application/json"))
	if err != nil || kind != "application/json" {
		t.Fatalf("%s: %s %v", target, kind, err)
	}
	var d Data
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d Data) names() (names []string) {
	for _, e := range d.Entries {
		if e.Type == "directory" {
			e.Name += "/"
		}
		names = append(names, e.Name)
	}
	return names
}

func TestAFileIsShownToWhomReadIsAllowedAndAFolderToWhomListIs(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "p/read.txt", "p/hidden.txt", "p/listed/", "p/closed/", "p/read-not-listed/", "p/listed-not-read.txt", "p/ blank.txt", "p/new\nline.txt", "p/back\\slash.txt", "p/\xff.txt")
	if err := errors.Join(os.Symlink("read.txt", root+"/p/link.txt"), os.Symlink("listed", root+"/p/link"), syscall.Mkfifo(root+"/p/pipe", 0o644)); err != nil {
		t.Fatal(err)
	}
	allowed := []string{"read /p/read.txt", "list /p/listed/", "read /p/read-not-listed/", "read /p/read-not-listed", "list /p/listed-not-read.txt", "read /p/link.txt", "list /p/link/", "read /p/pipe"}
	l := newListing(t, root, decider(func(action, object string) bool { return slices.Contains(allowed, action+" "+object) }))
	d := l.read(t, "/downloads/p/")
	if got := strings.Join(d.names(), " "); got != "listed/ read.txt" || *d.Total != 2 || d.Next != "" || d.Path != "/p/" || d.URL != "/downloads/p/" {
		t.Errorf("shown: %s of %+v", got, d)
	}
	if e := d.Entries[1]; e.Size != 10 || e.URL != "/downloads/p/read.txt" || e.Modified.Unix() != 1706933106 {
		t.Errorf("%+v", e)
	}
	followed, err := New(func() authz.Decider { return decider(all) }, map[string]Directory{"main": {Root: root, FollowSymlinks: true}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(followed.read(t, "/downloads/p/").names(), " "); !strings.Contains(got, "link/ ") || !strings.Contains(got, "link.txt") || strings.Contains(got, "pipe") {
		t.Errorf("where links are followed: %s", got)
	}
}

// What policy hides changes no byte of any page, however it is sorted.
func TestWhatIsHiddenChangesNoByte(t *testing.T) {
	with, without := t.TempDir(), t.TempDir()
	var names, hidden []string
	for i := range 2*PageSize + 100 {
		names = append(names, fmt.Sprintf("d/%04d-%s", i*7919%9973, strings.Repeat("n", i%13)))
		hidden = append(hidden, fmt.Sprintf("d/%04d-veiled%s", i*7919%9973, strings.Repeat("h", i%17)))
	}
	names = append(names, "d/sub/", "d/Zub/", "d/ab/")
	hidden = append(hidden, "d/veiled/", "d/aa-veiled/")
	plant(t, with, append(slices.Clone(names), hidden...)...)
	plant(t, without, names...)
	at := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	for i, name := range names { // three of each age
		for _, root := range []string{with, without} {
			if err := os.Chtimes(filepath.Join(root, name), at, at.Add(time.Duration(i/3)*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
	}
	policy := decider(func(_, object string) bool { return !strings.Contains(object, "veiled") })
	a, b := newListing(t, with, policy), newListing(t, without, policy)
	for _, sort := range []string{"", "?sort=name&order=desc", "?sort=size", "?sort=size&order=desc", "?sort=modified", "?sort=modified&order=desc", "?sort=nonsense&after=nonsense"} {
		var seen []string
		pages := 0
		for next := "/downloads/d/" + sort; next != ""; pages++ {
			for _, accept := range []string{"application/json", "text/html"} {
				one, _, err := a.Render(t.Context(), request(t, next, "Accept", accept))
				if err != nil {
					t.Fatal(err)
				}
				other, _, err := b.Render(t.Context(), request(t, next, "Accept", accept))
				if err != nil || !bytes.Equal(one, other) || bytes.Contains(one, []byte("veiled")) {
					t.Fatalf("%s: what is hidden is seen, %v", next, err)
				}
			}
			d := a.read(t, next)
			seen, next = append(seen, d.names()...), d.Next
			if *d.Total != len(names) {
				t.Errorf("%s: %d in all, want %d", next, *d.Total, len(names))
			}
		}
		if pages != 3 || len(seen) != len(names) || !strings.HasSuffix(seen[2], "/") || strings.HasSuffix(seen[3], "/") {
			t.Errorf("%q: %d pages, %d of %d entries, folders first: %v", sort, pages, len(seen), len(names), seen[:4])
		}
		slices.Sort(seen)
		if n := len(slices.Compact(seen)); n != len(names) {
			t.Errorf("%q: %d different entries", sort, n)
		}
	}
}

// Whatever a cursor names, the page holds nothing but what may be seen.
func TestACursorIsNotLookedUp(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "a", "b-hidden", "c")
	l := newListing(t, root, decider(func(_, object string) bool { return !strings.Contains(object, "hidden") }))
	for cursor, want := range map[string]string{
		"f:0:b-hidden": "c", "f:0:b-nothing": "c", "f:0:": "a c", "f:0:c": "", "d:0:x": "a c", "f:0:a": "c", "f:x:a": "a c", "": "a c", "f": "a c", "x:0:a": "a c", "f:0:../../etc": "a c", "f:0:\x00": "a c",
	} {
		got := l.read(t, "/downloads/?after="+strings.NewReplacer("\x00", "%00").Replace(cursor))
		if strings.Join(got.names(), " ") != want || *got.Total != 2 {
			t.Errorf("%q: %v", cursor, got.names())
		}
	}
}

// Large directories, asked for by many, take no more than some of the machine: the rest waits,
// and is given up when nobody waits for it, whatever it had come to.
func TestDirectoriesAreReadByTurns(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "a", "b")
	var read atomic.Int64
	begun, goOn := make(chan struct{}, 100), make(chan struct{})
	l := newListing(t, root, decider(func(string, string) bool {
		read.Add(1)
		begun <- struct{}{}
		<-goOn
		return true
	}))
	l.roots["main"] = Directory{Root: root, Zip: Bounds{Entries: 100, Bytes: 1 << 20}}
	ended := make(chan error, cap(l.turns))
	ctx, cancel := context.WithCancel(t.Context())
	for range cap(l.turns) {
		go func() {
			_, _, err := l.Render(ctx, request(t, "/downloads/"))
			ended <- err
		}()
		<-begun
	}
	for name, ask := range map[string]func() error{
		"page": func() error {
			_, _, err := l.Render(t.Context(), request(t, "/downloads/"))
			return err
		},
		"archive": func() error {
			out := request(t, "/downloads/?zip")
			out.Question.Archive, out.Page = out.Question.Dir, authz.PageArchive
			_, err := l.Archive(t.Context(), out)
			return err
		},
	} {
		var err error
		more := make(chan error, 1)
		go func() { more <- ask() }()
		select {
		case <-begun:
			close(goOn)
			t.Fatalf("one more is read beside them: %s", name)
		case err = <-more:
		}
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, fs.ErrNotExist) || read.Load() != int64(cap(l.turns)) {
			t.Errorf("one more, a %s: %v, after %d decisions", name, err, read.Load())
		}
	}
	cancel()
	close(goOn)
	for range cap(l.turns) {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("for nobody: %v", err)
		}
	}
	if n := read.Load(); n != int64(cap(l.turns)) {
		t.Errorf("for nobody: %d decisions", n)
	}
	if _, _, err := l.Render(t.Context(), request(t, "/downloads/")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Whoever may put files there says when they were changed: that is no way to end a listing,
// or to have it never end.
func TestFilesFromFarAwayTimesAreListed(t *testing.T) {
	years := []int{-1, 1500, 1970, 2290, 10001}
	var found []fs.FileInfo
	for i := range 2*PageSize + 10 {
		found = append(found, dated{named(fmt.Sprintf("f%04d", i)), time.Date(years[i%len(years)], 1, 1, 0, 0, 0, 0, time.UTC)})
	}
	l := newListing(t, t.TempDir(), decider(all))
	all, err := l.visible(t.Context(), l.policy(), request(t, "/downloads/"), found)
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range []string{"", "&order=desc"} {
		a := parseAsked("/downloads/?sort=modified&format=json" + order)
		slices.SortFunc(all, a.compare)
		for i, e := range all {
			again := parseAsked("/downloads/" + a.query(a.cursor(e)))
			if at, ok := slices.BinarySearchFunc(all, *again.after, again.compare); !ok || at != i {
				t.Fatalf("behind %s, of %v: %d %v, want %d", e.name, e.changed, at, ok, i)
			}
		}
		p := &shown{out: request(t, "/downloads/"), asked: a, entries: all, total: len(all)}
		if _, err := p.data(); err != nil {
			t.Error(err)
		}
	}
}

type dated struct {
	named
	at time.Time
}

func (d dated) ModTime() time.Time { return d.at }

func TestADirectoryThatIsNotThereIsNone(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "p/file")
	if err := os.Symlink("p", root+"/link"); err != nil {
		t.Fatal(err)
	}
	l := newListing(t, root, decider(all))
	for _, dir := range []string{"none/", "p/none/", "p/file/", "link/"} {
		if _, _, err := l.Render(t.Context(), request(t, "/downloads/"+dir)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	// The download's own is the operator's to mend.
	if _, _, err := newListing(t, root+"/none", decider(all)).Render(t.Context(), request(t, "/downloads/")); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no root: %v", err)
	}
	out := request(t, "/downloads/p/")
	out.Decision.Effect = authz.Deny
	if body, _, err := l.Render(t.Context(), out); err == nil || body != nil {
		t.Errorf("a denied directory is shown: %s", body)
	}
}

// onePage is a bucket with one page and a next one.
type onePage struct {
	entries []fs.FileInfo
	next    string
	asked   []string
}

func (b *onePage) List(_ context.Context, dir pathguard.Dir, cursor string, most int) ([]fs.FileInfo, string, error) {
	b.asked = append(b.asked, fmt.Sprint(dir.String(), " ", cursor, " ", most))
	return b.entries, b.next, nil
}

// Of a bucket a page is what may be seen of one of its pages: in its order, with what no
// request could name left out, and nothing counted.
func TestAPageOfABucketIsOneOfItsOwn(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "a", "b-hidden", "c", "dir/", "hidden/")
	b := &onePage{next: "sealed+/="}
	for _, name := range []string{"b-hidden", "hidden", "dir", "c", "a"} { // not by name, and the last one is seen
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		b.entries = append(b.entries, info)
	}
	for _, name := range []string{"..", ".", "", "a/b", "new\nline", "\xff", "back\\slash"} {
		b.entries = append(b.entries, named(name))
	}
	l, err := New(func() authz.Decider {
		return decider(func(_, object string) bool { return !strings.Contains(object, "hidden") })
	}, map[string]Directory{"main": {Bucket: b}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := l.read(t, "/downloads/p/?sort=size&order=desc&after=x")
	if got := strings.Join(d.names(), " "); got != "dir/ c a" || d.Total != nil || d.Next != "/downloads/p/?after=sealed%2B%2F%3D&format=json" {
		t.Errorf("shown: %s, %+v", got, d)
	}
	body, _, err := l.Render(t.Context(), request(t, "/downloads/p/?after=x", "Accept", "text/html"))
	if err != nil || bytes.Contains(body, []byte("?sort=")) || bytes.Contains(body, []byte("entries")) || !bytes.Contains(body, []byte(`href="/downloads/p/"`)) || !bytes.Contains(body, []byte("after=sealed")) {
		t.Errorf("%v\n%s", err, body)
	}
	if got := strings.Join(b.asked, ", "); got != fmt.Sprintf("/p/ x %d, /p/ x %d", PageSize, PageSize) {
		t.Errorf("the bucket was asked %s", got)
	}
}

// named is a file that is called so.
type named string

func (n named) Name() string     { return string(n) }
func (named) Size() int64        { return 1 }
func (named) Mode() fs.FileMode  { return 0 }
func (named) ModTime() time.Time { return time.Time{} }
func (named) IsDir() bool        { return false }
func (named) Sys() any           { return nil }

// Classes of names that NGINX.md's corpus has, as far as pathguard accepts them.
var hostile = []string{
	"<script>alert(1)</script>", "<img src=x onerror=alert(1)>", `"><b>`, `' onmouseover='alert(1)`, "&amp;", "&lt;b&gt;", "javascript:alert(1)", "a b", "a+b", "100%", "%2e%2e", "%41",
	"q?x=1", "h#frag", "semi;colon", "comma,", "{{.}}", "{{template}}", "${x}", "`id`", "$(id)", "-rf", "..a", "...", "~", "*", "[x]", "a=b&c=d", "caf\u00e9", "cafe\u0301", "日本語.txt", "😀.txt",
	"a\u202efdp.exe", "a\u200bb", "\ufeffbom", "</td></table>", "<!--", "--!>", "]]>", "</title>", "</style>", "//evil.example", "x:y", "data:text/html,x",
}

func TestHostileNamesAreShownAndLinkedAsTheyAre(t *testing.T) {
	root := t.TempDir()
	want := map[string]string{} // by path
	for _, name := range hostile {
		if strings.Contains(name, "/") {
			name = strings.ReplaceAll(name, "/", "\u2215")
		}
		plant(t, root, "d/"+name, "d/"+name+" folder/")
		want["/d/"+name] = name
		want["/d/"+name+" folder/"] = name + " folder/"
	}
	l := newListing(t, root, decider(all))
	body, kind, err := l.Render(t.Context(), request(t, "/downloads/d/", "Accept", "text/html"))
	if err != nil || kind != "text/html; charset=utf-8" {
		t.Fatal(kind, err)
	}
	doc, err := html.Parse(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields("html head meta title style body main h1 nav ol li a bdi p table thead tbody tr th td time span")
	found, inBody := 0, false
	for n := range doc.Descendants() {
		if n.Type == html.CommentNode {
			t.Errorf("a comment: %q", n.Data)
		}
		if n.Type != html.ElementNode {
			continue
		}
		if !slices.Contains(known, n.Data) {
			t.Errorf("an element <%s>", n.Data)
		}
		for _, attr := range n.Attr {
			if strings.HasPrefix(attr.Key, "on") || attr.Key == "style" || attr.Key == "src" {
				t.Errorf("an attribute %s=%q", attr.Key, attr.Val)
			}
		}
		inBody = inBody || n.Data == "tbody"
		if n.Data != "a" || !inBody || n.Parent.Data != "td" {
			continue
		}
		text := textOf(n)
		href := n.Attr[0].Val
		path := ""
		if p, err := pathguard.Parse(href, "/downloads/"); err == nil {
			path = p.String()
		} else if dir, err := pathguard.ParseDir(href, "/downloads/"); err == nil {
			path = dir.String()
		}
		if plain(want[path]) != text || path == "" {
			t.Errorf("%q leads to %q, which is %q", text, href, path)
		}
		found++
	}
	if found != len(want) {
		t.Errorf("%d entries, want %d", found, len(want))
	}
	for _, one := range hostile { // as the directory itself
		if strings.Contains(one, "/") {
			continue
		}
		u, err := pathguard.NewDir("/d/" + one + " folder/")
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := l.Render(t.Context(), request(t, u.URL("/downloads/"), "Accept", "text/html"))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := html.Parse(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for n := range doc.Descendants() {
			if n.Type == html.ElementNode && !slices.Contains(known, n.Data) {
				t.Errorf("%q: an element <%s>", one, n.Data)
			}
			if n.Type == html.ElementNode && n.Data == "h1" && textOf(n) != plain(one)+" folder" {
				t.Errorf("%q: the title is %q", one, textOf(n))
			}
		}
	}
}

func textOf(n *html.Node) string {
	text := ""
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			text += d.Data
		}
	}
	return text
}

func TestANameIsShownInItsOrder(t *testing.T) {
	for name, want := range map[string]string{"a\u202efdp.exe": "a\ufffdfdp.exe", "\u2066x\u2069": "\ufffdx\ufffd", "\u05e9\u05dc\u05d5\u05dd.txt": "\u05e9\u05dc\u05d5\u05dd.txt", "caf\u00e9": "caf\u00e9"} {
		if got := plain(name); got != want {
			t.Errorf("%q is shown as %q, want %q", name, got, want)
		}
	}
}

func TestSizesAndTypesAreForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1,0 KiB", 1536: "1,5 KiB", 1<<20 - 1: "1,0 MiB", 1 << 30: "1,0 GiB", 1 << 60: "1024,0 PiB"} {
		if got := sizeOf(n, ","); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for name, want := range map[string]string{"a.pdf": "PDF", "a.tar.gz": "GZ", "a": "File", ".bashrc": "BASHRC", "a.": "File", "a.<b>": "File", "a.verylongend": "File"} {
		if got := typeOf(name, "File"); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// A page of a directory of ten thousand files, under a policy of a million lines: reading,
// deciding, sorting, writing.
func BenchmarkListing(b *testing.B) {
	root := b.TempDir()
	for i := range 10_000 {
		if err := os.WriteFile(filepath.Join(root, fmt.Sprintf("file-%05d.txt", i*7919%10007)), nil, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	var text strings.Builder
	text.WriteString("p, staff, /**, read, allow\np, staff, /**, list, allow\np, alice, /file-00001.txt, read, deny\ng, alice, staff\n")
	for i := range 1_000_000 {
		fmt.Fprintf(&text, "p, user%d, /home/%d/**, read, allow\n", i, i)
	}
	file := filepath.Join(b.TempDir(), "policy.csv")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	store, err := policy.Open(b.Context(), policy.Files{Policy: file}, &policy.Options{})
	if err != nil {
		b.Fatal(err)
	}
	for _, query := range []string{"", "?sort=size", "?sort=modified&order=desc", "?format=json"} {
		b.Run("10k"+query, func(b *testing.B) {
			l, err := New(store.Now, map[string]Directory{"main": {Root: root}}, nil)
			if err != nil {
				b.Fatal(err)
			}
			out := request(b, "/downloads/"+query)
			before := worked(b)
			defer func() { b.ReportMetric((worked(b)-before).Seconds()*1000/float64(b.N), "cpu-ms/op") }() // on a machine with other work to do
			for b.Loop() {
				body, _, err := l.Render(b.Context(), out)
				if err != nil || len(body) < 10_000 {
					b.Fatal(len(body), err)
				}
			}
		})
	}
}

// worked is how long processors have worked for this process.
func worked(t testing.TB) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
