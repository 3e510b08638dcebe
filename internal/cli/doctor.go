package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/internal/access"
	"securefiles/internal/config"
	"securefiles/internal/doctor"
	"securefiles/internal/identity"
	"securefiles/internal/nginx"
	"securefiles/internal/servable"
	"securefiles/internal/terminal"
	"securefiles/policy"
	"securefiles/policy/explain"
)

type doctorCommand struct {
	URL       string   `arg:"" optional:"" name:"url" help:"An address that somebody does not get, as a browser shows it, or a path as explain takes it."`
	Subject   string   `placeholder:"NAME" help:"Who does not get it; by default whoever --user is, or anonymous."`
	Group     []string `placeholder:"G" help:"A group of the subject; repeatable."`
	Download  string   `placeholder:"NAME" help:"Which download; needed with a path below one where there are several."`
	User      string   `short:"u" placeholder:"USER[:PASSWORD]" help:"Ask nginx as this user; without a password here, it is read from standard input."`
	As        string   `placeholder:"USER" help:"Whom nginx runs as, where its processes cannot be seen."`
	NginxPID  string   `name:"nginx-pid" placeholder:"FILE" help:"The pid file of nginx, where several run."`
	NginxDump string   `name:"nginx-dump" placeholder:"FILE" help:"What nginx -T printed, where nginx runs elsewhere; - is standard input."`
	Log       []string `placeholder:"FILE" help:"A file with the service's log, where it is not in the journal; repeatable."`
	JSON      bool     `name:"json" help:"Print the report as JSON."`
}

// Help shows examples.
func (doctorCommand) Help() string {
	var b strings.Builder
	b.WriteString("Examines the system that runs, and says what is wrong and what to do; run it as root, or it sees less. Errors come first, each with what to do below it. Changes nothing; through nginx it asks for a few files. Exits 0 if all is well, 1 with findings, 2 where the configuration cannot be used.\n\nIn this order:\n")
	for _, e := range doctor.Examinations() {
		fmt.Fprintf(&b, "  %-14s %s\n", e.Name, e.Summary)
	}
	b.WriteString("\nWith an address, it looks for why somebody does not get that: policy, file, service, nginx, and what logs say.\n\nExamples:\n  sudo securefiles doctor\n  sudo securefiles doctor https://files.example.org/downloads/project/plan.pdf --subject bob --group contractors")
	return b.String()
}

func (cmd *doctorCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.loadServed(env)
	var p *Parts
	if err == nil {
		p, err = all.openWithSecrets(ctx, c, env, slog.New(slog.DiscardHandler))
	}
	if err != nil {
		return cmd.unusable(env, err)
	}
	system, err := p.system(ctx, env)
	if err != nil {
		return cmd.unusable(env, err)
	}
	opts, err := cmd.options()
	if err != nil {
		return err
	}
	if problem := cmd.identify(ctx, p, opts); problem != nil {
		return cmd.print(env, &doctor.Report{Findings: []doctor.Finding{*problem}, Seen: []string{}})
	}
	if cmd.URL == "" {
		return cmd.print(env, doctor.Examine(ctx, system, opts))
	}
	complaint, err := cmd.complaint(ctx, p, opts)
	if err != nil {
		return err
	}
	if complaint == nil {
		_, _, err := p.Downloads.Ask(cmd.Download, cmd.URL)
		return cmd.print(env, &doctor.Report{Findings: []doctor.Finding{{Severity: doctor.Error, Examination: "address", Problem: err.Error(), Remedy: "correct the address; no change of the policy helps"}}, Seen: []string{}})
	}
	return cmd.print(env, doctor.Complain(ctx, system, complaint, opts))
}

// unusable tells of a configuration with which nothing runs.
func (cmd *doctorCommand) unusable(env Env, err error) error {
	report := &doctor.Report{Findings: []doctor.Finding{}, Seen: []string{}}
	for line := range strings.Lines(err.Error()) {
		f := doctor.Finding{Severity: doctor.Error, Examination: "configuration", Problem: strings.TrimSpace(line)}
		report.Findings = append(report.Findings, forWantOfRights(f, errors.Is(err, fs.ErrPermission)))
	}
	if err := cmd.print(env, report); err != nil && !errors.Is(err, errNo) {
		return err
	}
	return errTold
}

func (cmd *doctorCommand) print(env Env, r *doctor.Report) error {
	if cmd.JSON {
		if err := terminal.WriteJSON(env.Stdout, r); err != nil {
			return err
		}
	} else if err := cmd.write(env, r); err != nil {
		return err
	}
	if !r.IsWell() {
		return errNo
	}
	return nil
}

func (cmd *doctorCommand) write(env Env, r *doctor.Report) error {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s: %s [%s]\n", f.Severity, terminal.Printable(f.Problem), f.Examination)
		if f.Remedy != "" {
			fmt.Fprintf(&b, "    %s\n", terminal.Printable(f.Remedy))
		}
	}
	if cmd.URL != "" {
		if r.IsWell() {
			b.WriteString("nothing is wrong that can be seen from here\n")
		}
		for _, s := range r.Seen {
			fmt.Fprintf(&b, "  %s\n", terminal.Printable(s))
		}
	}
	if _, err := io.WriteString(env.Stdout, b.String()); err != nil {
		return err
	}
	if r.IsWell() && cmd.URL == "" {
		fmt.Fprintf(env.Stderr, "all is well: %d examinations, and %d requests through nginx\n", len(doctor.Examinations()), r.Asked)
	}
	return nil
}

// options are those of the command line.
func (cmd *doctorCommand) options() (*doctor.Options, error) {
	opts := &doctor.Options{As: cmd.As, PIDFile: cmd.NginxPID, Logs: cmd.Log}
	if cmd.As != "" {
		if _, err := servable.LookupUser(cmd.As); err != nil {
			return nil, fmt.Errorf("--as: %w", err)
		}
	}
	if cmd.NginxDump != "" {
		in := os.Stdin
		if cmd.NginxDump != "-" {
			f, err := os.Open(cmd.NginxDump)
			if err != nil {
				return nil, fmt.Errorf("read what nginx printed: %w", err)
			}
			defer f.Close() // read-only
			in = f
		}
		text, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("read what nginx printed: %w", err)
		}
		opts.Dump = string(text)
		if opts.Dump == "" {
			return nil, fmt.Errorf("--nginx-dump %s: it is empty: write there what `nginx -T` prints", cmd.NginxDump)
		}
	}
	switch name, _, _ := strings.Cut(cmd.User, ":"); {
	case cmd.URL == "" && (cmd.Subject != "" || len(cmd.Group) > 0 || cmd.Download != ""):
		return nil, errors.New("--subject, --group and --download are about an address: name that too")
	case cmd.User == "":
		return opts, nil
	case cmd.Subject != "" && cmd.Subject != name:
		return nil, fmt.Errorf("--subject %s and --user %s: name one", cmd.Subject, name)
	}
	var ok bool
	if opts.User, opts.Password, ok = strings.Cut(cmd.User, ":"); !ok {
		if cmd.NginxDump == "-" {
			return nil, errors.New("standard input is what nginx printed: write --user USER:PASSWORD")
		}
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil && line == "" {
			return nil, fmt.Errorf("read the password of %s from standard input: %w", opts.User, err)
		}
		opts.Password = strings.TrimRight(line, "\r\n")
	}
	return opts, nil
}

// identify finds out who the user with the password is for the service.
func (cmd *doctorCommand) identify(ctx context.Context, p *Parts, opts *doctor.Options) *doctor.Finding {
	opts.Caller = doctor.Caller{Subject: doctor.Anonymous}
	if opts.User == "" {
		return nil
	}
	if p.vouched().remoteUser { // nginx looks at the password
		opts.Caller.Subject = opts.User
		return nil
	}
	fail := func(problem string) *doctor.Finding {
		return &doctor.Finding{Severity: doctor.Error, Examination: "identity", Problem: fmt.Sprintf("%s is not let in: %s", opts.User, problem), Remedy: "securefiles whoami -u USER:PASSWORD says which source refuses, and why"}
	}
	if err := p.Sources.Load(ctx); err != nil {
		return fail(err.Error())
	}
	p.Sources.Ask(ctx)
	q, err := identity.ParseRequest([]byte("Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(opts.User+":"+opts.Password)) + "\r\n"))
	if err != nil {
		return fail(err.Error())
	}
	q.Download = p.Downloads.All()[0]
	who := p.Sources.Whoami(ctx, q, nil)
	if who.Result != identity.ResultAccepted {
		return fail(strings.TrimSuffix(who.Result+": "+who.Problem, ": "))
	}
	opts.Caller = doctor.Caller{Subject: who.Subject, Groups: who.Groups}
	return nil
}

// complaint asks the policy about the address; it is nil for one that no request is let in
// with.
func (cmd *doctorCommand) complaint(ctx context.Context, p *Parts, opts *doctor.Options) (*doctor.Complaint, error) {
	d, path, err := p.Downloads.Ask(cmd.Download, cmd.URL)
	if errors.Is(err, authz.ErrPath) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if cmd.Subject != "" {
		opts.Caller = doctor.Caller{Subject: cmd.Subject, Groups: cmd.Group}
	} else {
		opts.Caller.Groups = append(opts.Caller.Groups, cmd.Group...)
	}
	c := &doctor.Complaint{Caller: opts.Caller, Download: d.Name, Path: path, Log: journal(ctx)}
	if p.Policy.Store == nil {
		c.Why = "the policy cannot be used: securefiles check says why"
		return c, nil
	}
	q, err := query(explain.Ask{Subject: c.Caller.Subject, Groups: c.Caller.Groups, Path: cmd.URL, Download: cmd.Download, Action: authz.ActionRead}, p.Downloads, p.Policy.Store.Zone())
	if err != nil {
		return nil, err
	}
	x, err := explain.Decision(ctx, p.Policy.Store, q)
	if err != nil {
		return nil, err
	}
	c.Allowed, c.Why = x.Allowed, x.Why
	if x.Deciding != nil {
		c.Why += fmt.Sprintf(" (%s:%d)", x.Deciding.File, x.Deciding.Line)
	}
	if !c.Allowed {
		advice := append(subjectHints(ctx, p, x.Subject), hints(p.Downloads, x)...)
		for _, l := range x.Nearest {
			advice = append(advice, fmt.Sprintf("the nearest line is %s:%d, %s", l.File, l.Line, l.Text))
			break
		}
		c.Remedy = strings.Join(append(advice, "securefiles explain says more"), "; ")
	}
	return c, nil
}

// journal is what systemd's journal has of the service, lately; nothing where there is none.
func journal(ctx context.Context) string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return ""
	}
	out, err := exec.CommandContext(ctx, "journalctl", "--unit=securefiles", "--lines=5000", "--output=cat", "--no-pager", "--quiet").Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// vouchedFor are the headers that nginx fills with who asks.
type vouchedFor struct {
	names      []string
	remoteUser bool
}

func (p *Parts) vouched() vouchedFor {
	var v vouchedFor
	for _, source := range p.Sources {
		for _, h := range source.Headers {
			if !h.FromClient {
				v.names = append(v.names, h.Name)
				v.remoteUser = v.remoteUser || h.Value == "$remote_user"
			}
		}
	}
	return v
}

// system is what there should be.
func (p *Parts) system(ctx context.Context, env Env) (*doctor.System, error) {
	address := func(text string) doctor.Address {
		network, address := config.Address(text)
		return doctor.Address{Network: network, Address: address}
	}
	vouched := p.vouched()
	file := p.Config.File
	if file != "" {
		var err error
		if file, err = filepath.Abs(file); err != nil {
			return nil, err
		}
	}
	s := &doctor.System{
		File:   file,
		Listen: address(p.Config.Listen), Admin: address(p.Config.Admin), Version: Version().Version, PeerUIDs: p.Config.ListenPeerUIDs,
		DeliveryLog: p.Config.Nginx.DeliveryLog, Vouched: vouched.names, RemoteUser: vouched.remoteUser,
		Check: func(ctx context.Context) []doctor.Finding { return p.checked(ctx, env) },
	}
	for _, source := range p.Sources {
		if source.Challenge != "" {
			s.Challenges++
		}
	}
	for i, id := range p.Config.Identity {
		if left := takeBack(p.Config, groupLines(p.Config, i), nil); slices.ContainsFunc(left, isGroupLines) {
			s.GroupsFrom = append(s.GroupsFrom, id.NginxGroupsValue)
		}
	}
	s.Asked = dependencies(p.Config)
	for _, d := range p.Config.Downloads {
		if !d.ByNGINX() {
			s.Elsewhere = append(s.Elsewhere, fmt.Sprintf("%q is behind front: %s", d.Name, d.Front))
			continue
		}
		s.Downloads = append(s.Downloads, doctor.Download{Name: d.Name, URL: d.URL, Internal: d.Internal, Root: strings.TrimSuffix(d.Root, "/"), FollowSymlinks: d.FollowSymlinks, DenyStatus: d.DenyStatus})
	}
	if c, err := p.Snippet(); err == nil {
		var http, server bytes.Buffer
		if err := errors.Join(nginx.WriteHTTP(&http, c), nginx.WriteServer(&server, c)); err != nil {
			return nil, err
		}
		digest, err := nginx.Digest(c)
		if err != nil {
			return nil, err
		}
		s.Printed = doctor.Printed{HTTP: http.String(), Server: server.String(), Digest: digest}
	}
	if p.Secret != nil {
		s.IsSecret = p.Secret.Is
	}
	if p.Proof != nil {
		var proof bytes.Buffer
		if err := nginx.WriteProof(&proof, p.Proxies(), p.Proof.Text()); err != nil {
			return nil, p.Config.At("proof_secret_file", err.Error())
		}
		s.Proof = proof.String()
	}
	if err := p.openPolicy(ctx); err != nil {
		return s, nil // check says why
	}
	ask := func(c doctor.Caller, download, url string) (authz.Query, error) {
		return query(explain.Ask{Subject: c.Subject, Groups: c.Groups, Path: url, Download: download, Action: authz.ActionRead}, p.Downloads, p.Policy.Store.Zone())
	}
	s.Allows = func(ctx context.Context, c doctor.Caller, download, url string) (bool, error) {
		q, err := ask(c, download, url)
		if err != nil {
			return false, err
		}
		decision, err := p.Policy.Store.Decide(ctx, q)
		return err == nil && decision.Effect == authz.Allow, err
	}
	s.Holder = func(ctx context.Context, download, url string) string {
		q, err := ask(doctor.Caller{Subject: doctor.Anonymous}, download, url)
		if err != nil {
			return ""
		}
		who, err := explain.Who(ctx, p.Policy.Store, q)
		if err != nil {
			return ""
		}
		for _, one := range who.Allowed {
			if one.Kind == explain.KindUser && !strings.HasPrefix(one.Name, "@") {
				return one.Name
			}
		}
		return ""
	}
	return s, nil
}

// dependencies are those whom sources of identity ask.
func dependencies(c *config.Config) []doctor.Dependency {
	var all []doctor.Dependency
	add := func(what, text, socket string) {
		if socket != "" {
			all = append(all, doctor.Dependency{What: what + socket, Address: doctor.Address{Network: "unix", Address: socket}})
			return
		}
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" {
			return
		}
		port := cmp.Or(u.Port(), map[string]string{"https": "443", "http": "80"}[u.Scheme])
		all = append(all, doctor.Dependency{What: what + text, Address: doctor.Address{Network: "tcp", Address: net.JoinHostPort(u.Hostname(), port)}})
	}
	for _, id := range c.Identity {
		switch {
		case id.Session != nil:
			add("the application that is asked whose a session is, ", id.Session.URL, id.Session.Socket)
		case id.JWT != nil && id.JWT.JWKSFile == "":
			add("the issuer of tokens, whose keys are asked for, ", cmp.Or(id.JWT.JWKSURL, id.JWT.Issuer), "")
		}
	}
	return all
}

// checked is what check finds, but for what is looked at again with nginx in sight.
func (p *Parts) checked(ctx context.Context, env Env) []doctor.Finding {
	env.Stderr = io.Discard // what is no finding
	var all []doctor.Finding
	found, err := (&checkCommand{}).findings(ctx, env, p, newProgress(env, "checking"))
	if err != nil {
		return []doctor.Finding{{Severity: doctor.Error, Problem: err.Error()}}
	}
	for _, f := range found {
		if f.Rule == "root" {
			continue
		}
		severity := doctor.Warning
		if f.Severity == policy.SeverityError {
			severity = doctor.Error
		}
		place := f.File
		if f.Line > 0 {
			place = fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		one := doctor.Finding{Severity: severity, Problem: fmt.Sprintf("%s: %s (%s)", place, f.Message, f.Rule), Remedy: f.Remedy}
		all = append(all, forWantOfRights(one, f.Severity == policy.SeverityError && access.Reading(f.File) != ""))
	}
	return all
}

// forWantOfRights makes of a finding one about this process, where that may not read what
// root, and the service, may.
func forWantOfRights(f doctor.Finding, denied bool) doctor.Finding {
	if denied && os.Geteuid() != 0 {
		f.Severity, f.Remedy = doctor.Unseen, "run this as root"
	}
	return f
}
