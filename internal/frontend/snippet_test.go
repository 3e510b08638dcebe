package frontend

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
)

// Whoever changes the configuration and forgets nginx is told, once and then every ten
// minutes, until no question comes by the old snippet any more.
func TestASnippetOfAnotherConfigurationIsToldOf(t *testing.T) {
	const (
		own, old = "0123456789abcdef", "fedcba9876543210"
		told     = "level=WARN msg=\"nginx asks by a snippet that was printed for another configuration, or by another version: print both halves again with `securefiles nginx`, and reload nginx\" snippet="
		well     = "level=INFO msg=\"nginx asks by the snippet of this configuration again\" snippet=" + own
	)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var log bytes.Buffer
	drop := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	front := newTestFront(t, testDownload(), known("alice"), allowAll, nil, &Options{
		Snippet: own, Now: func() time.Time { return now }, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: drop})),
		Secret: func(text string) bool { return text == "secret" },
	})
	for _, step := range []struct {
		name   string
		after  time.Duration
		secret string
		sends  []string
		logs   string // a line
		other  string // by which nginx asks then
	}{
		{"its own", 0, "secret", []string{own}, "", ""},
		{"none, as in a configuration that somebody wrote", 0, "secret", nil, "", ""},
		{"another's", 0, "secret", []string{old}, told + old + " own=" + own, old},
		{"another's, each request", time.Second, "secret", []string{old}, "", old},
		{"its own beside, of a second server", time.Second, "secret", []string{own}, "", old},
		{"another's, for minutes", 9 * time.Minute, "secret", []string{old}, "", old},
		{"another's, for ten minutes", time.Minute, "secret", []string{old}, told + old + " own=" + own, old},
		{"its own, for a second", time.Second, "secret", []string{own}, "", old},
		{"its own, for a minute", time.Minute, "secret", []string{own}, well, ""},
		{"what is no digest", 0, "secret", []string{"x\ny"}, told + "malformed own=" + own, "malformed"},
		{"its own again", time.Hour, "secret", []string{own}, well, ""},
		{"two", 0, "secret", []string{own, own}, told + own + " own=" + own, own},
		{"its own once more", time.Hour, "secret", []string{own}, well, ""},
		{"of whoever is not nginx", 0, "guess", []string{old}, "level=WARN msg=decision reason=request", ""},
	} {
		now = now.Add(step.after)
		log.Reset()
		r := nginxAsks("/downloads/a/b.txt")
		r.Header.Set("X-Securefiles-Proxy-Secret", step.secret)
		for _, value := range step.sends {
			r.Header.Add("X-Securefiles-Snippet", value)
		}
		front.ServeHTTP(httptest.NewRecorder(), r)
		if got := log.String(); step.logs == "" && got != "" || !strings.HasPrefix(got, step.logs) {
			t.Errorf("%s: logged %s, want %s", step.name, got, step.logs)
		}
		if got, _ := front.OtherSnippet(); got != step.other {
			t.Errorf("%s: the other is %q, want %q", step.name, got, step.other)
		}
	}
}

// Whoever has just changed the configuration was told then, in a line of its own: that nginx
// still asks by the old snippet is told once it has done so for ten minutes.
func TestASnippetOfBeforeIsNotToldOfTwice(t *testing.T) {
	const own, old, strange = "0123456789abcdef", "fedcba9876543210", "0000000000000000"
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var log bytes.Buffer
	front := newTestFront(t, testDownload(), known("alice"), allowAll, nil, &Options{
		Snippet: own, Now: func() time.Time { return now }, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Earlier: map[string]Earlier{old: {Unfit: func(*authz.Download) error { return nil }}},
	})
	for _, step := range []struct {
		after time.Duration
		sends string
		told  bool
	}{
		{0, old, false}, {time.Second, old, false}, {9 * time.Minute, old, false}, {time.Minute, old, true}, {time.Second, old, false},
		{time.Hour, own, false}, {time.Second, strange, true}, {time.Second, old, false},
	} {
		now = now.Add(step.after)
		log.Reset()
		r := nginxAsks("/downloads/a/b.txt")
		r.Header.Set("X-Securefiles-Snippet", step.sends)
		front.ServeHTTP(httptest.NewRecorder(), r)
		if told := strings.Contains(log.String(), "level=WARN msg=\"nginx asks by a snippet"); told != step.told {
			t.Errorf("%s after %v: told %v, want %v: %s", step.sends, step.after, told, step.told, &log)
		}
		if other, _ := front.OtherSnippet(); step.sends != own && other != step.sends {
			t.Errorf("%s: the other is %q", step.sends, other)
		}
	}
}

// A service that knows none of its own, as one whose nginx runs on another host with
// another root, compares nothing.
func TestWithoutASnippetOfItsOwnNothingIsCompared(t *testing.T) {
	var log bytes.Buffer
	front := newTestFront(t, testDownload(), known("alice"), allowAll, nil, &Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	r := nginxAsks("/downloads/a/b.txt")
	r.Header.Set("X-Securefiles-Snippet", "0123456789abcdef")
	front.ServeHTTP(httptest.NewRecorder(), r)
	if other, _ := front.OtherSnippet(); log.Len() > 0 || other != "" {
		t.Errorf("logged %s, other %q", &log, other)
	}
}
