package integration_test

import (
	"encoding/base64"
	bits "encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// jumpSource is beside time.Now in a program whose clock a test sets: the seconds by which
// it is off stand in a file, little endian. Timers, which do not ask what time it is, go on
// as they do when somebody sets a machine's clock.
const jumpSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var jump = func() *int64 {
	name, _ := syscall.Getenv("SECUREFILES_TEST_CLOCK")
	f, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		return new(int64)
	}
	m, err := syscall.Mmap(f, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return (*int64)(unsafe.Pointer(&m[0]))
}()

func jumped() int64 { return atomic.LoadInt64(jump) }
`

// buildJumping builds the service with that clock, once: all that it is made of is compiled
// anew, which takes a minute.
var buildJumping = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	source := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	text, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		return "", err
	}
	const now = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n"
	if n := strings.Count(string(text), now); n != 1 {
		return "", fmt.Errorf("time.Now of this Go is another one: %d times %q", n, now)
	}
	dir := filepath.Dir(binary)
	program := filepath.Join(dir, "jumping")
	replaced := map[string]string{}
	for name, text := range map[string]string{
		"time.go": strings.Replace(string(text), now, strings.Replace(now, "\n", "\n\tsec += jumped()\n", 1), 1),
		"jump.go": jumpSource,
	} {
		replaced[filepath.Join(source, name)] = filepath.Join(dir, "clock-"+name)
		if err := os.WriteFile(filepath.Join(dir, "clock-"+name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(program+".json", overlay, 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-overlay", program+".json", "-o", program, "..").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the service with a clock that jumps: %w\n%s", err, out)
	}
	return program, nil
})

// preloadSource is the same for programs that ask the C library what time it is: it is
// loaded before that, and asks the kernel.
const preloadSource = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *jump;

__attribute__((constructor)) static void find(void) {
	const char *name = getenv("SECUREFILES_TEST_CLOCK");
	int f = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	void *m = f < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, f, 0);
	if (m == MAP_FAILED) abort();
	jump = m;
}

int clock_gettime(clockid_t id, struct timespec *t) {
	long failed = syscall(SYS_clock_gettime, id, t);
	if (!failed && jump && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += *jump;
	return failed;
}

int gettimeofday(struct timeval *restrict v, void *restrict zone) {
	struct timespec t;
	if (clock_gettime(CLOCK_REALTIME, &t)) return -1;
	v->tv_sec = t.tv_sec, v->tv_usec = t.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *p) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	if (p) *p = t.tv_sec;
	return t.tv_sec;
}
`

// buildPreload compiles it, once, where other users may read it.
var buildPreload = sync.OnceValues(func() (string, error) {
	dir := filepath.Dir(binary)
	library := filepath.Join(dir, "clock.so")
	if err := os.WriteFile(filepath.Join(dir, "clock.c"), []byte(preloadSource), 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, filepath.Join(dir, "clock.c")).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build a clock that jumps: %w\n%s", err, out)
	}
	return library, os.Chmod(dir, 0o755) // PostgreSQL does not run as root
})

// A clock is a program's own, which a test sets.
type clock struct {
	t    *testing.T
	file string
}

// newClock is one that is right, in a directory that the program may enter.
func newClock(t *testing.T, dir string) clock {
	t.Helper()
	c := clock{t, filepath.Join(dir, "clock")}
	if err := os.WriteFile(c.file, make([]byte, 8), 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// preloaded is the environment of a program of C that has the clock.
func (c clock) preloaded() []string {
	c.t.Helper()
	library, err := buildPreload()
	if err != nil {
		c.t.Fatal(err)
	}
	return []string{"LD_PRELOAD=" + library, "SECUREFILES_TEST_CLOCK=" + c.file}
}

// set puts the clock off.
func (c clock) set(by time.Duration) {
	c.t.Helper()
	f, err := os.OpenFile(c.file, os.O_WRONLY, 0) // the pages that are mapped
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close() // written below, or the test fails
	if err := bits.Write(f, bits.LittleEndian, int64(by/time.Second)); err != nil {
		c.t.Fatal(err)
	}
}

const year = 365 * 24 * time.Hour

// clockJumps puts the clock a year ahead, has the service started there, puts it two years
// back, and right again. Links and tokens hold by what the clock says; but none that was
// used up opens again by it.
func clockJumps(t *testing.T) *chaos {
	program, err := buildJumping()
	if err != nil {
		t.Fatal(err)
	}
	key := strings.Repeat("k", 32)
	var is clock
	s := start(t, plan{policy: alicesPolicy + "p, editor, /project/**, share, allow\n", printed: true,
		identity: "identity:\n  - htpasswd: users.htpasswd\n  - jwt: {issuer: here, audience: [files], jwks_file: secret.json, algorithms: [HS256]}\n",
		extra:    "state: {file: state.db}\nlinks: {keys_file: link-keys.json}\nadmin_token_file: token\n",
		before: func(s *site) {
			is = newClock(t, s.dir)
			s.write("secret.json", fmt.Sprintf(`{"keys":[{"kty":"oct","k":%q}]}`, base64.RawURLEncoding.EncodeToString([]byte(key))))
			s.write("token", linkToken)
			s.run(0, "link", "key", "new")
			s.program, s.environment = program, []string{"SECUREFILES_TEST_CLOCK=" + is.file}
		}})
	link := func(more ...string) (url, id string) {
		var made struct{ URL, ID string }
		if err := json.Unmarshal([]byte(s.run(0, append([]string{"link", "create", "/project/plan.txt", "--as", "alice", "--json"}, more...)...)), &made); err != nil {
			t.Fatal(err)
		}
		return made.URL + "&direct=1", made.ID
	}
	open, _ := link()
	used, _ := link("--uses", "1")
	revoked, id := link()
	s.status("", used, 200)
	s.run(0, "link", "revoke", id)
	now := time.Now()
	token := "Bearer " + hs256(key, fmt.Sprintf(`{"iss":"here","aud":"files","sub":"alice","nbf":%d,"exp":%d}`, now.Add(-time.Hour).Unix(), now.Add(24*time.Hour).Unix()))
	return &chaos{site: s, shows: true,
		asks: append(everyday(503),
			troubled{loadRequest: loadRequest{"", open, []int{200}, "0123456789\n"}, meanwhile: []int{403, 410, 503}},
			troubled{loadRequest: loadRequest{"", used, []int{410}, "0123456789\n"}, meanwhile: []int{403, 503}},
			troubled{loadRequest: loadRequest{"", revoked, []int{410}, "0123456789\n"}, meanwhile: []int{403, 503}},
			troubled{loadRequest: loadRequest{token, plan1, []int{200}, "0123456789\n"}, meanwhile: []int{401, 503}},
			troubled{loadRequest: loadRequest{token, hrFile, []int{404}, "CANARY DENY pay\n"}, meanwhile: []int{401, 503}}),
		strike: func() {
			is.set(year)
			s.status("", open, 410)
			s.status("", used, 410)
			s.status("", plan1, 401, with("Authorization", token))
			end(s.daemon)
			s.startService() // which reads what it keeps, and finds it over
			is.set(-year)
			s.status("", open, 403)
			s.status("", used, 403)
			s.status("", plan1, 401, with("Authorization", token))
		},
		mend: func() { is.set(0) }}
}
