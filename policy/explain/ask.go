package explain

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/policy/internal/table"
)

// An Ask is what a person asks of a policy: on the command line, in a body of POST
// /explain, in a policy test. Its tags are those of the command line and of JSON.
type Ask struct {
	Subject  string   `arg:"" help:"Who asks: a user, or anonymous." json:"subject"`
	Path     string   `arg:"" help:"A public URL, its path (/downloads/a.pdf), or the path below it (/a.pdf)." json:"path"`
	Groups   []string `name:"group" placeholder:"G" help:"A group of the subject, with or without @; repeatable." json:"groups"`
	Action   string   `default:"read" enum:"read,list,share" help:"What is asked for: read, list or share." json:"action"`
	Download string   `placeholder:"NAME" help:"Which download; needed with a path below one where there are several." json:"download"`
	IP       string   `name:"ip" placeholder:"ADDR" help:"The client's address, for models that ask for it." json:"ip"`
	Host     string   `placeholder:"NAME" help:"The host asked, for models that ask for it." json:"host"`
	At       string   `placeholder:"TIME" help:"The moment that is asked about, instead of now: 2026-12-31 (its first), '2026-12-31 18:00:00', 2026-12-31T18:00:00Z." json:"at"`
}

// Query is what the service would ask of the policy. The zone is where a moment is
// that says none. Its error says what is wrong with the question.
func (q *Ask) Query(downloads *authz.Downloads, zone *time.Location) (authz.Query, error) {
	var asked authz.Question
	var err error
	if asked.Action, err = authz.ParseAction(q.Action); err != nil {
		return authz.Query{}, err
	}
	if asked.Action == authz.ActionList && strings.HasSuffix(q.Path, "/") {
		asked.Download, asked.Dir, err = downloads.AskDir(q.Download, q.Path)
	} else {
		asked.Download, asked.Path, err = downloads.Ask(q.Download, q.Path)
	}
	if err != nil {
		return authz.Query{}, err
	}
	principal, err := authz.NewPrincipal(q.Subject, q.Groups)
	if err != nil {
		return authz.Query{}, err
	}
	if q.IP != "" {
		if asked.IP, err = netip.ParseAddr(q.IP); err != nil {
			return authz.Query{}, fmt.Errorf("ip %q is not an address", q.IP)
		}
	}
	asked.Host = q.Host
	query := asked.Query(principal)
	query.At, err = Moment(q.At, zone)
	return query, err
}

// Moment reads a day, of which it returns the first moment, or a moment, as policies
// have them; the empty text is the zero time.
func Moment(text string, zone *time.Location) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := table.ParseMoment(text, zone)
	if err != nil {
		return t, fmt.Errorf("at: %w", err)
	}
	return t, nil
}
