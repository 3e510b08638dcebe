package identity

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tg123/go-htpasswd"

	"securefiles/authz"
	"securefiles/internal/regular"
)

// Limits of an htpasswd file.
const (
	maxFileBytes = 16 << 20
	maxLineBytes = 1024
	maxProblems  = 20 // listed before reading stops

	// maxBcryptCost keeps a check below a second of a core (0.8 s on the
	// machine where this was measured; 50 ms at cost 10). Each step doubles
	// it; htpasswd writes 5 unless told otherwise.
	maxBcryptCost = 14
	minBcryptCost = 4 // bcrypt's own
	// maxRounds keeps a SHA-crypt check to about 0.2 s of a core. The default
	// is 5000, 2 ms.
	maxRounds = 500_000
	minRounds = 1000 // SHA-crypt's own
	// defaultRounds are SHA-crypt's where the hash names none.
	defaultRounds = 5000
	// advisedBcryptCost is OWASP's least.
	advisedBcryptCost = 10
)

// The hashes that are accepted, whole. go-htpasswd is lenient: it takes a
// malformed one, and answers no for ever or panics when it is used.
var (
	bcryptHash   = regexp.MustCompile(`^\$2[aby]\$([0-9]{2})\$[./0-9A-Za-z]{53}$`)
	shaCryptHash = regexp.MustCompile(`^(\$[56]\$(?:rounds=([1-9][0-9]{0,8})\$)?)[./0-9A-Za-z]{1,16}\$([./0-9A-Za-z]+)$`)
)

// decoyForEmpty is what an unknown user costs when the file has no users.
const decoyForEmpty = "$2y$10$"

// An account is what the file says of one user.
type account struct {
	htpasswd.EncodedPasswd
	hash string
	line int
}

// users are one version of an htpasswd file. They do not change.
type users struct {
	accounts map[string]account
	// decoy is checked for a user who is not in the file, so that the answer
	// takes as long as for one who is. No password matches it.
	decoy account
	costs []Cost // most users first
	// generation counts the versions, from 1.
	generation uint64
	sum        [sha256.Size]byte // of the file
}

// loadUsers reads an htpasswd file.
func loadUsers(file string, generation uint64) (*users, error) {
	text, err := readFile("users", file, maxFileBytes)
	if err != nil {
		return nil, err
	}
	u, err := parseUsers(file, text)
	if err != nil {
		return nil, err
	}
	u.generation, u.sum = generation, sha256.Sum256([]byte(text))
	return u, nil
}

// readFile returns what is in a regular file of bounded size. What it holds names
// it in errors.
func readFile(what, file string, maxBytes int64) (string, error) {
	text, err := regular.Read(file, maxBytes)
	switch {
	case errors.Is(err, regular.ErrNotRegular):
		return "", fmt.Errorf("%s: %w", file, regular.ErrNotRegular)
	case errors.Is(err, regular.ErrTooLarge):
		return "", fmt.Errorf("%s: larger than %d KiB, the most that is read of %s", file, maxBytes>>10, what)
	case err != nil:
		return "", fmt.Errorf("read %s: %w", what, err)
	}
	return string(text), nil
}

// parseUsers reads lines of `user:hash` or `user:hash:comment`, the format of
// nginx's auth_basic_user_file. Blank lines, and lines that begin with `#`,
// are skipped. Every other line must be right: the error lists the wrong ones
// as `file:line: message` and quotes nothing of them, since a password may
// stand anywhere in a line that is wrong. A file without users is fine, and
// lets nobody in.
func parseUsers(file, text string) (*users, error) {
	u := &users{accounts: make(map[string]account)}
	counts, commonest := make(map[string]int), decoyForEmpty
	var problems []error
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		user, hash, err := parseLine(line)
		var a account
		var cost string
		if err == nil {
			a, cost, err = parseHash(hash)
		}
		if first, again := u.accounts[user]; err == nil && again {
			err = fmt.Errorf("the user of line %d again: keep one of the two lines", first.line)
		}
		if err != nil {
			problems = append(problems, &LineError{File: file, Line: number, Err: err})
			if len(problems) == maxProblems {
				problems = append(problems, fmt.Errorf("%s: and perhaps more: reading stopped", file))
				break
			}
			continue
		}
		a.line = number
		u.accounts[user] = a
		counts[cost]++
		if counts[cost] > counts[commonest] {
			commonest = cost
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	decoy, _, err := parseHash(decoyHash(commonest))
	if err != nil {
		return nil, fmt.Errorf("make a hash for unknown users: %w", err)
	}
	u.decoy = decoy
	for cost, n := range counts {
		u.costs = append(u.costs, newCost(cost, n))
	}
	slices.SortFunc(u.costs, func(a, b Cost) int {
		return cmp.Or(cmp.Compare(b.Users, a.Users), cmp.Compare(a.prefix, b.prefix))
	})
	return u, nil
}

// A LineError is a line of a file of users that cannot be read. It quotes
// nothing of the line.
type LineError struct {
	File string
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap returns what is wrong with the line.
func (e *LineError) Unwrap() error { return e.Err }

// parseLine takes `user:hash` apart.
func parseLine(line string) (user, hash string, err error) {
	if len(line) > maxLineBytes {
		return "", "", errors.New("the line is longer than 1024 bytes")
	}
	user, rest, found := strings.Cut(line, ":")
	if !found {
		return "", "", errors.New("no colon: a line is user:hash, as `htpasswd -B` writes it")
	}
	if err := authz.ValidSubject(user); err != nil {
		return "", "", fmt.Errorf("the user %w: rename or remove it", err)
	}
	hash, _, _ = strings.Cut(rest, ":")
	if strings.ContainsAny(hash, " \t\r") {
		return "", "", errors.New("a blank in or after the hash: remove it, and save the file with Unix line ends")
	}
	return user, hash, nil
}

// parseHash reads a hash. The cost is the part of it that decides how long a
// check takes: scheme and rounds, in the form that decoyHash takes.
func parseHash(hash string) (a account, cost string, err error) {
	const remedy = "set the password again with `htpasswd -B -C 12 FILE USER`"
	a.hash = hash
	switch {
	case strings.HasPrefix(hash, "$2a$"), strings.HasPrefix(hash, "$2b$"), strings.HasPrefix(hash, "$2y$"):
		m := bcryptHash.FindStringSubmatch(hash)
		if m == nil {
			return account{}, "", errors.New("the bcrypt hash is not whole: " + remedy)
		}
		if n, err := strconv.Atoi(m[1]); err != nil || n < minBcryptCost || n > maxBcryptCost {
			return account{}, "", fmt.Errorf("the bcrypt cost is not between %d and %d, beyond which one check takes seconds: %s", minBcryptCost, maxBcryptCost, remedy)
		}
		// The letter makes no difference to the time.
		cost = "$2y$" + m[1] + "$"
		a.EncodedPasswd, err = htpasswd.AcceptBcrypt(hash)
	case strings.HasPrefix(hash, "$5$"), strings.HasPrefix(hash, "$6$"):
		m := shaCryptHash.FindStringSubmatch(hash)
		if m == nil || len(m[3]) != shaCryptLen(hash) {
			return account{}, "", errors.New("the SHA-crypt hash is not whole: " + remedy)
		}
		if m[2] != "" {
			if n, err := strconv.Atoi(m[2]); err != nil || n < minRounds || n > maxRounds {
				return account{}, "", fmt.Errorf("the SHA-crypt rounds are not between %d and %d: %s", minRounds, maxRounds, remedy)
			}
		}
		cost = m[1]
		a.EncodedPasswd, err = htpasswd.AcceptCryptSha(hash)
	case hash == "":
		err = errors.New("no hash: " + remedy)
	case strings.HasPrefix(hash, "$apr1$"), strings.HasPrefix(hash, "$1$"):
		err = errors.New("MD5 ($apr1$, $1$) is too quick to break: " + remedy)
	case strings.HasPrefix(hash, "{"):
		err = errors.New("SHA-1 or plain text ({SHA}, {SSHA}, {PLAIN}) is too quick to break: " + remedy)
	case strings.HasPrefix(hash, "$argon2"), strings.HasPrefix(hash, "$y$"), strings.HasPrefix(hash, "$gy$"), strings.HasPrefix(hash, "$7$"):
		// Each check may take as much memory as the hash says.
		err = errors.New("Argon2 and yescrypt ($argon2…, $y$, $gy$, $7$) are not supported: " + remedy)
	case strings.HasPrefix(hash, "$"):
		err = errors.New("a hash that is neither bcrypt ($2y$, $2a$, $2b$) nor SHA-crypt ($5$, $6$): " + remedy)
	default:
		err = errors.New("plain text, DES or an unknown hash: " + remedy)
	}
	if err != nil {
		return account{}, "", err
	}
	return a, cost, nil
}

// shaCryptLen returns the length of what SHA-crypt writes after the salt: 256
// or 512 bits in digits of 6.
func shaCryptLen(hash string) int {
	if hash[1] == '5' {
		return 43
	}
	return 86
}

// decoyHash returns a hash of random text that costs what cost says. It takes
// no work to make: no password has to fit it.
func decoyHash(cost string) string {
	noise := rand.Text() + rand.Text() + rand.Text() + rand.Text() // 26 letters and digits each
	const salt = 16
	switch cost[1] {
	case '5', '6':
		return cost + noise[:salt] + "$" + noise[salt:salt+shaCryptLen(cost)]
	default:
		return cost + noise[:53]
	}
}

// A Cost is what users of one scheme and work factor have in common.
type Cost struct {
	// Scheme is bcrypt, SHA-256-crypt or SHA-512-crypt.
	Scheme string
	// Work is bcrypt's cost, a power of two, or SHA-crypt's rounds.
	Work int
	// Users are how many users of the file have it, at least one.
	Users int

	prefix string // of the hash: what decoyHash takes
}

// newCost reads the part of a hash that parseHash calls its cost.
func newCost(prefix string, users int) Cost {
	c := Cost{Scheme: "bcrypt", Users: users, prefix: prefix}
	switch prefix[1] {
	case '5':
		c.Scheme = "SHA-256-crypt"
	case '6':
		c.Scheme = "SHA-512-crypt"
	}
	c.Work = defaultRounds
	if number := strings.Trim(strings.TrimPrefix(prefix[3:], "rounds="), "$"); number != "" {
		c.Work, _ = strconv.Atoi(number) // parseHash has read it
	}
	return c
}

// Measure checks a password once and returns the time that it took: what a
// guess costs whoever has the file, and a login costs this machine.
func (c Cost) Measure() (time.Duration, error) {
	a, _, err := parseHash(decoyHash(c.prefix))
	if err != nil {
		return 0, fmt.Errorf("make a hash to measure: %w", err)
	}
	start := time.Now()
	a.MatchesPassword("a password of no user")
	return time.Since(start), nil
}

// IsWeak reports whether the passwords fall more quickly to whoever gets hold
// of the file than advice of today allows: bcrypt below 10. SHA-crypt is not
// reported: its default is what `openssl passwd` writes.
func (c Cost) IsWeak() bool { return c.Scheme == "bcrypt" && c.Work < advisedBcryptCost }

// String returns the cost as `3 users: bcrypt, cost 12`.
func (c Cost) String() string {
	users := "users"
	if c.Users == 1 {
		users = "user"
	}
	if c.Scheme != "bcrypt" {
		return fmt.Sprintf("%d %s: %s, %d rounds", c.Users, users, c.Scheme, c.Work)
	}
	return fmt.Sprintf("%d %s: %s, cost %d", c.Users, users, c.Scheme, c.Work)
}
