// Package policy decides by a Casbin model and policy.
//
// A [Store] holds one version of the policy at a time, checked and indexed as a
// whole; [Store.Decide] asks it, [Store.Reload] replaces it as a whole or not
// at all. A [Source] is where the versions come from. Beside it, package lint
// says what is wrong with a model and a policy, package explain why a decision
// came out as it did, and package shadow shows that stock Casbin agrees.
//
// The answer is stock Casbin's, the deciding line included. What stock Casbin
// reads silently in another way than it is written is refused, with file and
// line, before it can decide anything.
//
// policy does not protect against lines that say clearly what nobody meant.
package policy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"securefiles/authz"
	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pace"
	"securefiles/policy/internal/table"
)

// What is wrong with a model or a policy.
type (
	// A Finding is one thing that is wrong, with its place.
	Finding = finding.Finding
	// A Severity says whether a finding keeps a policy from being served.
	Severity = finding.Severity
	// A LoadError says why a version is not served.
	LoadError = finding.LoadError
	// A LateError says that a decision was given up.
	LateError = engine.LateError
)

// The severities.
const (
	SeverityError   = finding.SeverityError
	SeverityWarning = finding.SeverityWarning
)

// Options are what a Store can do without.
type Options struct {
	// AllowShrink accepts a version that is empty or has lost over half of
	// its lines.
	AllowShrink bool
	// RoleDepth is how many roles deep a chain is followed; 0 means 10, as
	// Casbin has it.
	RoleDepth int
	// RequireDomain refuses a model that does not ask for the download's
	// name, which policies of several downloads need.
	RequireDomain bool
	// DecisionTimeout is how long a decision may take: a longer one is given up
	// and denies. 0 means DefaultDecisionTimeout.
	DecisionTimeout time.Duration
	// Zone is where the days and moments of lines that say no zone are; nil means
	// UTC.
	Zone *time.Location
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// DefaultDecisionTimeout is how long a decision may take where nothing else is
// said. nginx waits for two seconds, in which the caller is found out, too.
const DefaultDecisionTimeout = 200 * time.Millisecond

// Status is the state of a Store at one moment.
type Status struct {
	// Generation counts the versions, from 1.
	Generation uint64
	// Lines are the p and g lines of the version being served.
	Lines    int
	LoadedAt time.Time
	// Duration is how long the last attempt to load a version took.
	Duration time.Duration
	// Stale says that a newer version is being refused; Err says why.
	Stale bool
	Err   error
	// Indexed says that decisions need not look at every line; NotIndexed
	// says why they must.
	Indexed    bool
	NotIndexed string
	// LargestBucket is the most lines that no index tells apart, and
	// LargestBucketLine one of them.
	LargestBucket, LargestBucketLine int
	// LongestChain is how many roles the longest chain of them has, RoleDepth
	// how many are followed.
	LongestChain, RoleDepth int
}

// A Store serves the last good version of a policy. It is safe for concurrent
// use.
type Store struct {
	source Source
	opts   Options

	current atomic.Pointer[engine.Version]
	refusal atomic.Pointer[refusal] // nil while the newest version is served

	loading sync.Mutex // one reload at a time
	anew    bool       // what is served was made by another store, of other options
	trail   *trail     // of the version that is served
	whole   *trail     // of the one that it is the beginning of; else its own
}

// A refusal is what became of the newest version.
type refusal struct {
	err  error
	took time.Duration
}

// Open loads a policy. The error is a *LoadError where a version was read and
// refused.
func Open(ctx context.Context, source Source, opts *Options) (*Store, error) {
	s := newStore(source, opts)
	if err := s.Reload(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func newStore(source Source, opts *Options) *Store {
	s := &Store{source: source}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Now == nil {
		s.opts.Now = time.Now
	}
	if s.opts.DecisionTimeout == 0 {
		s.opts.DecisionTimeout = DefaultDecisionTimeout
	}
	return s
}

// Follow opens a policy that is to take the place of this one's, from another source
// or with other options. It is the next version of it: generations are counted on, and
// what it has lost is told by what is served here. Where nothing differs it is the same
// version. Confirmed is what ReloadConfirmed is. This store goes on as it is; whoever
// reloads it meanwhile makes two versions of one generation.
func (s *Store) Follow(ctx context.Context, source Source, opts *Options, confirmed bool) (*Store, error) {
	next := newStore(source, opts)
	s.loading.Lock()
	next.trail, next.whole = s.trail, s.whole
	next.current.Store(s.current.Load())
	s.loading.Unlock()
	next.anew = !reflect.DeepEqual(s.source, source) || !s.opts.means(&next.opts)
	if err := next.reload(ctx, confirmed); err != nil {
		return nil, err
	}
	return next, nil
}

// means reports whether a text means the same under other options.
func (o *Options) means(other *Options) bool {
	zone := func(o *Options) string { return cmp.Or(o.Zone, time.UTC).String() }
	return o.RoleDepth == other.RoleDepth && o.RequireDomain == other.RequireDomain && o.DecisionTimeout == other.DecisionTimeout && zone(o) == zone(other)
}

// Decide asks the policy. A subject that is empty, begins with @ or role: or is called
// like a role is authz.ErrReservedSubject; any error denies.
//
// An error is a *LateError where the decision would take longer than
// Options.DecisionTimeout.
func (s *Store) Decide(ctx context.Context, q authz.Query) (authz.Decision, error) {
	return s.current.Load().DecideWithin(ctx, &q)
}

// Now decides by the version that is served now, and at this moment, whatever is loaded
// after: for questions that belong together.
func (s *Store) Now() authz.Decider {
	m := moment{Version: s.current.Load()}
	m.FixMoment(&m.at)
	return m
}

type moment struct {
	*engine.Version
	at authz.Query // of which the moment counts
}

func (m moment) Decide(ctx context.Context, q authz.Query) (authz.Decision, error) {
	if q.At.IsZero() {
		q.At = m.at.At
	}
	return m.DecideWithin(ctx, &q)
}

// Version returns the version that is being served, for the packages beside
// this one; nil in a Store that was never opened.
func (s *Store) Version() *engine.Version { return s.current.Load() }

// Zone is where days and moments are that say no zone.
func (s *Store) Zone() *time.Location { return cmp.Or(s.opts.Zone, time.UTC) }

// Status returns the state of the store.
func (s *Store) Status() Status {
	v := s.current.Load()
	if v == nil {
		return Status{}
	}
	st := Status{Generation: v.Generation, Lines: v.Table.Lines, LoadedAt: v.LoadedAt, Duration: v.Took}
	st.Indexed, st.NotIndexed = v.Engine.Indexed()
	st.LargestBucket, st.LargestBucketLine = v.LargestBucket()
	st.LongestChain, st.RoleDepth = v.Engine.Chain, v.Engine.RoleDepth
	if r := s.refusal.Load(); r != nil {
		st.Stale, st.Err, st.Duration = true, r.err, r.took
	}
	return st
}

// Reload reads model and policy, and serves them if nothing is wrong with them
// and anything has changed. After an error the last good version goes on
// serving. Requests are answered meanwhile, each by one version as a whole.
//
// A file that looks cut short, the beginning of what is served and without lines
// that deny, is an error: see ReloadConfirmed.
func (s *Store) Reload(ctx context.Context) error { return s.reload(ctx, false) }

// ReloadConfirmed is Reload where somebody says that what is there is meant,
// though it looks cut short.
func (s *Store) ReloadConfirmed(ctx context.Context) error { return s.reload(ctx, true) }

func (s *Store) reload(ctx context.Context, confirmed bool) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	begin := s.opts.Now()
	old := s.current.Load()
	next, trail, err := s.load(ctx, old, confirmed)
	took := s.opts.Now().Sub(begin)
	if err != nil {
		if ctx.Err() == nil { // the end of the service is no fault of the policy
			s.refusal.Store(&refusal{err, took})
		}
		return err
	}
	if next != old {
		next.LoadedAt, next.Took = s.opts.Now(), took
		s.current.Store(next)
	}
	s.anew = false
	s.trail = trail // the same text may be in another file now
	if next.Kept == nil {
		s.whole = trail
	}
	s.refusal.Store(nil)
	return nil
}

// load builds the version after old; it is old itself where nothing has
// changed. What changes while it is read is read again, so that neither half of
// a file is taken for the whole, nor model and policy of two versions for one.
func (s *Store) load(ctx context.Context, old *engine.Version, confirmed bool) (*engine.Version, *trail, error) {
	for range tries {
		text, err := s.source.Open(ctx)
		if err != nil {
			return nil, nil, err
		}
		next, trail, err := s.version(ctx, text, old, confirmed)
		_ = text.Policy.Close() // it was only read
		if text.Whole == nil || text.Whole() {
			return next, trail, err
		}
	}
	return nil, nil, errUnsteady
}

func (s *Store) version(ctx context.Context, text *Text, old *engine.Version, confirmed bool) (*engine.Version, *trail, error) {
	m, err := model.Parse(text.ModelName, text.Model)
	if err != nil {
		return nil, nil, err
	}
	if s.opts.RequireDomain && !m.Root.Asks("dom") {
		missing := m.WithoutDomain()
		if missing.Severity == SeverityError {
			return nil, nil, &LoadError{Findings: []Finding{missing}}
		}
		m.Warnings = append(m.Warnings, missing)
	}
	reading := table.Options{Zone: s.opts.Zone}
	if old != nil { // somebody is served meanwhile
		reading.Last, reading.Pace = old.Table, new(pace.Pace)
	}
	trail := newTrail(s.whole, text.File, m)
	digest := sha256.New()
	_, _ = fmt.Fprintf(digest, "%d:%s", len(text.Model), text.Model) // never fails
	t, findings, err := table.Read(ctx, text.PolicyName, io.TeeReader(text.Policy, io.MultiWriter(digest, trail)), m, reading)
	if err != nil {
		var refused *LoadError
		if errors.As(err, &refused) {
			refused.Findings = append(slices.Clip(m.Warnings), refused.Findings...)
		}
		return nil, nil, err
	}
	sum := [sha256.Size]byte(digest.Sum(nil))
	trail.finish()
	left, isCut := trail.cutOf(s.whole)
	isCut = isCut && !confirmed
	if old != nil && !s.anew && old.Digest == sum && isCut == (old.Kept != nil) {
		return old, trail, nil
	}
	if err := s.checkSize(text.PolicyName, t, m, old); err != nil {
		return nil, nil, err
	}
	var kept map[string]bool
	if isCut {
		behind := s.trail.lineOf(left)
		if line := engine.LostDeny(s.trail.model, old.Table, behind); line > 0 {
			return nil, nil, refuse(text.PolicyName, "policy-cut", "is the beginning of what is served, %d of %d lines: without line %d somebody would have more access; write the rest, or send SIGHUP if it is meant",
				behind, s.trail.count, line)
		}
		if trail.losesEnd(s.whole, left) {
			return nil, nil, refuse(text.PolicyName, "policy-cut", "is the beginning of what is served, cut in line %d, which has a beginning or an end: what is left of it may hold at any time; write the rest, or send SIGHUP if it is meant",
				trail.count)
		}
		kept = lostRoles(old, behind)
	}
	v, err := engine.NewVersion(m, t, engine.Options{RoleDepth: s.opts.RoleDepth, Timeout: s.opts.DecisionTimeout, Now: s.opts.Now, Pace: reading.Pace})
	if err != nil {
		return nil, nil, refuse(text.ModelName, "model-matcher", "%v", err)
	}
	v.Generation, v.Digest, v.File, v.Kept = 1, sum, filepath.Base(text.PolicyName), kept
	v.Findings = append(slices.Clip(m.Warnings), findings...)
	if old != nil {
		v.Generation = old.Generation + 1
	}
	return v, trail, nil
}

// checkSize refuses a version that is empty or has lost over half of its lines:
// it is more likely a file cut short than somebody's will. One that is empty is
// never served where it may let everybody in.
func (s *Store) checkSize(name string, t *table.Table, m *model.Model, old *engine.Version) error {
	if t.Rows.Len() == 0 && m.AsksPolicy && m.Effect != model.DenyOverride && m.MayHoldForNothing(m.Root) {
		return refuse(name, "policy-empty", "there is no p line, and where there is none the matcher may hold for everybody: add a line that allows nothing")
	}
	if s.opts.AllowShrink {
		return nil
	}
	if t.Rows.Len() == 0 {
		return refuse(name, "policy-empty", "there is no p line, so everybody would be refused: add one, or set policy.allow_shrink to mean it")
	}
	if old != nil && 2*t.Lines < old.Table.Lines {
		return refuse(name, "policy-shrunk", "only %d of %d lines are left: if that is meant, set policy.allow_shrink and load it again", t.Lines, old.Table.Lines)
	}
	return nil
}

func refuse(file, rule, format string, args ...any) error {
	return &LoadError{Findings: []Finding{{File: file, Rule: rule, Message: fmt.Sprintf(format, args...)}}}
}
