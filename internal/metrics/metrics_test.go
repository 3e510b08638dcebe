package metrics

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
)

func scrape(t *testing.T, m *Metrics, accept string) (body, contentType string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	return w.Body.String(), w.Header().Get("Content-Type")
}

func newTestMetrics() *Metrics {
	return New("v1", "abc", []string{"main"}, []string{"htpasswd"}, func() Policy {
		return Policy{Lines: 7, Generation: 3, LoadedAt: time.Unix(1700000000, 0), Stale: true, Indexed: true, UnindexedMax: 5}
	})
}

func TestOutcomesAreCountedUnderTheirLabels(t *testing.T) {
	m := newTestMetrics()
	main := &authz.Question{Download: &authz.Download{Name: "main"}}
	alice := authz.Principal{Subject: "alice"}
	m.Observe(&authz.Outcome{Reason: authz.ReasonDefaultDeny, Question: main, Principal: alice, Source: "htpasswd"}, 30*time.Microsecond)
	m.Observe(&authz.Outcome{Reason: authz.ReasonCredentials, Question: main, Source: "htpasswd"}, time.Second)
	m.Observe(&authz.Outcome{Reason: authz.ReasonAnonymous, Question: main, Principal: authz.AnonymousPrincipal()}, time.Second)
	m.Observe(&authz.Outcome{Reason: authz.ReasonPath}, time.Second)
	m.Observe(&authz.Outcome{Reason: authz.ReasonUnavailable, Question: main}, time.Second)
	m.ObserveDelivery("main", "complete", 100, 50*time.Millisecond)
	m.ObserveDelivery("main", "complete", 0, 50*time.Millisecond)
	m.ObserveDelivery("main", "aborted", 20, time.Hour)
	m.ObserveDelivery("main", "unknown", 0, 0)
	m.ObserveReload(nil, time.Second)
	m.ObserveReload(errors.New("bad"), time.Second)
	body, _ := scrape(t, m, "")
	for _, want := range []string{
		`securefiles_decisions_total{decision="deny",download="main",reason="default-deny"} 1`,
		`securefiles_decisions_total{decision="deny",download="main",reason="credentials"} 1`,
		`securefiles_decisions_total{decision="deny",download="none",reason="path"} 1`,
		`securefiles_decisions_total{decision="allow",download="main",reason="policy"} 0`,
		`securefiles_decision_duration_seconds_bucket{download="main",le="1e-05"} 0`,
		`securefiles_decision_duration_seconds_bucket{download="main",le="5e-05"} 1`,
		`securefiles_identity_total{result="accepted",source="htpasswd"} 1`,
		`securefiles_identity_total{result="refused",source="htpasswd"} 1`,
		`securefiles_identity_total{result="anonymous",source="none"} 1`,
		`securefiles_identity_total{result="unavailable",source="none"} 1`,
		`securefiles_deliveries_total{delivery="complete",download="main"} 2`,
		`securefiles_deliveries_total{delivery="aborted",download="main"} 1`,
		`securefiles_deliveries_total{delivery="none",download="main"} 0`,
		`securefiles_deliveries_total{delivery="unknown",download="main"} 1`,
		`securefiles_delivered_bytes_total{download="main"} 120`,
		`securefiles_delivery_duration_seconds_bucket{download="main",le="0.025"} 0`,
		`securefiles_delivery_duration_seconds_bucket{download="main",le="0.1"} 1`,
		`securefiles_delivery_duration_seconds_count{download="main"} 1`,
		`securefiles_policy_lines 7`,
		`securefiles_policy_generation 3`,
		`securefiles_policy_stale 1`,
		`securefiles_policy_indexed 1`,
		`securefiles_policy_unindexed_lines_max 5`,
		`securefiles_policy_loaded_timestamp_seconds 1.7e+09`,
		`securefiles_policy_reloads_total{result="loaded"} 1`,
		`securefiles_policy_reloads_total{result="refused"} 1`,
		`securefiles_requests_in_flight 0`,
		`securefiles_build_info{commit="abc",goversion="go`,
		`go_goroutines`,
		`process_resident_memory_bytes`,
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("missing: %s", want)
		}
	}
}

func TestRowsAreReadAtEachScrapeAndAddedUp(t *testing.T) {
	m := newTestMetrics()
	one, two, open := 1.0, 20.0, 0.0
	for _, read := range []*float64{&one, &two} {
		m.Func(Counter, "securefiles_session_calls_total", "Calls.", "result", "known", func() float64 { return *read })
	}
	m.Func(Counter, "securefiles_session_calls_total", "Calls.", "result", "failed", func() float64 { return 3 })
	m.Func(Gauge, "securefiles_session_breaker_open", "Left alone.", "", "", func() float64 { return open })
	one, open = 2, 1
	body, _ := scrape(t, m, "")
	for _, want := range []string{
		`securefiles_session_calls_total{result="known"} 22`,
		`securefiles_session_calls_total{result="failed"} 3`,
		"# TYPE securefiles_session_calls_total counter",
		"# TYPE securefiles_session_breaker_open gauge",
		`securefiles_session_breaker_open 1`,
	} {
		if !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
}

// What a counter counted stays counted when others take its place, and a gauge that
// nobody reads any more is nothing.
func TestSeriesOfOneGenerationTakeThePlaceOfThoseBefore(t *testing.T) {
	m := newTestMetrics()
	const name = "securefiles_session_calls_total"
	calls := func(n float64) Series {
		return Series{Counter, name, "Calls.", map[string]string{"result": "known"}, func() float64 { return n }}
	}
	open := Series{Gauge, "securefiles_session_breaker_open", "Left alone.", nil, func() float64 { return 1 }}
	m.Func(Counter, name, "Calls.", "result", "known", func() float64 { return 1000 })
	m.Replace([]Series{calls(1), calls(20), open}, nil)
	has := func(want string) {
		t.Helper()
		if body, _ := scrape(t, m, ""); !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
	has(name + `{result="known"} 1021`)
	has("securefiles_session_breaker_open 1")
	m.Replace([]Series{calls(20), calls(300)}, []Series{calls(1), open}) // the second goes on
	has(name + `{result="known"} 1321`)
	has("securefiles_session_breaker_open 0")
	m.Replace(nil, []Series{calls(20), calls(300)})
	has(name + `{result="known"} 1321`)
	m.Expect([]string{"more"}, []string{"jwt"})
	has(`securefiles_decisions_total{decision="allow",download="more",reason="policy"} 0`)
	has(`securefiles_identity_total{result="refused",source="jwt"} 0`)
}

// Gauges are there while they are read.
func TestGaugesComeAndGo(t *testing.T) {
	m := newTestMetrics()
	names := []string{"policy", "users"}
	m.Gauges("securefiles_reload_stale", "Stale.", "name", func(yield func(string, float64)) {
		for i, name := range names {
			yield(name, float64(i))
		}
	})
	body, _ := scrape(t, m, "")
	if !strings.Contains(body, `securefiles_reload_stale{name="users"} 1`) {
		t.Error(body)
	}
	names = names[:1]
	if body, _ := scrape(t, m, ""); strings.Contains(body, "users") || !strings.Contains(body, `securefiles_reload_stale{name="policy"} 0`) {
		t.Error(body)
	}
}

func TestOpenMetricsOnRequest(t *testing.T) {
	body, contentType := scrape(t, newTestMetrics(), "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(contentType, "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("content type %q", contentType)
	}
}

// S14, S17: whatever clients send, the series stay as many as they were.
func TestNoClientByteBecomesALabel(t *testing.T) {
	m := newTestMetrics()
	count := func() int {
		body, _ := scrape(t, m, "")
		n := 0
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "securefiles_") {
				n++
			}
		}
		return n
	}
	before := count()
	for i := range 1000 {
		for _, reason := range authz.Reasons() {
			m.Observe(&authz.Outcome{
				Reason: reason, Question: &authz.Question{Download: &authz.Download{Name: "main"}},
				Principal: authz.Principal{Subject: fmt.Sprintf("user%d", i)}, Source: "htpasswd",
			}, time.Microsecond)
		}
	}
	if after := count(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
}

func TestInFlightCountsWhatIsBeingServed(t *testing.T) {
	m := newTestMetrics()
	var during string
	h := m.InFlight(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { during, _ = scrape(t, m, "") }))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	after, _ := scrape(t, m, "")
	if !strings.Contains(during, "securefiles_requests_in_flight 1") || !strings.Contains(after, "securefiles_requests_in_flight 0") {
		t.Error("the gauge does not follow the requests")
	}
}

// A dot on a graph leads to the record of a request: of one that was denied, or slow.
func TestExemplarsAreTheRequestIDsOfDenialsAndSlowDecisions(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	denied := func(id string) *authz.Outcome {
		return &authz.Outcome{Question: &authz.Question{ID: id}, Reason: authz.ReasonPath}
	}
	for _, c := range []struct {
		name string
		out  *authz.Outcome
		took time.Duration
		want int
	}{
		{"a denial", denied(id), 0, 2},
		{"a slow denial", denied(id), time.Second, 2},
		{"a denial without an id", denied(""), 0, 0},
		{"an id that nginx did not make", denied(strings.Repeat("x", 32)), 0, 0},
		{"one that no exemplar can hold", denied(strings.Repeat("a", 200)), 0, 0},
		{"no question at all", &authz.Outcome{Reason: authz.ReasonPath}, 0, 0},
	} {
		m := New("", "", []string{"main"}, nil, func() Policy { return Policy{} })
		m.Observe(c.out, c.took)
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, r)
		if n := strings.Count(w.Body.String(), `# {request_id="`+id+`"}`); n != c.want {
			t.Errorf("%s: %d exemplars, want %d", c.name, n, c.want)
		}
		if n := strings.Count(w.Body.String(), "# {request_id="); n != c.want {
			t.Errorf("%s: %d exemplars of any kind", c.name, n)
		}
	}
}
