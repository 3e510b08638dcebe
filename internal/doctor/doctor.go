// Package doctor examines a system that runs, the service, nginx and the files that it
// serves, and says what is wrong and what to do.
//
// [Examine] goes through the list of [Examinations], in the order in which one thing
// depends on another. [Complain] looks for why somebody does not get one file. Both ask
// as an operator does: they read files and processes, have nginx print its
// configuration, and send requests. They change nothing, but that nginx makes a log that
// is not there whenever it is asked. What they may not see is a finding too.
//
// doctor does not say that a system is safe, and sees no firewall, no proxy before
// nginx, and no other machine.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"securefiles/internal/servable"
)

// A Severity says what a finding means.
type Severity string

// The severities.
const (
	// Error: something does not work, or lets through what it should not.
	Error Severity = "error"
	// Warning: it works, and is unsafe or not as it was meant.
	Warning Severity = "warning"
	// Unseen: it could not be looked at.
	Unseen Severity = "unseen"
	// Note: it is as it was meant, and there is something to know of it.
	Note Severity = "note"
)

func (s Severity) rank() int { return slices.Index([]Severity{Error, Warning, Unseen, Note}, s) }

// A Finding is something that is wrong.
type Finding struct {
	Severity Severity `json:"severity"`
	// Examination is the name of the one that found it.
	Examination string `json:"examination"`
	Problem     string `json:"problem"`
	// Remedy says what to do, where the problem does not.
	Remedy string `json:"remedy,omitempty"`
}

// IsWell reports whether nothing is wrong, whatever there is to know.
func (r *Report) IsWell() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != Note })
}

// A Report is what came of it.
type Report struct {
	// Findings are errors first, in the order of the examinations; never nil.
	Findings []Finding `json:"findings"`
	// Seen is what there is to know beside: what was looked at, which answer
	// came, what logs say.
	Seen []string `json:"seen"`
	// Asked is how many requests went through nginx.
	Asked int `json:"asked"`
}

// An Address is where somebody listens, as net.Dial takes it.
type Address struct{ Network, Address string }

// A Dependency is somebody whom the service asks.
type Dependency struct {
	What    string // `the application of a session, http://…`
	Address Address
}

// A Download is a guarded URL prefix.
type Download struct {
	Name, URL, Internal, Root string
	FollowSymlinks            bool
	DenyStatus                int
}

// A Caller is who asks.
type Caller struct {
	Subject string
	Groups  []string
}

// Printed is the nginx configuration that belongs to the system.
type Printed struct {
	HTTP, Server string // the two halves
	Digest       string // that the second sends
}

// A System is what there should be, by its configuration.
type System struct {
	// Check says what is wrong with configuration, policy and users.
	Check func(context.Context) []Finding
	// File is the configuration's, absolute; empty for built-in defaults.
	File string
	// Listen is where nginx asks, Admin where operators do; Version is that of
	// this program.
	Listen, Admin Address
	Version       string
	// PeerUIDs are the users whose processes may connect to Listen; empty means
	// all.
	PeerUIDs  []int
	Asked     []Dependency
	Downloads []Download
	// Elsewhere are downloads behind other web servers than nginx, at which nothing looks:
	// `NAME is behind front: apache`.
	Elsewhere []string
	// Printed is empty where nothing can be printed. IsSecret says whether a text is the
	// secret that nginx must send, Proof is the file of the proof's secret as it would be
	// printed; nil and empty where there is none.
	Printed     Printed
	IsSecret    func(text string) bool
	Proof       string
	DeliveryLog string
	// Vouched are the headers by which nginx says who asks. RemoteUser says that one is
	// of a password that nginx checks, Challenges how many ways to log in the
	// service offers.
	Vouched    []string
	RemoteUser bool
	Challenges int
	// GroupsFrom are the variables of nginx that hold a caller's groups, `$gateway_groups`,
	// but for those of which the configuration says that all come in one header line.
	GroupsFrom []string
	// Allows asks the policy, Holder it for a user who may have a path, or nobody. Both
	// are nil where the policy cannot be used.
	Allows func(ctx context.Context, c Caller, download, url string) (bool, error)
	Holder func(ctx context.Context, download, url string) string
}

// Options say how to look. The zero value looks as well as it can.
type Options struct {
	// As is the user that nginx's workers run as, where that cannot be seen.
	As string
	// PIDFile is that of nginx, where several run; Dump is what `nginx -T` printed, where
	// nginx runs elsewhere.
	PIDFile string
	Dump    string
	// Caller asks through nginx, with the name and password User and Password; without
	// them nobody does.
	Caller         Caller
	User, Password string
	// Logs are files that the service's log may be in.
	Logs []string
	// Proc and Mounts are where processes and mounts to be are listed; empty means
	// /proc and /etc/fstab. Docs is where a package puts the documentation; empty means
	// /usr/share/doc/securefiles.
	Proc, Mounts, Docs string
}

// Anonymous is whoever has no credentials.
const Anonymous = "anonymous"

// A patient is a system, and what the examinations have seen of it.
type patient struct {
	*System
	opts     Options
	began    time.Time
	proc     proc
	nginx    *nginx         // nil where none was found
	user     *servable.User // of nginx's workers; nil where nobody knows
	userFrom string         // how that is known
	found    []Finding
	seen     []string
	asked    int    // requests through nginx
	lastID   string // of the last one, by which logs tell of it
}

// An Examination looks at one thing.
type Examination struct {
	Name    string
	Summary string
	examine func(*patient, context.Context) []Finding
}

// Examinations are all, in their order.
func Examinations() []Examination {
	return []Examination{
		{"configuration", "configuration, policy and users, as check does", (*patient).configuration},
		{"root", "the directories: there, readable for nginx's user, mounted, of a context that nginx may read", (*patient).root},
		{"service", "the service answers, and serves what is in the files", (*patient).service},
		{"socket", "nginx's user may connect", (*patient).socket},
		{"nginx", "nginx runs, with the configuration that is in its files", (*patient).process},
		{"snippet", "both halves are included, and printed for this configuration", (*patient).snippet},
		{"directives", "nothing that is inherited changes answers or bytes", (*patient).directives},
		{"version", "nginx has the fixes that the configuration needs", (*patient).version},
		{"logs", "what is delivered is logged", (*patient).logs},
		{"probe", "requests through nginx are answered as they should be", (*patient).probe},
	}
}

func newPatient(ctx context.Context, s *System, opts *Options) *patient {
	p := &patient{System: s, began: time.Now()}
	if opts != nil {
		p.opts = *opts
	}
	p.opts.Proc, p.opts.Mounts = cmp.Or(p.opts.Proc, "/proc"), cmp.Or(p.opts.Mounts, "/etc/fstab")
	p.opts.Docs = cmp.Or(p.opts.Docs, "/usr/share/doc/securefiles")
	if p.opts.Caller.Subject == "" {
		p.opts.Caller.Subject = Anonymous
	}
	p.proc = proc(p.opts.Proc)
	p.lookForNginx(ctx)
	p.lookForUser()
	return p
}

// Examine goes through all examinations.
func Examine(ctx context.Context, s *System, opts *Options) *Report {
	p := newPatient(ctx, s, opts)
	for _, e := range Examinations() {
		p.do(ctx, e)
	}
	return p.report()
}

func (p *patient) do(ctx context.Context, e Examination) {
	for _, f := range e.examine(p, ctx) {
		f.Examination = e.Name
		p.found = append(p.found, f)
	}
}

// sick reports whether one of the examinations found an error.
func (p *patient) sick(names ...string) bool {
	return slices.ContainsFunc(p.found, func(f Finding) bool { return f.Severity == Error && slices.Contains(names, f.Examination) })
}

func (p *patient) see(format string, args ...any) {
	p.seen = append(p.seen, fmt.Sprintf(format, args...))
}

func (p *patient) report() *Report {
	r := &Report{Findings: append([]Finding{}, p.found...), Seen: append([]string{}, p.seen...), Asked: p.asked}
	for i := range r.Findings {
		r.Findings[i].Remedy = page.ReplaceAllStringFunc(r.Findings[i].Remedy, p.page)
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return a.Severity.rank() - b.Severity.rank() })
	return r
}

var page = regexp.MustCompile(`\bdocs/[a-z-]+\.md`)

// page is where this machine has a page of the documentation; its name in the source where
// it has none.
func (p *patient) page(name string) string {
	file := filepath.Join(p.opts.Docs, name)
	if _, err := os.Stat(file); err != nil {
		return name
	}
	return file
}

// list makes findings.
type list []Finding

func (l *list) add(s Severity, problem, remedy string) {
	*l = append(*l, Finding{Severity: s, Problem: problem, Remedy: remedy})
}

// patience bounds each thing that is asked of somebody else.
const patience = 5 * time.Second
