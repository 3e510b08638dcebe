// Package limit bounds what anybody takes: requests, downloads at a time, bytes, and the
// rate of each request.
//
// Limits are a list; each that applies to a request must have something left, and the
// strictest rate counts. One that is per address, and for everybody or for downloads, is
// asked for requests before a password or a policy costs anything; all others once policy
// has allowed, so that what is refused takes nothing from anybody's share.
//
// What a request will take is not known before the web server tells what it delivered:
// until then it is reserved. limit does not bound what the web server delivers without
// telling, nor the bandwidth of a subject by `rate`, which is of one request.
package limit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"securefiles/authz"
	"securefiles/internal/state"
)

// What a limit can be per.
const (
	PerSubject  = "subject"
	PerGroup    = "group"
	PerAddress  = "address"
	PerDownload = "download"
	PerLink     = "link"
)

// Bounds of limits.
const (
	maxLimits = 64
	// unknownSize is what is reserved of a file whose size is not known, where there is no
	// rate.
	unknownSize = 1 << 20
	minPeriod   = time.Second
	maxPeriod   = 366 * 24 * time.Hour
)

// A Limit is one of the list, as people write it.
type Limit struct {
	// Name is the metric's label: [a-z][a-z0-9_-]{0,31}.
	Name string
	// Of says to whom it applies: subjects, groups with their `@`, `download:NAME`,
	// `link:ID`. None means everybody.
	Of []string
	// Per says who shares it: subject, group, address, download or link.
	Per string
	// Requests (`100/1m`), Downloads at a time, Bytes (`10GiB/24h`) and Rate (`2MiB/s`) are
	// what there is. What is empty is not limited.
	Requests  string
	Downloads int
	Bytes     string
	Rate      string
	// IPv6 is how many bits of an IPv6 address tell one from another; zero means 64.
	IPv6 int
	// Observe says that it counts and tells, and refuses nothing.
	Observe bool
}

// An OptionError says what is wrong with one of the list.
type OptionError struct {
	Index   int
	Option  string
	Problem string
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("limits[%d].%s: %s", e.Index, e.Option, e.Problem)
}

// A Store keeps what is counted.
type Store interface {
	// Reserve takes all charges or none; see state.Memory.
	Reserve(ctx context.Context, id string, charges []state.Charge) ([]state.Quota, error)
	// Settle says how many bytes a request took, and Release that it took nothing of its
	// charges.
	Settle(ctx context.Context, id string, bytes int64) error
	Release(ctx context.Context, id string, charges []state.Charge) error
}

// A Result is what came of a limit.
type Result string

// The results.
const (
	Taken    Result = "taken"
	Refused  Result = "refused"
	Observed Result = "observed" // would have been refused
)

// Results returns every result.
func Results() []Result { return []Result{Taken, Refused, Observed} }

// Limits are the list, ready to be asked. They are safe for concurrent use.
type Limits struct{ list []*rule }

// A rule is a Limit that was understood.
type rule struct {
	name      string
	per       string
	bits6     int
	early     bool
	observe   bool
	everybody bool
	subjects  map[string]bool
	groups    []string
	downloads map[string]bool
	links     map[string]bool

	requests, places, bytes int64
	requestsIn, bytesIn     time.Duration
	rate                    int64

	text    Limit
	results map[Result]*atomic.Uint64
}

// New returns an error that joins an *OptionError for each option that cannot be.
func New(list []Limit, downloads []string) (*Limits, error) {
	l := &Limits{}
	var problems []error
	if len(list) > maxLimits {
		problems = append(problems, &OptionError{maxLimits, "name", fmt.Sprintf("there are more than %d limits", maxLimits)})
	}
	for i, one := range list {
		r, err := parse(i, one, downloads)
		problems = append(problems, err...)
		if slices.ContainsFunc(l.list, func(other *rule) bool { return other.name == r.name }) {
			problems = append(problems, &OptionError{i, "name", fmt.Sprintf("%q is the name of another", one.Name)})
		}
		l.list = append(l.list, r)
	}
	return l, errors.Join(problems...)
}

// parse reads a limit, and says all that is wrong with it.
func parse(i int, one Limit, downloads []string) (*rule, []error) {
	r := &rule{text: one, name: one.Name, per: one.Per, bits6: one.IPv6, observe: one.Observe, places: int64(one.Downloads), results: map[Result]*atomic.Uint64{}}
	for _, result := range Results() {
		r.results[result] = new(atomic.Uint64)
	}
	var problems []error
	wrong := func(option, format string, args ...any) {
		problems = append(problems, &OptionError{i, option, fmt.Sprintf(format, args...)})
	}
	if !validName(one.Name) {
		wrong("name", "%q is no name: a letter, then at most 31 of a-z, 0-9, _ and -", one.Name)
	}
	switch one.Per {
	case PerSubject, PerGroup, PerAddress, PerDownload, PerLink:
	default:
		wrong("per", "%q is not one of subject, group, address, download, link", one.Per)
	}
	if r.bits6 == 0 {
		r.bits6 = 64
	}
	if r.bits6 < 16 || r.bits6 > 128 {
		wrong("ipv6", "%d is out of range: 16 to 128 bits of an IPv6 address", one.IPv6)
	}
	r.everybody = len(one.Of) == 0
	r.subjects, r.downloads, r.links = map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, of := range one.Of {
		switch {
		case strings.HasPrefix(of, "@"):
			if err := authz.ValidGroup(of[1:]); err != nil && !authz.IsBuiltinGroup(of) {
				wrong("of", "%q: a group %v", of, err)
			}
			r.groups = append(r.groups, of)
		case strings.HasPrefix(of, "download:"):
			name := of[len("download:"):]
			if !slices.Contains(downloads, name) {
				wrong("of", "%q: there is no such download: there are %s", of, strings.Join(downloads, ", "))
			}
			r.downloads[name] = true
		case strings.HasPrefix(of, "link:"):
			r.links[of[len("link:"):]] = true
		default:
			if err := authz.ValidSubject(of); err != nil && of != authz.Anonymous {
				wrong("of", "%q: a subject %v; write @NAME for a group, download:NAME or link:ID", of, err)
			}
			r.subjects[of] = true
		}
	}
	var err error
	if one.Requests != "" {
		if r.requests, r.requestsIn, err = amount(one.Requests, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 63) }); err != nil {
			wrong("requests", "%q %v, such as 100/1m", one.Requests, err)
		}
	}
	if one.Bytes != "" {
		if r.bytes, r.bytesIn, err = amount(one.Bytes, humanize.ParseBytes); err != nil {
			wrong("bytes", "%q %v, such as 10GiB/24h", one.Bytes, err)
		}
	}
	if one.Rate != "" {
		var in time.Duration
		if r.rate, in, err = amount(strings.Replace(one.Rate, "/s", "/1s", 1), humanize.ParseBytes); err != nil || in != time.Second {
			wrong("rate", "%q is no rate: write bytes a second, such as 2MiB/s", one.Rate)
		}
	}
	if one.Downloads < 0 {
		wrong("downloads", "%d is no number of downloads at a time", one.Downloads)
	}
	if one.Requests == "" && one.Bytes == "" && one.Rate == "" && one.Downloads == 0 {
		wrong("name", "limits nothing: set requests, downloads, bytes or rate")
	}
	r.early = r.per == PerAddress && len(r.subjects)+len(r.groups)+len(r.links) == 0
	return r, problems
}

func validName(name string) bool {
	for i, c := range name {
		if !('a' <= c && c <= 'z' || i > 0 && ('0' <= c && c <= '9' || c == '_' || c == '-')) {
			return false
		}
	}
	return name != "" && len(name) <= 32
}

// amount reads how much there is in which span of time. Its error is a predicate.
func amount(text string, parse func(string) (uint64, error)) (int64, time.Duration, error) {
	much, in, ok := strings.Cut(text, "/")
	if !ok {
		return 0, 0, errors.New("is not an amount and a span of time")
	}
	n, err := parse(much)
	if err != nil || n == 0 || n > 1<<50 {
		return 0, 0, errors.New("has no amount that can be counted in front of the slash")
	}
	if days, ok := strings.CutSuffix(in, "d"); ok {
		if count, err := strconv.ParseUint(days, 10, 16); err == nil {
			in = strconv.FormatUint(count*24, 10) + "h"
		}
	}
	span, err := time.ParseDuration(in)
	if err != nil || span < minPeriod || span > maxPeriod {
		return 0, 0, errors.New("has no span of time from 1s to 366d behind the slash")
	}
	return int64(n), span, nil
}

// Gone returns what the keys begin with of what was limited, and is no more by the list
// that follows, which may be nil. A limit of the same name goes on counting.
func (l *Limits) Gone(next *Limits) []string {
	var prefixes []string
	for _, r := range l.list {
		now := &rule{}
		if next != nil {
			if i := slices.IndexFunc(next.list, func(other *rule) bool { return other.name == r.name }); i >= 0 {
				now = next.list[i]
			}
		}
		for _, k := range []struct {
			kind     state.Kind
			was, now int64
		}{{state.Rate, r.requests, now.requests}, {state.Bytes, r.bytes, now.bytes}, {state.Places, r.places, now.places}} {
			if k.was > 0 && k.now == 0 {
				prefixes = append(prefixes, r.prefix(k.kind))
			}
		}
	}
	return prefixes
}

// prefix begins the keys of what a limit counts.
func (r *rule) prefix(kind state.Kind) string {
	switch kind {
	case state.Rate:
		return r.name + "/requests/"
	case state.Bytes:
		return r.name + "/bytes/"
	}
	return r.name + "/downloads/"
}

// A Count is how often something came of a limit.
type Count struct {
	Limit  string
	Result Result
	Read   func() uint64
}

// Counts returns what came of each limit, since the start.
func (l *Limits) Counts() []Count {
	var counts []Count
	for _, r := range l.list {
		for _, result := range Results() {
			counts = append(counts, Count{r.name, result, r.results[result].Load})
		}
	}
	return counts
}

// Early bounds requests before anybody is asked who they are, by what the store has
// counted; it is nil where there is nothing to ask.
func (l *Limits) Early(store Store) authz.Limiter {
	if !slices.ContainsFunc(l.list, func(r *rule) bool { return r.early && r.requests > 0 }) {
		return nil
	}
	return early{l, store}
}

// Late bounds what policy has allowed, by what the store has counted. What the web server
// delivers, the store is told.
func (l *Limits) Late(store Store) authz.Limiter { return late{l, store} }

type early struct {
	*Limits
	store Store
}

func (l early) Limit(ctx context.Context, out *authz.Outcome) error {
	var taken []taking
	for _, r := range l.list {
		if r.early && r.requests > 0 && (r.everybody || r.downloads[out.Question.Download.Name]) {
			taken = append(taken, taking{r, r.charge(state.Rate, "address:"+r.address(out.Question.IP), 1), authz.ReasonRate})
		}
	}
	// What is asked about early is another question than what is asked about late.
	id := out.Question.ID
	if id != "" {
		id = "early:" + id
	}
	return reserve(ctx, l.store, id, out, taken)
}

type late struct {
	*Limits
	store Store
}

func (l late) Limit(ctx context.Context, out *authz.Outcome) error {
	q := out.Question
	archive := q.Action == authz.ActionList && q.Size > 0                     // its request was taken before
	nothing := q.Method == "HEAD" || q.Action == authz.ActionList && !archive // no file is sent
	var taken []taking
	for _, r := range l.list {
		if !r.applies(out) {
			continue
		}
		if r.rate > 0 && !r.observe && (out.Rate == 0 || r.rate < out.Rate) {
			out.Rate = r.rate
		}
	}
	for _, r := range l.list {
		if !r.applies(out) {
			continue
		}
		for _, who := range r.shares(out) {
			if r.requests > 0 && !r.early && !archive {
				taken = append(taken, taking{r, r.charge(state.Rate, who, 1), authz.ReasonRate})
			}
			if r.places > 0 && !nothing {
				taken = append(taken, taking{r, r.charge(state.Places, who, 1), authz.ReasonBusy})
			}
			if r.bytes > 0 && !nothing {
				taken = append(taken, taking{r, r.charge(state.Bytes, who, min(r.bytes, estimate(q, out.Rate))), authz.ReasonQuota})
			}
		}
	}
	return reserve(ctx, l.store, q.ID, out, taken)
}

// A taking is one charge of a limit, and what it is called where there is nothing left.
type taking struct {
	*rule
	charge state.Charge
	reason authz.Reason
}

var units = map[state.Kind]string{state.Bytes: authz.UnitBytes, state.Places: authz.UnitPlaces}

// reserve takes all, and notes what is left.
func reserve(ctx context.Context, store Store, id string, out *authz.Outcome, taken []taking) error {
	if len(taken) == 0 {
		return nil
	}
	charges := make([]state.Charge, len(taken))
	for i, t := range taken {
		charges[i] = t.charge
	}
	quotas, err := store.Reserve(ctx, id, charges)
	if err != nil {
		return fmt.Errorf("ask the limits: %w", err)
	}
	if len(quotas) != len(charges) { // the same request was asked about under the limits before a reload
		return fmt.Errorf("ask the limits: %d answers for %d charges", len(quotas), len(charges))
	}
	var over *authz.LimitError
	for i, q := range quotas {
		t := taken[i]
		if q != (state.Quota{}) && !t.observe { // or clients would wait for what nobody refuses
			out.Quotas = append(out.Quotas, authz.Quota{Name: t.name, Limit: t.charge.Limit, Period: t.charge.Period, Unit: units[t.charge.Kind], Remaining: q.Remaining, Reset: q.Reset})
		}
		switch {
		case !q.Over:
		case t.observe:
			t.results[Observed].Add(1)
		case over == nil:
			over = &authz.LimitError{Reason: t.reason, Limit: t.name, Retry: q.Retry}
			t.results[Refused].Add(1)
		}
	}
	if over != nil {
		return over
	}
	for i, q := range quotas {
		if !q.Over {
			taken[i].results[Taken].Add(1)
		}
	}
	if id != "" {
		out.Release = func(ctx context.Context) { _ = store.Release(ctx, id, charges) } // its lease ends by itself
	}
	return nil
}

// applies reports whether the limit is of whom an outcome is about.
func (r *rule) applies(out *authz.Outcome) bool {
	p := out.Principal
	if r.per == PerLink && p.Scope == nil {
		return false
	}
	if r.everybody || r.downloads[out.Question.Download.Name] {
		return true
	}
	if p.Scope != nil && r.links[p.Scope.ID] {
		return true
	}
	if p.Scope == nil && r.subjects[p.Subject] { // a link's user is not its maker
		return true
	}
	return slices.ContainsFunc(r.groups, func(g string) bool { return slices.Contains(p.Groups, g) })
}

// shares are the keys of whoever shares the limit with the request. Nobody's is anybody
// else's: who is not known is told apart by the address, and whoever has a link by it,
// never by its maker.
func (r *rule) shares(out *authz.Outcome) []string {
	p, q := out.Principal, out.Question
	if r.per != PerAddress && r.per != PerDownload && p.Scope != nil {
		return []string{"link:" + p.Scope.ID}
	}
	switch r.per {
	case PerAddress:
		return []string{"address:" + r.address(q.IP)}
	case PerDownload:
		return []string{"download:" + q.Download.Name}
	case PerGroup:
		var keys []string
		for _, g := range p.Groups {
			if slices.Contains(r.groups, g) || len(r.groups) == 0 && !authz.IsBuiltinGroup(g) {
				keys = append(keys, "group:"+g)
			}
		}
		return keys
	}
	if p.IsAnonymous() {
		return []string{"address:" + r.address(q.IP)}
	}
	return []string{"subject:" + p.Subject}
}

// address is what tells a client from another: an IPv4 address, or the network of an IPv6
// address, of which each client has as many as it likes.
func (r *rule) address(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if !ip.IsValid() {
		return "unknown"
	}
	if ip.Is6() {
		if network, err := ip.Prefix(r.bits6); err == nil {
			return network.String()
		}
	}
	return ip.String()
}

func (r *rule) charge(kind state.Kind, who string, cost int64) state.Charge {
	c := state.Charge{Kind: kind, Key: r.prefix(kind) + who, Cost: cost, Observe: r.observe}
	switch kind {
	case state.Rate:
		c.Limit, c.Period = r.requests, r.requestsIn
	case state.Bytes:
		c.Limit, c.Period = r.bytes, r.bytesIn
	default:
		c.Limit = r.places
	}
	return c
}

// estimate is what a request can take, as far as that is known before: its size, the ranges that it
// asks for (RFC 9110 section 14.1.2), else the bytes of a second. With If-Range it can be
// sent the whole file instead.
func estimate(q *authz.Question, rate int64) int64 {
	if q.Size > 0 {
		return q.Size
	}
	fallback := int64(unknownSize)
	if rate > 0 {
		fallback = rate
	}
	if q.IfRange != "" {
		return max(fallback, ranged(q.Range, fallback))
	}
	return ranged(q.Range, fallback)
}

// ranged is how many bytes a Range header asks for; what they are is not known where it
// has none, or one without an end.
func ranged(ranges string, fallback int64) int64 {
	list, ok := strings.CutPrefix(ranges, "bytes=")
	if !ok {
		return fallback
	}
	var sum int64
	for one := range strings.SplitSeq(list, ",") {
		first, last, ok := strings.Cut(strings.Trim(one, " \t"), "-")
		if !ok {
			return fallback
		}
		to, err := strconv.ParseInt(last, 10, 50)
		if err != nil {
			return fallback // open: to the end, wherever that is
		}
		from := int64(0)
		if first == "" { // the last bytes of the file
			to--
		} else if from, err = strconv.ParseInt(first, 10, 50); err != nil || to < from {
			return fallback
		}
		sum += to - from + 1
	}
	return max(1, sum)
}
