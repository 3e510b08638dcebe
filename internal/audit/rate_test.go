package audit

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Against grep on the same file, one after the other. SECUREFILES_AUDIT_LINES lines;
// `make bench-audit` takes ten million.
func TestSearchIsHalfAsFastAsGrep(t *testing.T) {
	lines, err := strconv.Atoi(os.Getenv("SECUREFILES_AUDIT_LINES"))
	if err != nil {
		t.Skip("SECUREFILES_AUDIT_LINES is not set: it needs 650 bytes of disk a line")
	}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	name := generated(t, filepath.Join(t.TempDir(), "audit.jsonl"), lines*10/19, 100_000, from)
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	for what, row := range map[string]struct {
		query Query
		text  string
	}{
		"a subject":                   {Query{Subjects: []string{"bob"}}, `"user.id":"bob"`},
		"one in a thousand lines":     {Query{Subjects: []string{"user5"}}, `"user.id":"user5"`},
		"one in twenty lines":         {Query{Decision: "deny"}, `"decision":"deny"`},
		"a path":                      {Query{Path: "/project/plan.pdf"}, `"path":"/project/plan.pdf"`},
		"a folder":                    {Query{Path: "/project/17/**"}, `"path":"/project/17/`},
		"a request":                   {Query{Request: "00000000000000000000000000000000"}, `"request.id":"00000000000000000000000000000000"`},
		"a path, aborted, in 90 days": {Query{Path: "/project/plan.pdf", Delivery: Aborted, Since: from.Add(time.Hour)}, `"path":"/project/plan.pdf"`},
	} {
		t.Run(what, func(t *testing.T) {
			// The best of some rounds, by the clock and by the CPU's time: others use the machine.
			grep, search, grepCPU, searchCPU := time.Hour, time.Hour, time.Hour, time.Hour
			for range 5 {
				begin := time.Now()
				cmd := exec.Command("grep", "-F", row.text, name)
				cmd.Env = append(os.Environ(), "LC_ALL=C")
				out, err := cmd.Output() // read, as nothing is looked for in /dev/null
				if err != nil && cmd.ProcessState.ExitCode() != 1 {
					t.Fatal(err)
				}
				grep, grepCPU = min(grep, time.Since(begin)), min(grepCPU, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())

				var before, after syscall.Rusage
				if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
					t.Fatal(err)
				}
				begin = time.Now()
				found := 0
				if _, err := (&Files{Paths: []string{name}}).Search(t.Context(), &row.query, func(*Found) error {
					found++
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				search = min(search, time.Since(begin))
				if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
					t.Fatal(err)
				}
				searchCPU = min(searchCPU, time.Duration(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano()))
				if lines := strings.Count(string(out), "\n"); row.query.Delivery == "" && found != lines {
					t.Errorf("found %d, grep %d", found, lines)
				}
			}
			rate := func(d time.Duration) float64 { return float64(info.Size()) / d.Seconds() / 1e9 }
			t.Logf("%d lines, %.1f GB: grep -F %.2f GB/s, search %.2f GB/s: ratio %.2f; by CPU time %.2f GB/s, %.2f GB/s: ratio %.2f",
				lines, float64(info.Size())/1e9, rate(grep), rate(search), float64(grep)/float64(search), rate(grepCPU), rate(searchCPU), float64(grepCPU)/float64(searchCPU))
			if search > 2*grep && searchCPU > 2*grepCPU {
				t.Errorf("less than half of grep's rate")
			}
		})
	}
}
