package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"securefiles/authz"
	"securefiles/internal/config"
	"securefiles/internal/identity"
	"securefiles/pathguard"
	"securefiles/policy"
	"securefiles/policy/explain"
)

// A question is what a person asks of the policy; on the command line, in a
// body of POST /explain, in a policy test.
type question struct {
	Subject  string   `arg:"" help:"Who asks: a user, or anonymous." json:"subject"`
	Path     string   `arg:"" help:"A public URL path (/downloads/a.pdf), or the path below it (/a.pdf)." json:"path"`
	Groups   []string `name:"group" placeholder:"G" help:"A group of the subject, with or without @; repeatable." json:"groups"`
	Action   string   `default:"read" enum:"read,list,share" help:"What is asked for: read, list or share." json:"action"`
	Download string   `placeholder:"NAME" help:"Which download; needed with a path below one where there are several." json:"download"`
	IP       string   `name:"ip" placeholder:"ADDR" help:"The client's address, for models that ask for it." json:"ip"`
	Host     string   `placeholder:"NAME" help:"The host asked, for models that ask for it." json:"host"`
}

// errPath says that the path of a question is refused before policy is asked.
var errPath = errors.New("the path is refused before policy is asked")

// query builds what the service would ask policy.
func (q *question) query(c *config.Config) (authz.Query, error) {
	download, path, err := findPath(c, q.Download, q.Path)
	if err != nil {
		return authz.Query{}, err
	}
	principal, err := principalOf(q.Subject, q.Groups)
	if err != nil {
		return authz.Query{}, err
	}
	action, err := actionOf(q.Action)
	if err != nil {
		return authz.Query{}, err
	}
	if q.IP != "" {
		ip, err := netip.ParseAddr(q.IP)
		if err != nil {
			return authz.Query{}, fmt.Errorf("ip %q is not an address", q.IP)
		}
		q.IP = ip.Unmap().WithZone("").String()
	}
	return authz.Query{
		Principal: principal, Object: path.String(), Action: action,
		Domain: download, IP: q.IP, Host: q.Host,
	}, nil
}

// principalOf returns whom the service would ask for: a subject with its groups,
// the built-in ones among them.
func principalOf(subject string, groups []string) (authz.Principal, error) {
	if subject == authz.Anonymous {
		if len(groups) > 0 {
			return authz.Principal{}, errors.New("anonymous has no groups beside @anyone: leave them out")
		}
		return authz.AnonymousPrincipal(), nil
	}
	if err := identity.ValidSubject(subject); err != nil {
		return authz.Principal{}, fmt.Errorf("subject %q: %w", subject, err)
	}
	principal := authz.Principal{Subject: subject}
	for _, g := range groups {
		name := strings.TrimPrefix(g, "@")
		if err := identity.ValidSubject(name); err != nil && name != authz.Anonymous { // a group may be called so
			return authz.Principal{}, fmt.Errorf("group %q: %w", g, err)
		}
		principal.Groups = append(principal.Groups, "@"+name)
	}
	return principal.WithBuiltinGroups(), nil
}

func actionOf(action string) (string, error) {
	switch action {
	case "":
		return authz.ActionRead, nil
	case authz.ActionRead, authz.ActionList, authz.ActionShare:
		return action, nil
	}
	return "", fmt.Errorf("action %q must be one of read, list, share", action)
}

// findPath reads a path as people write it: a public URL path, percent-encoded,
// or the path below a download, as policies have it.
func findPath(c *config.Config, download, text string) (string, pathguard.Path, error) {
	for _, d := range c.Downloads {
		path, err := pathguard.Parse(text, d.URL)
		if errors.Is(err, pathguard.ErrOutside) {
			continue
		}
		if err != nil {
			return "", pathguard.Path{}, fmt.Errorf("path %q: %w: %w", text, errPath, err)
		}
		return d.Name, path, nil
	}
	path, err := pathguard.New(text)
	if err != nil {
		return "", pathguard.Path{}, fmt.Errorf("path %q: %w: %w", text, errPath, err)
	}
	var names []string
	for _, d := range c.Downloads {
		if d.Name == download || download == "" && len(c.Downloads) == 1 {
			return d.Name, path, nil
		}
		names = append(names, d.Name)
	}
	if download != "" {
		return "", pathguard.Path{}, fmt.Errorf("there is no download %q: there are %s", download, strings.Join(names, ", "))
	}
	return "", pathguard.Path{}, fmt.Errorf("path %q: say which download with --download, or write its URL", text)
}

// openPolicy opens the policy of the configuration.
func (c *commands) openPolicy(ctx context.Context, env environment) (*config.Config, *policy.Store, error) {
	conf, err := c.load(env)
	if err != nil {
		return nil, nil, err
	}
	source, opts := policySource(conf)
	store, err := policy.Open(ctx, source, opts)
	return conf, store, err
}

type explainCommand struct {
	question
	JSON bool `name:"json" help:"Print the explanation as JSON."`
}

// Help shows an example.
func (explainCommand) Help() string {
	return "Decides by the code that serves, and prints the lines that matched, the roles that led to them, and for a default deny the nearest lines and what they lack. Exits 0 on allow, 1 on deny.\n\nExamples:\n  securefiles explain alice /project/plan.pdf\n  securefiles explain bob /downloads/project/hr/pay.pdf --group contractors"
}

func (cmd *explainCommand) Run(ctx context.Context, env environment, all *commands) error {
	c, store, err := all.openPolicy(ctx, env)
	if err != nil {
		return err
	}
	query, err := cmd.query(c)
	if err != nil {
		return err
	}
	x, err := explain.Decision(ctx, store, query)
	if err != nil {
		return err
	}
	if cmd.JSON {
		err = writeJSON(env.stdout, x)
	} else {
		err = x.Render(env.stdout, painter(env))
		for _, hint := range hints(c, x) {
			fmt.Fprintln(env.stdout, "hint:", hint)
		}
	}
	if err != nil {
		return err
	}
	if !x.Allowed {
		return errNo
	}
	return nil
}

// hints name mistakes that a policy alone does not show.
func hints(c *config.Config, x *explain.Explanation) []string {
	var out []string
	for _, d := range c.Downloads {
		for _, l := range x.Nearest {
			if strings.Contains(l.Text, ", "+d.URL) {
				out = append(out, fmt.Sprintf("%s:%d begins with %s, the url of download %s: in a policy paths begin below it, so leave %s out",
					l.File, l.Line, d.URL, d.Name, strings.TrimSuffix(d.URL, "/")))
			}
		}
	}
	return out
}

// painter puts colours around text where a terminal shows them.
func painter(env environment) func(explain.Style, string) string {
	noColour, _ := lookup(env.environ, "NO_COLOR")
	kind, _ := lookup(env.environ, "TERM")
	f, ok := env.stdout.(*os.File)
	if !ok || noColour != "" || kind == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return func(_ explain.Style, text string) string { return text }
	}
	return func(mood explain.Style, text string) string {
		code := map[explain.Style]string{explain.Good: "32", explain.Bad: "31", explain.Strong: "1"}[mood]
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
}

// Bounds of POST /explain.
const (
	minAdminToken   = 32
	maxExplainBody  = 64 << 10
	explainDeadline = 8 * time.Second // before the server's write timeout
)

// An adminToken guards what the admin listener reveals of policy and identity.
// Without a token, nothing is revealed.
type adminToken struct {
	file   string
	digest atomic.Pointer[[sha256.Size]byte]
}

// newAdminToken reads the configured token; it is nil where none is configured.
func newAdminToken(c *config.Config, environ []string, log *slog.Logger) (*adminToken, error) {
	if text, ok := lookup(environ, config.AdminTokenVariable); ok {
		t := &adminToken{}
		return t, t.set(text)
	}
	if c.AdminTokenFile == "" {
		return nil, nil
	}
	t := &adminToken{file: c.AdminTokenFile}
	return t, t.reload(log)
}

// reload reads the file again. Until it can be read, no token is right.
func (t *adminToken) reload(log *slog.Logger) error {
	if t == nil || t.file == "" {
		return nil
	}
	t.digest.Store(nil)
	warnIfOthersRead(log, "the admin token", t.file)
	text, err := os.ReadFile(t.file)
	if err != nil {
		return fmt.Errorf("read admin_token_file: %w", err)
	}
	return t.set(string(text))
}

// warnIfOthersRead tells of a secret that any user of the machine can read.
func warnIfOthersRead(log *slog.Logger, what, file string) {
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o007 != 0 { // an error is told of by whoever reads it
		log.Warn("others may read "+what+": chmod o= the file", "file", file, "mode", info.Mode().Perm().String())
	}
}

func (t *adminToken) set(text string) error {
	text = strings.TrimRight(text, "\r\n")
	if len(text) < minAdminToken {
		return fmt.Errorf("the admin token is shorter than %d bytes: make one with `openssl rand -hex 32`", minAdminToken)
	}
	digest := sha256.Sum256([]byte(text))
	t.digest.Store(&digest)
	return nil
}

// require lets only requests pass that carry the token (RFC 6750). Digests are
// compared, so the time taken tells nothing of either.
func (t *adminToken) require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		values, want := r.Header["Authorization"], t.digest.Load()
		if len(values) == 1 && want != nil {
			scheme, token, _ := strings.Cut(values[0], " ")
			got := sha256.Sum256([]byte(token))
			if strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
				next.ServeHTTP(w, r)
				return
			}
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="securefiles admin"`)
		respond(w, http.StatusUnauthorized, problem{"the admin token is missing or wrong"})
	})
}

// A problem is what the admin listener answers instead.
type problem struct {
	Error string `json:"error"`
}

// explain answers POST /explain: a question as JSON, an explanation as JSON.
func (s *service) explain(w http.ResponseWriter, r *http.Request) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		respond(w, http.StatusUnsupportedMediaType, problem{"send application/json"})
		return
	}
	var q question
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxExplainBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(&q)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.Join(errors.New("something follows the question"), more)
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		respond(w, http.StatusRequestEntityTooLarge, problem{fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)})
		return
	case err != nil:
		respond(w, http.StatusBadRequest, problem{"not a question: " + err.Error()})
		return
	}
	query, err := q.query(s.config)
	if err != nil {
		respond(w, http.StatusBadRequest, problem{err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), explainDeadline)
	defer cancel()
	x, err := explain.Decision(ctx, s.store, query)
	if err != nil {
		respond(w, http.StatusServiceUnavailable, problem{err.Error()})
		return
	}
	respond(w, http.StatusOK, x)
}
