package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A followTest is a file, its rotations, and who follows it.
type followTest struct {
	*testing.T
	path, state string
	log         bytes.Buffer
	*Follower
	last Position
}

func newFollowTest(t *testing.T) *followTest {
	dir := t.TempDir()
	f := &followTest{T: t, path: filepath.Join(dir, "audit.jsonl"), state: filepath.Join(dir, "audit.jsonl.follow")}
	f.start()
	return f
}

// start begins where the state says, as after a kill: nothing was told to end.
func (f *followTest) start() {
	f.Helper()
	var err error
	f.Follower, err = NewFollower(f.path, f.state, &FollowerOptions{Poll: time.Microsecond, MaxLine: 100, Log: slog.New(slog.NewTextHandler(&f.log, nil))})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { f.Follower.Close() })
}

func (f *followTest) write(text string) {
	f.Helper()
	out, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = out.WriteString(text)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		f.Fatal(err)
	}
}

// rename gives files new names: from, to, from, to, below the file's own.
func (f *followTest) rename(names ...string) {
	f.Helper()
	for i := 0; i < len(names); i += 2 {
		if err := os.Rename(f.path+names[i], f.path+names[i+1]); err != nil {
			f.Fatal(err)
		}
	}
}

// take returns the next n lines, separated by spaces.
func (f *followTest) take(n int) string {
	f.Helper()
	var lines []string
	for range n {
		ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
		line, pos, err := f.Next(ctx)
		cancel()
		if err != nil {
			f.Fatalf("%v after %q; log:\n%s", err, lines, f.log.String())
		}
		f.last = pos
		lines = append(lines, string(line))
	}
	return strings.Join(lines, " ")
}

// none fails where there is a line. More than enough scans are made for a file to be given up.
func (f *followTest) none() {
	f.Helper()
	for range 3 * followMissing {
		for time.Since(f.scanned) < time.Microsecond {
		}
		if line, _, ok, err := f.TryNext(); ok || err != nil {
			f.Fatalf("there is %q, %v", line, err)
		}
	}
}

func (f *followTest) want(want string) {
	f.Helper()
	if got := f.take(strings.Count(want, " ") + 1); got != want {
		f.Fatalf("got  %s\nwant %s\nlog:\n%s", got, want, f.log.String())
	}
}

func (f *followTest) commit() {
	f.Helper()
	if err := f.Commit(f.last); err != nil {
		f.Fatal(err)
	}
}

func (f *followTest) quiet() {
	f.Helper()
	if s := f.Stats(); s != (FollowerStats{}) || f.log.Len() > 0 {
		f.Errorf("%+v, and said:\n%s", s, f.log.String())
	}
}

func (f *followTest) zip(from, to string) {
	f.Helper()
	text, err := os.ReadFile(f.path + from)
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err = w.Write(text)
	if err = errors.Join(err, w.Close(), os.WriteFile(f.path+to, b.Bytes(), 0o600)); err != nil {
		f.Fatal(err)
	}
}

func TestFollowerReadsWhatIsAppended(t *testing.T) {
	f := newFollowTest(t)
	f.none()
	f.write("a\nb\n")
	f.want("a b")
	f.none()
	f.write("c\n\nd\n")
	f.want("c  d")
	f.none()
	f.quiet()
}

func TestFollowerWaitsForTheRestOfATornLine(t *testing.T) {
	f := newFollowTest(t)
	f.write("a\nb1")
	f.want("a")
	f.none()
	f.write("b2")
	f.none()
	f.write("b3\nc\n")
	f.want("b1b2b3 c")

	f.write("torn")
	f.none()
	f.rename("", ".1")
	f.write("d\n")
	f.want("d") // it does not hold up others
	f.quiet()
}

func TestFollowerHandsOutAgainWhatWasNotCommitted(t *testing.T) {
	f := newFollowTest(t)
	f.write("a\nb\nc\nd\n")
	f.want("a b")
	f.commit()
	f.want("c d")
	f.start()
	f.want("c d")
	f.commit()
	f.start()
	f.none()
	f.quiet()
}

func TestFollowerFindsRotationsThatCameWhileItWasAway(t *testing.T) {
	for name, rotate := range map[string]func(f *followTest){
		"none": func(f *followTest) { f.write("c\nd\ne\n") },
		"one":  func(f *followTest) { f.write("c\n"); f.rename("", ".1"); f.write("d\ne\n") },
		"several": func(f *followTest) {
			f.write("c\n")
			f.rename("", ".1")
			f.write("d\n")
			f.rename(".1", ".2", "", ".1")
			f.write("e\n")
		},
		"several in one second, by date": func(f *followTest) {
			f.write("c\n")
			f.rename("", "-20261126")
			f.write("d\n")
			f.rename("", "-20261127")
			f.write("e\n")
			at := time.Now()
			for _, n := range []string{"", "-20261126", "-20261127"} {
				if err := os.Chtimes(f.path+n, at, at); err != nil {
					f.Fatal(err)
				}
			}
		},
		"eleven in one second, by number": func(f *followTest) {
			at := time.Now()
			f.write("c\n")
			f.rename("", ".11")
			f.write("d\n")
			f.rename("", ".2")
			f.write("e\n")
			for _, n := range []string{"", ".11", ".2"} {
				if err := os.Chtimes(f.path+n, at, at); err != nil {
					f.Fatal(err)
				}
			}
		},
		"to a name that is no rotation's": func(f *followTest) { f.write("c\n"); f.rename("", ".old"); f.write("d\ne\n") },
		"compressed": func(f *followTest) {
			f.write("c\n")
			f.zip("", ".2.gz")
			os.Remove(f.path)
			f.write("d\n")
			f.rename("", ".1")
			f.write("e\n")
		},
		"compressed by zstd, and with the date before the extension": func(f *followTest) {
			f.write("c\n")
			text, _ := os.ReadFile(f.path)
			w, err := zstd.NewWriter(nil)
			if err != nil {
				f.Fatal(err)
			}
			os.WriteFile(f.path+".2.zst", w.EncodeAll(text, nil), 0o600)
			os.Remove(f.path)
			f.write("d\n")
			f.rename("", "x")
			if err := os.Rename(f.path+"x", strings.Replace(f.path, ".jsonl", "-20261126.jsonl", 1)); err != nil {
				f.Fatal(err)
			}
			f.write("e\n")
		},
		"compressed, and the inode used again": func(f *followTest) {
			f.write("c\n")
			f.zip("", ".1.gz")
			os.Truncate(f.path, 0)
			f.write("d\ne\n")
		},
		"copied and truncated": func(f *followTest) {
			f.write("c\n")
			text, _ := os.ReadFile(f.path)
			os.WriteFile(f.path+".1", text, 0o600)
			os.Truncate(f.path, 0)
			f.write("d\ne\n")
		},
	} {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				f := newFollowTest(t)
				f.write("a\nb\n")
				f.want("a b")
				if running {
					f.none()
				}
				f.commit()
				rotate(f)
				if !running {
					f.start()
				}
				f.want("c d e")
				f.none()
				if strings.Contains(name, "trunc") {
					if s := f.Stats(); s.Truncated != 1 || s.LostBytes != 0 || s.Unread != 0 {
						t.Errorf("%+v", s)
					}
				} else {
					f.quiet()
				}
				if lag, err := f.Lag(); err != nil || lag == 0 {
					t.Errorf("before the commit it lags %d, %v", lag, err)
				}
				f.commit()
				if lag, err := f.Lag(); err != nil || lag != 0 {
					t.Errorf("behind all it lags %d, %v", lag, err)
				}
				f.start()
				f.none()
			})
		}
	}
}

func TestFollowerReadsAllThatIsLeftWhereItNeverWas(t *testing.T) {
	f := newFollowTest(t)
	f.write("a\nb\n")
	f.zip("", ".3.gz")
	os.Remove(f.path)
	old := time.Now().Add(-time.Hour)
	os.Chtimes(f.path+".3.gz", old, old)
	f.write("c\n")
	f.rename("", ".1")
	f.write("d\n")
	if err := os.WriteFile(f.path+".lock", []byte("no line of it\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if lag, err := f.Lag(); err != nil || lag <= 4 {
		t.Errorf("it lags %d, %v", lag, err)
	}
	f.want("a b c d")
	f.none()
	f.quiet()
}

func TestFollowerReadsOnInAFileThatIsWrittenAfterItsRotation(t *testing.T) {
	f := newFollowTest(t)
	f.write("a\n")
	f.want("a")
	old, err := os.OpenFile(f.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	f.rename("", ".1")
	f.write("b\n")
	f.want("b")
	io.WriteString(old, "late\n")
	f.want("late")
	f.write("c\n")
	f.want("c")
	f.commit()
	f.start()
	f.none()
	f.quiet()
}

func TestFollowerCommitsAllThatCameBefore(t *testing.T) {
	f := newFollowTest(t)
	f.write("a\nb\n")
	f.rename("", ".1")
	f.write("c\nd\n")
	f.want("a b c")
	f.commit()
	f.want("d")
	f.start()
	f.want("d")
}

func TestFollowerTellsAReusedInodeByTheFirstLine(t *testing.T) {
	f := newFollowTest(t)
	f.write("a\nb\n")
	f.want("a b")
	f.commit()
	// The same inode and more bytes than were read: what an unlinked file's successor looks like.
	os.Truncate(f.path, 0)
	f.write("c\nd\ne\n")
	f.start()
	f.want("c d e")
	f.none()
	if s := f.Stats(); s.Truncated != 1 || !strings.Contains(f.log.String(), "no copy") {
		t.Errorf("%+v\n%s", s, f.log.String())
	}
}

func TestFollowerCountsWhatIsLost(t *testing.T) {
	t.Run("a line that is too long", func(t *testing.T) {
		f := newFollowTest(t)
		f.write(strings.Repeat("x", 100) + "\n" + strings.Repeat("y", 101) + "\n" + strings.Repeat("z", 1<<17) + "\nb\n")
		if got := f.take(2); got != strings.Repeat("x", 100)+" b" {
			t.Errorf("got %.200s", got)
		}
		if s := f.Stats(); s.TooLong != 2 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a file that is removed before it is read", func(t *testing.T) {
		f := newFollowTest(t)
		f.write("a\n")
		f.want("a")
		f.rename("", ".2")
		f.write("b\nc\n")
		f.rename("", ".1")
		f.write("d\n")
		f.want("b") // and d is seen, but not opened
		os.Remove(f.path + ".1")
		f.want("c d") // what is open can be read
		f.commit()
		f.write("unread\n")
		f.rename("", ".1")
		f.write("e\n")
		for f.size(".1") != 9 { // the follower looks, and reads nothing
			f.mu.Lock()
			f.scan()
			f.mu.Unlock()
		}
		f.Follower.Close()
		os.Remove(f.path + ".1")
		f.want("e")
		f.none()
		if s := f.Stats(); s.Unread != 1 || s.LostBytes != 7 {
			t.Errorf("%+v\n%s", s, f.log.String())
		}
	})
	t.Run("what another program compressed", func(t *testing.T) {
		f := newFollowTest(t)
		f.write("a\n")
		f.rename("", ".1.xz")
		f.write("b\n")
		f.want("b")
		f.none()
		if s := f.Stats(); s.Unread != 1 || !strings.Contains(f.log.String(), ".1.xz") {
			t.Errorf("%+v\n%s", s, f.log.String())
		}
	})
	t.Run("not what was read before another program compressed it", func(t *testing.T) {
		f := newFollowTest(t)
		f.write("a\n")
		f.want("a")
		info, _ := os.Stat(f.path)
		os.Remove(f.path)
		os.WriteFile(f.path+".1.xz", []byte("?"), 0o600)
		os.Chtimes(f.path+".1.xz", info.ModTime(), info.ModTime())
		f.write("b\n")
		f.want("b")
		f.none()
		f.quiet()
	})
	t.Run("what is no gzip at all", func(t *testing.T) {
		f := newFollowTest(t)
		os.WriteFile(f.path+".1.gz", []byte("this is no gzip\n"), 0o600)
		f.write("b\n")
		f.want("b")
		f.none()
		if s := f.Stats(); s.Unread != 1 {
			t.Errorf("%+v\n%s", s, f.log.String())
		}
	})
}

// size is that of a file as the follower saw it last.
func (f *followTest) size(name string) int64 {
	for _, file := range f.files {
		if file.name == f.path+name {
			return file.size
		}
	}
	return -1
}

func TestFollowerWaitsForACompressionToEnd(t *testing.T) {
	f := newFollowTest(t)
	f.write("a\nb\n")
	f.zip("", ".1.gz")
	whole, _ := os.ReadFile(f.path + ".1.gz")
	for _, n := range []int{0, 5, len(whole) - 9} {
		os.WriteFile(f.path+".1.gz", whole[:n], 0o600)
		if n == 0 {
			f.want("a b") // the file is there still
			f.commit()
		}
		f.none()
	}
	os.WriteFile(f.path+".1.gz", whole, 0o600)
	os.Remove(f.path)
	f.none()
	f.write("c\n")
	f.want("c")
	f.quiet()
}

func TestFollowerRefusesAStateThatIsNone(t *testing.T) {
	f := newFollowTest(t)
	for _, text := range []string{"", "{", `{"v":2}`, "[]"} {
		os.WriteFile(f.state, []byte(text), 0o600)
		if _, err := NewFollower(f.path, f.state, nil); err == nil || !strings.Contains(err.Error(), f.state) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestFollowerTellsWhenTheDirectoryIsGone(t *testing.T) {
	f := newFollowTest(t)
	f.path = filepath.Join(filepath.Dir(f.path), "gone", "audit.jsonl")
	f.start()
	if _, _, err := f.Next(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.path = f.state
	f.start()
	if _, _, err := f.Next(ctx); !reflect.DeepEqual(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Lines are written, files rotated and compressed as logrotate does it, and the
// follower is killed, in any order: each line comes once, and again only if it
// was not committed.
func TestFollowerMissesNothingWhateverComesAbout(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			f := newFollowTest(t)
			random := rand.New(rand.NewPCG(seed, 0))
			written, read, committed := 0, 0, 0
			write := func() {
				f.write(fmt.Sprintf("line%d\n", written))
				written++
			}
			rotate := func() {
				const kept = 8
				for n := kept; n > 0; n-- {
					for _, z := range []string{"", ".gz"} {
						if _, err := os.Stat(f.path + fmt.Sprint(".", n) + z); err == nil {
							f.rename(fmt.Sprint(".", n)+z, fmt.Sprint(".", n+1)+z)
						}
					}
				}
				f.rename("", ".1")
				if _, err := os.Stat(f.path + ".2"); err == nil {
					f.zip(".2", ".2.gz")
					info, _ := os.Stat(f.path + ".2")
					os.Chtimes(f.path+".2.gz", info.ModTime(), info.ModTime())
					os.Remove(f.path + ".2")
				}
				write()
			}
			write()
			rotations := 0
			for range 200 {
				switch n := random.IntN(20); {
				case n < 9:
					write()
				case n < 17:
					if read < written {
						f.want(fmt.Sprintf("line%d", read))
						read++
					}
				case n == 17 && rotations < 8:
					rotate()
					rotations++
				case n == 18 && read > committed:
					f.commit()
					committed = read
				case n == 19:
					f.start()
					read = committed
				}
			}
			for ; read < written; read++ {
				f.want(fmt.Sprintf("line%d", read))
			}
			f.none()
			f.quiet()
		})
	}
}

func TestFollowerReadsNoCopyOfWhatIsThere(t *testing.T) {
	f := newFollowTest(t)
	f.write("a\nb\nc\n")
	f.want("a")
	text, err := os.ReadFile(f.path)
	if err == nil {
		err = os.WriteFile(f.path+".1", text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.want("b c")
	f.none()
	f.write("d\n")
	f.want("d")
	f.none()
	f.commit()
	f.write("e\n")
	f.want("e")
	f.none()
	if lag, err := f.Lag(); err != nil || lag != 2 {
		t.Errorf("it lags %d, %v", lag, err)
	}
	f.quiet()
}
