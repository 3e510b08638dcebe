package cli

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"securefiles/internal/audit"
)

// hostileTexts are what somebody may be called, ask for, or say of a browser, to break
// a line, drive a terminal or a spreadsheet, or deceive who reads.
func hostileTexts() []string {
	texts := []string{
		"=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1+1)", "\t=1", "\r=1", "＝1+1", "＠x", "a\nb", "a\r\nb", "\x1b[2J\x1b[31m", "\x1b]0;title\x07", "\x1b]8;;http://evil\x1b\\x", "\u009b31m",
		"\u202egpj.exe", "\u2066x\u2069", "\u200bzero", "\ufeffbom", "\u2028", "\u2029", "\x00", "\x7f", "\xff\xfe", "\xed\xa0\x80", "\"},{\"v\":1,\"type\":\"decision\"", "\\", "\\u001b[31m", "'\"`$(reboot)",
		`","user.id":"admin","x":"`, "<script>alert(1)</script>", "%1b%5b31m", "../../etc/passwd", strings.Repeat("A", 4096), strings.Repeat("\x1b", 300), "😀", "e\u0301\u0301\u0301", "\b\b\b", "\x9d", "\U000e0041",
	}
	for i := 0; len(texts) < 500; i++ {
		texts = append(texts, texts[i%39]+string(rune(40*i))+texts[(i*7+3)%39])
	}
	return texts
}

// Whatever names, paths, browsers and referrers hold, nothing of it drives the terminal
// or the spreadsheet of whoever asks.
func TestAuditShowsHostileTextsAsText(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	w, err := audit.OpenWriter(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	texts := hostileTexts()
	for i, text := range texts {
		r := audit.Record{
			Version: audit.Version, Type: audit.TypeDecision, Time: time.Unix(int64(i), 0), Request: fmt.Sprint("r", i), Download: text, Path: text, Subject: text, Groups: []string{text}, Source: text,
			Link: text, Maker: text, Client: text, Agent: text, Referrer: text, Method: text, Range: text, Decision: "deny", Reason: text, Line: text, Status: 404,
		}
		if err := w.Write(&r); err != nil {
			t.Fatal(err)
		}
		r.Type, r.Delivery, r.Protocol = audit.TypeDelivery, audit.Aborted, text
		if err := w.Write(&r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"--json"}, {"--csv"}, {"--by", "subject"}, {"--by", "path"}, {"--by", "link", "--csv"}, {"--by", "day", "--json"}, {"--by", "subject", "--json"}} {
		status, stdout, stderr := command(t, append([]string{"audit", name}, args...)...)
		if status != exitYes || stderr != "" {
			t.Fatalf("%q: status %d: %s", args, status, stderr)
		}
		for i, r := range stdout {
			if r != '\n' && !strconv.IsPrint(r) {
				t.Fatalf("%q: %q in %q", args, r, stdout[max(0, i-40):i+1])
			}
		}
		lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
		last := args
		if len(last) > 0 && last[len(last)-1] == "--json" {
			for _, line := range lines {
				if !json.Valid([]byte(line)) {
					t.Errorf("%q: no JSON: %s", args, line)
				}
			}
		}
		if len(args) == 0 && len(lines) != 2*len(texts)+1 || len(args) == 1 && args[0] == "--json" && len(lines) != 2*len(texts) {
			t.Errorf("%q: %d lines", args, len(lines))
		}
		if len(last) > 0 && last[len(last)-1] == "--csv" {
			rows, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
			if err != nil || len(rows) < 100 {
				t.Fatalf("%q: %d rows, %v", args, len(rows), err)
			}
			for _, row := range rows {
				for _, cell := range row {
					if first := []rune(cell + " ")[0]; strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) {
						t.Errorf("%q: a spreadsheet runs %q", args, cell)
					}
				}
			}
		}
	}
	for i, text := range texts[:32] { // and each is found by itself
		if text == "\xff\xfe" || text == "\xed\xa0\x80" || strings.ContainsRune(text, 0) { // no command line holds them
			continue
		}
		if status, stdout, stderr := command(t, "audit", name, "--json", "--subject="+text); status != exitYes || !strings.Contains(stdout, fmt.Sprintf(`"request.id":"r%d"`, i)) {
			t.Errorf("%q is not found: status %d: %s", text, status, stderr)
		}
	}
}

// terminalOf makes a terminal, and returns a command's end of it and what stands on it
// once that is closed.
func terminalOf(t *testing.T) (end *os.File, shown func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if end, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	text := make(chan string)
	go func() {
		all, _ := io.ReadAll(master) // EIO is its end
		text <- string(all)
	}()
	return end, func() string {
		_ = end.Close()
		return <-text
	}
}

// A long search and a long verification say on a terminal how far they are, and leave
// nothing behind; nobody else is told.
func TestLongAuditCommandsShowProgressOnATerminal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl.gz")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	packed := gzip.NewWriter(f)
	r := audit.Record{
		Version: audit.Version, Type: audit.TypeDecision, Time: time.Unix(0, 0), Request: "r1", Download: "main", Path: "/project/plan.pdf", Subject: "alice", Client: "192.0.2.1",
		Agent: strings.Repeat("A", 200), Method: "GET", Decision: "deny", Reason: "policy", Status: 404,
	}
	for range 150_000 {
		r.Request = strconv.FormatUint(rand.Uint64(), 16) // that gzip leaves enough to be shown
		if _, err := packed.Write(append(r.Append(nil), '\n')); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(packed.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	names := slices.Repeat([]string{name}, 8) // it takes longer than what is not told of
	for doing, args := range map[string][]string{
		"verifying": append([]string{"audit", "verify", "--key", "files.example.org+e8bf2fe2+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"}, names...),
		"searching": append([]string{"audit", "--subject", "alice", "--by", "subject"}, names...),
	} {
		t.Run(doing, func(t *testing.T) {
			end, shown := terminalOf(t)
			var out bytes.Buffer
			cmd := exec.Command(securefiles, args...)
			cmd.Env, cmd.Stdout, cmd.Stderr = []string{}, &out, end
			if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if text := shown(); !strings.HasPrefix(text, "\r"+doing+" [") || strings.Index(text, "\x1b[K") != len(text)-len("\x1b[K") || strings.Count(text, "%") < 3 {
				t.Errorf("on the terminal: %q; %s", text, out.String())
			}
			if _, _, stderr := command(t, args...); strings.Contains(stderr, doing) {
				t.Errorf("elsewhere: %q", stderr)
			}
		})
	}
}
