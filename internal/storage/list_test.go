package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"securefiles/pathguard"
)

func directory(t testing.TB, path string) pathguard.Dir {
	t.Helper()
	dir, err := pathguard.NewDir(path)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// lines lists a directory page by page: each entry as `name size` or `name/`.
func lines(t *testing.T, s *Store, dir string, most int) (all []string, pages int) {
	t.Helper()
	cursor := ""
	for {
		entries, next, err := s.List(t.Context(), directory(t, dir), cursor, most)
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		if len(entries) > most {
			t.Errorf("%d entries, at most %d were to come", len(entries), most)
		}
		for _, e := range entries {
			if e.IsDir() {
				all = append(all, e.Name()+"/")
			} else {
				all = append(all, fmt.Sprint(e.Name(), " ", e.Size()))
			}
		}
		if pages++; next == "" {
			return all, pages
		}
		if strings.Contains(next, "cursor") || len(next) > 1024 {
			t.Errorf("the cursor is %q", next)
		}
		cursor = next
	}
}

// listable are stores of each kind that verify signatures, with the same objects below
// the prefix `sub/`.
func listable(t *testing.T, objects map[string]string) map[string]*Store {
	t.Helper()
	server := bucketServer(t, objects)
	verified := verifyingWith(t, objects)
	return map[string]*Store{
		"s3":    newTestS3(t, server.URL),
		"azure": verified["azure"](func(*Options) {}),
		"gcs":   verified["gcs"](func(*Options) {}),
	}
}

func TestADirectoryOfAStoreIsListedWithAllItsNames(t *testing.T) {
	objects := map[string]string{"sub/d/": "", "above": "CANARY", "sub/dir": "CANARY", "subway/x": "CANARY"}
	var want []string
	for _, name := range hostileNames() {
		objects["sub/d/"+name] = name
		if first, _, deeper := strings.Cut(name, "/"); deeper {
			want = append(want, first+"/")
		} else {
			want = append(want, fmt.Sprint(name, " ", len(name)))
		}
		objects["sub/d/in "+name+"/x/y"] = ""
		first, _, _ := strings.Cut("in "+name, "/")
		want = append(want, first+"/")
	}
	slices.Sort(want)
	for kind, s := range listable(t, objects) {
		for _, most := range []int{1000, 7} {
			got, pages := lines(t, s, "/d/", most)
			slices.Sort(got)
			if kind == "s3" { // this one has a directory on two pages, if its files are
				got = slices.Compact(got)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, %d a page:\n%q\nwant\n%q", kind, most, got, want)
			}
			if most == 7 && pages < len(want)/7 || most == 1000 && pages != 1 {
				t.Errorf("%s, %d a page: %d pages", kind, most, pages)
			}
		}
		entries, _, err := s.List(t.Context(), directory(t, "/d/"), "", 1000)
		if err != nil || !slices.IsSortedFunc(entries, func(a, b fs.FileInfo) int { return strings.Compare(a.Name(), b.Name()) }) {
			t.Errorf("%s: not sorted, %v", kind, err)
		}
		for _, e := range entries {
			if e.IsDir() != e.ModTime().IsZero() || !e.IsDir() && (e.ModTime().After(time.Now().Add(time.Minute)) || e.Mode().Type() != 0) {
				t.Errorf("%s: %q of %v, %v", kind, e.Name(), e.ModTime(), e.Mode())
			}
		}
		if got, _ := lines(t, s, "/", 1000); !slices.Equal(got, []string{"d/", "dir 6"}) && !slices.Equal(got, []string{"dir 6", "d/"}) {
			t.Errorf("%s: the whole is %q", kind, got)
		}
		if _, _, err := s.List(t.Context(), directory(t, "/none/"), "", 10); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: what is not there: %v", kind, err)
		}
	}
	for kind, s := range listable(t, nil) {
		if got, _ := lines(t, s, "/", 10); got != nil {
			t.Errorf("%s: an empty one holds %q", kind, got)
		}
	}
}

// A cursor counts in the directory, and for the credentials, that it was made for.
func TestACursorIsSealed(t *testing.T) {
	objects := map[string]string{}
	for i := range 30 {
		objects[fmt.Sprintf("sub/a/cursor-%02d-hidden", i)], objects[fmt.Sprintf("sub/b/%02d", i)] = "", ""
	}
	for kind, s := range listable(t, objects) {
		_, next, err := s.List(t.Context(), directory(t, "/a/"), "", 10)
		if err != nil || next == "" {
			t.Fatalf("%s: %q %v", kind, next, err)
		}
		if _, again, err := s.List(t.Context(), directory(t, "/a/"), "", 10); err != nil || again == next || len(again) != len(next) {
			t.Errorf("%s: %q is the same one, or of another length: %v", kind, again, err)
		}
		last := byte('A')
		if next[5] == 'A' {
			last = 'B'
		}
		for name, cursor := range map[string]string{"changed": next[:5] + string(last) + next[6:], "shorter": next[:len(next)-4], "a token": "MDk=", "no base64": "=", "short": "AA", "a name": "/b/"} {
			if _, _, err := s.List(t.Context(), directory(t, "/a/"), cursor, 10); !errors.Is(err, ErrCursor) || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
		if _, _, err := s.List(t.Context(), directory(t, "/b/"), next, 10); !errors.Is(err, ErrCursor) {
			t.Errorf("%s: elsewhere: %v", kind, err)
		}
	}
	server := bucketServer(t, objects)
	seal, err := newTestS3(t, server.URL).seal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lengths := map[int]bool{}
	for _, token := range []string{"", "a", strings.Repeat("long", 50)} {
		cursor, err := closed(seal, token, "sub/")
		got, openErr := open(seal, cursor, "sub/")
		if lengths[len(cursor)] = true; err != nil || openErr != nil || got != token {
			t.Errorf("%q is %q: %v, %v", token, got, err, openErr)
		}
	}
	if len(lengths) != 1 {
		t.Errorf("cursors tell how long names are: %v", lengths)
	}
	_, next, err := newTestS3(t, server.URL).List(t.Context(), directory(t, "/a/"), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := newTestS3(t, server.URL).List(t.Context(), directory(t, "/a/"), next, 10); err != nil {
		t.Errorf("another instance with the same credentials: %v", err)
	}
	other := newTestS3(t, server.URL, func(_ *S3, o *Options) { o.Lookup = otherSecret })
	if _, _, err := other.List(t.Context(), directory(t, "/a/"), next, 10); !errors.Is(err, ErrCursor) {
		t.Errorf("other credentials: %v", err)
	}
}

// What a store answers that is no list of what it was asked for is an error, and never
// the list of something else.
func TestAnAnswerThatIsNoListIsAnError(t *testing.T) {
	const open, end = `<?xml version="1.0"?><ListBucketResult>`, `</ListBucketResult>`
	whole := func(inside string) string { return open + `<IsTruncated>false</IsTruncated>` + inside + end }
	azure := func(inside string) string {
		return `<?xml version="1.0"?><EnumerationResults><Blobs>` + inside + `</Blobs><NextMarker/></EnumerationResults>`
	}
	blob := func(name string) string {
		return azure("<Blob><Name>" + name + "</Name><Properties><Last-Modified>Wed, 01 Jan 2025 00:00:00 GMT</Last-Modified><Content-Length>1</Content-Length></Properties></Blob>")
	}
	object := func(key string) string { return "<Contents><Key>" + key + "</Key><Size>1</Size></Contents>" }
	var status int
	var answer string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			fmt.Fprint(w, whole(object("sub/d/CANARY")))
			return
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(server.Close)
	s3, blobs := newTestS3(t, server.URL), newTestAzure(t, server.URL, func(a *Azure, _ *Options) { a.Prefix = "sub/" })
	for name, row := range map[string]struct {
		store  *Store
		status int
		answer string
		want   string // empty: it is one
	}{
		"a list":                    {s3, 200, whole(object("sub/d/a")), ""},
		"one of Azure":              {blobs, 200, blob("sub/d/a"), ""},
		"one with what XML has not": {blobs, 200, strings.Replace(blob("sub/d/%EF%BF%BE"), "<Name>", `<Name Encoded="true">`, 1), ""},
		"above":                     {s3, 200, whole(object("secret")), "elsewhere"},
		"beside":                    {s3, 200, whole(object("sub/e/a")), "elsewhere"},
		"deeper":                    {s3, 200, whole(object("sub/d/x/a")), "elsewhere"},
		"a prefix that is above":    {s3, 200, whole("<CommonPrefixes><Prefix>sub/</Prefix></CommonPrefixes>"), "elsewhere"},
		"a prefix without a slash":  {s3, 200, whole("<CommonPrefixes><Prefix>sub/d/x</Prefix></CommonPrefixes>"), "elsewhere"},
		"a blob elsewhere":          {blobs, 200, blob("sub/e/a"), "elsewhere"},
		"more than was asked for":   {s3, 200, whole(strings.Repeat(object("sub/d/a"), 12)), "more than"},
		"no size":                   {s3, 200, whole("<Contents><Key>sub/d/a</Key></Contents>"), "no key or size"},
		"a size that is none":       {s3, 200, whole("<Contents><Key>sub/d/a</Key><Size>-1</Size></Contents>"), "no key or size"},
		"no end in sight":           {s3, 200, open + object("sub/d/a") + end, "whether there is more"},
		"more, and no token":        {s3, 200, open + "<IsTruncated>true</IsTruncated>" + end, "whether there is more"},
		"no marker":                 {blobs, 200, "<EnumerationResults><Blobs/></EnumerationResults>", "whether there is more"},
		"a token without end":       {s3, 200, open + "<IsTruncated>true</IsTruncated><NextContinuationToken>" + strings.Repeat("x", maxToken+1) + "</NextContinuationToken>" + end, "too long"},
		"another encoding":          {s3, 200, whole("<EncodingType>base64</EncodingType>"), "encoding"},
		"an escape that is none":    {s3, 200, whole("<EncodingType>url</EncodingType>" + object("sub/d/%zz")), "no key or size"},
		"HTML":                      {s3, 200, "<html><body>Hello</body></html>", "it cannot be read"},
		"HTML of Azure":             {blobs, 200, "<!DOCTYPE html><html><body>Hello</body></html>", "it cannot be read"},
		"JSON":                      {s3, 200, `{"items": []}`, "it cannot be read"},
		"nothing":                   {s3, 200, "", "it cannot be read"},
		"half of it":                {s3, 200, strings.TrimSuffix(whole(object("sub/d/a")), end), "it cannot be read"},
		"an entity":                 {s3, 200, `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>` + whole(object("sub/d/&e;")), "it cannot be read"},
		"more behind it":            {s3, 200, whole("") + "<x/>", "stands behind it"},
		"without end":               {s3, 200, strings.Repeat(" ", maxList+1), "longer than"},
		"a redirect":                {s3, 302, whole(object("sub/d/a")), "sends elsewhere"},
		"no such bucket":            {s3, 404, "<Error><Code>NoSuchBucket</Code></Error>", "no such bucket"},
		"nothing there":             {s3, 404, "", "answers 404"},
		"no right":                  {s3, 403, "<Error><Code>AccessDenied</Code></Error>", "s3:ListBucket"},
		"trouble":                   {s3, 503, "<Error><Code>SlowDown</Code></Error>", "try again"},
	} {
		status, answer = row.status, row.answer
		entries, next, err := row.store.List(t.Context(), directory(t, "/d/"), "", 10)
		switch {
		case row.want == "" && (err != nil || len(entries) != 1):
			t.Errorf("%s: %v, %v", name, entries, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || entries != nil || next != "" || errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "X-Amz")):
			t.Errorf("%s: %v, %v; want %s", name, entries, err, row.want)
		}
	}
	server.Close()
	if _, _, err := s3.List(t.Context(), directory(t, "/d/"), "", 10); err == nil || errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "X-Amz") {
		t.Errorf("nobody there: %v", err)
	}
	if _, _, err := newTestS3(t, server.URL, func(_ *S3, o *Options) { o.Lookup = nil }).List(t.Context(), directory(t, "/d/"), "", 10); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no credentials: %v", err)
	}
}

// A store that does not answer in time is given up before nginx gives up the page.
func TestAStoreThatTakesTooLongToListIsGivenUp(t *testing.T) {
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(gone)
	}))
	t.Cleanup(server.Close)
	if _, _, err := newTestS3(t, server.URL).List(t.Context(), directory(t, "/d/"), "", 10); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	<-gone
}

// So many ask a store at a time, and no more, however many ask for folders.
func TestAStoreIsNotAskedForMorePagesThanThereAreTurns(t *testing.T) {
	server := bucketServer(t, map[string]string{"sub/d/a": "a"})
	s := newTestS3(t, server.URL)
	for range maxLists {
		s.turns <- struct{}{}
	}
	if _, _, err := s.List(t.Context(), directory(t, "/d/"), "", 10); err == nil || !strings.Contains(err.Error(), "32 pages at a time") || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a turn: %v", err)
	}
	<-s.turns
	for range 2 { // the one turn that there is is given back
		if _, _, err := s.List(t.Context(), directory(t, "/d/"), "", 10); err != nil {
			t.Error(err)
		}
	}
}

func FuzzListedAnswers(f *testing.F) {
	f.Add([]byte(`<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>`))
	f.Add([]byte(`<EnumerationResults><Blobs><BlobPrefix><Name Encoded="true">%41/</Name></BlobPrefix></Blobs><NextMarker/></EnumerationResults>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, read := range []func([]byte) (*listed, error){listedLikeS3, (*azure)(nil).listed} {
			found, err := read(text)
			if (found == nil) == (err == nil) {
				t.Fatalf("%v and %v", found, err)
			}
			if err != nil {
				continue
			}
			for _, o := range found.objects {
				if o.size < 0 || !bytes.Contains(text, []byte("<")) {
					t.Fatalf("%+v", o)
				}
			}
		}
	})
}
