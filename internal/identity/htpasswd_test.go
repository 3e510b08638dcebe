package identity

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"securefiles/authz"
)

func TestUsers(t *testing.T) {
	u, err := loadUsers("testdata/users.htpasswd", 7)
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(u.accounts))
	if want := []string{"Carol Müller", "alice", "bob@example.org"}; !slices.Equal(names, want) {
		t.Errorf("got users %q, want %q", names, want)
	}
	for name, a := range u.accounts {
		if !a.MatchesPassword("correct horse") || a.MatchesPassword("Correct horse") || a.MatchesPassword("") {
			t.Errorf("%s: the hash does not tell the password from others", name)
		}
	}
	if u.generation != 7 {
		t.Errorf("got generation %d, want 7", u.generation)
	}
}

// Vectors of Ulrich Drepper's SHA-crypt.txt and of crypt_blowfish 1.3, computed
// again with libxcrypt.
func TestHashesOfOthers(t *testing.T) {
	vectors := []struct{ password, hash string }{
		{"Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"},
		{"Hello world!", "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"},
		{"Hello world!", "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"},
		{"Hello world!", "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."},
		{"This is just a test", "$5$rounds=5000$toolongsaltstrin$Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5"},
		{"This is just a test", "$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0"},
		{"we have a short salt string but not a short password", "$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0"},
		{"U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
		{"U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"},
		{"\xa3", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq"},
		{"U*U*U", "$2b$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"},
	}
	for _, v := range vectors {
		a, _, err := parseHash(v.hash)
		if err != nil {
			t.Errorf("%s: %v", v.hash, err)
			continue
		}
		if !a.MatchesPassword(v.password) || a.MatchesPassword(v.password+"x") {
			t.Errorf("%s does not tell %q from others", v.hash, v.password)
		}
	}
}

// S15, S19: each file is wrong, and none is half accepted.
func TestInvalidFiles(t *testing.T) {
	const remedy = ": set the password again with `htpasswd -B -C 12 FILE USER`"
	const cost = "the bcrypt cost is not between 4 and 14, beyond which one check takes seconds: set the password again with `htpasswd -B -C 12 FILE USER`"
	const unknown = "a hash that is neither bcrypt ($2y$, $2a$, $2b$) nor SHA-crypt ($5$, $6$)" + remedy
	const memory = "Argon2 and yescrypt ($argon2…, $y$, $gy$, $7$) are not supported" + remedy
	const rename, noColon = ": rename or remove it", "no colon: a line is user:hash, as `htpasswd -B` writes it"
	const blank = "a blank in or after the hash: remove it, and save the file with Unix line ends"
	const plain = "plain text, DES or an unknown hash" + remedy
	const sha1 = "SHA-1 or plain text ({SHA}, {SSHA}, {PLAIN}) is too quick to break" + remedy
	const md5 = "MD5 ($apr1$, $1$) is too quick to break" + remedy
	const cutBcrypt, cutSHA = "the bcrypt hash is not whole" + remedy, "the SHA-crypt hash is not whole" + remedy
	const rounds = "the SHA-crypt rounds are not between 1000 and 500000" + remedy
	tests := []struct {
		file string
		want []string // after the file's name
	}{
		{"invalid-apr1", []string{":2: " + md5}},
		{"invalid-argon2", []string{":1: " + memory}},
		{"invalid-bcrypt-2x", []string{":1: " + unknown}},
		{"invalid-bcrypt-alphabet", []string{":1: " + cutBcrypt}},
		{"invalid-bcrypt-cost-high", []string{":2: " + cost}},
		{"invalid-bcrypt-cost-low", []string{":1: " + cost}},
		{"invalid-bcrypt-cut", []string{":1: " + cutBcrypt}},
		{"invalid-bcrypt-head", []string{":1: " + cutBcrypt}},
		{"invalid-bcrypt-tail", []string{":1: " + cutBcrypt}},
		{"invalid-byte-order-mark", []string{":1: the user " + unseen + rename}},
		{"invalid-carriage-return", []string{":1: " + blank}},
		{"invalid-des", []string{":1: " + plain}},
		{"invalid-duplicate", []string{":4: the user of line 2 again: keep one of the two lines"}},
		{"invalid-long-line", []string{":1: the line is longer than 1024 bytes"}},
		{"invalid-md5crypt", []string{":1: " + md5}},
		{"invalid-nginx-plain", []string{":2: " + sha1}},
		{"invalid-no-colon", []string{":2: " + noColon}},
		{"invalid-no-hash", []string{":1: no hash" + remedy}},
		{"invalid-plain", []string{":1: " + blank, ":2: " + plain}},
		{"invalid-rounds-empty", []string{":1: " + cutSHA}},
		{"invalid-rounds-high", []string{":1: " + rounds}},
		{"invalid-rounds-low", []string{":1: " + rounds}},
		{"invalid-rounds-padded", []string{":1: " + cutSHA}},
		{"invalid-several", []string{":1: " + noColon, ":3: " + plain}},
		{"invalid-sha1", []string{":1: " + sha1}},
		{"invalid-sha512-alphabet", []string{":1: " + cutSHA}},
		{"invalid-sha512-cut", []string{":1: " + cutSHA}},
		{"invalid-sha512-head", []string{":1: " + cutSHA}},
		{"invalid-sha512-is-sha256", []string{":1: " + cutSHA}},
		{"invalid-sha512-no-salt", []string{":1: " + cutSHA}},
		{"invalid-trailing-blank", []string{":1: " + blank}},
		{"invalid-user-anonymous", []string{":1: the user is the name of callers without credentials" + rename}},
		{"invalid-user-bidi", []string{":1: the user " + unseen + rename}},
		{"invalid-user-blank", []string{":1: the user " + edges + rename}},
		{"invalid-user-empty", []string{":1: the user is empty" + rename}},
		{"invalid-user-group", []string{":1: the user begins with @, which marks groups" + rename}},
		{"invalid-without-end", append(numbered(20, plain), ": and perhaps more: reading stopped")},
		{"invalid-yescrypt", []string{":1: " + memory}},
	}
	var tested []string
	for _, test := range tests {
		file := filepath.Join("testdata", test.file+".htpasswd")
		tested = append(tested, file)
		t.Run(test.file, func(t *testing.T) {
			b, err := NewBasic(file, nil)
			want := file + strings.Join(test.want, "\n"+file)
			if b != nil || message(err) != want {
				t.Errorf("got %v and error\n%s\nwant\n%s", b, message(err), want)
			}
		})
	}
	files, err := filepath.Glob("testdata/invalid-*.htpasswd")
	if err != nil || !slices.Equal(files, tested) {
		t.Errorf("the table is not the list of files (%v):\n%q\n%q", err, tested, files)
	}
}

func numbered(n int, text string) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(":%d: %s", i+1, text))
	}
	return out
}

func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxFileBytes+1); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, file, want string }{
		{"a pipe", pipe, pipe + ": not a regular file"},
		{"no file", filepath.Join(dir, "none"), "read users: open " + dir + "/none: no such file or directory"},
		{"a directory", dir, dir + ": not a regular file"},
		{"a device", "/dev/zero", "/dev/zero: not a regular file"},
		{"a file without end", large, large + ": larger than 16384 KiB, the most that is read of users"},
	} {
		b, err := NewBasic(test.file, nil)
		if b != nil || message(err) != test.want {
			t.Errorf("%s: got %v, %q, want %q", test.name, b, message(err), test.want)
		}
	}
}

// S19
func TestDecoyCostsWhatMostUsersCost(t *testing.T) {
	const (
		bcrypt4a = "a:$2a$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n"
		bcrypt4y = "b:$2y$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n"
		bcrypt5  = "c:$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n"
		sha256   = "d:$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5\n"
		sha512   = "e:$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.\n"
		sha512f  = "f:$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.\n"
	)
	for _, test := range []struct{ name, text, prefix string }{
		{"no users", "", "$2y$10$"},
		{"one user", bcrypt4a, "$2y$04$"},
		{"the letter of bcrypt does not count", bcrypt5 + bcrypt4a + bcrypt4y, "$2y$04$"},
		{"a tie goes to the first", bcrypt5 + sha256, "$2y$05$"},
		{"SHA-256", sha256, "$5$"},
		{"rounds count", bcrypt4a + sha512 + sha512f + sha256, "$6$rounds=10000$"},
	} {
		u, err := parseUsers("users", test.text)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if !strings.HasPrefix(u.decoy.hash, test.prefix) || u.decoy.MatchesPassword("") {
			t.Errorf("%s: the decoy is %s…, want %s", test.name, u.decoy.hash[:8], test.prefix)
		}
	}
}

func TestCosts(t *testing.T) {
	u, err := parseUsers("users", `a:$2y$04$nkim0fThe/Pn3GFBi5EmJOYgC4E8WURfewEgi9yzQ8ohnOhe6ggPm
b:$2b$04$NtisaL5/eEq29CkhP3bxWesCwRI2ggXEyKIzN7T/60Nwh9FLWA5YS
c:$2y$10$NtisaL5/eEq29CkhP3bxWesCwRI2ggXEyKIzN7T/60Nwh9FLWA5YS
d:$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5
e:$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range u.costs {
		took, err := c.Measure()
		if err != nil || took <= 0 {
			t.Errorf("%s: took %v, %v", c, took, err)
		}
		got = append(got, fmt.Sprintf("%s, weak %t", c, c.IsWeak()))
	}
	want := []string{
		"2 users: bcrypt, cost 4, weak true",
		"1 user: bcrypt, cost 10, weak false",
		"1 user: SHA-256-crypt, 5000 rounds, weak false",
		"1 user: SHA-512-crypt, 10000 rounds, weak false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzUsers(f *testing.F) {
	files, err := filepath.Glob("testdata/*.htpasswd")
	if err != nil || len(files) < 30 {
		f.Fatalf("only %d seeds: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseUsers("users", text)
		if err != nil {
			if u != nil {
				t.Fatal("an error beside users")
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "users:") {
					t.Fatalf("an error without its file, or with text of it: %q", line)
				}
			}
			return
		}
		// Whatever is accepted reads the same when it is written plainly.
		var plain strings.Builder
		for name, a := range u.accounts {
			if authz.ValidSubject(name) != nil || strings.ContainsAny(name, ":\n") || !strings.HasPrefix(a.hash, "$") {
				t.Fatalf("accepted user %q with hash %q", name, a.hash)
			}
			fmt.Fprintf(&plain, "%s:%s\n", name, a.hash)
		}
		again, err := parseUsers("users", plain.String())
		if err != nil || len(again.accounts) != len(u.accounts) {
			t.Fatalf("%d users became others: %v", len(u.accounts), err)
		}
	})
}
