package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"securefiles/authz"
	"securefiles/internal/config"
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

// query builds what the service would ask policy.
func (q *question) query(downloads *authz.Downloads) (authz.Query, error) {
	var asked authz.Question
	var err error
	if asked.Download, asked.Path, err = downloads.Ask(q.Download, q.Path); err != nil {
		return authz.Query{}, err
	}
	principal, err := authz.NewPrincipal(q.Subject, q.Groups)
	if err != nil {
		return authz.Query{}, err
	}
	if asked.Action, err = authz.ParseAction(q.Action); err != nil {
		return authz.Query{}, err
	}
	if q.IP != "" {
		if asked.IP, err = netip.ParseAddr(q.IP); err != nil {
			return authz.Query{}, fmt.Errorf("ip %q is not an address", q.IP)
		}
	}
	asked.Host = q.Host
	return asked.Query(principal), nil
}

// openPolicy opens the policy of the configuration, and what it is about.
func (c *commands) openPolicy(ctx context.Context, env environment) (*authz.Downloads, *policy.Store, error) {
	conf, err := c.load(env)
	if err != nil {
		return nil, nil, err
	}
	downloads, err := guardedDownloads(conf.Downloads)
	if err != nil {
		return nil, nil, err
	}
	source, opts := policySource(conf)
	store, err := policy.Open(ctx, source, opts)
	return downloads, store, err
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
	downloads, store, err := all.openPolicy(ctx, env)
	if err != nil {
		return err
	}
	query, err := cmd.query(downloads)
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
		for _, hint := range hints(downloads, x) {
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
func hints(downloads *authz.Downloads, x *explain.Explanation) []string {
	var out []string
	for _, d := range downloads.All() {
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
	maxExplainBody  = 64 << 10
	explainDeadline = 8 * time.Second // before the server's write timeout
)

// An adminToken guards what the admin listener reveals of policy and identity.
// Without a token, nothing is revealed.
type adminToken struct{ *secret }

// newAdminToken reads the configured token; it is nil where none is configured.
func newAdminToken(ctx context.Context, c *config.Config, environ []string) (*adminToken, error) {
	s, err := newSecret(ctx, "admin token", c.AdminTokenFile, config.AdminTokenVariable, environ)
	if s == nil || err != nil {
		return nil, err
	}
	return &adminToken{s}, nil
}

// reload reads the file again. Until it can be read, no token is right.
func (t *adminToken) reload(ctx context.Context) error {
	if t == nil {
		return nil
	}
	err := t.Reload(ctx)
	if err != nil {
		t.forget()
	}
	return err
}

// require lets only requests pass that carry the token (RFC 6750).
func (t *adminToken) require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if values := r.Header["Authorization"]; len(values) == 1 {
			scheme, token, _ := strings.Cut(values[0], " ")
			if strings.EqualFold(scheme, "Bearer") && t.Is(token) {
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
	query, err := q.query(s.downloads)
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
