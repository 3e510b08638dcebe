package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"securefiles/authz"
)

// sourceBasic names the source in metrics.
const sourceBasic = "htpasswd"

const (
	defaultRealm    = "downloads"
	defaultRemember = time.Minute
	maxRemembered   = 4096 // verified credentials
	maxLogins       = 256  // requests that wait, also those for the same check
	// maxProlonged is how many times as long as it is remembered a password is not
	// verified again while it is used.
	maxProlonged = 60
	// answerTime is what of the web server's patience is not for checks.
	answerTime = 300 * time.Millisecond
	// maxPasswordBytes is where bcrypt stops reading: the rest of a longer
	// password would count for nothing.
	maxPasswordBytes = 72
	// maxAuthorization leaves room for the longest user and password in
	// base64.
	maxAuthorization = 512
)

// BasicOptions are what a Basic can do without.
type BasicOptions struct {
	// Realm is what a browser shows when it asks for a password: printable
	// ASCII without `"` and `\`. Empty means "downloads".
	Realm string
	// Remember is how long a verified password is not verified again. Zero
	// means a minute; less means not at all. Each use prolongs it, up to sixty
	// times as long in all.
	Remember time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Basic checks HTTP Basic credentials (RFC 7617) against an htpasswd file.
// It is safe for concurrent use. The zero Basic answers with an error.
//
// The file holds lines as `htpasswd -B` (bcrypt, cost 4 to 14) or `openssl
// passwd -6` and `-5` (SHA-crypt, at most 500,000 rounds) write them. Weaker
// hashes are refused.
//
// A check costs tens to hundreds of milliseconds of a core, so checks use at
// most half of the processors, and as many may wait as have their turn before the
// web server has no more patience: checks are timed. Verified credentials are
// remembered for a short time. An unknown user costs what most users of the
// file cost: in a file of several schemes, time can tell which scheme a user
// has.
type Basic struct {
	file      string
	challenge string
	remember  time.Duration
	now       func() time.Time

	reloading sync.Mutex // one reload at a time, so that the latest read wins
	users     atomic.Pointer[users]
	failed    atomic.Pointer[error] // why the last reload did, or nil

	secret *secret
	// remembered maps the digest of verified credentials to when they must
	// be verified again. Wrong ones are never kept.
	remembered *otter.Cache[digest, verification]
	// checks makes one of the same checks at the same time: a page with a
	// hundred pictures asks a hundred times at once.
	checks    singleflight.Group
	semaphore *semaphore
	waiters   *waiters
	running   int          // checks at a time
	patience  atomic.Int64 // of the web server, in nanoseconds
	took      atomic.Int64 // what a check takes, in nanoseconds
}

// A verification is of right credentials.
type verification struct {
	until time.Time // when they must be verified again,
	last  time.Time // and at the latest, however often they are used
}

// NewBasic loads the file. Its error lists each wrong line as `file:line:
// message`.
func NewBasic(file string, opts *BasicOptions) (*Basic, error) {
	b, err := newBasic(file, opts)
	if err != nil {
		return nil, err
	}
	if err := b.Reload(context.Background()); err != nil {
		return nil, err
	}
	return b, nil
}

// NewBasicSource returns one as NewBasic does, that has yet to load its file,
// with all that others need to know of it.
func NewBasicSource(file string, opts *BasicOptions) (*Source, error) {
	b, err := newBasic(file, opts)
	if err != nil {
		return nil, err
	}
	type options struct {
		file, challenge string
		remember        time.Duration
	}
	return &Source{
		options:       options{b.file, b.challenge, b.remember},
		Authenticator: b, Name: sourceBasic, Place: "Authorization: Basic, users of " + file, Reads: []string{"Authorization: Basic"},
		waiting: maxLogins, resize: b.waiters.resize, setPatience: b.setPatience,
		Authority: "the file " + file, Challenge: b.challenge, Files: []string{file}, Holds: "users", Rule: "htpasswd",
		Reload: b.Reload, State: b.state, Users: b.Users, Notes: b.notes,
	}, nil
}

// state is what a Source tells of it.
func (b *Basic) state() State {
	s := State{Of: b.file}
	if err := b.failed.Load(); err != nil {
		s.Err = *err
	}
	if u := b.users.Load(); u != nil {
		s.Generation, s.Detail = u.generation, fmt.Sprintf("%d users", len(u.accounts))
	}
	return s
}

// rate is how many there are in a second: 4.2, or 540, and never 5.4e+02.
func rate(perSecond float64) string {
	if perSecond < 10 {
		return fmt.Sprintf("%.2g", perSecond)
	}
	return fmt.Sprintf("%.0f", perSecond)
}

// notes are what checks cost here, and which are too cheap.
func (b *Basic) notes() ([]Note, error) {
	var notes []Note
	for i, cost := range b.Costs() {
		took, err := cost.Measure()
		if err != nil {
			return nil, err
		}
		notes = append(notes, Note{File: b.file, Aside: true, Message: fmt.Sprintf("%s: to check a password takes %s of a processor here", cost, took.Round(100*time.Microsecond))})
		if i == 0 { // of most users
			notes = append(notes, Note{File: b.file, Aside: true, Message: fmt.Sprintf("about %s people can log in within a second here, and %d at once, who wait for up to %s; more get 503 and have to try again. Whoever has logged in is not checked again for a while (remember). If that is too few: more processors, or a lower cost (htpasswd -B -C 10)",
				rate(float64(b.running)/max(took, time.Microsecond).Seconds()), b.running+b.room(max(took, time.Millisecond)), time.Duration(b.patience.Load()))})
		}
		if cost.IsWeak() {
			notes = append(notes, Note{File: b.file, Rule: "htpasswd-cost", Message: fmt.Sprintf("%s: quick to guess for whoever gets hold of the file: set the passwords again with `htpasswd -B -C 12 FILE USER`", cost)})
		}
	}
	return notes, nil
}

// newBasic has yet to load its file.
func newBasic(file string, opts *BasicOptions) (*Basic, error) {
	var o BasicOptions
	if opts != nil {
		o = *opts
	}
	if o.Realm == "" {
		o.Realm = defaultRealm
	}
	if strings.TrimSpace(o.Realm) != o.Realm || strings.ContainsFunc(o.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return nil, &OptionError{"realm", fmt.Sprintf("%q is not a realm: printable ASCII without quotes and backslashes", o.Realm)}
	}
	if o.Remember == 0 {
		o.Remember = defaultRemember
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	// The cache has no expiry of its own: it would need a goroutine.
	remembered, err := otter.New(&otter.Options[digest, verification]{MaximumSize: maxRemembered})
	if err != nil {
		return nil, fmt.Errorf("make the cache of verified credentials: %w", err)
	}
	b := &Basic{
		running:    max(1, runtime.GOMAXPROCS(0)/2),
		file:       file,
		challenge:  `Basic realm="` + o.Realm + `", charset="UTF-8"`,
		remember:   o.Remember,
		now:        o.Now,
		remembered: remembered,
		secret:     newSecret(),
		waiters:    newWaiters(maxLogins),
	}
	b.semaphore = newSemaphore(b.running, 0)
	b.patience.Store(int64(Patience))
	return b, nil
}

// setPatience says how long the web server waits for an answer.
func (b *Basic) setPatience(patience time.Duration) {
	b.patience.Store(int64(patience))
	b.noteTime(time.Duration(b.took.Load()))
}

// noteTime says what a check takes, and lets as many wait as will be done in time.
func (b *Basic) noteTime(took time.Duration) {
	took = max(took, time.Millisecond)
	b.took.Store(int64(took))
	b.semaphore.resize(b.room(took))
}

// room is how many checks may wait that take so long each: the last of them has all
// before it done, and is done itself, while the web server waits.
func (b *Basic) room(took time.Duration) int {
	inTime := int((time.Duration(b.patience.Load()) - answerTime) / took)
	return min(b.running*max(1, inTime-1), maxLogins)
}

// longestWait is until when a check must have its turn to be done in time.
func (b *Basic) longestWait() time.Duration {
	took := time.Duration(b.took.Load())
	return max(took, time.Duration(b.patience.Load())-answerTime-took)
}

// Costs returns what checks of the file's passwords cost, the commonest first.
// It is empty for a file without users.
func (b *Basic) Costs() []Cost {
	if u := b.users.Load(); u != nil {
		return slices.Clone(u.costs)
	}
	return nil
}

// Challenge returns the WWW-Authenticate value that asks for a password.
func (b *Basic) Challenge() string { return b.challenge }

// Reload reads the file again and forgets all verified credentials. After an
// error, the last good version goes on serving, remembered credentials
// included: a removed user stays until the file is mended.
func (b *Basic) Reload(ctx context.Context) (err error) {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	defer func() {
		if err != nil {
			b.failed.Store(&err)
		} else {
			b.failed.Store(nil)
		}
	}()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("read users: %w", err)
	}
	generation := uint64(1)
	last := b.users.Load()
	if last != nil {
		generation = last.generation + 1
	}
	next, err := loadUsers(b.file, generation)
	if err != nil {
		return err
	}
	if last != nil && last.sum == next.sum {
		return nil
	}
	if err := b.measure(next); err != nil {
		return err
	}
	b.users.Store(next)
	// A check that began before may still add its result. It does no harm:
	// the generation is part of the key.
	b.remembered.InvalidateAll()
	return nil
}

// measure times a check of what most users of the file have.
func (b *Basic) measure(u *users) error {
	cost := newCost(decoyForEmpty, 0)
	if len(u.costs) > 0 {
		cost = u.costs[0]
	}
	took, err := cost.Measure()
	if err != nil {
		return err
	}
	b.noteTime(took)
	return nil
}

// Authenticate checks the Authorization header. None, or one of another
// scheme, is authz.ErrNoCredentials. One that is malformed, came more than
// once or is wrong is an *authz.CredentialsError with a challenge. An
// *authz.UnavailableError says that it could not be checked: ErrBusy, not in
// time.
//
// The context plays no part: a check may serve several requests, and all
// waiting is bounded.
func (b *Basic) Authenticate(_ context.Context, q *authz.Question) (authz.Principal, error) {
	u := b.users.Load()
	if u == nil {
		return authz.Principal{}, &authz.UnavailableError{Source: sourceBasic, Err: errors.New("no htpasswd file is loaded")}
	}
	value, err := onlyValue(q.Header, "Authorization")
	if err != nil {
		return b.refuse(err)
	}
	user, password, err := parseBasic(value)
	if errors.Is(err, authz.ErrNoCredentials) {
		return authz.Principal{}, authz.ErrNoCredentials
	}
	if err != nil {
		return b.refuse(err)
	}
	ok, err := b.verify(u, caller(q.IP), user, password)
	if err != nil {
		return authz.Principal{}, &authz.UnavailableError{Source: sourceBasic, Err: err}
	}
	if !ok {
		return b.refuse(errors.New("unknown user or wrong password"))
	}
	return authz.Principal{Subject: user, Source: sourceBasic}, nil
}

func (b *Basic) refuse(err error) (authz.Principal, error) {
	return authz.Principal{}, &authz.CredentialsError{Source: sourceBasic, Problem: err.Error(), Challenge: b.challenge}
}

// verify reports whether the file has the user with the password. Known and
// unknown users take the same steps.
func (b *Basic) verify(u *users, from netip.Addr, user, password string) (bool, error) {
	a, known := u.accounts[user]
	if !known {
		a = u.decoy
	}
	// The generation stands for the file, the user's hash in it included.
	key := b.secret.digest(strconv.FormatUint(u.generation, 10), user, password)
	now := b.now()
	if v, ok := b.remembered.GetIfPresent(key); ok && now.Before(v.until) {
		b.prolong(key, v, now)
		return true, nil
	}
	leave, err := b.waiters.enter(from)
	if err != nil {
		return false, err
	}
	defer leave()
	result, err, _ := b.checks.Do(string(key[:]), func() (any, error) {
		waiting, cancel := context.WithTimeout(context.Background(), b.longestWait())
		defer cancel()
		if err := b.semaphore.enter(waiting, from); err != nil {
			return false, err
		}
		defer b.semaphore.leave()
		start := time.Now()
		ok := a.MatchesPassword(password) && known
		b.noteTime((7*time.Duration(b.took.Load()) + time.Since(start)) / 8)
		if ok {
			now := b.now()
			b.remembered.Set(key, verification{now.Add(b.remember), now.Add(maxProlonged * b.remember)})
		}
		return ok, nil
	})
	if err != nil {
		return false, err
	}
	return result.(bool), nil
}

// prolong lets credentials that are used be remembered for longer. Not each use need
// be written down.
func (b *Basic) prolong(key digest, v verification, now time.Time) {
	until := now.Add(b.remember)
	if until.After(v.last) {
		until = v.last
	}
	if until.Sub(v.until) > b.remember/10 {
		b.remembered.Set(key, verification{until, v.last})
	}
}

// Format keeps hashes and the key out of every %v, %+v and %#v.
func (b *Basic) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "htpasswd %s", b.file) }

// parseBasic takes the value of an Authorization header apart: `Basic`, blanks
// and the base64 form of `user:password` (RFC 7617 section 2). Its errors
// quote nothing.
func parseBasic(value string) (user, password string, err error) {
	blob, err := schemeValue(value, "Basic")
	if err != nil {
		return "", "", err
	}
	if len(value) > maxAuthorization {
		return "", "", errors.New("the credentials are longer than 512 bytes")
	}
	// Go's decoder skips line breaks and ignores spare bits. Only what encodes
	// back to the same is accepted.
	text, err := base64.StdEncoding.DecodeString(blob)
	if err != nil || base64.StdEncoding.EncodeToString(text) != blob {
		return "", "", errors.New("the credentials are not base64")
	}
	user, password, found := strings.Cut(string(text), ":")
	if !found {
		return "", "", errors.New("the credentials have no colon")
	}
	if err := authz.ValidSubject(user); err != nil {
		return "", "", fmt.Errorf("the user %w", err)
	}
	switch {
	case password == "":
		return "", "", errors.New("the password is empty")
	case len(password) > maxPasswordBytes:
		return "", "", errors.New("the password is longer than 72 bytes")
	case strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", "", errors.New("the password holds a control character")
	}
	return user, password, nil
}
