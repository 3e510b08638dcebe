// Package metrics counts what the service does, for Prometheus.
//
// Every label takes its values from a closed list that the configuration makes;
// nothing that a client sends becomes a label. It is the only package that
// imports the Prometheus client.
package metrics

import (
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"securefiles/authz"
)

// noDownload is the label of a request whose path belongs to no download, and
// noSource that of one without credentials.
const (
	noDownload = "none"
	noSource   = "none"
)

// Policy is the state of the policy at one moment.
type Policy struct {
	Lines        int
	Generation   uint64
	LoadedAt     time.Time
	Stale        bool // a newer version is being refused
	Indexed      bool // decisions need no full scan
	UnindexedMax int  // the most lines that one decision may have to look at
}

// Metrics holds the collectors of one service.
type Metrics struct {
	registry  *prometheus.Registry
	decisions *prometheus.CounterVec
	durations *prometheus.HistogramVec
	identity  *prometheus.CounterVec
	reloads   *prometheus.CounterVec
	reload    prometheus.Histogram
	inFlight  prometheus.Gauge
	shadow    *prometheus.CounterVec
	mismatch  prometheus.Counter

	deliveries *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	lastByte   *prometheus.HistogramVec
	downloads  sync.Map // names of downloads that are, or were

	rows map[string]*row // by name and labels
}

// A row is a series that others read; those of one name and label are added up.
type row struct {
	mu         sync.Mutex
	always     []func() float64
	generation []func() float64 // those that Replace has put there
	past       float64          // what a counter counted before
}

func (r *row) sum() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := r.past
	for _, read := range slices.Concat(r.always, r.generation) {
		total += read()
	}
	return total
}

// Kind says what a series of Func is.
type Kind bool

// The kinds.
const (
	Gauge   Kind = false
	Counter Kind = true // grows only, since the start
)

// Func adds a series that is read at each scrape. The label and its value are of
// closed lists; both empty means none. What is added under a name, label and
// value that are there already is added up with it. Series are added before the
// first scrape.
func (m *Metrics) Func(kind Kind, name, help, label, value string, read func() float64) {
	one := Series{Kind: kind, Name: name, Help: help}
	if label != "" {
		one.Labels = map[string]string{label: value}
	}
	r := m.row(one)
	r.always = append(r.always, read)
}

// A Series is what Func adds.
type Series struct {
	Kind       Kind
	Name, Help string
	Labels     map[string]string
	Read       func() float64
}

// Replace adds series as Func does, in the place of those that it added before: what
// the counters of the ended ones, which nothing counts any more, came to stays counted.
// It must not be called twice at a time.
func (m *Metrics) Replace(series, ended []Series) {
	reads := map[*row][]func() float64{}
	for _, s := range series {
		r := m.row(s)
		reads[r] = append(reads[r], s.Read)
	}
	past := map[*row]float64{}
	for _, s := range ended {
		if s.Kind == Counter {
			past[m.row(s)] += s.Read()
		}
	}
	for _, r := range m.rows {
		r.mu.Lock()
		r.generation, r.past = reads[r], r.past+past[r]
		r.mu.Unlock()
	}
}

// row returns the row of a series, which may be new.
func (m *Metrics) row(s Series) *row {
	key := fmt.Sprint(s.Name, s.Labels) // in the order of its keys
	if r, ok := m.rows[key]; ok {
		return r
	}
	r := &row{}
	m.rows[key] = r
	labels := prometheus.Labels(s.Labels)
	if s.Kind == Counter {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: s.Name, Help: s.Help, ConstLabels: labels}, r.sum))
	} else {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: s.Name, Help: s.Help, ConstLabels: labels}, r.sum))
	}
	return r
}

// Gauges adds gauges of one name, that come and go: read yields their label's value,
// of a closed list, and theirs, at each scrape.
func (m *Metrics) Gauges(name, help, label string, read func(yield func(label string, value float64))) {
	m.registry.MustRegister(&gauges{prometheus.NewDesc(name, help, []string{label}, nil), read})
}

type gauges struct {
	desc *prometheus.Desc
	read func(yield func(label string, value float64))
}

// Describe is prometheus.Collector's.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

// Collect is prometheus.Collector's.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	g.read(func(label string, value float64) {
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, value, label)
	})
}

// New registers the collectors. The downloads and identity sources are the
// names that requests will be counted under; policy is asked at each scrape.
func New(version, commit string, downloads, sources []string, policy func() Policy) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		rows:     map[string]*row{},
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "securefiles_decisions_total",
			Help: "Decisions, by download, decision (allow or deny) and reason.",
		}, []string{"download", "decision", "reason"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "securefiles_decision_duration_seconds",
			Help:    "Time from nginx's question to the answer.",
			Buckets: []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 250e-3, 1},
		}, []string{"download"}),
		identity: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "securefiles_identity_total",
			Help: "Attempts to identify a caller, by source and result (accepted, refused, unavailable, anonymous).",
		}, []string{"source", "result"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "securefiles_policy_reloads_total",
			Help: "Policy versions tried, by result (loaded, refused).",
		}, []string{"result"}),
		reload: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "securefiles_policy_reload_duration_seconds",
			Help:    "Time to read, check and index a policy version.",
			Buckets: []float64{1e-3, 5e-3, 25e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "securefiles_requests_in_flight",
			Help: "Questions of nginx that are being answered.",
		}),
	}
	m.shadow = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "securefiles_policy_shadow_decisions_total",
		Help: "Decisions that stock Casbin made again, by result (same, different, failed).",
	}, []string{"result"})
	m.mismatch = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "securefiles_policy_shadow_mismatches_total",
		Help: "Decisions that stock Casbin made differently. There should be none.",
	})
	m.deliveries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "securefiles_deliveries_total",
		Help: "What came of allowed requests, by download and delivery (complete, aborted, none, unknown).",
	}, []string{"download", "delivery"})
	m.bytes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "securefiles_delivered_bytes_total",
		Help: "Bytes of files that were sent, by download.",
	}, []string{"download"})
	m.lastByte = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "securefiles_delivery_duration_seconds",
		Help:    "Time from a request to the last byte of what was sent whole, by download.",
		Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400},
	}, []string{"download"})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "securefiles_build_info",
		Help:        "Always 1; the labels describe the build.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.decisions, m.durations, m.identity, m.reloads, m.reload, m.inFlight, m.shadow, m.mismatch, m.deliveries, m.bytes, m.lastByte, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registerPolicy(policy)
	m.Expect(downloads, sources)
	return m
}

func (m *Metrics) registerPolicy(policy func() Policy) {
	gauge := func(name, help string, value func(Policy) float64) {
		m.Func(Gauge, name, help, "", "", func() float64 { return value(policy()) })
	}
	gauge("securefiles_policy_lines", "Lines of the policy that is being served.", func(p Policy) float64 { return float64(p.Lines) })
	gauge("securefiles_policy_generation", "Versions of the policy since the service began.", func(p Policy) float64 { return float64(p.Generation) })
	gauge("securefiles_policy_loaded_timestamp_seconds", "When the policy that is being served was loaded.", func(p Policy) float64 {
		if p.LoadedAt.IsZero() {
			return 0
		}
		return float64(p.LoadedAt.UnixMilli()) / 1000
	})
	gauge("securefiles_policy_stale", "1 while a newer version of the policy is being refused.", func(p Policy) float64 { return truth(p.Stale) })
	gauge("securefiles_policy_indexed", "1 while decisions are found by index, 0 while each looks at every line.", func(p Policy) float64 { return truth(p.Indexed) })
	gauge("securefiles_policy_unindexed_lines_max", "The most policy lines that the index cannot tell apart.", func(p Policy) float64 { return float64(p.UnindexedMax) })
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Expect has the series exist of requests that will be counted under the names of
// downloads and identity sources, before the first one, so that rates and alerts see
// it. What was counted under others stays.
func (m *Metrics) Expect(downloads, sources []string) {
	for _, d := range append([]string{noDownload}, downloads...) {
		m.durations.WithLabelValues(d)
		m.decisions.WithLabelValues(d, "allow", string(authz.ReasonPolicy))
		m.decisions.WithLabelValues(d, "allow", string(authz.ReasonRedirect))
		for _, r := range authz.Reasons() {
			m.decisions.WithLabelValues(d, "deny", string(r))
		}
	}
	for _, d := range downloads {
		m.downloads.Store(d, true)
		for _, result := range []string{"complete", "aborted", "none", "unknown"} {
			m.deliveries.WithLabelValues(d, result)
		}
		m.bytes.WithLabelValues(d)
		m.lastByte.WithLabelValues(d)
	}
	for _, s := range sources {
		for _, result := range []string{"accepted", "refused", "unavailable"} {
			m.identity.WithLabelValues(s, result)
		}
	}
	m.identity.WithLabelValues(noSource, "anonymous")
	m.identity.WithLabelValues(noSource, "unavailable")
	m.reloads.WithLabelValues("loaded")
	m.reloads.WithLabelValues("refused")
	for _, result := range []string{"same", "different", "failed"} {
		m.shadow.WithLabelValues(result)
	}
}

// Observe counts one outcome. It is an authz.Observer.
func (m *Metrics) Observe(out *authz.Outcome, took time.Duration) {
	download := noDownload
	if d := out.Download(); d != nil {
		download = d.Name
	}
	decision := "deny"
	allowed := out.Allowed() || out.Redirected() || out.Listed()
	if allowed {
		decision = "allow"
	}
	count, duration := m.decisions.WithLabelValues(download, decision, string(out.Reason)), m.durations.WithLabelValues(download)
	var id prometheus.Labels
	if !allowed || took >= slow {
		id = exemplar(out)
	}
	if id != nil {
		count.(prometheus.ExemplarAdder).AddWithExemplar(1, id)
		duration.(prometheus.ExemplarObserver).ObserveWithExemplar(took.Seconds(), id)
	} else {
		count.Inc()
		duration.Observe(took.Seconds())
	}
	if source, result := identityResult(out); result != "" {
		m.identity.WithLabelValues(source, result).Inc()
	}
}

// slow is how long a decision takes that leads to its record.
const slow = 10 * time.Millisecond

// exemplar leads from a graph to a record: the web server's id of the request, where
// it is one of nginx's. Others could be anything, of any length.
func exemplar(out *authz.Outcome) prometheus.Labels {
	if out.Question == nil || len(out.Question.ID) != 32 || strings.Trim(out.Question.ID, "0123456789abcdef") != "" {
		return nil
	}
	return prometheus.Labels{"request_id": out.Question.ID}
}

// identityResult says how the attempt to identify the caller ended; an empty
// result means that it was not reached.
func identityResult(out *authz.Outcome) (source, result string) {
	source = out.Source
	if source == "" {
		source = noSource
	}
	switch {
	case out.Reason == authz.ReasonCredentials, out.Reason == authz.ReasonSubject:
		return source, "refused"
	case out.Principal.IsAnonymous():
		return source, "anonymous"
	case out.Principal.Subject != "":
		return source, "accepted"
	case out.Reason == authz.ReasonUnavailable:
		return source, "unavailable"
	default:
		return "", ""
	}
}

// ObserveDelivery counts what came of an allowed request: how many bytes of the file
// were sent, and how long it took. The delivery is complete, aborted, none or unknown.
// The download of an earlier configuration is none.
func (m *Metrics) ObserveDelivery(download, delivery string, bytes int64, took time.Duration) {
	if _, ok := m.downloads.Load(download); !ok {
		download = noDownload
	}
	m.deliveries.WithLabelValues(download, delivery).Inc()
	m.bytes.WithLabelValues(download).Add(float64(bytes))
	if delivery == "complete" && bytes > 0 {
		m.lastByte.WithLabelValues(download).Observe(took.Seconds())
	}
}

// ObserveReload counts one attempt to load a version of the policy.
func (m *Metrics) ObserveReload(err error, took time.Duration) {
	result := "loaded"
	if err != nil {
		result = "refused"
	}
	m.reloads.WithLabelValues(result).Inc()
	m.reload.Observe(took.Seconds())
}

// ObserveShadow counts one decision that stock Casbin made again, or an error that
// kept it from being made.
func (m *Metrics) ObserveShadow(same bool, err error) {
	switch {
	case err != nil:
		m.shadow.WithLabelValues("failed").Inc()
	case same:
		m.shadow.WithLabelValues("same").Inc()
	default:
		m.shadow.WithLabelValues("different").Inc()
		m.mismatch.Inc()
	}
}

// InFlight counts the requests that next is serving.
func (m *Metrics) InFlight(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.inFlight.Inc()
		defer m.inFlight.Dec()
		next.ServeHTTP(w, r)
	})
}

// Handler serves the metrics as text, or as OpenMetrics to a client that asks
// for it.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}
