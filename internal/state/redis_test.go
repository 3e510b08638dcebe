package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"securefiles/internal/freeport"
)

// A redisServer is a Redis of a test, on a socket.
type redisServer struct {
	t    testing.TB
	dir  string
	args []string
	cmd  *exec.Cmd
}

// startRedis starts one that keeps what it acknowledges.
func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	s := &redisServer{t: t, dir: t.TempDir(), args: args}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *redisServer) addresses() []string { return []string{"unix:" + s.socket()} }

func (s *redisServer) socket() string { return filepath.Join(s.dir, "redis.sock") }

func (s *redisServer) start() {
	s.t.Helper()
	args := []string{"--port", "0", "--unixsocket", s.socket(), "--dir", s.dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"}
	s.cmd = exec.Command("redis-server", append(args, s.args...)...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("%v: scripts/install.sh redis-server installs it", err)
	}
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: s.socket(), MaxRetries: -1})
	defer c.Close() //nolint:errcheck // it only asked
	for range 500 {
		if c.Ping(context.Background()).Err() == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatal("redis-server does not answer")
}

// kill is kill -9.
func (s *redisServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func (s *redisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// do runs a command, as an operator would.
func (s *redisServer) do(args ...any) {
	s.t.Helper()
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: s.socket()})
	defer c.Close() //nolint:errcheck // it only asked
	if err := c.Do(s.t.Context(), args...).Err(); err != nil {
		s.t.Fatal(err)
	}
}

func openRedis(t testing.TB, s *redisServer, edit ...func(*RedisOptions)) *Redis {
	t.Helper()
	opts := &RedisOptions{Addresses: s.addresses(), Prefix: "p", Timeout: 10 * time.Second}
	for _, e := range edit {
		e(opts)
	}
	r, err := OpenRedis(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func accept(t *testing.T, r *Redis) {
	t.Helper()
	if err := r.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// back waits until an instance finds Redis again, by itself.
func back(t *testing.T, r *Redis) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := r.Reserve(t.Context(), "", []Charge{requests("back", 1<<30, time.Hour)})
		if _, err2 := r.IsRevoked(t.Context(), Link{ID: "back"}); err == nil && err2 == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("Redis is not found again: ", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func one(link, request string) Use {
	return Use{Link: link, Max: 1, Client: "a", Request: request, Until: time.Now().Add(time.Hour)}
}

// One use raced by 200 clients over two instances is one download, and stays one when
// Redis is killed in the middle.
func TestRedisUseIsRaced(t *testing.T) {
	server := startRedis(t)
	instances := []*Redis{openRedis(t, server), openRedis(t, server)}
	accept(t, instances[0])
	for round := range 5 {
		link := fmt.Sprint("l", round)
		var allowed, failed atomic.Int64
		var group sync.WaitGroup
		for i := range 200 {
			group.Go(func() {
				ok, _, err := instances[i%2].Use(t.Context(), one(link, fmt.Sprint(link, "-", i)))
				if err != nil {
					failed.Add(1)
				}
				if ok {
					allowed.Add(1)
				}
			})
		}
		if killed := round%2 == 1; killed {
			time.Sleep(time.Duration(round) * 3 * time.Millisecond)
			server.kill()
			group.Wait()
			server.start()
			for _, r := range instances {
				back(t, r)
			}
			if n := allowed.Load(); n > 1 {
				t.Errorf("%d downloads", n)
			}
			later, _, err := instances[0].Use(t.Context(), one(link, "later "+link))
			if err != nil || later && allowed.Load() > 0 {
				t.Errorf("round %d: after it was killed: %t, %v", round, later, err)
			}
			continue
		}
		group.Wait()
		if n := allowed.Load(); n != 1 || failed.Load() > 0 {
			t.Errorf("%d downloads, %d failures", n, failed.Load())
		}
	}
}

// nginx's second instance gets the answer of the first, and takes nothing again.
func TestRedisIsOneForAllInstances(t *testing.T) {
	server := startRedis(t)
	a, b := openRedis(t, server), openRedis(t, server)
	accept(t, a)
	for _, r := range []*Redis{a, b, a} {
		if ok, left, err := r.Use(t.Context(), one("l", "1")); err != nil || !ok || left != 0 {
			t.Errorf("%t %d %v", ok, left, err)
		}
	}
	if ok, _, err := b.Use(t.Context(), one("l", "2")); err != nil || ok {
		t.Errorf("another: %t, %v", ok, err)
	}
	if string(a.Secret()) != string(b.Secret()) {
		t.Error("two secrets")
	}
	c := []Charge{requests("r", 2, time.Hour), {Kind: Bytes, Key: "b", Limit: 100, Period: time.Hour, Cost: 60}, {Kind: Places, Key: "p", Limit: 1, Cost: 1}}
	for _, r := range []*Redis{a, b, a} {
		if q, err := r.Reserve(t.Context(), "1", c); err != nil || q[0].Remaining != 1 || q[1].Remaining != 40 || q[2].Over {
			t.Errorf("%+v, %v", q, err)
		}
	}
	if q, err := b.Reserve(t.Context(), "2", c); err != nil || !q[1].Over {
		t.Errorf("%+v, %v", q, err)
	}
	if err := b.Settle(t.Context(), "1", 10); err != nil { // of what the other reserved
		t.Fatal(err)
	}
	if q, err := a.Reserve(t.Context(), "3", c); err != nil || q[0].Remaining != 0 || q[1].Remaining != 30 || q[2].Over {
		t.Errorf("%+v, %v", q, err)
	}
	// A revocation of one instance ends the link at the other one at once.
	for _, end := range []Revocation{{ID: "x"}, {Subject: "bob", Before: time.Now()}} {
		end.Until = time.Now().Add(time.Hour)
		link := Link{ID: end.ID, Subject: end.Subject, Issued: time.Now().Add(-time.Hour)}
		if ended, err := b.IsRevoked(t.Context(), link); err != nil || ended {
			t.Errorf("before: %t, %v", ended, err)
		}
		if err := a.Revoke(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		if ended, err := b.IsRevoked(t.Context(), link); err != nil || !ended {
			t.Errorf("after: %t, %v", ended, err)
		}
	}
}

// A Redis that was emptied, or is an older one, opens no link until somebody accepts it;
// limits begin anew.
func TestRedisThatForgotIsClosed(t *testing.T) {
	server := startRedis(t)
	a, b := openRedis(t, server), openRedis(t, server)
	closed := func(r *Redis, problem string) {
		t.Helper()
		var closed *ClosedError
		if _, _, err := r.Use(t.Context(), one("l", "new")); !errors.As(err, &closed) || closed.Problem != problem {
			t.Errorf("a use: %v", err)
		}
		if _, err := r.IsRevoked(t.Context(), Link{ID: "l"}); !errors.As(err, &closed) || closed.Problem != problem {
			t.Errorf("any link: %v", err)
		}
		if _, err := r.Reserve(t.Context(), "", []Charge{requests("r", 100, time.Hour)}); err != nil {
			t.Errorf("limits: %v", err)
		}
	}
	open := func(r *Redis, link string) {
		t.Helper()
		if ok, _, err := r.Use(t.Context(), one(link, link)); err != nil || !ok {
			t.Errorf("%s: %t, %v", link, ok, err)
		}
	}
	closed(a, problemMissing)
	accept(t, a)
	open(a, "1")
	open(b, "2")

	server.do("FLUSHALL")
	closed(a, problemMissing)
	closed(b, problemMissing)
	secret := string(b.Secret())
	accept(t, b)
	open(a, "3")
	open(b, "3")
	if string(a.Secret()) != secret || string(b.Secret()) != secret {
		t.Error("another secret")
	}

	server.do("HINCRBY", "p{links}:epoch", "n", -2) // what a copy from before would say
	closed(a, problemOlder)
	accept(t, a)
	open(a, "4")
	open(b, "4")

	server.do("HSET", "p{links}:epoch", "format", "2") // of a version to come
	closed(a, problemFormat)

	server.kill()
	empty := startRedis(t)
	c := openRedis(t, empty)
	closed(c, problemMissing)
}

// One that can lose what it acknowledged counts no links, until it cannot any more.
func TestRedisMustKeepWhatItAcknowledges(t *testing.T) {
	server := startRedis(t, "--appendfsync", "everysec")
	r := openRedis(t, server)
	accept(t, r)
	if _, _, err := r.Use(t.Context(), one("l", "1")); err == nil || !strings.Contains(err.Error(), "can lose what it acknowledges") {
		t.Errorf("%v", err)
	}
	if ended, err := r.IsRevoked(t.Context(), Link{ID: "l"}); err != nil || ended {
		t.Errorf("links that are not counted: %t, %v", ended, err)
	}
	server.do("CONFIG", "SET", "appendfsync", "always")
	server.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	if err := r.check(t.Context()); err != nil || !strings.Contains(r.Closed(), "noeviction") {
		t.Errorf("%v, %q", err, r.Closed())
	}
	server.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	if err := r.check(t.Context()); err != nil || r.Closed() != "" {
		t.Errorf("%v, %q", err, r.Closed())
	}
	if ok, _, err := r.Use(t.Context(), one("l", "1")); err != nil || !ok {
		t.Errorf("%t, %v", ok, err)
	}

	// One that may not ask how it is kept is believed.
	server.do("ACL", "SETUSER", "files", "on", ">pw", "~p*", "-@all", "+@read", "+@write", "+@scripting", "+@connection", "+time", "+info", "+wait")
	server.do("CONFIG", "SET", "appendfsync", "everysec")
	var log bytes.Buffer
	trusted := openRedis(t, server, func(o *RedisOptions) {
		o.Username, o.Password, o.Logger = "files", "pw", slog.New(slog.NewTextHandler(&log, nil))
	})
	if ok, _, err := trusted.Use(t.Context(), one("n", "n")); err != nil || !ok || !strings.Contains(log.String(), "which nobody has checked") {
		t.Errorf("%t, %v: %s", ok, err, log.String())
	}
	if _, err := trusted.Reserve(t.Context(), "1", []Charge{requests("r", 2, time.Hour)}); err != nil {
		t.Error(err)
	}
	if err := errors.Join(trusted.Settle(t.Context(), "1", 1), trusted.Made(t.Context(), Link{ID: "l", Expires: time.Now().Add(time.Hour)}), trusted.Revoke(t.Context(), Revocation{Subject: "x", Until: time.Now().Add(time.Hour)})); err != nil {
		t.Error(err)
	}
	if list, err := trusted.Links(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	server.do("CONFIG", "SET", "appendfsync", "always")

	// With a replica that must have it, and is none.
	sure := openRedis(t, server, func(o *RedisOptions) { o.Replicas, o.Timeout = 1, time.Second })
	if ok, _, err := sure.Use(t.Context(), one("m", "1")); err == nil || ok || !strings.Contains(err.Error(), "0 of 1 replicas") {
		t.Errorf("%t, %v", ok, err)
	}
}

// Where no replica has what links write, links are away, and limits, which wait for none, go on.
func TestRedisLimitsGoOnWhereLinksCannotBeKept(t *testing.T) {
	r := openRedis(t, startRedis(t), func(o *RedisOptions) { o.Replicas, o.Timeout = 1, time.Second })
	for range patience {
		if err := r.Accept(t.Context()); err == nil {
			t.Fatal("there is a replica")
		}
	}
	if r.ofLinks.awayTil.Load() == 0 {
		t.Error("Redis is asked about links as if nothing had happened")
	}
	if _, err := r.Reserve(t.Context(), "", []Charge{requests("r", 2, time.Hour)}); err != nil {
		t.Errorf("limits: %v", err)
	}
}

// With a replica, what was answered is there when it takes over.
func TestRedisReplicaHasWhatWasAnswered(t *testing.T) {
	server := startRedis(t, "--port", "0")
	port := freeport.Port(t)
	server.do("CONFIG", "SET", "port", port)
	replica := startRedis(t, "--replicaof", "127.0.0.1", fmt.Sprint(port), "--repl-diskless-sync-delay", "0")
	r := openRedis(t, server, func(o *RedisOptions) { o.Replicas = 1 })
	deadline := time.Now().Add(20 * time.Second)
	for r.Accept(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatal("there is no replica")
		}
		r.ofLinks.awayTil.Store(0)
	}
	for i := range 50 {
		if ok, _, err := r.Use(t.Context(), one(fmt.Sprint(i), fmt.Sprint(i))); err != nil || !ok {
			t.Fatalf("%t, %v", ok, err)
		}
	}
	server.kill()
	replica.do("REPLICAOF", "NO", "ONE")
	after := openRedis(t, replica)
	for i := range 50 {
		if ok, _, err := after.Use(t.Context(), one(fmt.Sprint(i), fmt.Sprint("later", i))); err != nil || ok {
			t.Errorf("%t, %v", ok, err)
		}
	}
}

// A Redis that is frozen, or away, is an error within the timeout, and soon at once;
// limits go on where they may, and all is well by itself afterwards.
func TestRedisIsAway(t *testing.T) {
	server := startRedis(t)
	quick := func(o *RedisOptions) { o.Timeout = 300 * time.Millisecond }
	shut := openRedis(t, server, quick)
	local := openRedis(t, server, quick, func(o *RedisOptions) { o.Local = true })
	accept(t, shut)
	c := []Charge{requests("r", 2, time.Hour)}
	for _, row := range []struct {
		name      string
		away, end func()
	}{
		{"frozen", func() { server.signal(syscall.SIGSTOP) }, func() { server.signal(syscall.SIGCONT) }},
		{"killed", server.kill, server.start},
	} {
		row.away()
		for range patience + 1 {
			begin := time.Now()
			if _, err := shut.Reserve(t.Context(), "", c); err == nil {
				t.Errorf("%s: limits do not fail", row.name)
			}
			if _, _, err := shut.Use(t.Context(), one("l", "1")); err == nil {
				t.Errorf("%s: a use does not fail", row.name)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("%s: %s", row.name, took)
			}
		}
		shortest := time.Hour // for the machine may be busy
		for range 5 {
			begin := time.Now()
			if _, _, err := shut.Use(t.Context(), one("l", "1")); err == nil {
				t.Errorf("%s: later: a use does not fail", row.name)
			}
			shortest = min(shortest, time.Since(begin))
		}
		if shortest > 250*time.Millisecond {
			t.Errorf("%s: later it fails after %s", row.name, shortest)
		}
		over := 0
		for range 3 {
			q, err := local.Reserve(t.Context(), "", []Charge{requests(row.name, 2, time.Hour)})
			if err != nil {
				t.Fatalf("%s: %v", row.name, err)
			}
			if q[0].Over {
				over++
			}
		}
		if over != 1 {
			t.Errorf("%s: %d of 3 over a limit of 2 for itself", row.name, over)
		}
		if _, err := local.IsRevoked(t.Context(), Link{ID: "l"}); err == nil {
			t.Errorf("%s: links are open", row.name)
		}
		row.end()
		for _, r := range []*Redis{shut, local} {
			back(t, r)
			if ok, _, err := r.Use(t.Context(), one(row.name, row.name)); err != nil || !ok {
				t.Errorf("%s: afterwards: %t, %v", row.name, ok, err)
			}
		}
		if shut.Errors() == 0 {
			t.Error("no error is counted")
		}
	}
}

// Every key of limits has an end. What is of links is forgotten when both clocks have said
// for an hour that it is over: Redis itself, whose clock may be wrong, forgets none of it.
func TestRedisKeysEndOrAreForgotten(t *testing.T) {
	server := startRedis(t)
	now := time.Now()
	r, err := OpenRedis(t.Context(), &RedisOptions{Addresses: server.addresses(), Prefix: "p", Timeout: 10 * time.Second, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // it only asked
	accept(t, r)
	soon := time.Now().Add(time.Hour)
	c := []Charge{requests("r", 2, time.Hour), {Kind: Bytes, Key: "b", Limit: 100, Period: time.Hour, Cost: 60}, {Kind: Places, Key: "p", Limit: 1, Cost: 1}}
	_, err = r.Reserve(t.Context(), "1", c)
	_, _, err2 := r.Use(t.Context(), Use{Link: "l", Max: 1, Until: soon, Client: "a", Request: "1"})
	r.Seen(Link{ID: "s", Expires: soon})
	err = errors.Join(err, err2, r.Made(t.Context(), Link{ID: "l", Expires: soon}), r.flush(t.Context()),
		r.Revoke(t.Context(), Revocation{ID: "x", Until: soon}), r.Revoke(t.Context(), Revocation{Subject: "x", Until: soon}))
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: server.socket()})
	defer client.Close() //nolint:errcheck // it only asked
	hold := func(want ...string) {
		t.Helper()
		keys, err := client.Keys(t.Context(), "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		var lasting []string
		for _, key := range keys {
			if !strings.HasPrefix(key, "p{limits}:") && !strings.HasPrefix(key, "p{links}:") {
				t.Errorf("%q is in no slot of ours", key)
			}
			if ttl := client.TTL(t.Context(), key).Val(); ttl > 26*time.Hour {
				t.Errorf("%q ends in %s", key, ttl)
			} else if ttl < 0 {
				lasting = append(lasting, strings.TrimPrefix(key, "p{links}:"))
			}
		}
		slices.Sort(lasting)
		if !slices.Equal(lasting, want) {
			t.Errorf("%q stay, not %q", lasting, want)
		}
	}
	all := []string{"all", "ended", "epoch", "link:l", "link:s", "revoked", "revoked:x", "used", "uses:l"}
	hold(all...)
	ran := time.Duration(0)
	r.running = func() time.Duration { return ran }
	forget := func(at time.Time, after time.Duration) {
		t.Helper()
		now, ran = at, ran+after
		if err := r.forget(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	forget(soon.Add(-time.Hour), 0)
	forget(soon.Add(24*365*time.Hour), 30*time.Minute) // somebody puts it ahead,
	forget(soon.Add(24*365*time.Hour), 20*time.Minute)
	forget(soon.Add(-time.Minute), 20*time.Minute) // and right
	forget(soon.Add(time.Minute), 20*time.Minute)
	hold(all...)
	forget(soon.Add(2*time.Hour), 60*time.Minute)
	hold("epoch")
}

// Redis whose clock is a year ahead, or back, opens nothing that was used up or revoked, and
// has nobody wait for longer than a limit's period.
func TestAClockOfRedisThatJumps(t *testing.T) {
	now := time.Now()
	r, err := OpenRedis(t.Context(), &RedisOptions{Addresses: startRedis(t).addresses(), Prefix: "p", Timeout: 10 * time.Second, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // it only asked
	accept(t, r)
	until := now.Add(time.Hour)
	_, _, err = r.Use(t.Context(), Use{Link: "used", Max: 1, Until: until, Client: "a", Request: "1"})
	if err = errors.Join(err, r.Revoke(t.Context(), Revocation{ID: "revoked", Until: until}), r.Revoke(t.Context(), Revocation{Subject: "bob", Before: until, Until: until})); err != nil {
		t.Fatal(err)
	}
	for _, by := range []time.Duration{365 * 24 * time.Hour, -2 * 365 * 24 * time.Hour, 365 * 24 * time.Hour} {
		now = now.Add(by)
		ok, _, err := r.Use(t.Context(), Use{Link: "used", Max: 1, Until: until, Client: "b", Request: "2", Look: true})
		one, err2 := r.IsRevoked(t.Context(), Link{ID: "revoked", Expires: until})
		many, err3 := r.IsRevoked(t.Context(), Link{ID: "other", Subject: "bob", Expires: until})
		err4 := r.Revoke(t.Context(), Revocation{Key: fmt.Sprint(by), Until: until})
		if err = errors.Join(err, err2, err3, err4); err != nil || ok || !one || !many {
			t.Errorf("%s: the used one opens: %t, others are revoked: %t, %t; %v", by, ok, one, many, err)
		}
		if got, err := r.Reserve(t.Context(), "", []Charge{requests("r", 2, time.Hour)}); err != nil || got[0].Over != (by < 0) || got[0].Retry > time.Hour {
			t.Errorf("%s: %+v, %v", by, got, err)
		}
		now = now.Add(40 * time.Minute)
		if got, err := r.Reserve(t.Context(), "", []Charge{requests("r", 2, time.Hour)}); err != nil || got[0].Over {
			t.Errorf("%s, and 40 minutes: %+v, %v", by, got, err)
		}
		now = now.Add(-40 * time.Minute)
		if got, err := r.Look(t.Context(), []Charge{requests("r", 2, time.Hour)}); err != nil || got[0].Reset > time.Hour {
			t.Errorf("%s: %+v, %v", by, got, err)
		}
	}
}

// A Cluster of three masters runs each script on one of its nodes: what is of limits on
// one, what is of links on another. Where one is away, what the other has goes on.
func TestRedisCluster(t *testing.T) {
	var nodes []*redisServer
	var addresses []string
	slots := [][2]int{{0, 5460}, {5461, 10922}, {10923, 16383}}
	for i, of := range slots {
		port := freeport.Port(t, 10_000) // nodes speak to each other on the higher one
		node := startRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no", "--bind", "127.0.0.1", "--port", fmt.Sprint(port))
		node.do("CLUSTER", "SET-CONFIG-EPOCH", i+1)
		node.do("CLUSTER", "ADDSLOTSRANGE", of[0], of[1])
		nodes, addresses = append(nodes, node), append(addresses, fmt.Sprint("127.0.0.1:", port))
		if _, first, _ := strings.Cut(addresses[0], ":"); i > 0 {
			node.do("CLUSTER", "MEET", "127.0.0.1", first)
		}
	}
	r := openRedis(t, nodes[0], func(o *RedisOptions) { o.Addresses, o.Timeout = addresses, 2*time.Second })
	within := func(what string, do func() error) {
		t.Helper()
		deadline := time.Now().Add(60 * time.Second)
		for err := do(); err != nil; err = do() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v", what, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	within("the cluster comes up", func() error { return r.Accept(t.Context()) })
	within("Redis is fit", func() error { return r.check(t.Context()) })
	if r.Closed() != "" {
		t.Errorf("closed: %q", r.Closed())
	}
	// Whose a key is nodes[0] says: a client that does not know all of them yet names any.
	of := func(key string) int {
		t.Helper()
		c := redis.NewClient(&redis.Options{Network: "unix", Addr: nodes[0].socket()})
		defer c.Close() //nolint:errcheck // it only asked
		slot, err := c.ClusterKeySlot(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		return slices.IndexFunc(slots, func(of [2]int) bool { return int64(of[0]) <= slot && slot <= int64(of[1]) })
	}
	limits, links := of(r.limits("")), of(r.links(""))
	if limits == links {
		t.Fatal("limits and links are on one node: the test shows nothing")
	}
	c := []Charge{requests("r", 2, time.Hour), {Kind: Bytes, Key: "b", Limit: 100, Period: time.Hour, Cost: 60}, {Kind: Places, Key: "p", Limit: 1, Cost: 1}}
	ok, _, err := r.Use(t.Context(), one("l", "1"))
	if err != nil || !ok {
		t.Errorf("%t, %v", ok, err)
	}
	if q, err := r.Reserve(t.Context(), "1", c); err != nil || q[2].Over {
		t.Error(q, err)
	}
	soon := time.Now().Add(time.Hour)
	if err := errors.Join(r.Settle(t.Context(), "1", 5), r.Short(t.Context(), "1"), r.Made(t.Context(), Link{ID: "l", Expires: soon}), r.Revoke(t.Context(), Revocation{ID: "x", Until: soon})); err != nil {
		t.Error(err)
	}
	if list, err := r.Links(t.Context()); err != nil || len(list) != 1 || list[0].Used != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if q, err := r.Look(t.Context(), c); err != nil || q[0].Remaining != 1 || q[1].Remaining != 95 || q[2].Remaining != 1 {
		t.Errorf("%+v, %v", q, err)
	}
	var all bytes.Buffer
	if err := Write(&all, r.Export(t.Context(), true), noon); err != nil || strings.Count(all.String(), "\n") != 6 {
		t.Errorf("%s, %v", all.String(), err)
	}
	if n, err := r.Restore(t.Context(), Read(&all)); err != nil || n != 5 {
		t.Errorf("%d, %v", n, err)
	}
	if err := r.Drop(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	if list, err := r.Counts(t.Context()); err != nil || len(list) != 1 || list[0].Key != "r" {
		t.Errorf("%+v, %v", list, err)
	}

	nodes[limits].kill()
	for range patience {
		if _, err := r.Reserve(t.Context(), "2", c); err == nil {
			t.Error("limits are counted though their node is away")
		}
	}
	if r.ofLimits.awayTil.Load() == 0 || r.ofLinks.awayTil.Load() != 0 {
		t.Error("the node of limits is away, or that of links")
	}
	within("links go on", func() error {
		_, _, err := r.Use(t.Context(), one("m", "2"))
		return err
	})
	nodes[limits].start()
	within("limits go on", func() error {
		q, err := r.Look(t.Context(), c)
		if err == nil && q[0].Remaining != 1 {
			t.Fatalf("%+v", q)
		}
		return err
	})
}

// After Sentinels have made a replica the master, under load, what was answered is there: no
// link is used twice. Links are closed until a replica acknowledges again, which is when the
// old master is back, and all goes on by itself.
func TestRedisIsFailedOverBySentinel(t *testing.T) {
	ports := [2]int{freeport.Port(t), freeport.Port(t)}
	master := startRedis(t, "--port", fmt.Sprint(ports[0]))
	replica := startRedis(t, "--port", fmt.Sprint(ports[1]), "--replicaof", "127.0.0.1", fmt.Sprint(ports[0]))
	dir, port := t.TempDir(), freeport.Port(t)
	conf := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("port %d\ndir %s\nsentinel monitor vault 127.0.0.1 %d 1\nsentinel down-after-milliseconds vault 500\nsentinel failover-timeout vault 5000\n", port, dir, ports[0])
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := exec.Command("redis-server", conf, "--sentinel")
	if err := sentinel.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sentinel.Process.Kill(); _ = sentinel.Wait() })

	r := openRedis(t, master, func(o *RedisOptions) {
		o.Addresses, o.Sentinel, o.Replicas, o.Timeout = []string{fmt.Sprint("127.0.0.1:", port)}, "vault", 1, 2*time.Second
	})
	within := func(what string, do func() error) {
		t.Helper()
		deadline := time.Now().Add(60 * time.Second)
		for {
			err := do()
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v", what, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	within("a replica that acknowledges", func() error { return r.Accept(t.Context()) })
	within("Redis is fit", func() error { return r.check(t.Context()) })
	c := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", port)})
	defer c.Close() //nolint:errcheck // it only asked
	within("the sentinel knows the replica", func() error {
		list, err := c.Do(t.Context(), "SENTINEL", "REPLICAS", "vault").Slice()
		if err == nil && len(list) == 0 {
			return errors.New("none")
		}
		return err
	})
	if ok, _, err := r.Use(t.Context(), one("l", "1")); err != nil || !ok {
		t.Fatalf("%t, %v", ok, err)
	}
	// Each link of the load is good for one, and four clients try.
	var load sync.WaitGroup
	var tries, used atomic.Int64
	var opened sync.Map
	stop := make(chan struct{})
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				n := tries.Add(1)
				link := fmt.Sprint("load", n/4)
				ok, _, err := r.Use(t.Context(), Use{Link: link, Max: 1, Client: fmt.Sprint(n), Request: fmt.Sprint("load", n), Until: time.Now().Add(time.Hour)})
				if err != nil {
					time.Sleep(time.Millisecond)
				} else if ok {
					used.Add(1)
					if _, twice := opened.LoadOrStore(link, true); twice {
						t.Errorf("%s is used twice", link)
					}
				}
			}
		})
	}
	more := func(what string) {
		t.Helper()
		from := used.Load()
		within(what, func() error {
			if used.Load() < from+50 {
				return errors.New("none is")
			}
			return nil
		})
	}
	more("links are used")
	master.kill()
	within("another master", func() error {
		_, err := r.IsRevoked(t.Context(), Link{ID: "l"})
		return err
	})
	// Nobody acknowledges what the new master writes: it is not answered.
	if ok, _, err := r.Use(t.Context(), one("m", "2")); err == nil || ok {
		t.Errorf("without a replica: %t, %v", ok, err)
	}
	alone := openRedis(t, replica)
	if ok, _, err := alone.Use(t.Context(), one("l", "later")); err != nil || ok {
		t.Errorf("used twice: %t, %v", ok, err)
	}
	master.start()
	more("links are used again")
	close(stop)
	load.Wait()
	n := 0
	opened.Range(func(link, _ any) bool {
		n++
		if ok, _, err := alone.Use(t.Context(), one(link.(string), "later")); err != nil || ok {
			t.Errorf("%s is used twice: %t, %v", link, ok, err)
		}
		return true
	})
	t.Logf("%d tries, %d uses", tries.Load(), n)
}

// What comes while Redis answers is asked in one round trip, each gets its own answer, and
// whoever has gone by then takes nothing.
func TestRedisIsAskedTogether(t *testing.T) {
	server := startRedis(t)
	r := openRedis(t, server)
	c := []Charge{requests("all", 10, time.Hour)}
	reads := func() (n int) {
		info, err := r.client.Info(t.Context(), "stats").Result()
		if err != nil {
			t.Fatal(err)
		}
		return field(info, "total_reads_processed:")
	}
	waiting := func(n int) {
		for {
			r.queue.Lock()
			is, asking := len(r.asked), r.asking
			r.queue.Unlock()
			if is == n && asking {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	server.do("SCRIPT", "FLUSH") // no script is known
	server.signal(syscall.SIGSTOP)
	var group sync.WaitGroup
	var allowed, errs atomic.Int64
	ask := func(ctx context.Context, id string) {
		group.Go(func() {
			charges := c
			if id == "gone" {
				charges = []Charge{requests("its own", 10, time.Hour)}
			}
			q, err := r.Reserve(ctx, id, charges)
			if err != nil {
				errs.Add(1)
			} else if !q[0].Over {
				allowed.Add(1)
			}
		})
	}
	ask(t.Context(), "first")
	waiting(0)
	for i := range 60 {
		ask(t.Context(), fmt.Sprint(i))
	}
	waiting(60)
	gone, leave := context.WithCancel(t.Context())
	ask(gone, "gone")
	waiting(61)
	leave()
	for errs.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	server.signal(syscall.SIGCONT)
	group.Wait()
	if allowed.Load() != 10 || errs.Load() != 1 {
		t.Errorf("%d of 10 are allowed, %d errors", allowed.Load(), errs.Load())
	}
	if ok, err := r.client.Exists(t.Context(), r.limits("taken:gone")).Result(); err != nil || ok != 0 {
		t.Errorf("%d, %v: what nobody waits for is taken", ok, err)
	}
	before := reads()
	server.signal(syscall.SIGSTOP)
	ask(t.Context(), "second")
	waiting(0)
	for i := range 100 {
		ask(t.Context(), fmt.Sprint("more", i))
	}
	waiting(100)
	server.signal(syscall.SIGCONT)
	group.Wait()
	if n := reads() - before; n > 10 {
		t.Errorf("%d reads for 101 questions", n)
	}
}

// BenchmarkRedisReserve is 32 clients at a time, two limits each; it reports how much CPU
// time Redis takes for each.
func BenchmarkRedisReserve(b *testing.B) {
	s := startRedis(b, "--appendonly", "no")
	r := openRedis(b, s)
	c := []Charge{requests("users/requests/subject:alice", 1<<40, time.Hour), requests("groups/requests/group:staff", 1<<40, time.Hour)}
	var n atomic.Int64
	used := func() (own, redis time.Duration) {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		own = time.Duration(u.Utime.Nano() + u.Stime.Nano())
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", s.cmd.Process.Pid))
		var ns int64
		_, _ = fmt.Sscan(string(text), &ns)
		return own, time.Duration(ns)
	}
	b.SetParallelism(16)
	own, redis := used()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.Reserve(b.Context(), fmt.Sprintf("%032x", n.Add(1)), c); err != nil {
				b.Error(err)
			}
		}
	})
	own2, redis2 := used()
	b.ReportMetric(float64((own2-own).Nanoseconds())/float64(b.N), "own-ns/op")
	b.ReportMetric(float64((redis2-redis).Nanoseconds())/float64(b.N), "redis-ns/op")
}
