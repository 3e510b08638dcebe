package doctor

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"securefiles/internal/servable"
	"securefiles/pathguard"
)

// A Complaint is that somebody does not get a file.
type Complaint struct {
	Caller   Caller
	Download string
	Path     pathguard.Path
	// Allowed is what the policy says in its file, Why in words, and Remedy what would
	// change it.
	Allowed bool
	Why     string
	Remedy  string
	// Log is what there is of the service's log, as far as somebody has it.
	Log string
}

// Complain looks for why somebody does not get a file: in the policy, the file, the service,
// nginx, and what logs say.
func Complain(ctx context.Context, s *System, c *Complaint, opts *Options) *Report {
	p := newPatient(ctx, s, opts)
	var d Download
	for _, one := range p.Downloads {
		if one.Name == c.Download {
			d = one
		}
	}
	p.do(ctx, Examination{Name: "policy", examine: func(*patient, context.Context) []Finding { return p.judged(c) }})
	p.do(ctx, Examination{Name: "file", examine: func(*patient, context.Context) []Finding { return p.theFile(ctx, c, d) }})
	for _, e := range Examinations() {
		switch e.Name {
		case "service", "socket", "nginx", "snippet", "directives":
			p.do(ctx, e)
		}
	}
	p.do(ctx, Examination{Name: "probe", examine: func(*patient, context.Context) []Finding { return p.tried(ctx, c, d) }})
	p.said(c, d)
	return p.report()
}

func (p *patient) judged(c *Complaint) []Finding {
	var all list
	if !c.Allowed {
		all.add(Error, fmt.Sprintf("the policy does not let %s have %s: %s", c.Caller.Subject, c.Path, c.Why), c.Remedy)
		return all
	}
	p.see("policy: %s may have %s: %s", c.Caller.Subject, c.Path, c.Why)
	return nil
}

// theFile looks whether nginx can serve it.
func (p *patient) theFile(ctx context.Context, c *Complaint, d Download) []Finding {
	var all list
	if d.Root == "" {
		return nil
	}
	file := filepath.Join(d.Root, c.Path.String())
	user := servable.User{} // root sees all that there is
	if p.user != nil {
		user = *p.user
	} else {
		all.add(Unseen, "nobody knows as which user nginx reads files", "say it with --as USER")
	}
	why := servable.File(d.Root, c.Path.String(), &servable.Options{User: user, FollowSymlinks: d.FollowSymlinks})
	if why == "" || strings.Contains(why, " may not ") {
		if can, known := canRead(ctx, user, file); known && can {
			why = "" // an access control list lets them
		} else if known && why == "" {
			why = fmt.Sprintf("%s may not read it, though owner and mode let them: getfacl %s shows its access control list", user.Name, file)
		}
	}
	switch {
	case why == "":
		p.see("file: %s is there, and %s may read it", file, user.Name)
		return append(all, p.sameDirectory(d)...)
	case strings.HasSuffix(why, "does not exist"):
		all.add(Error, fmt.Sprintf("there is no such file: %s", why), resembling(file))
	default:
		all.add(Error, "nginx cannot serve the file: "+why, fmt.Sprintf("namei -l %s shows the way; docs/troubleshooting.md has the mends", file))
	}
	return all
}

// resembling says which names beside a file differ from its in upper and lower case, or in
// how their letters are put together.
func resembling(file string) string {
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		return "correct the address, or put the file there"
	}
	for _, entry := range entries {
		switch is, asked := entry.Name(), filepath.Base(file); {
		case strings.EqualFold(is, asked):
			return fmt.Sprintf("there is %q: upper and lower case make two names", is)
		case norm.NFC.String(is) == norm.NFC.String(asked):
			return fmt.Sprintf("there is %+q, and %+q was asked for: names are compared as bytes; convmv --nfc makes one form of them", is, asked)
		}
	}
	return "correct the address, or put the file there"
}

// tried asks for the file through nginx.
func (p *patient) tried(ctx context.Context, c *Complaint, d Download) []Finding {
	var all list
	guards := p.guards()
	if len(guards) == 0 || p.sick("service", "nginx", "snippet") {
		return nil
	}
	if c.Caller.Subject != Anonymous && p.opts.User == "" {
		p.see("nginx was not asked as %s: that takes their password (--user), or cannot be done from outside", c.Caller.Subject)
		return nil
	}
	door := doorOf(guards[0])
	log := p.watch(p.errorLog(door.server))
	one := &candidate{d, c.Path, filepath.Join(d.Root, c.Path.String())}
	got, err := p.ask(ctx, door, one.url(), p.credentials()...)
	switch {
	case err != nil:
		all.add(Error, fmt.Sprintf("nginx cannot be asked: %s: %v", door, err), "the configuration says that it listens there: systemctl restart nginx")
	case c.Allowed:
		return p.served(ctx, door, one, got, log)
	case got.status == http.StatusOK:
		all.add(Error, fmt.Sprintf("%s gets the file all the same", c.Caller.Subject), "the service serves another policy than the file's, or is not asked: look at /readyz, and at nginx -T")
	default:
		p.see("%s as %s through %s: %d", one.url(), c.Caller.Subject, door, got.status)
	}
	return all
}

// said adds what logs say of the file and the caller.
func (p *patient) said(c *Complaint, d Download) {
	uri, file := c.Path.URL(d.URL), filepath.Join(d.Root, c.Path.String())
	last := func(what, text string, holds ...string) {
		var found string
		for line := range strings.Lines(text) {
			all := true
			for _, part := range holds {
				all = all && strings.Contains(line, part)
			}
			if all {
				found = line
			}
		}
		if found == "" {
			return
		}
		// A line may be from before somebody mended what it tells of.
		if at, ok := timeOf(found); ok && p.began.Sub(at) >= 2*time.Second { // some logs have whole seconds
			what += fmt.Sprintf(", %v before this", p.began.Sub(at).Round(time.Second))
		}
		p.see("%s: %s", what, strings.TrimSpace(found))
	}
	about := []string{uri}
	if c.Caller.Subject != Anonymous {
		about = append(about, c.Caller.Subject)
	}
	last("the service's log", c.Log, about...)
	for _, log := range p.opts.Logs {
		last(log, endOf(log), about...)
	}
	if id := p.lastID; id != "" && p.DeliveryLog != "" {
		for range 10 { // nginx writes it when it has answered
			if text := endOf(p.DeliveryLog); strings.Contains(text, id) {
				last(p.DeliveryLog, text, id)
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	guards := p.guards()
	if len(guards) == 0 {
		return
	}
	if log := p.errorLog(guards[0]); log != "" {
		last(log, endOf(log), file)
	}
	for _, l := range accessLogs(p.nginx.conf) {
		last(l, endOf(p.prefixed(l)), about...)
	}
}

// accessLogs are the files in which requests to downloads are told of, for people.
func accessLogs(block []directive) []string {
	var all []string
	for _, d := range block {
		inside := accessLogs(d.block)
		if d.name == "access_log" && len(d.args) > 1 && d.args[1] == "securefiles_access" && !strings.HasPrefix(d.args[0], "syslog:") && path.Base(d.args[0]) != "null" {
			inside = append(inside, d.args[0])
		}
		for _, name := range inside {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

var (
	rfc3339  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)
	errorLog = regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d `)
	msec     = regexp.MustCompile(`"msec":(\d+)\.(\d{3})\b`)
)

// timeOf is when a line was logged: by the service, by nginx's error log, or by a format
// that is printed. Each has a form of its own.
func timeOf(line string) (time.Time, bool) {
	if m := msec.FindStringSubmatch(line); m != nil {
		seconds, err := strconv.ParseInt(m[1], 10, 64)
		thousandths, err2 := strconv.ParseInt(m[2], 10, 64)
		return time.Unix(seconds, thousandths*int64(time.Millisecond)), err == nil && err2 == nil
	}
	if text := errorLog.FindString(line); text != "" {
		at, err := time.ParseInLocation("2006/01/02 15:04:05 ", text, time.Local)
		return at, err == nil
	}
	at, err := time.Parse(time.RFC3339Nano, rfc3339.FindString(line))
	return at, err == nil
}

// endOf is the end of a file; nothing where it cannot be read.
func endOf(file string) string {
	info, err := os.Stat(file)
	if err != nil {
		return ""
	}
	return after(file, max(0, info.Size()-maxBody))
}
