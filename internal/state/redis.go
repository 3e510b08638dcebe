package state

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Bounds of a Redis.
const (
	defaultTimeout = time.Second
	// patience is how many failures in a row make a part of it be away, and awayFor how long
	// nobody asks that part then.
	patience = 3
	awayFor  = time.Second
	// checkEach is how often it is looked at whether Redis keeps what it is told.
	checkEach = 15 * time.Second
	// syncShare is how long replicas may take, of the timeout.
	syncShare = 0.7
	// readAtATime bounds what one command asks for.
	readAtATime = 500
	// keptLonger is for how long versions before kept what is of a link after its end.
	keptLonger = 24 * time.Hour
)

// RedisOptions say where Redis or Valkey is, and what it is trusted with.
type RedisOptions struct {
	// Addresses are `unix:/path` or `host:port`: one server; several are nodes of a Cluster,
	// or Sentinels where Sentinel names their master.
	Addresses []string
	Sentinel  string
	Username  string
	Password  string
	TLS       *tls.Config
	// Prefix begins each key.
	Prefix string
	// Replicas is how many must have what a counted link was used for before it is answered.
	Replicas int
	// Local says that a Memory counts for limits while Redis is away.
	Local bool
	// Timeout bounds what is asked at a time; zero means a second.
	Timeout time.Duration
	// Lease is how long a request that is not settled holds its places, and Wait how long
	// it can be settled; zero means an hour, and 24.
	Lease, Wait time.Duration
	// Now stands in the place of Redis's clock; nil means that.
	Now    func() time.Time
	Logger *slog.Logger
}

// A Redis counts in Redis or Valkey, with others that do, and keeps there what must
// outlast them: see [Disk]. What limits count are one hash slot of a Cluster, and all that
// is of links is another. It is safe for concurrent use.
type Redis struct {
	opts   RedisOptions
	client redis.UniversalClient
	local  *Memory // nil where limits fail closed

	instance string // what requests without an id are told apart by
	nobodys  atomic.Uint64
	errors   atomic.Uint64
	ofLimits part
	ofLinks  part
	unfit    atomic.Pointer[string]
	forgot   atomic.Pointer[string]

	queue  sync.Mutex
	asked  []*question // that wait
	asking bool        // somebody asks them

	mu      sync.Mutex
	epoch   epoch
	secret  []byte
	revoked []*Revocation // of more than one link
	at      [2]int64      // of which epoch and revision
	seen    map[string]Link
	told    map[string]bool // what the log has been told

	memoir
}

// A part is all that is of limits, or of links. It is one hash slot, so in a Cluster one node
// has it, and replicas are waited for by links alone: each is away by itself.
type part struct {
	failures atomic.Int32
	awayTil  atomic.Int64 // in nanoseconds
}

// An epoch is how a store is told from one that it came before: it is accepted by an
// operator, and counts what was kept.
type epoch struct{ id, n int64 }

// A ClosedError says why no link is opened though Redis answers.
type ClosedError struct{ Problem string }

func (e *ClosedError) Error() string { return e.Problem }

// errAway says that Redis was asked in vain just before.
var errAway = errors.New("redis is away")

// What closes links.
const (
	problemMissing = "Redis does not hold the epoch of links: it is new, or was emptied, which forgets uses and revocations; `securefiles state accept` opens links again"
	problemFormat  = "Redis holds links of a format that this version does not read: use the version that wrote them, or another state.redis.prefix"
	problemOlder   = "Redis holds less than it has acknowledged: it is an older copy, which forgets uses and revocations; `securefiles state accept` opens links again"
)

// quiet keeps the client's own log out of the service's: what fails is told by errors.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// OpenRedis returns a Redis. One that is away, or not fit for counted links, is no error:
// the log is told.
func OpenRedis(ctx context.Context, opts *RedisOptions) (*Redis, error) {
	redis.SetLogger(quiet{})
	r := &Redis{opts: *opts, instance: rand.Text(), seen: map[string]Link{}, told: map[string]bool{}, memoir: newMemoir()}
	if r.opts.Timeout == 0 {
		r.opts.Timeout = defaultTimeout
	}
	r.opts.Lease, r.opts.Wait = spans(r.opts.Lease, r.opts.Wait)
	if r.opts.Logger == nil {
		r.opts.Logger = slog.New(slog.DiscardHandler)
	}
	if strings.ContainsAny(r.opts.Prefix, "{}") {
		return nil, fmt.Errorf("open the state: the prefix %q has braces, which say what belongs together", r.opts.Prefix)
	}
	if opts.Local {
		r.local = NewMemory(&MemoryOptions{Lease: r.opts.Lease, Wait: r.opts.Wait, Now: opts.Now})
	}
	// Until Redis tells the secret, nothing that was signed is good, and nothing signed will be.
	r.secret = make([]byte, 32)
	if _, err := rand.Read(r.secret); err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	universal := &redis.UniversalOptions{ // Sentinel's own user, if any, is another one
		Username: opts.Username, Password: opts.Password, TLSConfig: opts.TLS, MasterName: opts.Sentinel,
		MaxRetries: 1, DialTimeout: r.opts.Timeout, DialerRetries: 1, ReadTimeout: r.opts.Timeout, WriteTimeout: r.opts.Timeout, PoolTimeout: r.opts.Timeout,
		ContextTimeoutEnabled: true, DisableIdentity: true, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	for _, a := range opts.Addresses {
		universal.Addrs = append(universal.Addrs, strings.TrimPrefix(a, "unix:"))
	}
	if len(universal.Addrs) == 0 {
		return nil, errors.New("open the state: Redis has no address")
	}
	r.client = redis.NewUniversalClient(universal) // a path is a unix socket
	if err := r.check(ctx); err != nil {
		r.tell(err.Error())
	}
	return r, nil
}

// Errors is how often Redis could not be asked.
func (r *Redis) Errors() uint64 { return r.errors.Load() }

// Closed says why links are not opened though Redis answers; empty where they are.
func (r *Redis) Closed() string {
	for _, p := range []*string{r.forgot.Load(), r.unfit.Load()} {
		if p != nil {
			return *p
		}
	}
	return ""
}

func (r *Redis) limits(key string) string { return r.opts.Prefix + "{limits}:" + key }
func (r *Redis) links(key string) string  { return r.opts.Prefix + "{links}:" + key }

// now is what scripts get for the time: nothing, so that they ask Redis.
func (r *Redis) now() string {
	if r.opts.Now == nil {
		return ""
	}
	return strconv.FormatInt(r.opts.Now().UnixMicro(), 10)
}

// part is the one that a key is of.
func (r *Redis) part(key string) *part {
	if strings.HasPrefix(key, r.limits("")) {
		return &r.ofLimits
	}
	return &r.ofLinks
}

// ask asks Redis about a part, with a timeout, unless that is away.
func (r *Redis) ask(ctx context.Context, of *part, do func(ctx context.Context) error) error {
	if time.Now().UnixNano() < of.awayTil.Load() {
		r.errors.Add(1)
		return errAway
	}
	asked, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	err := do(asked)
	if err == nil || errors.Is(err, redis.Nil) {
		of.failures.Store(0)
		return nil
	}
	if ctx.Err() != nil { // who asks has gone
		return ctx.Err()
	}
	r.errors.Add(1)
	var said redis.Error
	if !errors.As(err, &said) && of.failures.Add(1) >= patience {
		of.awayTil.Store(time.Now().Add(awayFor).UnixNano())
	}
	return fmt.Errorf("ask Redis: %w", err)
}

// run runs a script, whose answer is a list of numbers.
func (r *Redis) run(ctx context.Context, script *redis.Script, keys []string, args ...any) (got []int64, err error) {
	args = append([]any{r.now()}, args...)
	err = r.ask(ctx, r.part(keys[0]), func(ctx context.Context) error {
		answer, err := script.Run(ctx, r.client, keys, args...).Result()
		if err == nil {
			got, err = numbers(answer)
		}
		return err
	})
	return got, err
}

// together runs a script like run, in one round trip with others that come while Redis
// answers those before.
func (r *Redis) together(ctx context.Context, script *redis.Script, keys []string, args ...any) (got []int64, err error) {
	args = append([]any{r.now()}, args...)
	err = r.ask(ctx, r.part(keys[0]), func(ctx context.Context) error {
		q := &question{ctx: ctx, script: script, keys: keys, args: args, answered: make(chan struct{})}
		r.queue.Lock()
		r.asked = append(r.asked, q)
		if first := !r.asking; first {
			r.asking = true
			go r.askAll()
		}
		r.queue.Unlock()
		select {
		case <-q.answered:
		case <-ctx.Done():
			return ctx.Err()
		}
		if q.err != nil {
			return q.err
		}
		got, err = numbers(q.answer)
		return err
	})
	return got, err
}

// A question is a script that waits to be run.
type question struct {
	ctx      context.Context
	script   *redis.Script
	keys     []string
	args     []any
	answered chan struct{}
	answer   any
	err      error
}

// askAll runs what waits, until nothing does.
func (r *Redis) askAll() {
	for {
		r.queue.Lock()
		some := r.asked[:min(len(r.asked), readAtATime)]
		r.asked = r.asked[len(some):]
		if len(some) == 0 {
			r.asked, r.asking = nil, false
			r.queue.Unlock()
			return
		}
		r.queue.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), r.opts.Timeout)
		pipe := r.client.Pipeline()
		said := make([]*redis.Cmd, len(some))
		for i, q := range some {
			if q.ctx.Err() == nil { // or nobody waits for it
				said[i] = q.script.EvalSha(ctx, pipe, q.keys, q.args...)
			}
		}
		_, _ = pipe.Exec(ctx) // each has its own error
		for i, q := range some {
			switch {
			case said[i] == nil:
				q.err = q.ctx.Err()
			case redis.HasErrorPrefix(said[i].Err(), "NOSCRIPT"):
				q.answer, q.err = q.script.Eval(ctx, r.client, q.keys, q.args...).Result()
			default:
				q.answer, q.err = said[i].Result()
			}
			close(q.answered)
		}
		cancel()
	}
}

// sure runs a script like run, and waits for replicas: they must have what it wrote.
func (r *Redis) sure(ctx context.Context, script *redis.Script, keys []string, args ...any) (got []int64, err error) {
	if r.opts.Replicas == 0 {
		return r.run(ctx, script, keys, args...)
	}
	args = append([]any{r.now()}, args...)
	err = r.ask(ctx, r.part(keys[0]), func(ctx context.Context) error {
		master, err := r.master(ctx, keys[0])
		if err != nil {
			return err
		}
		var said, waited *redis.Cmd
		both := func(run func(redis.Scripter) *redis.Cmd) error {
			pipe := master.Pipeline() // a connection waits for what it wrote itself
			said = run(pipe)
			waited = r.waitFor(ctx, pipe)
			_, err := pipe.Exec(ctx)
			return err
		}
		err = both(func(p redis.Scripter) *redis.Cmd { return script.EvalSha(ctx, p, keys, args...) })
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			err = both(func(p redis.Scripter) *redis.Cmd { return script.Eval(ctx, p, keys, args...) })
		}
		if err != nil {
			return err
		}
		if err := r.isKept(waited); err != nil {
			return err
		}
		got, err = numbers(said.Val())
		return err
	})
	return got, err
}

// waitFor waits for replicas, and isKept says whether enough of them have it.
func (r *Redis) waitFor(ctx context.Context, pipe redis.Pipeliner) *redis.Cmd {
	return pipe.Do(ctx, "WAIT", r.opts.Replicas, int64(syncShare*float64(r.opts.Timeout/time.Millisecond)))
}

func (r *Redis) isKept(waited *redis.Cmd) error {
	if n, err := waited.Int(); err != nil || n < r.opts.Replicas {
		return errors.Join(fmt.Errorf("%d of %d replicas have it", n, r.opts.Replicas), err)
	}
	return nil
}

// master is the server that has a key.
func (r *Redis) master(ctx context.Context, key string) (*redis.Client, error) {
	switch c := r.client.(type) {
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, key)
	case *redis.Client:
		return c, nil
	}
	return nil, fmt.Errorf("no master of a %T", r.client)
}

// globs is a text as a pattern that matches it alone.
var globs = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `\`, `\\`)

// numbers reads what a script answers.
func numbers(answer any) ([]int64, error) {
	list, ok := answer.([]any)
	if !ok {
		list = []any{answer}
	}
	got := make([]int64, len(list))
	for i, one := range list {
		switch v := one.(type) {
		case int64:
			got[i] = v
		case string:
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("a script answers %q", v)
			}
			got[i] = n
		default:
			return nil, fmt.Errorf("a script answers %v", one)
		}
	}
	return got, nil
}

// Reserve takes the charges of a request, all of them or none; see [Memory.Reserve].
func (r *Redis) Reserve(ctx context.Context, id string, charges []Charge) ([]Quota, error) {
	if len(charges) == 0 {
		return nil, nil
	}
	owner := id
	if id == "" {
		owner = "\x00" + r.instance + strconv.FormatUint(r.nobodys.Add(1), 10)
	}
	keys := make([]string, 1, 1+len(charges))
	keys[0] = r.limits("taken:" + id)
	args := make([]any, 0, 5+5*len(charges))
	args = append(args, r.opts.Lease.Microseconds(), retryWindow.Microseconds(), r.opts.Wait.Microseconds(), owner, truth(id != ""))
	for _, c := range charges {
		keys = append(keys, r.limits("count:"+c.Key))
		args = append(args, int(c.Kind), c.Limit, c.Period.Microseconds(), c.Cost, truth(c.Observe))
	}
	got, err := r.together(ctx, reserveScript, keys, args...)
	if err != nil && r.local != nil && ctx.Err() == nil {
		return r.local.Reserve(ctx, id, charges)
	}
	if err != nil {
		return nil, err
	}
	return quotas(got, len(charges))
}

// Look returns what is left of charges, and takes nothing.
func (r *Redis) Look(ctx context.Context, charges []Charge) ([]Quota, error) {
	if len(charges) == 0 {
		return nil, nil
	}
	keys, args := make([]string, 0, len(charges)), make([]any, 0, 3*len(charges))
	for _, c := range charges {
		keys = append(keys, r.limits("count:"+c.Key))
		args = append(args, int(c.Kind), c.Limit, c.Period.Microseconds())
	}
	got, err := r.run(ctx, lookScript, keys, args...)
	if err != nil && r.local != nil && ctx.Err() == nil {
		return r.local.Look(ctx, charges)
	}
	if err != nil {
		return nil, err
	}
	return quotas(got, len(charges))
}

// quotas reads over, remaining, reset and retry of each charge.
func quotas(got []int64, n int) ([]Quota, error) {
	if len(got) != 4*n {
		return nil, fmt.Errorf("ask Redis: %d numbers for %d charges", len(got), n)
	}
	all := make([]Quota, n)
	for i := range all {
		q := got[4*i : 4*i+4]
		all[i] = Quota{Over: q[0] == 1, Remaining: q[1], Reset: time.Duration(q[2]) * time.Microsecond, Retry: time.Duration(q[3]) * time.Microsecond}
	}
	return all, nil
}

// Settle says that a request has ended, and how many bytes it took; see [Memory.Settle].
func (r *Redis) Settle(ctx context.Context, id string, bytes int64) error {
	if r.local != nil {
		r.local.end(id, max(0, bytes)) // it may have been asked while Redis was away
	}
	return r.end(ctx, id, max(0, bytes))
}

// Release gives back all that a request has taken, of the charges that it came with.
func (r *Redis) Release(ctx context.Context, id string, charges []Charge) error {
	if r.local != nil {
		r.local.release(id, charges) // it may have been asked while Redis was away
	}
	return r.end(ctx, id, -1)
}

func (r *Redis) end(ctx context.Context, id string, bytes int64) error {
	_, err := r.together(ctx, settleScript, []string{r.limits("taken:" + id)}, id, bytes)
	return err
}

// Forget says that nobody will tell what a request took: what was reserved counts, and its
// places are free when their lease ends.
func (r *Redis) Forget(ctx context.Context, id string) error {
	return r.ask(ctx, &r.ofLimits, func(ctx context.Context) error { return r.client.Del(ctx, r.limits("taken:"+id)).Err() })
}

// Use counts a use of a link before it is answered: Redis has acknowledged it when Use
// returns. It reports whether the link is good for it, and how many uses are left.
func (r *Redis) Use(ctx context.Context, use Use) (ok bool, left int, err error) {
	if problem := r.unfit.Load(); problem != nil {
		return false, 0, &ClosedError{*problem}
	}
	known := r.known()
	run := r.sure
	if use.Look {
		run = r.run
	}
	got, err := run(ctx, useScript, []string{r.links("epoch"), r.links("uses:" + use.Link), r.links("request:" + use.Request), r.links("used")},
		known.id, known.n, use.Max, use.Until.UnixMicro(), use.Client, truth(use.Sure), use.Request, truth(use.Continues), truth(use.Look), useWindow.Microseconds(), use.Link)
	if err != nil {
		return false, 0, fmt.Errorf("keep a use: %w", err)
	}
	if err := r.follow(ctx, got[0], epoch{got[2], got[3]}); err != nil {
		return false, 0, err
	}
	return got[0] == 1, int(got[1]), nil
}

// known is the epoch that was seen last.
func (r *Redis) known() epoch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.epoch
}

// follow notes the epoch that a script answered with, or says what is wrong with it.
func (r *Redis) follow(ctx context.Context, code int64, is epoch) error {
	if code < 0 {
		problem := problemMissing
		switch code {
		case -3:
			problem = problemOlder
		case -4:
			problem = problemFormat
		}
		r.forgot.Store(&problem)
		r.tell(problem)
		return &ClosedError{problem}
	}
	r.forgot.Store(nil)
	r.mu.Lock()
	young := is.id > r.epoch.id
	if young && r.epoch.id != 0 {
		r.told = map[string]bool{}
	}
	if young || is.id == r.epoch.id && is.n > r.epoch.n {
		r.epoch = is
	}
	r.mu.Unlock()
	if young {
		return r.read(ctx)
	}
	return nil
}

// read reads the secret of the epoch.
func (r *Redis) read(ctx context.Context) error {
	var text string
	err := r.ask(ctx, &r.ofLinks, func(ctx context.Context) (err error) {
		text, err = r.client.HGet(ctx, r.links("epoch"), "secret").Result()
		return err
	})
	if err != nil {
		return err
	}
	secret, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(secret) < 32 {
		return &ClosedError{"Redis holds no secret for links"}
	}
	r.mu.Lock()
	r.secret = secret
	r.mu.Unlock()
	return nil
}

// Accept makes the store as it is now the one that counts: links are opened again.
func (r *Redis) Accept(ctx context.Context) error {
	got, err := r.sure(ctx, acceptScript, []string{r.links("epoch")}, r.known().id, base64.StdEncoding.EncodeToString(r.Secret()), formatVersion)
	if err != nil {
		return err
	}
	return r.follow(ctx, 1, epoch{id: got[0]})
}

// Secret is a secret of the store's own, for what the service signs for itself.
func (r *Redis) Secret() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.secret
}

// Short says that a request was not answered with all that it asked for: its client may
// try again.
func (r *Redis) Short(ctx context.Context, request string) error {
	_, err := r.run(ctx, shortScript, []string{r.links("request:" + request)}, request, r.links("uses:"))
	return err
}

// Revoke ends links: Redis has acknowledged it when Revoke returns.
func (r *Redis) Revoke(ctx context.Context, end Revocation) error {
	return r.write(ctx, "revoke", true)(r.revokeScript(end))
}

func (r *Redis) revokeScript(end Revocation) (scripted, error) {
	text := ""
	if end.ID == "" {
		encoded, err := json.Marshal(end)
		if err != nil {
			return scripted{}, err
		}
		text = string(encoded)
	}
	return scripted{revokeScript, []string{r.links("epoch"), r.links("revoked"), r.links("revoked:" + end.ID), r.links("ended")}, []any{end.Until.UnixMicro(), end.ID, text, maxRevocations}, errManyRevocations}, nil
}

// write runs a script that answers 0 where there is no room.
func (r *Redis) write(ctx context.Context, what string, sure bool) func(scripted, error) error {
	return func(one scripted, err error) error {
		if err != nil {
			return err
		}
		run := r.run
		if sure {
			run = r.sure
		}
		got, err := run(ctx, one.Script, one.keys, one.args...)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if got[0] == 0 {
			return one.full
		}
		return nil
	}
}

// IsRevoked reports whether a link was ended.
func (r *Redis) IsRevoked(ctx context.Context, l Link) (bool, error) {
	known := r.known()
	got, err := r.run(ctx, revokedScript, []string{r.links("epoch"), r.links("revoked:" + l.ID)}, known.id, known.n)
	if err != nil {
		return false, err
	}
	if err := r.follow(ctx, got[0], epoch{got[1], got[2]}); err != nil || got[0] == 1 {
		return true, err
	}
	list, err := r.revocations(ctx, [2]int64{got[1], got[3]})
	if err != nil {
		return false, err
	}
	return isEnded(l, list), nil
}

// isEnded reports whether one of the revocations is about a link.
func isEnded(l Link, by []*Revocation) bool {
	return slices.ContainsFunc(by, func(one *Revocation) bool { return one.ends(l) })
}

// revocations are those of more than one link, which are read again when there are others.
func (r *Redis) revocations(ctx context.Context, at [2]int64) ([]*Revocation, error) {
	r.mu.Lock()
	list, ok := r.revoked, r.at == at
	r.mu.Unlock()
	if ok {
		return list, nil
	}
	var texts []string
	err := r.ask(ctx, &r.ofLinks, func(ctx context.Context) (err error) {
		texts, err = r.client.ZRange(ctx, r.links("revoked"), 0, -1).Result()
		return err
	})
	if err != nil {
		return nil, err
	}
	list = nil
	for _, text := range texts {
		one := &Revocation{}
		if err := json.Unmarshal([]byte(text), one); err != nil {
			return nil, fmt.Errorf("read a revocation: %w", err)
		}
		list = append(list, one)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// What was read is of this revision, or of a later one, which is read once more.
	if at[0] > r.at[0] || at[0] == r.at[0] && at[1] > r.at[1] {
		r.revoked, r.at = list, at
	}
	return list, nil
}

// Made keeps a link that was made here: Redis has acknowledged it when Made returns.
func (r *Redis) Made(ctx context.Context, l Link) error {
	l.Made = true
	return r.keep(ctx, l)
}

func (r *Redis) keep(ctx context.Context, l Link) error {
	return r.write(ctx, "keep a link", l.Made)(r.linkScript(l, l.Made))
}

// linkScript keeps a link, in the place of another or not.
func (r *Redis) linkScript(l Link, over bool) (scripted, error) {
	text, err := json.Marshal(l)
	return scripted{linkScript, []string{r.links("link:" + l.ID), r.links("all")}, []any{text, l.Expires.UnixMicro(), l.ID, truth(over), maxCounted}, errManyLinks}, err
}

// Seen keeps a link that somebody came with, if it is not known; Redis is told within a
// second. More links than can be kept are not.
func (r *Redis) Seen(l Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) < maxCounted/100 {
		r.seen[l.ID] = l
	}
}

// flush tells Redis which links were seen.
func (r *Redis) flush(ctx context.Context) error {
	r.mu.Lock()
	seen := r.seen
	r.seen = map[string]Link{}
	r.mu.Unlock()
	for _, l := range seen {
		if err := r.keep(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// A redisUse is a use as scripts keep it.
type redisUse struct {
	Client  string `json:"c"`
	Sure    bool   `json:"s"`
	Last    string `json:"l"` // microseconds
	Request string `json:"r"`
	Short   bool   `json:"x"`
}

// Export returns all that is known, as [Disk.Export] does.
func (r *Redis) Export(ctx context.Context, passwords bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		counts, err := r.Counts(ctx)
		if err == nil {
			err = r.flush(ctx)
		}
		if err != nil {
			yield(Entry{}, err)
			return
		}
		exported(counts, r.revokedTogether(ctx), r.kept(ctx, "link:", func(p redis.Pipeliner, key string) func(string, time.Time) (Entry, error) {
			got := p.Get(ctx, key)
			return func(string, time.Time) (Entry, error) {
				l := &Link{}
				err := json.Unmarshal([]byte(got.Val()), l)
				if !passwords {
					l.PasswordHash = ""
				}
				return Entry{Link: l}, err
			}
		}), r.kept(ctx, "uses:", func(p redis.Pipeliner, key string) func(string, time.Time) (Entry, error) {
			got := p.LRange(ctx, key, 0, -1)
			return func(link string, until time.Time) (Entry, error) {
				u := &LinkUses{Link: link, Uses: Uses{Until: until}}
				for _, text := range got.Val() {
					var one redisUse
					if err := json.Unmarshal([]byte(text), &one); err != nil {
						return Entry{}, err
					}
					u.List = append(u.List, &OneUse{Client: one.Client, Sure: one.Sure, Last: time.UnixMicro(number(one.Last)).UTC(), Request: one.Request, Short: one.Short})
				}
				return Entry{Uses: u}, nil
			}
		}), r.kept(ctx, "revoked:", func(p redis.Pipeliner, key string) func(string, time.Time) (Entry, error) {
			got := p.Get(ctx, key)
			return func(id string, _ time.Time) (Entry, error) {
				return Entry{Revocation: &Revocation{ID: id, Until: time.UnixMicro(number(got.Val())).UTC()}}, nil
			}
		}))(yield)
	}
}

// revokedTogether are the revocations of more than one link.
func (r *Redis) revokedTogether(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var texts []string
		err := r.ask(ctx, &r.ofLinks, func(ctx context.Context) (err error) {
			texts, err = r.client.ZRange(ctx, r.links("revoked"), 0, -1).Result()
			return err
		})
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for _, text := range texts {
			one := &Revocation{}
			if err := json.Unmarshal([]byte(text), one); err != nil {
				yield(Entry{}, fmt.Errorf("read a revocation: %w", err))
				return
			}
			if !yield(Entry{Revocation: one}, nil) {
				return
			}
		}
	}
}

// kept are the entries of the keys about links that begin with a prefix. What is asked for
// each is read from its answer, with the rest of the key, and when its link ends.
func (r *Redis) kept(ctx context.Context, prefix string, ask func(redis.Pipeliner, string) func(string, time.Time) (Entry, error)) iter.Seq2[Entry, error] {
	begin := r.links(prefix)
	return func(yield func(Entry, error) bool) {
		master, keys, err := r.keys(ctx, begin)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for some := range slices.Chunk(keys, readAtATime) {
			reads, left, over := make([]func(string, time.Time) (Entry, error), len(some)), make([]*redis.DurationCmd, len(some)), make([]*redis.FloatCmd, len(some))
			var now time.Time
			err := r.ask(ctx, r.part(begin), func(ctx context.Context) (err error) {
				if now, err = r.clock(ctx, master); err != nil {
					return err
				}
				said, err := master.Pipelined(ctx, func(p redis.Pipeliner) error {
					for i, key := range some {
						reads[i], left[i], over[i] = ask(p, key), p.PTTL(ctx, key), p.ZScore(ctx, r.links("used"), strings.TrimPrefix(key, begin))
					}
					return nil
				})
				for _, one := range said { // what is not there is no error, and the first of them
					if err := one.Err(); err != nil && !errors.Is(err, redis.Nil) {
						return err
					}
				}
				if !errors.Is(err, redis.Nil) {
					return err
				}
				return nil
			})
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for i, key := range some {
				if left[i].Val() == -2 { // it has ended meanwhile
					continue
				}
				until := time.UnixMicro(int64(over[i].Val())).UTC()
				if left[i].Val() > 0 { // a version before kept it: links end with a second, and time went on
					until = now.Add(left[i].Val() - keptLonger + time.Second - 1).UTC().Truncate(time.Second)
				}
				e, err := reads[i](strings.TrimPrefix(key, begin), until)
				if err != nil {
					err = fmt.Errorf("read %s: %w", key, err)
				}
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// clock is the time by which keys of versions before end.
func (r *Redis) clock(ctx context.Context, master *redis.Client) (time.Time, error) {
	if r.opts.Now != nil {
		return r.opts.Now(), nil
	}
	return master.Time(ctx).Result()
}

// Restore adds what is not known, as [Disk.Restore] does; replicas that are waited for have
// it then. It can come before Accept.
func (r *Redis) Restore(ctx context.Context, entries iter.Seq2[Entry, error]) (n int, err error) {
	for some, err := range batches(entries, readAtATime) {
		if err == nil {
			err = r.restore(ctx, some)
		}
		if err != nil {
			return n, err
		}
		n += len(some)
	}
	return n, nil
}

// A scripted is a script, and what it is run with.
type scripted struct {
	*redis.Script
	keys []string
	args []any
	full error // what 0 says
}

func (r *Redis) restore(ctx context.Context, some []Entry) error {
	var limits, links []scripted
	for _, e := range some {
		switch {
		case e.Count != nil && !e.Count.Full.IsZero():
			limits = append(limits, scripted{restoreCountScript, []string{r.limits("count:" + e.Count.Key)}, []any{e.Count.Full.UnixMicro()}, nil})
		case e.Link != nil:
			l := *e.Link
			l.Used, l.Revoked = 0, false
			one, err := r.linkScript(l, l.supersedes())
			if err != nil {
				return err
			}
			links = append(links, one)
		case e.Uses != nil:
			args := []any{e.Uses.Until.UnixMicro(), e.Uses.Link}
			for _, one := range e.Uses.List {
				text, err := json.Marshal(redisUse{one.Client, one.Sure, strconv.FormatInt(one.Last.UnixMicro(), 10), one.Request, one.Short})
				if err != nil {
					return err
				}
				args = append(args, text)
			}
			links = append(links, scripted{restoreUsesScript, []string{r.links("epoch"), r.links("uses:" + e.Uses.Link), r.links("used")}, args, nil})
		case e.Revocation != nil:
			one, err := r.revokeScript(*e.Revocation)
			if err != nil {
				return err
			}
			links = append(links, one)
		}
	}
	for _, list := range [][]scripted{limits, links} {
		if err := r.all(ctx, list); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	return nil
}

// all runs scripts about keys of one slot, one after the other, and waits for replicas.
func (r *Redis) all(ctx context.Context, list []scripted) error {
	if len(list) == 0 {
		return nil
	}
	return r.ask(ctx, r.part(list[0].keys[0]), func(ctx context.Context) error {
		master, err := r.master(ctx, list[0].keys[0])
		if err != nil {
			return err
		}
		pipe := master.Pipeline()
		loaded := map[*redis.Script]bool{}
		said := make([]*redis.Cmd, len(list))
		for i, one := range list {
			if !loaded[one.Script] {
				if err := one.Load(ctx, master).Err(); err != nil {
					return err
				}
				loaded[one.Script] = true
			}
			said[i] = one.EvalSha(ctx, pipe, one.keys, append([]any{r.now()}, one.args...)...)
		}
		var waited *redis.Cmd
		if r.opts.Replicas > 0 {
			waited = r.waitFor(ctx, pipe)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		for i, one := range list {
			if n, err := said[i].Int(); err != nil || n == 0 {
				return errors.Join(err, one.full)
			}
		}
		if waited != nil {
			return r.isKept(waited)
		}
		return nil
	})
}

// Links returns the links that were made or seen, and have not ended by their time, by
// their end; with how often each was used, and whether it was revoked.
func (r *Redis) Links(ctx context.Context) ([]Link, error) {
	got, err := r.run(ctx, revokedScript, []string{r.links("epoch"), r.links("revoked:")}, 0, 0)
	if err != nil {
		return nil, err
	}
	now := time.UnixMicro(got[4])
	ended, err := r.revocations(ctx, [2]int64{got[1], got[3]})
	if err != nil {
		return nil, err
	}
	var ids []string
	err = r.ask(ctx, &r.ofLinks, func(ctx context.Context) (err error) {
		ids, err = r.client.ZRangeByScore(ctx, r.links("all"), &redis.ZRangeBy{Min: "(" + strconv.FormatInt(now.UnixMicro(), 10), Max: "+inf"}).Result()
		return err
	})
	if err != nil {
		return nil, err
	}
	var list []Link
	for some := range slices.Chunk(ids, readAtATime) {
		texts, used, over := make([]*redis.StringCmd, len(some)), make([]*redis.IntCmd, len(some)), make([]*redis.StringCmd, len(some))
		err := r.ask(ctx, &r.ofLinks, func(ctx context.Context) error {
			_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i, id := range some {
					texts[i], used[i], over[i] = p.Get(ctx, r.links("link:"+id)), p.LLen(ctx, r.links("uses:"+id)), p.Get(ctx, r.links("revoked:"+id))
				}
				return nil
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		for i := range some {
			var l Link
			if json.Unmarshal([]byte(texts[i].Val()), &l) != nil { // it has ended meanwhile
				continue
			}
			l.PasswordHash, l.Used = "", int(used[i].Val())
			l.Revoked = over[i].Val() != "" || isEnded(l, ended)
			list = append(list, l)
		}
	}
	return list, nil
}

// PasswordOf returns the hash of a link's password; empty where none is known.
func (r *Redis) PasswordOf(ctx context.Context, id string) (string, error) {
	var text string
	err := r.ask(ctx, &r.ofLinks, func(ctx context.Context) (err error) {
		text, err = r.client.Get(ctx, r.links("link:"+id)).Result()
		return err
	})
	if err != nil || text == "" {
		return "", err
	}
	var l Link
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return "", fmt.Errorf("read a link: %w", err)
	}
	return l.PasswordHash, nil
}

// keys are those that begin so, and the server that has them.
func (r *Redis) keys(ctx context.Context, begin string) (*redis.Client, []string, error) {
	master, err := r.master(ctx, begin)
	if err != nil {
		return nil, nil, err
	}
	var keys []string
	for cursor, more := uint64(0), true; more; more = cursor != 0 {
		err := r.ask(ctx, r.part(begin), func(ctx context.Context) error {
			some, next, err := master.Scan(ctx, cursor, globs.Replace(begin)+"*", readAtATime).Result()
			keys, cursor = append(keys, some...), next
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	slices.Sort(keys) // a key can come twice
	return master, slices.Compact(keys), nil
}

// Drop forgets what keys count that begin with a prefix.
func (r *Redis) Drop(ctx context.Context, prefix string) error {
	master, keys, err := r.keys(ctx, r.limits("count:"+prefix))
	if err != nil {
		return err
	}
	for some := range slices.Chunk(keys, readAtATime) {
		if err := r.ask(ctx, &r.ofLimits, func(ctx context.Context) error { return master.Unlink(ctx, some...).Err() }); err != nil {
			return err
		}
	}
	return nil
}

// Counts returns what is counted now, by key.
func (r *Redis) Counts(ctx context.Context) ([]Count, error) {
	begin := r.limits("count:")
	master, keys, err := r.keys(ctx, begin)
	if err != nil {
		return nil, err
	}
	var list []Count
	for some := range slices.Chunk(keys, readAtATime) {
		full, taken := make([]*redis.StringCmd, len(some)), make([]*redis.IntCmd, len(some))
		err := r.ask(ctx, &r.ofLimits, func(ctx context.Context) error {
			_, err := master.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i, key := range some {
					full[i], taken[i] = p.Get(ctx, key), p.ZCard(ctx, key)
				}
				return nil
			})
			if redis.HasErrorPrefix(err, "WRONGTYPE") { // it is one of the two
				return nil
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		for i, key := range some {
			c := Count{Key: strings.TrimPrefix(key, begin), Taken: int(taken[i].Val())}
			if n, err := strconv.ParseInt(full[i].Val(), 10, 64); err == nil {
				c.Full = time.UnixMicro(n)
			}
			if c.Taken > 0 || !c.Full.IsZero() {
				list = append(list, c)
			}
		}
	}
	return list, nil
}

// Reset forgets what a key counts. It reports whether that was anything.
func (r *Redis) Reset(ctx context.Context, key string) (ok bool, err error) {
	err = r.ask(ctx, &r.ofLimits, func(ctx context.Context) error {
		n, err := r.client.Del(ctx, r.limits("count:"+key)).Result()
		ok = n > 0
		return err
	})
	return ok, err
}

// check looks whether Redis keeps what it acknowledges; what it is not fit for is closed.
func (r *Redis) check(ctx context.Context) error {
	conf := map[string]string{}
	var forbidden error
	var replication string
	var found []any
	err := r.ask(ctx, &r.ofLinks, func(ctx context.Context) error {
		master, err := r.master(ctx, r.links("epoch"))
		if err != nil {
			return err
		}
		for _, key := range []string{"appendonly", "appendfsync", "maxmemory-policy"} {
			one, err := master.ConfigGet(ctx, key).Result()
			var said redis.Error
			if errors.As(err, &said) {
				forbidden = err
				break
			}
			if err != nil {
				return err
			}
			conf[key] = one[key]
		}
		if replication, err = master.Info(ctx, "replication").Result(); err != nil {
			var said redis.Error
			if !errors.As(err, &said) {
				return err
			}
		}
		found, err = master.HMGet(ctx, r.links("epoch"), "id", "n", "format").Result()
		return err
	})
	if err != nil {
		return err
	}
	problem := ""
	switch {
	case forbidden != nil:
		r.tell(fmt.Sprintf("Redis does not say how it keeps what it acknowledges (%v): counted links need appendonly yes, appendfsync always and maxmemory-policy noeviction, which nobody has checked", forbidden))
	case conf["appendonly"] != "yes" || conf["appendfsync"] != "always":
		problem = fmt.Sprintf("Redis can lose what it acknowledges: counted links need appendonly yes and appendfsync always, and it has %s and %s", conf["appendonly"], conf["appendfsync"])
	case conf["maxmemory-policy"] != "noeviction":
		problem = fmt.Sprintf("Redis forgets keys when its memory is full: counted links need maxmemory-policy noeviction, and it has %s", conf["maxmemory-policy"])
	}
	if n := field(replication, "connected_slaves:"); n > 0 && r.opts.Replicas == 0 {
		r.tell(fmt.Sprintf("Redis has %d replicas, and none is waited for: what was acknowledged can be lost when one takes over; set state.redis.replicas", n))
	}
	if problem == "" {
		r.unfit.Store(nil)
	} else {
		r.unfit.Store(&problem)
		r.tell(problem)
	}
	is, code := epoch{number(found[0]), number(found[1])}, int64(0)
	if known := r.known(); found[2] != nil && found[2] != formatVersion {
		code = -4
	} else if is.id == 0 {
		code = -2
	} else if is.id < known.id || is.id == known.id && is.n < known.n {
		code = -3
	}
	if err := r.follow(ctx, code, is); err != nil {
		var closed *ClosedError
		if !errors.As(err, &closed) {
			return err
		}
	}
	return nil
}

// field is the number behind a name in what INFO answers.
func field(info, name string) int {
	_, rest, _ := strings.Cut(info, name)
	text, _, _ := strings.Cut(rest, "\r\n")
	n, _ := strconv.Atoi(text)
	return n
}

func number(v any) int64 {
	text, _ := v.(string)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > math.MaxInt64/2 {
		return 0
	}
	return n
}

// tell tells the log, once.
func (r *Redis) tell(problem string) {
	r.mu.Lock()
	told := r.told[problem]
	if len(r.told) > 100 {
		r.told = map[string]bool{}
	}
	r.told[problem] = true
	r.mu.Unlock()
	if !told {
		r.opts.Logger.Error("the state in Redis: "+problem, "addresses", r.opts.Addresses)
	}
}

// forget drops what is of links that are over: surely, by the clock here, and by that of Redis.
func (r *Redis) forget(ctx context.Context) error {
	now := time.Now
	if r.opts.Now != nil {
		now = r.opts.Now
	}
	surely := r.surely(now())
	if surely.IsZero() {
		return nil
	}
	for more := true; more && ctx.Err() == nil; {
		got, err := r.run(ctx, forgetScript, []string{r.links("epoch"), r.links("revoked"), r.links("used"), r.links("ended"), r.links("all")},
			surely.UnixMicro(), readAtATime, r.links("uses:"), r.links("revoked:"), r.links("link:"))
		if err != nil {
			return fmt.Errorf("forget what is over: %w", err)
		}
		more = got[0] == 1
	}
	return nil
}

// Run tells Redis what was seen each second, and looks whether it is fit, until the
// context ends.
func (r *Redis) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEach)
	defer tick.Stop()
	away := false
	checked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := r.flush(ctx)
		if err == nil && (away || time.Since(checked) >= checkEach) {
			checked = time.Now()
			if err = r.check(ctx); err == nil {
				err = r.forget(ctx)
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !away:
			r.opts.Logger.Error("the state in Redis cannot be asked: links are answered with 503, and limits as state.fail says", "addresses", r.opts.Addresses, "error", err)
		case err == nil && away:
			r.opts.Logger.Info("the state in Redis can be asked again", "addresses", r.opts.Addresses)
		}
		away = err != nil
	}
}

// Close tells Redis what was seen, and closes the connections.
func (r *Redis) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), r.opts.Timeout)
	defer cancel()
	_ = r.flush(ctx) // what was seen is a convenience
	return r.client.Close()
}

// truth is how scripts get a bool.
func truth(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
