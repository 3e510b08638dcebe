package authz

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"securefiles/pathguard"
)

// listingGuard guards a download that shows its directories.
func listingGuard(t *testing.T, listing bool, policy Decider, opts *Options) *Guard {
	t.Helper()
	return guardOf(t, func(d *Download) { d.Listing = listing }, policy, opts)
}

func TestADirectoryIsListedAndNeverOpened(t *testing.T) {
	out := listingGuard(t, true, allowAll, nil).Check(t.Context(), question("/downloads/project/?sort=size"))
	if !out.Listed() || out.Allowed() || out.Redirected() || out.Page != PageListing || out.Question.Action != ActionList || out.Question.Dir.String() != "/project/" || !out.Question.Path.IsZero() {
		t.Errorf("got %+v of %+v", out, out.Question)
	}
	if q := out.Question.Query(out.Principal); q.Object != "/project/" || q.Action != ActionList {
		t.Errorf("policy is asked %+v", q)
	}
	for name, edit := range map[string]func(*Outcome){
		"denied":          func(o *Outcome) { o.Decision.Effect = Deny },
		"beside an error": func(o *Outcome) { o.Err = errors.New("away") },
		"another reason":  func(o *Outcome) { o.Reason = ReasonRedirect },
		"of nobody":       func(o *Outcome) { o.Principal = Principal{} },
		"of no directory": func(o *Outcome) { q := *o.Question; q.Dir = pathguard.Dir{}; o.Question = &q },
		"another action":  func(o *Outcome) { q := *o.Question; q.Action = ActionRead; o.Question = &q },
		"off in between": func(o *Outcome) {
			q := *o.Question
			d := *q.Download
			d.Listing = false
			q.Download = &d
			o.Question = &q
		},
		"of no question":   func(o *Outcome) { o.Question = nil },
		"a file beside it": func(o *Outcome) { q := *o.Question; q.Path, _ = pathguard.New("/a"); o.Question = &q },
	} {
		other := *out
		if edit(&other); other.Listed() || other.Allowed() {
			t.Errorf("%s: the directory is shown", name)
		}
	}
}

func TestADirectoryIsAPathThatIsRefusedWhereNoneAreShown(t *testing.T) {
	out := listingGuard(t, false, allowAll, nil).Check(t.Context(), question("/downloads/project/"))
	if out.Listed() || out.Allowed() || out.Reason != ReasonPath {
		t.Errorf("off: %+v", out)
	}
	out = listingGuard(t, true, denyAll, nil).Check(t.Context(), question("/downloads/project/"))
	if out.Listed() || out.Page != "" || out.Reason != ReasonDefaultDeny {
		t.Errorf("denied: %+v", out)
	}
	for _, target := range []string{"/downloads//", "/downloads/a//", "/downloads/../", "/downloads/%2e%2e/", "/downloads/a%2f"} {
		if out := listingGuard(t, true, allowAll, nil).Check(t.Context(), question(target)); out.Listed() || out.Reason != ReasonPath {
			t.Errorf("%s: %+v", target, out)
		}
	}
}

func TestAPersonComesBackFromTheLoginToTheDirectory(t *testing.T) {
	d := testDownload()
	d.Listing = true
	downloads, err := NewDownloads(d)
	if err != nil {
		t.Fatal(err)
	}
	login, err := ParseLogin("/login/?next={next}", downloads)
	if err != nil {
		t.Fatal(err)
	}
	nobody := fakeIdentity(func(*Question) (Principal, error) { return Principal{}, ErrNoCredentials })
	g, err := New(downloads, nobody, denyAll, &Options{Login: login})
	if err != nil {
		t.Fatal(err)
	}
	q := question("/downloads/a%20b/?sort=size")
	q.Header = http.Header{"Accept": {"text/html"}}
	if out := g.Check(t.Context(), q); out.Login != "/login/?next=%2Fdownloads%2Fa%2520b%2F%3Fsort%3Dsize" {
		t.Errorf("sent to %q", out.Login)
	}
}

// Links are for files; limits count a page, and may refuse it.
func TestLinksShowNoDirectoryAndLimitsCountIt(t *testing.T) {
	var log []string
	links := linkOf("alice", nil)
	out := listingGuard(t, true, denyAll, &Options{Links: links}).Check(t.Context(), question("/downloads/project/?link=x"))
	if out.Listed() || out.Link != "" || out.Source == SourceLink {
		t.Errorf("by a link: %+v", out)
	}
	out = listingGuard(t, true, allowAll, &Options{Limits: fakeLimiter{"late", nil, &log}}).Check(t.Context(), question("/downloads/project/"))
	if !out.Listed() || strings.Join(log, " ") != "+late" {
		t.Errorf("limits: %v %+v", log, out)
	}
	out = listingGuard(t, true, allowAll, &Options{Limits: fakeLimiter{"late", &LimitError{Reason: ReasonRate}, &log}}).Check(t.Context(), question("/downloads/project/"))
	if out.Listed() || out.Page != "" || out.Reason != ReasonRate {
		t.Errorf("beyond a limit: %+v", out)
	}
}

func TestDirectoriesAreAskedAboutAsPeopleWriteThem(t *testing.T) {
	downloads, err := NewDownloads(&Download{Name: "a", URL: "/a/", Internal: "/pa/"}, &Download{Name: "b", URL: "/b/", Internal: "/pb/"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, text, want string }{
		{"", "/a/x y/", "a /x y/"}, {"", "https://files.example.org/b/x/?sort=size", "b /x/"}, {"b", "/x/", "b /x/"}, {"", "/b/", "b /"}, {"a", "/", "a /"},
		{"", "/x/", "several"}, {"c", "/x/", "no download"}, {"a", "/x", "does not end with a slash"}, {"", "/a//", "empty segment"}, {"", "https://files.example.org/c/", "below no download"}, {"", "/a/../", "dot segment"},
	} {
		d, dir, err := downloads.AskDir(row.name, row.text)
		got := ""
		if err == nil {
			got = d.Name + " " + dir.String()
		} else {
			got = err.Error()
		}
		if !strings.Contains(got, row.want) {
			t.Errorf("%q, %q: %s; want %s", row.name, row.text, got, row.want)
		}
	}
}
