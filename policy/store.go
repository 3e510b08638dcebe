// Package policy decides by a Casbin model and policy.
//
// A [Store] holds one version of the policy at a time, checked and indexed as a
// whole; [Store.Decide] asks it, [Store.Reload] replaces it as a whole or not
// at all. [Check] says what is wrong with a model and a policy, [Store.Explain]
// why a decision came out as it did.
//
// The answer is stock Casbin's, the deciding line included. What stock Casbin
// reads silently in another way than it is written is refused, with file and
// line, before it can decide anything.
//
// policy does not protect against lines that say clearly what nobody meant.
package policy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"securefiles/authz"
)

// A Source says where a model and a policy are.
type Source struct {
	// Model is a file; empty means DefaultModel.
	Model string
	// Policy is a file.
	Policy string
}

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
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A snapshot is one version of the policy. It is immutable.
type snapshot struct {
	generation uint64
	digest     [sha256.Size]byte // of model and policy as read
	file       string            // the policy's base name
	lines      int
	loadedAt   time.Time
	took       time.Duration
	table      *table
	engine     *engine
	reserved   []uint64 // a bit for each symbol: roles, which no subject may be called
	findings   []Finding
}

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

	current atomic.Pointer[snapshot]
	refusal atomic.Pointer[refusal] // nil while the newest version is served

	loading sync.Mutex // one reload at a time

	reading func(part float64) // told how much of the policy is read; may be nil
}

// A refusal is what became of the newest version.
type refusal struct {
	err  error
	took time.Duration
}

// Open loads a policy. The error is a *LoadError where a version was read and
// refused.
func Open(ctx context.Context, source Source, opts *Options) (*Store, error) {
	return openWatched(ctx, source, opts, nil)
}

func openWatched(ctx context.Context, source Source, opts *Options, reading func(part float64)) (*Store, error) {
	s := &Store{source: source, reading: reading}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Now == nil {
		s.opts.Now = time.Now
	}
	if err := s.Reload(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Files returns the files that the policy depends on, for whoever watches them.
func (s *Store) Files() []string {
	if s.source.Model == "" {
		return []string{s.source.Policy}
	}
	return []string{s.source.Model, s.source.Policy}
}

// Status returns the state of the store.
func (s *Store) Status() Status {
	snap := s.current.Load()
	if snap == nil {
		return Status{}
	}
	st := Status{Generation: snap.generation, Lines: snap.lines, LoadedAt: snap.loadedAt, Duration: snap.took}
	st.Indexed, st.NotIndexed = snap.engine.indexed()
	st.LargestBucket, st.LargestBucketLine = snap.largestBucket()
	st.LongestChain, st.RoleDepth = snap.engine.chain, snap.engine.roleDepth
	if r := s.refusal.Load(); r != nil {
		st.Stale, st.Err, st.Duration = true, r.err, r.took
	}
	return st
}

// Reload reads model and policy, and serves them if nothing is wrong with them
// and anything has changed. After an error the last good version goes on
// serving. Requests are answered meanwhile, each by one version as a whole.
func (s *Store) Reload(ctx context.Context) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	begin := s.opts.Now()
	old := s.current.Load()
	next, err := s.load(ctx, old)
	took := s.opts.Now().Sub(begin)
	if err != nil {
		if ctx.Err() == nil { // the end of the service is no fault of the policy
			s.refusal.Store(&refusal{err, took})
		}
		return err
	}
	if next != old {
		next.loadedAt, next.took = s.opts.Now(), took
		s.current.Store(next)
	}
	s.refusal.Store(nil)
	return nil
}

// load builds the version after old; it is old itself where nothing has
// changed. Files that change while they are read are read again, so that
// neither half of a file is taken for the whole, nor model and policy of two
// versions for one.
func (s *Store) load(ctx context.Context, old *snapshot) (*snapshot, error) {
	for range 3 {
		before := s.stat()
		next, err := s.loadOnce(ctx, old)
		if slices.EqualFunc(before, s.stat(), unchanged) {
			return next, err
		}
	}
	return nil, errors.New("read policy: the files change faster than they can be read")
}

// stat describes the files; nil stands for one that is not there.
func (s *Store) stat() []os.FileInfo {
	var infos []os.FileInfo
	for _, name := range s.Files() {
		info, err := os.Stat(name)
		if err != nil {
			info = nil
		}
		infos = append(infos, info)
	}
	return infos
}

func unchanged(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (s *Store) loadOnce(ctx context.Context, old *snapshot) (*snapshot, error) {
	modelName, modelText, err := s.readModel()
	if err != nil {
		return nil, err
	}
	def, err := parseDefinition(modelName, modelText)
	if err != nil {
		return nil, err
	}
	if s.opts.RequireDomain && !strings.Contains(def.matcher, "r_dom") {
		return nil, s.refuse(modelName, "model-domain", "there are several downloads, and the model does not ask for dom: add dom to request_definition, policy_definition and the matcher")
	}
	digest := sha256.New()
	_, _ = fmt.Fprintf(digest, "%d:%s", len(modelText), modelText) // never fails
	table, findings, err := s.readTable(ctx, def, digest)
	if err != nil {
		var refused *LoadError
		if errors.As(err, &refused) {
			refused.Findings = append(slices.Clip(def.warnings), refused.Findings...)
		}
		return nil, err
	}
	sum := [sha256.Size]byte(digest.Sum(nil))
	if old != nil && old.digest == sum {
		return old, nil
	}
	if err := s.checkSize(table, old); err != nil {
		return nil, err
	}
	reserved, err := reservedNames(def, table)
	if err != nil {
		return nil, s.refuse(modelName, "model-matcher", "%v", err)
	}
	engine, err := newEngine(def, table.syms, table.rules, table.links, engineOptions{roleDepth: s.opts.RoleDepth})
	if err != nil {
		return nil, s.refuse(modelName, "model-matcher", "%v", err)
	}
	snap := &snapshot{
		generation: 1, digest: sum, file: filepath.Base(s.source.Policy), lines: table.lines,
		table: table, engine: engine, reserved: reserved, findings: append(slices.Clip(def.warnings), findings...),
	}
	if old != nil {
		snap.generation = old.generation + 1
	}
	return snap, nil
}

func (s *Store) readModel() (name, text string, err error) {
	if s.source.Model == "" {
		return "the built-in model", defaultModel, nil
	}
	b, err := readBounded(s.source.Model, maxModelSize)
	if err != nil {
		return "", "", fmt.Errorf("read model: %w", err)
	}
	return s.source.Model, string(b), nil
}

// readBounded reads a file; one that is larger is cut short one byte after the
// limit, for its parser to refuse.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read-only
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// openRegular opens a file, but no directory, device or pipe, which could keep
// the reader waiting for ever.
func openRegular(name string) (*os.File, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("is not a regular file")}
	}
	return os.Open(name)
}

func (s *Store) readTable(ctx context.Context, def *definition, digest hash.Hash) (*table, []Finding, error) {
	f, err := openRegular(s.source.Policy)
	if err != nil {
		return nil, nil, fmt.Errorf("read policy: %w", err)
	}
	defer f.Close() //nolint:errcheck // read-only
	in := io.TeeReader(f, digest)
	if info, err := f.Stat(); err == nil && s.reading != nil {
		in = &watchedReader{in: in, size: info.Size(), reading: s.reading}
	}
	return loadTable(ctx, s.source.Policy, in, def)
}

// checkSize refuses a version that is empty or has lost over half of its lines:
// it is more likely a file cut short than somebody's will.
func (s *Store) checkSize(t *table, old *snapshot) error {
	if s.opts.AllowShrink {
		return nil
	}
	if t.rules.len() == 0 {
		return s.refuse(s.source.Policy, "policy-empty", "there is no p line, so everybody would be refused: add one, or set policy.allow_shrink to mean it")
	}
	if old != nil && 2*t.lines < old.lines {
		return s.refuse(s.source.Policy, "policy-shrunk", "only %d of %d lines are left: if that is meant, set policy.allow_shrink and load it again", t.lines, old.lines)
	}
	return nil
}

func (s *Store) refuse(file, rule, format string, args ...any) error {
	return &LoadError{[]Finding{{File: file, Rule: rule, Message: fmt.Sprintf(format, args...)}}}
}

// largestBucket returns the most lines that no index tells apart, and one of
// them; 0 where there is none.
func (s *snapshot) largestBucket() (size, line int) {
	if s.table.rules.len() == 0 {
		return 0, 0
	}
	return s.engine.plan.bucket, int(s.table.rules.lines[s.engine.plan.bucketRow])
}

// reservedNames are the roles of the policy, and those that the matcher or a rule
// asks for, which nobody may have. Those get their symbols here, so that it must
// come before any index.
//
// A role definition counts where it is asked anything of the subject, in
// whatever way that is written: g(r.sub, …), g((r.sub), …), g(r.sub + "", …).
func reservedNames(def *definition, t *table) ([]uint64, error) {
	definitions, roles := map[string]bool{"g": true}, []symbol(nil)
	read := func(calls []functionCall) {
		for _, c := range calls {
			if _, isRole := def.roles[c.function]; !isRole || !c.arguments[0].asks("sub") {
				continue
			}
			definitions[c.function] = true
			for _, text := range c.texts[1] {
				if text != "" && text[0] != '@' { // no subject is called so
					roles = append(roles, t.syms.intern(text))
				}
			}
		}
	}
	read(def.calls)
	seen := make([]bool, t.syms.len())
	for _, c := range def.calls {
		if c.function != "eval" {
			continue
		}
		for _, col := range c.arguments[0].columns {
			for _, rule := range t.rules.cols[col] {
				if seen[rule] {
					continue
				}
				seen[rule] = true
				calls, err := ruleCalls(def, t.syms.text(rule))
				if err != nil { // it compiled before
					return nil, fmt.Errorf("read the rule %q: %w", t.syms.text(rule), err)
				}
				read(calls)
			}
		}
	}
	for definition := range definitions {
		for _, link := range t.links[definition] {
			roles = append(roles, link.role)
		}
	}
	names := make([]uint64, t.syms.len()/64+1)
	for _, role := range roles {
		names[role/64] |= 1 << (role % 64)
	}
	return names, nil
}

// Decide asks the policy. A subject that is empty, begins with @ or is called
// like a role is authz.ErrReservedSubject; any error denies.
func (s *Store) Decide(_ context.Context, q authz.Query) (authz.Decision, error) {
	_, d, err := s.decide(q)
	return d, err
}

// decide returns the version that decided, too.
func (s *Store) decide(q authz.Query) (snap *snapshot, d authz.Decision, err error) {
	defer func() {
		if r := recover(); r != nil { // Casbin's own functions panic
			d, err = authz.Decision{}, fmt.Errorf("decide: %v", r)
		}
	}()
	snap = s.current.Load()
	d, err = snap.decide(&q)
	return snap, d, err
}

// isReserved reports whether a name is a role, which no subject may be called.
func (s *snapshot) isReserved(name symbol) bool { return s.reserved[name/64]>>(name%64)&1 == 1 }

func (s *snapshot) decide(q *authz.Query) (authz.Decision, error) {
	d := authz.Decision{Generation: s.generation}
	if q.Principal.Subject == "" || q.Principal.Subject[0] == '@' {
		return d, fmt.Errorf("%w: %q is no name of a subject", authz.ErrReservedSubject, q.Principal.Subject)
	}
	subject := s.engine.lookup(q.Principal.Subject)
	if subject != noSymbol && s.isReserved(subject) {
		return d, fmt.Errorf("%w: %q is a role", authz.ErrReservedSubject, q.Principal.Subject)
	}
	allowed, row, err := s.engine.decide(q, subject)
	if err != nil {
		return d, fmt.Errorf("decide: %w", err)
	}
	if allowed {
		d.Effect = authz.Allow
	}
	if row >= 0 {
		d.File, d.Line = s.file, int(s.table.rules.lines[row])
	}
	return d, nil
}
