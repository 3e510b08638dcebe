package cli

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"securefiles/authz"
	"securefiles/internal/link"
	"securefiles/internal/state"
	"securefiles/internal/terminal"
	"securefiles/pathguard"
)

const (
	// defaultTTL is how long a link lasts where nobody says.
	defaultTTL = 24 * time.Hour
	// below is a file that might be in a directory: what is asked is always a file.
	below = "file"
)

type linkCommand struct {
	Create linkCreateCommand `cmd:"" help:"Make a link to a file, or to all below a directory."`
	Show   linkShowCommand   `cmd:"" help:"Say what a link opens, and whether it would open now."`
	List   linkListCommand   `cmd:"" help:"List links that were made here or seen, and have not expired."`
	Revoke linkRevokeCommand `cmd:"" help:"End links: one, or all of a subject, below a path, or of a key."`
	Key    linkKeyCommand    `cmd:"" help:"Make keys that links are signed with."`
	Page   linkPageCommand   `cmd:"" help:"Print the page that people see, to make one of your own of."`
}

type linkCreateCommand struct {
	Path      string   `arg:"" help:"The file, as explain has it; with a final slash, all that is below."`
	As        string   `placeholder:"SUBJECT" help:"Who makes it: the link opens what this subject may read, as long as it may (default: you)."`
	Group     []string `placeholder:"NAME" sep:"none" help:"A group of the maker's from an identity source, where the policy needs it; repeatable."`
	TTL       string   `name:"ttl" placeholder:"SPAN" help:"How long it lasts: 90m, 24h, 7d (default: 24h)."`
	NotBefore string   `placeholder:"TIME" help:"From when it opens: RFC 3339."`
	Uses      int      `placeholder:"N" help:"For so many downloads; a browser shows a page first."`
	Password  bool     `help:"Ask for a password here, for whoever opens it to give."`
	Recipient string   `placeholder:"SUBJECT" help:"For this subject alone, who must be logged in."`
	Network   []string `placeholder:"CIDR" help:"From this network alone, 192.0.2.0/24; repeatable."`
	Filename  string   `placeholder:"NAME" help:"What the file is saved as."`
	Rate      string   `placeholder:"BYTES" help:"Bytes a second at most, of each request: 2MiB."`
	Download  string   `placeholder:"NAME" help:"Which download, where there are several."`
	KeyID     string   `placeholder:"ID" help:"The key to sign with (default: the last of the file)."`
	JSON      bool     `name:"json" help:"Print as JSON."`
}

// Help shows an example.
func (linkCreateCommand) Help() string {
	return "The maker needs the action share for the path, and read for what the link is to open. A link ends at its time, with its key, and as soon as policy takes from the maker what it opens.\n\nExamples:\n  securefiles link create /reports/q3.pdf --as alice --ttl 7d\n  securefiles link create /releases/ --as alice --network 192.0.2.0/24\n  securefiles link create /reports/q3.pdf --as alice --recipient bob"
}

// madeLink is what is printed of a link.
type madeLink struct {
	URL     string    `json:"url"`
	ID      string    `json:"id"`
	Maker   string    `json:"maker"`
	Path    string    `json:"path"`
	Expires time.Time `json:"expires"`
	// Direct is the URL for programs, of a counted link.
	Direct string `json:"direct,omitempty"`
}

func (cmd *linkCreateCommand) Run(ctx context.Context, env Env, all *commands) error {
	p, err := all.openLinks(ctx, env)
	if err != nil {
		return err
	}
	claims, download, path, err := cmd.claims(p)
	if err != nil {
		return err
	}
	for _, action := range []string{authz.ActionShare, authz.ActionRead} {
		if err := mayMake(ctx, p, claims, path, action); err != nil {
			return err
		}
	}
	token, err := p.Keys.Sign(cmd.KeyID, claims)
	if err != nil {
		return err
	}
	if err := cmd.keep(ctx, env, p, claims); err != nil {
		return err
	}
	made := madeLink{ID: claims.ID, Maker: claims.Subject, Path: claims.Path, Expires: claims.Expires}
	made.URL = p.Config.Links.Site + path.URL(download.URL) + "?" + link.Parameter + "=" + token
	if claims.Uses > 0 && !claims.Password {
		made.Direct = made.URL + "&" + link.DirectParameter + "=1"
	}
	isDirectory := claims.Path != path.String()
	if isDirectory { // as the API has it
		made.URL = p.Config.Links.Site + strings.TrimSuffix(path.URL(download.URL), below) + "?" + link.Parameter + "=" + token
	}
	if cmd.JSON {
		return terminal.WriteJSON(env.Stdout, made)
	}
	if isDirectory {
		fmt.Fprintf(env.Stderr, "for each file below %s: its URL, and this behind it\n", claims.Path)
		made.URL = "?" + link.Parameter + "=" + token
	}
	fmt.Fprintln(env.Stdout, made.URL)
	fmt.Fprintf(env.Stderr, "link %s of %s, until %s\n", made.ID, made.Maker, made.Expires.Format(time.RFC3339))
	if made.Direct != "" {
		fmt.Fprintln(env.Stderr, "for programs, which see no page: the same with &"+link.DirectParameter+"=1; a mail scanner that is given that one uses it up")
	}
	return nil
}

// keep tells the running service of a link, where something must be kept of it.
func (cmd *linkCreateCommand) keep(ctx context.Context, env Env, p *Parts, c *link.Claims) error {
	if c.Uses == 0 && !c.Password {
		return nil
	}
	l := c.Kept()
	if !p.Config.State.Keeps() {
		return errors.New("a link with --uses or --password is kept by the service: set state.file or state.redis")
	}
	if c.Password {
		password, err := readPassword(env)
		if err != nil {
			return err
		}
		if l.PasswordHash, err = link.HashPassword(password); err != nil {
			return err
		}
	}
	return call(ctx, p.Config, env, http.MethodPost, "/links", l, nil)
}

// readPassword asks for a password on a terminal, or reads a line of standard input.
func readPassword(env Env) (string, error) {
	if term.IsTerminal(int(os.Stdin.Fd())) {
		fmt.Fprint(env.Stderr, "Password of the link: ")
		text, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(env.Stderr)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return string(text), nil
	}
	text, err := bufio.NewReader(io.LimitReader(os.Stdin, 4<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimRight(text, "\r\n"), nil
}

// claims are what the command line says of the link. Of a directory, the path is one
// of a file that might be below.
func (cmd *linkCreateCommand) claims(p *Parts) (*link.Claims, *authz.Download, pathguard.Path, error) {
	fail := func(err error) (*link.Claims, *authz.Download, pathguard.Path, error) {
		return nil, nil, pathguard.Path{}, err
	}
	download, path, isDirectory, err := askBelow(p, cmd.Download, cmd.Path)
	if err != nil {
		return fail(err)
	}
	now := time.Now().Truncate(time.Second)
	c := &link.Claims{
		ID: rand.Text(), Subject: cmd.As, Download: download.Name, Path: path.String(),
		Issued: now, Recipient: cmd.Recipient, Filename: cmd.Filename, Uses: cmd.Uses, Password: cmd.Password,
	}
	if isDirectory {
		c.Path = strings.TrimSuffix(c.Path, below)
	}
	if c.Subject == "" {
		me, err := user.Current()
		if err != nil {
			return fail(fmt.Errorf("find out who you are: %w: say it with --as", err))
		}
		c.Subject = me.Username
	}
	for _, g := range cmd.Group {
		c.Groups = append(c.Groups, strings.TrimPrefix(g, "@"))
	}
	ttl := defaultTTL
	if cmd.TTL != "" {
		if ttl, err = parseSpan(cmd.TTL); err != nil {
			return fail(fmt.Errorf("--ttl: %w", err))
		}
	}
	if most := time.Duration(p.Config.Links.MaxTTL); ttl > most {
		return fail(fmt.Errorf("--ttl %s: a link lasts at most %s (links.max_ttl)", cmd.TTL, writeSpan(most)))
	}
	c.Expires = now.Add(ttl)
	if cmd.NotBefore != "" {
		if c.NotBefore, err = time.Parse(time.RFC3339, cmd.NotBefore); err != nil {
			return fail(fmt.Errorf("--not-before %s: write it like %s", cmd.NotBefore, now.Format(time.RFC3339)))
		}
	}
	for _, text := range cmd.Network {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return fail(fmt.Errorf("--network %s: write a network such as 192.0.2.0/24 or 2001:db8::/32", text))
		}
		c.Networks = append(c.Networks, network.Masked())
	}
	if cmd.Rate != "" {
		rate, err := humanize.ParseBytes(strings.TrimSuffix(cmd.Rate, "/s"))
		if err != nil || rate == 0 || rate > 1<<40 {
			return fail(fmt.Errorf("--rate %s: write bytes a second, such as 500kB or 2MiB", cmd.Rate))
		}
		c.Rate = int64(rate)
	}
	if err := p.Links.Valid(c); err != nil {
		return fail(fmt.Errorf("a link like this cannot be: %w", err))
	}
	return c, download, path, nil
}

// askBelow is what a path of the command line is: of a directory, which ends with a slash,
// the path of a file that might be below.
func askBelow(p *Parts, named, text string) (d *authz.Download, path pathguard.Path, isDirectory bool, err error) {
	asked := text
	if isDirectory = strings.HasSuffix(text, "/"); isDirectory {
		asked += below
	}
	d, path, err = p.Downloads.Ask(named, asked)
	if errors.Is(err, authz.ErrSeveral) {
		err = fmt.Errorf("path %q: %w: --download %s", text, authz.ErrSeveral, strings.Join(p.Downloads.Names(), " or "))
	}
	return d, path, isDirectory, err
}

// mayMake asks policy whether the maker may do what making the link needs.
func mayMake(ctx context.Context, p *Parts, c *link.Claims, path pathguard.Path, action string) error {
	maker, err := authz.NewPrincipal(c.Subject, c.Groups)
	if err != nil {
		return err
	}
	decision, err := p.Policy.Decide(ctx, authz.Query{Principal: maker, Object: path.String(), Action: action, Domain: c.Download})
	if err != nil {
		return fmt.Errorf("ask the policy: %w", err)
	}
	if decision.Effect != authz.Allow {
		which := ""
		if len(p.Downloads.Names()) > 1 {
			which = " --download " + c.Download
		}
		return fmt.Errorf("%s may not %s %s (%s): `securefiles explain %s %s --action %s%s` says why; --as names another maker",
			c.Subject, action, c.Path, decision, strconv.Quote(c.Subject), strconv.Quote(path.String()), action, which)
	}
	return nil
}

type linkShowCommand struct {
	URL  string `arg:"" help:"The link, or its token; - reads it from standard input, where nobody else sees it."`
	IP   string `name:"ip" placeholder:"ADDR" help:"From where it is opened."`
	As   string `placeholder:"SUBJECT" help:"Who opens it, for links that are for somebody."`
	JSON bool   `name:"json" help:"Print as JSON."`
}

// Help shows an example.
func (linkShowCommand) Help() string {
	return "Verifies the link and asks, by the code that serves, whether it would open now. Whether it was revoked or used up is asked of the running service, with the admin token, where state.file or state.redis is set: where that cannot be asked, what it says goes by the configuration, the keys and the policy alone. Exits 0 if it would open, else 1.\n\nExamples:\n  securefiles link show 'https://files.example.org/downloads/q3.pdf?link=eyJ…'\n  xclip -o | securefiles link show -"
}

// shownLink is what is printed of a link.
type shownLink struct {
	ID        string    `json:"id"`
	Maker     string    `json:"maker"`
	Groups    []string  `json:"groups,omitempty"`
	Download  string    `json:"download"`
	Path      string    `json:"path"`
	Issued    time.Time `json:"issued"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Expires   time.Time `json:"expires"`
	Recipient string    `json:"recipient,omitempty"`
	Networks  []string  `json:"networks,omitempty"`
	Filename  string    `json:"filename,omitempty"`
	Rate      int64     `json:"rate,omitempty"`
	Uses      int       `json:"uses,omitempty"`
	Used      *int      `json:"used,omitempty"` // where the running service tells
	Password  bool      `json:"password,omitempty"`
	Opens     bool      `json:"opens"`
	Reason    string    `json:"reason"`
	Decision  string    `json:"decision,omitempty"`
	Problem   string    `json:"problem,omitempty"`
}

func (cmd *linkShowCommand) Run(ctx context.Context, env Env, all *commands) error {
	p, err := all.openLinks(ctx, env)
	if err != nil {
		return err
	}
	text, token, claims, err := readLink(p, cmd.URL)
	if err != nil {
		return err
	}
	download, err := p.Downloads.Named(claims.Download)
	if err != nil || claims.Download == "" {
		return fmt.Errorf("the link is for a download that this configuration does not have: %w", err)
	}
	target := text
	if _, rest, ok := strings.Cut(text, "://"); ok {
		_, rest, _ = strings.Cut(rest, "/")
		target = "/" + rest
	}
	object := claims.Path
	if strings.HasSuffix(object, "/") {
		object += below
	}
	path, err := pathguard.New(object)
	if err != nil {
		return err
	}
	named := path.URL(download.URL)
	if before, _, ok := strings.Cut(target, "?"); !ok || before == "" || before == strings.TrimSuffix(named, below) { // it opens what is below
		target = named + "?" + link.Parameter + "=" + token
	}
	links, now := p.Links, (*linkNow)(nil)
	if p.Config.State.Keeps() {
		now = &linkNow{}
		if err := call(ctx, p.Config, env, http.MethodPost, "/links/look", claims.Kept(), now); err != nil {
			fmt.Fprintf(env.Stderr, "whether the link was revoked or used up is not known: %v\n", err)
			now = nil
		} else {
			links = links.With(keptLink{now: *now})
		}
	}
	out, err := cmd.ask(ctx, p, links, target)
	if err != nil {
		return err
	}
	s := shownLink{
		ID: claims.ID, Maker: claims.Subject, Groups: claims.Groups, Download: claims.Download, Path: claims.Path,
		Issued: claims.Issued, NotBefore: claims.NotBefore, Expires: claims.Expires, Recipient: claims.Recipient,
		Filename: claims.Filename, Rate: claims.Rate, Uses: claims.Uses, Password: claims.Password, Opens: out.Allowed(), Reason: string(out.Reason),
	}
	for _, n := range claims.Networks {
		s.Networks = append(s.Networks, n.String())
	}
	if out.Decision.Generation != 0 {
		s.Decision = out.Decision.String()
	}
	if out.Err != nil {
		s.Problem = out.Err.Error()
	}
	if now != nil && now.Problem == "" && s.Uses > 0 {
		s.Used = &now.Used
		if s.Opens && now.Used >= s.Uses {
			s.Opens, s.Reason, s.Problem = false, string(authz.ReasonUsedUp), "link: only who has used it can go on"
		}
	}
	if cmd.JSON {
		err = terminal.WriteJSON(env.Stdout, s)
	} else {
		s.render(env)
	}
	if err == nil && !s.Opens {
		return errNo
	}
	return err
}

// readLink is what a command line, or for - standard input, has of a link: its URL, or its
// token alone.
func readLink(p *Parts, text string) (_, token string, _ *link.Claims, err error) {
	if text == "-" {
		read, err := io.ReadAll(io.LimitReader(os.Stdin, 16<<10))
		if err != nil {
			return "", "", nil, fmt.Errorf("read the link: %w", err)
		}
		text = strings.TrimSpace(string(read))
	}
	token, err = link.Token(text)
	if errors.Is(err, authz.ErrNoCredentials) {
		token, err = text, nil
	}
	if err != nil {
		return "", "", nil, err
	}
	claims, err := p.Links.Read(token)
	if err != nil {
		return "", "", nil, fmt.Errorf("%w (or it was changed on its way: mailers break long lines)", err)
	}
	return text, token, claims, nil
}

// ask puts the question as the service is asked.
func (cmd *linkShowCommand) ask(ctx context.Context, p *Parts, links *link.Links, target string) (*authz.Outcome, error) {
	guard, err := authz.New(p.Downloads, someone(cmd.As), p.Policy.Store, &authz.Options{Links: links})
	if err != nil {
		return nil, err
	}
	q := &authz.Question{Method: "GET", Target: target, Action: authz.ActionRead, Time: time.Now()}
	if cmd.IP != "" {
		if q.IP, err = netip.ParseAddr(cmd.IP); err != nil {
			return nil, fmt.Errorf("--ip %s: it is no address", cmd.IP)
		}
	}
	return guard.Check(ctx, q), nil
}

// A linkNow is what the running service tells of a link; a problem is why it cannot.
type linkNow struct {
	Revoked bool
	Used    int
	Problem string
}

// A keptLink is the store of one link, by what the running service has told of it. Who only
// looks asks it nothing else.
type keptLink struct {
	link.Store
	now linkNow
}

// IsRevoked answers as the running service's own store does.
func (k keptLink) IsRevoked(context.Context, state.Link) (bool, error) {
	if k.now.Problem != "" {
		return false, errors.New(k.now.Problem)
	}
	return k.now.Revoked, nil
}

// Seen keeps nothing.
func (keptLink) Seen(state.Link) {}

func (s *shownLink) render(env Env) {
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(env.Stdout, "%-11s %s\n", name+":", terminal.Printable(value))
		}
	}
	row("link", s.ID)
	row("maker", s.Maker)
	row("groups", strings.Join(s.Groups, ", "))
	row("opens", s.Download+" "+s.Path)
	if !s.NotBefore.IsZero() {
		row("from", s.NotBefore.Format(time.RFC3339))
	}
	row("until", s.Expires.Format(time.RFC3339))
	row("recipient", s.Recipient)
	row("networks", strings.Join(s.Networks, ", "))
	row("saved as", s.Filename)
	if s.Rate > 0 {
		row("rate", humanize.IBytes(uint64(s.Rate))+"/s")
	}
	switch {
	case s.Used != nil:
		row("downloads", fmt.Sprintf("%d of %d", *s.Used, s.Uses))
	case s.Uses > 0:
		row("downloads", fmt.Sprintf("%d in all", s.Uses))
	}
	if s.Password {
		row("password", "its page asks for one")
	}
	answer := "yes"
	if !s.Opens {
		answer = "no: " + s.Reason
		if problem := strings.TrimPrefix(s.Problem, "link: "); problem != "" {
			answer += ": " + problem
		}
	}
	if s.Decision != "" {
		answer += " (" + s.Decision + ")"
	}
	row("now", answer)
}

// someone is a caller who is known, or nobody.
type someone string

func (s someone) Authenticate(context.Context, *authz.Question) (authz.Principal, error) {
	if s == "" {
		return authz.Principal{}, authz.ErrNoCredentials
	}
	return authz.Principal{Subject: string(s), Source: "command line"}, nil
}

type linkListCommand struct {
	Subject string `placeholder:"SUBJECT" help:"Of this maker alone."`
	JSON    bool   `name:"json" help:"Print as JSON."`
}

// Help shows an example.
func (linkListCommand) Help() string {
	return "Asks the running service, with the admin token. Exits 1 if there is none.\n\nExample:\n  securefiles link list --subject alice"
}

func (cmd *linkListCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	var list []state.Link
	if err := call(ctx, c, env, http.MethodGet, "/links", nil, &list); err != nil {
		return err
	}
	if cmd.Subject != "" {
		list = slices.DeleteFunc(list, func(l state.Link) bool { return l.Subject != cmd.Subject })
	}
	if cmd.JSON {
		err = terminal.WriteJSON(env.Stdout, list)
	} else {
		err = writeLinks(env.Stdout, list)
	}
	if err == nil && len(list) == 0 {
		return errNo
	}
	return err
}

func writeLinks(out io.Writer, list []state.Link) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(list) > 0 {
		fmt.Fprintln(w, "LINK\tMAKER\tOPENS\tUNTIL\tUSES\t")
	}
	for _, l := range list {
		uses, more := "any", ""
		if l.Uses > 0 {
			uses = fmt.Sprintf("%d of %d", l.Used, l.Uses)
		}
		if l.Revoked {
			more = "revoked"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.ID, terminal.Printable(l.Subject), terminal.Printable(l.Download+" "+l.Path), l.Expires.Local().Format(time.RFC3339), uses, more)
	}
	return w.Flush()
}

type linkRevokeCommand struct {
	ID       string `arg:"" optional:"" name:"link" help:"The link, its token, or its id, as create and list print it; - reads it from standard input, where nobody else sees it."`
	Subject  string `placeholder:"SUBJECT" help:"All links that this maker has made until now."`
	Path     string `placeholder:"PATH" help:"All links until now to a path, or below it."`
	Key      string `placeholder:"ID" help:"All links until now that were signed with a key."`
	Download string `placeholder:"NAME" help:"Which download --path is of, where there are several."`
}

// Help shows an example.
func (linkRevokeCommand) Help() string {
	return "Tells the running service, with the admin token: the links end at once, with 410. Needs state.file or state.redis.\n\nExamples:\n  securefiles link revoke QZ3KJ7VYB2MPT5XHN6WDR4CFLA\n  securefiles link revoke 'https://files.example.org/downloads/q3.pdf?link=eyJ…'\n  securefiles link revoke --subject alice\n  securefiles link revoke --path /project/"
}

func (cmd *linkRevokeCommand) Run(ctx context.Context, env Env, all *commands) error {
	p, err := all.openLinks(ctx, env)
	if err != nil {
		return err
	}
	given := 0
	for _, one := range []string{cmd.ID, cmd.Subject, cmd.Path, cmd.Key} {
		if one != "" {
			given++
		}
	}
	if given != 1 {
		return errors.New("say which links are to end, in one way: LINK, --subject, --path or --key")
	}
	if cmd.ID != "" && !link.IsID(cmd.ID) || cmd.ID == "-" { // nothing would end by what is no id
		_, _, claims, err := readLink(p, cmd.ID)
		if err != nil {
			return err
		}
		cmd.ID = claims.ID
	}
	now := time.Now()
	end := state.Revocation{ID: cmd.ID, Subject: cmd.Subject, Key: cmd.Key, Before: now, Until: now.Add(time.Duration(p.Config.Links.MaxTTL))}
	if cmd.Path != "" {
		download, path, isDirectory, err := askBelow(p, cmd.Download, cmd.Path)
		if err != nil {
			return err
		}
		if end.Download, end.Path = download.Name, path.String(); isDirectory {
			end.Path = strings.TrimSuffix(end.Path, below)
		}
	}
	if err := call(ctx, p.Config, env, http.MethodPost, "/links/revoke", end, nil); err != nil {
		return err
	}
	if cmd.ID == "" { // links have whole seconds: those of this one have ended too, and later ones open
		select {
		case <-time.After(time.Until(now.Truncate(time.Second).Add(time.Second))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	fmt.Fprintln(env.Stdout, "revoked")
	return nil
}

type linkPageCommand struct{}

func (linkPageCommand) Help() string {
	return "An html/template: change it, and name the file as links.template in the configuration. `check` finds what is wrong with it.\n\nExample:\n  securefiles link page > link.html"
}

func (linkPageCommand) Run(env Env) error {
	_, err := io.WriteString(env.Stdout, link.Page)
	return err
}

type linkKeyCommand struct {
	New linkKeyNewCommand `cmd:"" help:"Add a key to the file of keys, which is made if it does not exist."`
}

type linkKeyNewCommand struct {
	File      string `placeholder:"FILE" help:"The file of keys (default: links.keys_file of the configuration)."`
	Algorithm string `default:"HS256" enum:"HS256,EdDSA" help:"HS256: a secret. EdDSA: a pair, of which whoever verifies needs the public half alone."`
}

// Help shows an example.
func (linkKeyNewCommand) Help() string {
	return "The newest key of the file signs; each one verifies until it is taken out, which ends its links. The running service reads the file again by itself.\n\nExamples:\n  securefiles link key new\n  securefiles link key new --file /etc/securefiles/link-keys.json --algorithm EdDSA"
}

func (cmd *linkKeyNewCommand) Run(env Env, all *commands) error {
	file := cmd.File
	if file == "" {
		c, err := all.load(env)
		if err != nil {
			return err
		}
		if file = c.Links.KeysFile; file == "" {
			return errors.New("links.keys_file is not set: set it, or name a file with --file")
		}
	}
	id, err := link.AddKey(file, cmd.Algorithm, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "added key %s to %s\n", id, file)
	return nil
}

// openLinks makes the parts of a configuration, and reads policy and keys.
func (c *commands) openLinks(ctx context.Context, env Env) (*Parts, error) {
	conf, err := c.loadServed(env)
	if err != nil {
		return nil, err
	}
	p, err := c.open(conf, env, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if p.Links == nil {
		return nil, errors.New("links.keys_file is not set, so there are no links: set it in the configuration, and make a key with `securefiles link key new`")
	}
	if err := p.loadKeys(ctx); err != nil {
		return nil, err
	}
	return p, p.openPolicy(ctx)
}

// writeSpan is parseSpan's other way.
func writeSpan(span time.Duration) string {
	const day = 24 * time.Hour
	if span > day && span%day == 0 {
		return strconv.Itoa(int(span/day)) + "d"
	}
	return span.String()
}

// parseSpan reads a span of time as people write it: 90m, 24h, 7d.
func parseSpan(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err == nil && n > 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	span, err := time.ParseDuration(text)
	if err != nil || span <= 0 {
		return 0, fmt.Errorf("%q is no span of time: write it like 90m, 24h or 7d", text)
	}
	return span, nil
}
