package identity

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"securefiles/authz"
)

// A Source is one way to find out who asks, with all that the rest of the
// service needs to know of it. A constructor of this package makes it of options
// alone: it reads no file and asks nobody before Sources.Load and Sources.Ask.
type Source struct {
	authz.Authenticator
	// Name stands in metrics and logs; sources of one kind share it.
	Name string
	// Prefix stands before each of its subjects and groups, as ValidPrefix has it;
	// empty means none. It may be set until Sources.Chain is called.
	Prefix string
	// Authority says for people who gives its names: `the issuer https://id.example`.
	// Sources of one authority name the same people.
	Authority string
	// Place says for people where it looks: `Authorization: Bearer`.
	Place string
	// Reads are the credentials that it decides on, whatever they are: the name
	// of a header; of a scheme in it, `Authorization: Basic`; of a cookie,
	// `Cookie: id`.
	Reads []string
	// Challenge is the WWW-Authenticate value that asks for its credentials, or
	// empty where no scheme applies.
	Challenge string
	// Headers are what the web server must send to the service for it.
	Headers []RequestHeader

	// Files are what it depends on, for whoever watches them, and Holds says
	// what is in them: `users`. Secret says that they hold what nobody else may
	// read. Rule is the rule of `securefiles check` that a file breaks which
	// cannot be used.
	Files  []string
	Holds  string
	Secret bool
	Rule   string
	// Reload reads the files again, or asks for what does not come from files;
	// nil where there is nothing to load. After an error, what was loaded last
	// goes on serving.
	Reload func(context.Context) error
	// Run asks again and again, until the context ends, for what does not come
	// from files, and reports each attempt; nil where there is none.
	Run func(ctx context.Context, report func(error)) error
	// State says what is loaded; nil where there is nothing to load.
	State func() State

	// Users yields all subjects that it can vouch for, with the line of the file
	// that names each; nil where it can vouch for any name.
	Users func() iter.Seq2[string, int]
	// Notes are what `securefiles check` tells of what is loaded; nil for
	// nothing.
	Notes func() ([]Note, error)
	// Metrics are series of its own.
	Metrics []Metric

	keys *Keys // of a source of tokens, for others of the same issuer
	// options are what it was made of, where it remembers callers: of two with the same
	// one, the later may go on as the earlier. End closes what it holds open. Both may
	// be nil.
	options any
	end     func()
	// waiting is how many requests may wait for it, which resize changes; nil where
	// none waits.
	waiting int
	resize  func(waiting int)
	// setPatience tells a source that can make use of it how long the web server
	// waits; nil of others.
	setPatience func(time.Duration)
}

// A RequestHeader is a header that the web server sends to the service,
// overwriting what the client sent under its name.
type RequestHeader struct {
	Name string
	// Value is the web server's variable with its value; empty means that
	// nothing is sent, so that nobody else can say anything there either.
	Value string
	// FromClient says that the header carries what the client sent under its
	// name: credentials, never the name of a user.
	FromClient bool

	option string // that names it
}

// A State is what a source has loaded.
type State struct {
	// Generation counts the versions, from 1; 0 is none yet.
	Generation uint64
	// Err is why the last attempt to load a version failed, or nil.
	Err error
	// Of says whose version it is, and Detail what is in it, for the log.
	Of, Detail string
}

// A Note is something to tell of what is loaded, or of the source itself.
type Note struct {
	// File is where it is; empty means where the source is configured.
	File string
	// Rule is the rule of `securefiles check` that is broken; empty means that
	// the note is there to be known.
	Rule    string
	Message string
	// Aside says that only whoever asks for more wants to know.
	Aside bool
}

// A Metric is one series. Those of one name and label are added up.
type Metric struct {
	Name, Help string
	// Counter says that it only grows, since the start; otherwise it is a gauge.
	Counter bool
	// Label and Value are of closed lists; empty means none.
	Label, Value string
	// Read returns the number now.
	Read func() float64
}

// An OptionError says which option of a source cannot be, and why.
type OptionError struct {
	// Option is its key in the configuration of the source: `headers[1]`; empty
	// for the source as a whole.
	Option string
	// Problem says what is wrong and what to do.
	Problem string
}

func (e *OptionError) Error() string {
	if e.Option == "" {
		return e.Problem
	}
	return e.Option + ": " + e.Problem
}

// Split returns the errors that errors.Join made one of, in whatever depth: each is
// about one option, one conflict or one source.
func Split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, one := range joined.Unwrap() {
		all = append(all, Split(one)...)
	}
	return all
}

// A ConflictError says that a source of a list cannot work beside another one.
type ConflictError struct {
	// Index is its place in the list, from 0.
	Index int
	// Option is its option that is to blame, as in an OptionError; empty for the
	// source as a whole.
	Option, Problem string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("identity[%d]: %s", e.Index, (&OptionError{e.Option, e.Problem}).Error())
}

// problems are the options that cannot be.
type problems []error

func (p *problems) add(option, format string, args ...any) {
	*p = append(*p, &OptionError{option, fmt.Sprintf(format, args...)})
}

func (p problems) err() error { return errors.Join(p...) }

// indexed is one of a list of options.
func indexed(option string, i int) string { return fmt.Sprintf("%s[%d]", option, i) }

// twoAddresses is what is wrong with a URL of this machine by name.
const twoAddresses = "%q can be two addresses, and whoever listens on the other is believed: write 127.0.0.1 or [::1]"

// Sources are tried in order: see Chain.
type Sources []*Source

// Chain returns the authenticator that asks them in order, and puts their prefixes
// before the names that they give.
func (s Sources) Chain() Chain {
	var c Chain
	for _, source := range s {
		c = append(c, s.named(source))
	}
	return c
}

// Patience is how long the web server waits for an answer, and LongPatience how long
// where passwords are all that is checked: a check takes a core for hundreds of
// milliseconds, and many may come at once. Others get no longer time by it: what is
// asked of others answers soon, or is away.
const (
	Patience     = 2 * time.Second
	LongPatience = 8 * time.Second
)

// Patience returns how long the web server is to wait for an answer.
func (s Sources) Patience() time.Duration {
	if len(s) > 0 && !slices.ContainsFunc(s, func(source *Source) bool { return source.setPatience == nil }) {
		return LongPatience
	}
	return Patience
}

// Share tells the sources how long the web server waits, and has at most three quarters of the requests that the service answers at a time
// wait for the sources, all together: while what they ask is slow, the others are
// answered. Where they would take more, each gets its part.
func (s Sources) Share(places int) {
	total := 0
	for _, source := range s {
		total += source.waiting
	}
	for _, source := range s {
		if source.setPatience != nil {
			source.setPatience(s.Patience())
		}
		if source.resize != nil {
			source.resize(max(1, min(source.waiting, source.waiting*(places*3/4)/max(1, total))))
		}
	}
}

// Names returns their names.
func (s Sources) Names() []string {
	var names []string
	for _, source := range s {
		names = append(names, source.Name)
	}
	return names
}

// Challenge returns the WWW-Authenticate value for callers without credentials:
// a browser's password prompt goes before all else.
func (s Sources) Challenge() string {
	first := ""
	for _, source := range s {
		if strings.HasPrefix(source.Challenge, "Basic ") {
			return source.Challenge
		}
		if first == "" {
			first = source.Challenge
		}
	}
	return first
}

// Load reads the files of all sources. Its error joins one *LoadError for each
// source whose files cannot be used.
func (s Sources) Load(ctx context.Context) error {
	var problems []error
	for _, source := range s {
		if len(source.Files) == 0 || source.Reload == nil {
			continue
		}
		if err := source.Reload(ctx); err != nil {
			problems = append(problems, &LoadError{Source: source, Err: err})
		}
	}
	return errors.Join(problems...)
}

// A LoadError says that the files of a source cannot be used.
type LoadError struct {
	Source *Source
	Err    error
}

func (e *LoadError) Error() string { return fmt.Sprintf("identity from %s: %v", e.Source.Name, e.Err) }

// Unwrap returns the cause.
func (e *LoadError) Unwrap() error { return e.Err }

// Ask asks for what does not come from files and was never loaded, before the first
// request does. Whoever cannot be asked now is asked again by Run: see State.
func (s Sources) Ask(ctx context.Context) {
	for _, source := range s {
		if len(source.Files) == 0 && source.Reload != nil && source.State().Generation == 0 {
			_ = source.Reload(ctx) // kept in the state
		}
	}
}

// Conflicts returns what keeps sources from working together: a header that a
// client may set for one and that another believes, and a source that is never
// asked. The error joins a *ConflictError for each.
func (s Sources) Conflicts() error {
	var problems []error
	for i, source := range s {
		for k, other := range s {
			if h := source.forges(other); h != nil {
				problems = append(problems, &ConflictError{i, h.option,
					fmt.Sprintf("%q is what identity[%d] believes of nginx: the client would set it", h.Name, k)})
			} else if k < i && other.forges(source) == nil && len(source.Reads) > 0 && !slices.ContainsFunc(source.Reads, func(name string) bool { return !other.takes(name) }) {
				problems = append(problems, &ConflictError{i, "",
					fmt.Sprintf("is never asked: identity[%d] decides on its credentials; put it after this one, or name other cookies or headers", k)})
			}
		}
	}
	return errors.Join(problems...)
}

// forges returns a header that a client may set for the source and that the other
// one believes, or nil.
func (s *Source) forges(other *Source) *RequestHeader {
	for i, h := range s.Headers {
		believes := func(b RequestHeader) bool { return !b.FromClient && sameHeader(b.Name, h.Name) }
		if h.FromClient && slices.ContainsFunc(other.Headers, believes) {
			return &s.Headers[i]
		}
	}
	return nil
}

// takes reports whether the source decides on credentials at this place.
func (s *Source) takes(name string) bool {
	return slices.ContainsFunc(s.Reads, func(mine string) bool {
		whole, cookie, _ := strings.Cut(name, ": ")
		if base, isFamily := familyBase(mine); isFamily && strings.HasPrefix(base, "Cookie: ") {
			return mine == name || inFamily(strings.TrimPrefix(base, "Cookie: "), cookie)
		}
		return mine == name || strings.EqualFold(mine, whole)
	})
}
