package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"securefiles/internal/access"
	"securefiles/internal/config"
	"securefiles/internal/identity"
	"securefiles/internal/limit"
	"securefiles/internal/page"
	"securefiles/internal/terminal"
	"securefiles/policy"
	"securefiles/policy/lint"
)

type checkCommand struct {
	Strict    bool     `help:"Fail on warnings too."`
	Format    string   `default:"text" enum:"text,json,sarif" help:"How to print findings: text, json, or sarif for code hosts."`
	JSON      bool     `name:"json" help:"The same as --format json."`
	Disable   []string `placeholder:"RULE" help:"Leave out the warnings of a rule; repeatable."`
	Elsewhere bool     `help:"The configuration is for another machine: leave out what it names and is not here, users, keys, secrets and roots. For continuous integration."`
	Verbose   bool     `short:"v" help:"Tell, too, how many people can log in at once with a password."`
	Rules     bool     `help:"List all rules and exit."`
	Online    bool     `help:"Also ask each store, as nginx would, for an object that is not there."`
	Files     bool     `help:"Instead, list the files that nginx could not serve, whatever policy says."`
	As        string   `placeholder:"USER" help:"Whom nginx runs as, for --files; by default www-data, nginx or http."`

	absent []string // with Elsewhere, what was left out
}

// Help shows examples.
func (checkCommand) Help() string {
	return `Prints one finding a line, as file:line: severity: message [rule-id], and exits 1 if
any is an error. docs/rules.md explains each rule. A comment above a line takes
back a finding, but for what cannot be read or evaluated:
  # securefiles:ignore redundant: the auditors want to see it spelt out

Examples:
  securefiles check --config /etc/securefiles/securefiles.yaml
  securefiles check --strict --elsewhere
  securefiles check --strict --disable redundant --format sarif > findings.sarif
  securefiles check --online             # do keys, clocks and certificates of stores fit?
  sudo securefiles check --files --as www-data`
}

func (cmd *checkCommand) Run(ctx context.Context, env Env, all *commands) error {
	if cmd.JSON {
		if cmd.Format == "sarif" {
			return errors.New("--json and --format sarif: choose one")
		}
		cmd.Format = "json"
	}
	switch {
	case cmd.Files && cmd.Format == "sarif":
		return errors.New("--files and --format sarif: what files there are is text, or json")
	case cmd.As != "" && !cmd.Files:
		return errors.New("--as says whom --files is about: give both")
	}
	if cmd.Rules {
		return cmd.printRules(env.Stdout)
	}
	rules := checkRules()
	for _, id := range cmd.Disable {
		switch i := slices.IndexFunc(rules, func(r lint.Rule) bool { return r.ID == id }); {
		case i < 0:
			return fmt.Errorf("--disable %s: there is no such rule; securefiles check --rules lists them", id)
		case rules[i].Severity == policy.SeverityError:
			return fmt.Errorf("--disable %s: what it finds is an error, which cannot be disabled", id)
		}
	}
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	if cmd.Files {
		return cmd.files(ctx, env, c)
	}
	p, err := all.open(c, env, slog.New(slog.DiscardHandler))
	if p != nil {
		err = errors.Join(err, p.loadSecrets(ctx, cmd.isElsewhere))
	}
	if err != nil {
		return err
	}
	progress := newProgress(env, "checking")
	findings, err := cmd.findings(ctx, env, p, progress)
	if err != nil {
		return err
	}
	progress.done()
	if err := cmd.print(env.Stdout, findings); err != nil {
		return err
	}
	for _, key := range waitingForRestart(ctx, c) {
		fmt.Fprintf(env.Stderr, "%s: the running service was started with another %s: restart it\n", c.File, key)
	}
	if len(findings) == 0 && cmd.Format == "text" {
		file := cmp.Or(c.File, "built-in configuration")
		if len(cmd.absent) > 0 {
			fmt.Fprintf(env.Stderr, "%s: no findings in what is here, and not here is %s\n", file, strings.Join(cmd.absent, ", "))
		} else {
			fmt.Fprintf(env.Stderr, "%s: no findings in configuration, model, policy and users\n", file)
		}
	}
	for _, f := range findings {
		if f.Severity == policy.SeverityError || cmd.Strict {
			return errNo
		}
	}
	return nil
}

// isElsewhere reports whether an error is that a file is not here, where it need not be, and
// notes which.
func (cmd *checkCommand) isElsewhere(file string, err error) bool {
	if !cmd.Elsewhere || !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	cmd.absent = append(cmd.absent, file)
	return true
}

// ofThisMachine are the rules about files as they are on the machine of the service.
var ofThisMachine = []string{"root", "secret-readable", "world-writable", "htpasswd-cost"}

// findings are all that is wrong with the configuration, and with what it names.
func (cmd *checkCommand) findings(ctx context.Context, env Env, p *Parts, progress *progress) ([]policy.Finding, error) {
	c := p.Config
	disable := cmd.Disable
	if cmd.Elsewhere { // nor does a comment that takes them back stand there in vain
		disable = slices.Concat(disable, ofThisMachine)
	}
	check := lint.Options{Options: p.Policy.Options, Disable: disable, OnlyUsers: len(c.Identity) > 0, Progress: progress.show}
	check.Downloads, check.Roots = p.Downloads.All(), map[string]string{}
	for _, d := range c.Downloads {
		check.Roots[d.Name] = d.Root
	}
	findings, err := cmd.configuration(ctx, env, p, &check)
	if err != nil {
		return nil, err
	}
	for i := range c.Identity {
		findings = append(findings, groupLines(c, i)...)
	}
	findings = slices.DeleteFunc(takeBack(c, findings, disable), isGroupLines)
	findings = append(findings, lint.Check(ctx, p.Policy.Files, &check)...)
	adviseOnFiles(findings)
	return findings, nil
}

// adviseOnFiles says of files as a whole that may not be read how that is mended.
func adviseOnFiles(findings []policy.Finding) {
	for i, f := range findings {
		if f.Line > 0 || f.Severity != policy.SeverityError {
			continue
		}
		if advice := access.Reading(f.File); advice != "" {
			findings[i].Message += ": " + advice
		}
	}
}

// configuration checks what is not the policy's, and notes what the policy is
// to be compared with.
func (cmd *checkCommand) configuration(ctx context.Context, env Env, p *Parts, check *lint.Options) ([]policy.Finding, error) {
	findings := configFindings(p.Config)
	add := func(severity policy.Severity, file, rule, message string) {
		findings = append(findings, policy.Finding{File: file, Severity: severity, Rule: rule, Message: message})
	}
	for _, shared := range p.Sources.SharedNames() {
		findings = append(findings, findingAt(p.Config, fmt.Sprintf("identity[%d]", shared.Index), policy.SeverityWarning, "shared-names", shared.Problem))
	}
	findings = append(append(findings, p.RootFindings()...), headerFindings(p.Config)...)
	broken := map[*identity.Source]error{}
	for _, one := range identity.Split(p.Sources.Load(ctx)) {
		var files *identity.LoadError
		if !errors.As(one, &files) {
			return nil, one
		}
		broken[files.Source] = files.Err
	}
	for _, table := range p.Names {
		if err := table.Reload(ctx); err != nil && !cmd.isElsewhere(table.Files()[0], err) {
			add(policy.SeverityError, table.Files()[0], "names", err.Error())
		}
	}
	for i, d := range p.Config.Downloads {
		if _, err := os.Stat(d.Root); d.Root != "" && !p.Config.IsDefaultRoot(i) {
			cmd.isElsewhere(d.Root, err)
		}
	}
	if err := p.loadKeys(ctx); err != nil && !cmd.isElsewhere(p.Config.Links.KeysFile, err) {
		add(policy.SeverityError, p.Config.Links.KeysFile, "link-keys", err.Error())
	}
	if cmd.Online {
		findings = append(findings, p.tryStores(ctx, env.Stderr)...)
	}
	for _, t := range []struct {
		rule, file string
		*page.Template
	}{{"link-template", p.Config.Links.Template, p.Template}, {"listing-template", p.Config.Listing.Template, p.Listing}} {
		if err := t.Reload(ctx); err != nil && !cmd.isElsewhere(t.file, err) {
			one := policy.Finding{File: t.file, Severity: policy.SeverityError, Rule: t.rule, Message: err.Error()}
			var wrong *page.Error
			if errors.As(err, &wrong) {
				one.Line, one.Message = wrong.Line, wrong.Problem
			}
			findings = append(findings, one)
		}
	}
	for _, e := range p.Exposures() {
		add(policy.SeverityWarning, e.File, e.Rule, e.Message)
	}
	for _, source := range p.Sources {
		if err := broken[source]; err != nil {
			check.OnlyUsers = false // nobody knows who there is
			if cmd.isElsewhere(source.Files[0], err) {
				continue
			}
			for _, problem := range identity.Split(err) {
				add(policy.SeverityError, source.Files[0], source.Rule, problem.Error())
				var line *identity.LineError
				if errors.As(problem, &line) {
					last := &findings[len(findings)-1]
					last.File, last.Line, last.Message = line.File, line.Line, line.Err.Error()
				}
			}
			continue
		}
		if source.Users == nil {
			check.OnlyUsers, check.OpenNames = false, true // it can name anybody
		} else {
			for name, line := range source.Users() {
				check.Users = append(check.Users, lint.User{Name: source.Prefix + name, File: source.Files[0], Line: line})
			}
		}
		if source.Notes == nil {
			continue
		}
		notes, err := source.Notes()
		if err != nil {
			return nil, err
		}
		for _, note := range notes {
			if note.File == "" {
				note.File = p.Config.File
			}
			if note.Aside && !cmd.Verbose {
				continue
			}
			if note.Rule == "" {
				fmt.Fprintf(env.Stderr, "%s: %s\n", note.File, note.Message)
			} else {
				add(policy.SeverityWarning, note.File, note.Rule, note.Message)
			}
		}
	}
	// A file without users is one that somebody is about to fill.
	check.OnlyUsers = check.OnlyUsers && len(check.Users) > 0
	return append(findings, limitFindings(p, check)...), nil
}

// tryStores tell of stores that cannot be used, and on out of those that can.
func (p *Parts) tryStores(ctx context.Context, out io.Writer) []policy.Finding {
	var findings []policy.Finding
	for i, s := range p.Stores {
		if s == nil {
			continue
		}
		d := p.Config.Downloads[i]
		var err error
		if s.Renews() {
			err = s.Reload(ctx)
		}
		if err == nil {
			err = s.Try(ctx)
		}
		if err == nil && d.Listing {
			err = s.TryList(ctx)
		}
		if err != nil {
			findings = append(findings, findingAt(p.Config, fmt.Sprintf("downloads[%d].storage", i), policy.SeverityWarning, "store", err.Error()))
			continue
		}
		fmt.Fprintf(out, "download %s: its store takes what is signed with the credentials of %s\n", d.Name, s.Source())
	}
	return findings
}

// limitFindings tell of limits that never refuse anything.
func limitFindings(p *Parts, check *lint.Options) []policy.Finding {
	if p.Limits == nil {
		return nil
	}
	known := limit.Known{
		Sources: len(p.Config.Identity) > 0, Links: p.Links != nil,
		Groups: p.Links != nil || slices.ContainsFunc(p.Config.Identity, config.Identity.HasGroups), // applications may write groups into links
	}
	if check.OnlyUsers {
		known.Subject = func(name string) bool {
			return slices.ContainsFunc(check.Users, func(u lint.User) bool { return u.Name == name })
		}
	}
	var findings []policy.Finding
	for _, never := range p.Limits.Never(known) {
		findings = append(findings, findingAt(p.Config, fmt.Sprintf("limits[%d].%s", never.Index, never.Option), policy.SeverityWarning, "limit-never", never.Problem))
	}
	return findings
}

// findingAt is about a value of the configuration, where that stands in its file.
func findingAt(c *config.Config, path string, severity policy.Severity, rule, message string) policy.Finding {
	f := policy.Finding{File: c.File, Severity: severity, Rule: rule, Message: message}
	var at *config.Error
	if errors.As(c.At(path, message), &at) {
		f.File, f.Line, f.Message = at.File, at.Line, at.Message
	}
	return f
}

// headerFindings tell of headers that carry a caller, and that nginx never fills.
func headerFindings(c *config.Config) []policy.Finding {
	var findings []policy.Finding
	for i, id := range c.Identity {
		for _, h := range []struct{ key, header, variable, value string }{
			{"header", id.Header, "nginx_value", id.NginxValue}, {"groups_header", id.GroupsHeader, "nginx_groups_value", id.NginxGroupsValue},
		} {
			if id.Header == "" || h.header == "" || h.value != "" {
				continue
			}
			findings = append(findings, findingAt(c, fmt.Sprintf("identity[%d].%s", i, h.key), policy.SeverityWarning, "header-unset",
				fmt.Sprintf("without %s, what `securefiles nginx` prints clears %s, so it names nobody: set %[1]s to the variable that holds what nginx has verified", h.variable, h.header)))
		}
	}
	return findings
}

// groupLines tells of groups that nginx takes from headers, perhaps: before 1.23 only from
// the first of several lines. Which nginx it is only doctor knows, which tells it on; here
// it is what a comment of the configuration takes back.
func groupLines(c *config.Config, i int) []policy.Finding {
	id := c.Identity[i]
	if id.Header == "" || id.GroupsHeader == "" || id.NginxGroupsValue == "" {
		return nil
	}
	return []policy.Finding{findingAt(c, fmt.Sprintf("identity[%d].nginx_groups_value", i), policy.SeverityWarning, "group-lines", "groups may come in several header lines")}
}

func isGroupLines(f policy.Finding) bool { return f.Rule == "group-lines" }

// configFindings are the warnings of a configuration.
func configFindings(c *config.Config) []policy.Finding {
	var findings []policy.Finding
	for _, w := range c.Warnings {
		f := policy.Finding{File: c.File, Line: w.Line, Severity: policy.SeverityWarning, Rule: "config", Message: w.Message}
		switch {
		case w.Unknown:
			f.Rule = "environment"
		case w.Listen:
			f.Rule = "listen"
		}
		findings = append(findings, f)
	}
	return findings
}

// takeBack drops what is disabled, and what comments of the configuration take back:
// about another file, one above the line that names it.
func takeBack(c *config.Config, findings []policy.Finding, disable []string) []policy.Finding {
	rules := checkRules()
	text, err := os.ReadFile(c.File)
	if err != nil { // the defaults are in no file
		text = nil
	}
	findings = lint.TakeBack(c.File, bytes.NewReader(text), rules, disable, findings, func(f policy.Finding) int {
		if f.File != c.File {
			return c.LineOf(f.File)
		}
		return f.Line
	})
	for i, f := range findings {
		at := slices.IndexFunc(rules, func(r lint.Rule) bool { return r.ID == f.Rule })
		findings[i].Remedy = rules[at].Remedy
	}
	return findings
}

// checkRules are the rules of a policy, and those of what stands around it.
func checkRules() []lint.Rule {
	return append(lint.Rules(),
		lint.Rule{ID: "config", Severity: policy.SeverityWarning, Ignorable: true, Summary: "a configuration that works and is unsafe", Remedy: "Do what the message says."},
		lint.Rule{ID: "listen", Severity: policy.SeverityWarning, Ignorable: true, Summary: "a place of the service that others may take", Remedy: "Listen on a unix socket in a directory of the service's own."},
		lint.Rule{ID: "environment", Severity: policy.SeverityWarning, Ignorable: true, Summary: "an environment variable that names no key", Remedy: "Correct its name, or rename whatever else sets it."},
		lint.Rule{ID: "link-keys", Severity: policy.SeverityError, Summary: "keys of links that cannot be read", Remedy: "Make some with `securefiles link key new`, and let the service read them."},
		lint.Rule{ID: "link-template", Severity: policy.SeverityError, Summary: "a template that makes no page of links", Remedy: "Begin with what `securefiles link page` prints."},
		lint.Rule{ID: "listing-template", Severity: policy.SeverityError, Summary: "a template that makes no page of listings", Remedy: "Begin with what `securefiles listing page` prints."},
		lint.Rule{ID: "names", Severity: policy.SeverityError, Summary: "a table of public names that cannot be read", Remedy: "Write a name and what is opened for it in each line, and let the service read the file."},
		lint.Rule{ID: "store", Severity: policy.SeverityWarning, Ignorable: true, Summary: "a store that does not answer as it should (--online)", Remedy: "Do what the message says."},
		lint.Rule{ID: "header-unset", Severity: policy.SeverityWarning, Ignorable: true, Summary: "a header of a source that nginx never fills", Remedy: "Set nginx_value, or nginx_groups_value."},
		lint.Rule{ID: "group-lines", Severity: policy.SeverityWarning, Ignorable: true, Summary: "groups of which nginx before 1.23 may lose some; found by doctor", Remedy: "Have all groups sent in one header line, and say so by this comment."},
		lint.Rule{ID: "limit-never", Severity: policy.SeverityWarning, Ignorable: true, Summary: "a limit that never refuses anything", Remedy: "Correct whom it is of, or leave it out."},
		lint.Rule{ID: "root", Severity: policy.SeverityWarning, Ignorable: true, Summary: "a root that is not on this machine", Remedy: "Make the directory, or correct the path."},
		lint.Rule{ID: "root-holds", Severity: policy.SeverityError, Summary: "a root that is no directory, or holds what decisions depend on", Remedy: "Name a directory that holds the downloads alone."},
		lint.Rule{ID: "secret-readable", Severity: policy.SeverityWarning, Ignorable: true, Summary: "a secret that every user of the machine can read", Remedy: "Take the right to read it from others: chmod o= FILE."},
		lint.Rule{ID: "world-writable", Severity: policy.SeverityWarning, Ignorable: true, Summary: "a file that every user of the machine can change or replace", Remedy: "Take the right to write from others: chmod o-w FILE, or its directory."},
		lint.Rule{ID: "shared-names", Severity: policy.SeverityWarning, Ignorable: true, Summary: "sources of different authorities that name users in one name space", Remedy: "Give one of them a prefix: prefix: \"app:\"."},
		lint.Rule{ID: "jwks", Severity: policy.SeverityError, Summary: "a file of keys that cannot be used", Remedy: "Write the keys as a JSON Web Key Set."},
		lint.Rule{ID: "session", Severity: policy.SeverityError, Summary: "an application that cannot be asked who a session is", Remedy: "Name a file of certificates in PEM form as ca_file."},
		lint.Rule{ID: "htpasswd", Severity: policy.SeverityError, Summary: "a file of users that cannot be used", Remedy: "Write lines as htpasswd -B or openssl passwd -6 do."},
		lint.Rule{ID: "htpasswd-cost", Severity: policy.SeverityWarning, Ignorable: true, Summary: "passwords that are quick to guess for whoever has the file", Remedy: "Hash the password again: htpasswd -B -C 12, or openssl passwd -6."},
	)
}

func (cmd *checkCommand) printRules(w io.Writer) error {
	rules := checkRules()
	if cmd.Format == "json" {
		return terminal.WriteJSON(w, rules)
	}
	for _, r := range rules {
		if _, err := fmt.Fprintf(w, "%-22s %-8s %s\n", r.ID, r.Severity, r.Summary); err != nil {
			return err
		}
	}
	return nil
}

func (cmd *checkCommand) print(w io.Writer, findings []policy.Finding) error {
	switch cmd.Format {
	case "json":
		if findings == nil {
			findings = []policy.Finding{}
		}
		return terminal.WriteJSON(w, findings)
	case "sarif":
		return lint.WriteSARIF(w, findings, checkRules(), Version().Version)
	}
	for _, f := range findings {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	return nil
}

// A progress shows on a terminal how far a long command is.
type progress struct {
	doing string
	w     io.Writer // nil where nobody watches
	begin time.Time
	last  string
}

func newProgress(env Env, doing string) *progress {
	p := &progress{doing: doing, begin: time.Now()}
	if f, ok := env.Stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = f
	}
	return p
}

// progressAfter is how long a command runs without a word.
const progressAfter = 300 * time.Millisecond

func (p *progress) show(part float64) {
	if p.w == nil || time.Since(p.begin) < progressAfter {
		return
	}
	const width = 30
	n := min(int(part*width), width)
	p.write(fmt.Sprintf("\r%s [%s%s] %3.0f%%", p.doing, strings.Repeat("#", n), strings.Repeat(" ", width-n), 100*part))
}

// count shows how many there were, of nobody knows how many.
func (p *progress) count(n int) {
	if p.w != nil && time.Since(p.begin) >= progressAfter {
		p.write(fmt.Sprintf("\r%s %d files", p.doing, n))
	}
}

func (p *progress) write(line string) {
	if line != p.last {
		p.last = line
		_, _ = io.WriteString(p.w, line) // nothing depends on it
	}
}

// done clears the line.
func (p *progress) done() {
	if p.last != "" {
		p.last = ""
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
	}
}
