package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// nginx is the one that guards the downloads, as far as it was seen.
type nginx struct {
	master *master // nil where a dump was given
	// problem is why its configuration is not known, in nginx's words; denied that it was
	// for want of rights.
	problem           string
	denied, contained bool
	said              string // what it said besides
	dump              *dump
	conf              []directive
	servers           []server // that hold some of the second half
	version           string
	modules           string // what it was built with
	several           int    // how many others run, none of which guards the downloads either
}

// A server is a server { }, with what it inherits.
type server struct {
	directive
	http []directive // flat
	in   []directive // flat
}

const (
	question     = "/-securefiles-question"
	pages        = "/_securefiles/page"
	upstreamName = "securefiles_service"
	stampHeader  = "X-Securefiles-Snippet"
)

// maxMasters bounds how many nginx are asked for their configuration.
const maxMasters = 16

// lookForNginx finds the nginx that guards the downloads.
func (p *patient) lookForNginx(ctx context.Context) {
	if p.withoutNginx() {
		return
	}
	if p.opts.Dump != "" {
		n := &nginx{}
		n.read(p.opts.Dump)
		p.nginx = n
		return
	}
	masters, err := p.proc.masters()
	if err != nil {
		return
	}
	if p.opts.PIDFile != "" {
		text, _ := os.ReadFile(p.opts.PIDFile) // what cannot be read names none
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		masters = slices.DeleteFunc(masters, func(m *master) bool { return m.pid != pid })
	}
	best := 0
	for _, m := range masters[:min(len(masters), maxMasters)] {
		n := p.look(ctx, m)
		if likeness := 1 + p.likeness(n); likeness > best {
			best, p.nginx = likeness, n
		}
	}
	if p.nginx != nil && best == 1 {
		p.nginx.several = len(masters) - 1
	}
}

// look has an nginx tell of itself.
func (p *patient) look(ctx context.Context, m *master) *nginx {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	n := &nginx{master: m}
	if p.proc.contained(m.pid) {
		n.problem, n.contained = fmt.Sprintf("nginx, process %d, runs in a container, where its configuration was not looked at", m.pid), true
		return n
	}
	out, said, err := p.proc.ask(ctx, m, "-T")
	if err != nil {
		n.problem = emergency(said)
		if n.problem == "" {
			n.problem = fmt.Sprintf("%s -T: %v", m.binary, err)
		}
		n.denied = os.Geteuid() != 0 && (strings.Contains(n.problem, "Permission denied") || errors.Is(err, fs.ErrPermission))
	} else {
		n.said = said
		n.read(out)
	}
	if _, said, err := p.proc.ask(ctx, m, "-V"); err == nil {
		for line := range strings.Lines(said) {
			if rest, ok := strings.CutPrefix(line, "nginx version: nginx/"); ok {
				n.version, _, _ = strings.Cut(strings.TrimSpace(rest), " ")
			}
			if rest, ok := strings.CutPrefix(line, "configure arguments: "); ok {
				n.modules = rest
			}
		}
	}
	return n
}

// emergency is what nginx says of a configuration that it does not take.
func emergency(said string) string {
	for line := range strings.Lines(said) {
		if _, rest, ok := strings.Cut(line, "[emerg]"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// read takes a dump apart.
func (n *nginx) read(text string) {
	d, err := parseDump(text)
	if err == nil {
		n.dump = d
		n.conf, err = d.tree()
	}
	if err != nil {
		n.problem = "the configuration that nginx prints cannot be read: " + err.Error()
		return
	}
	for _, h := range named(n.conf, "http") {
		http := flat(h.block)
		for _, s := range named(h.block, "server") {
			n.servers = append(n.servers, server{directive: s, http: http, in: flat(s.block)})
		}
	}
}

// http is what http { } holds.
func (n *nginx) http() []directive {
	var all []directive
	for _, h := range named(n.conf, "http") {
		all = append(all, flat(h.block)...)
	}
	return all
}

// likeness is how much a configuration looks like the one for the downloads.
func (p *patient) likeness(n *nginx) int {
	if n.dump == nil {
		if strings.Contains(n.problem, "securefiles") {
			return 1
		}
		return 0
	}
	likeness := 0
	for _, text := range n.dump.texts {
		if p.Printed.Digest != "" && strings.Contains(text, stampHeader+" "+p.Printed.Digest) {
			likeness = max(likeness, 4)
		}
		for _, d := range p.Downloads {
			if d.Root != "" && strings.Contains(text, d.Root+";") || strings.Contains(text, d.Root+"/;") {
				likeness = max(likeness, 3)
			}
		}
		if own := "server " + printedAddress(p.Listen); strings.Contains(text, own+";") || strings.Contains(text, own+" ") {
			likeness = max(likeness, 2)
		}
		if strings.Contains(text, upstreamName) {
			likeness = max(likeness, 1)
		}
	}
	return likeness
}

func printedAddress(a Address) string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

// process looks at the nginx that runs.
func (p *patient) process(context.Context) []Finding {
	var all list
	for _, one := range p.Elsewhere {
		all.add(Note, "download "+one+", of which this looks at nothing", "compare its configuration with that of docs/web-servers.md, and ask it for a file as somebody who may have it, and as somebody who may not")
	}
	if p.withoutNginx() {
		return all
	}
	n := p.nginx
	switch {
	case n == nil && p.opts.PIDFile != "":
		all.add(Error, fmt.Sprintf("nginx does not run: %s names no process of it", p.opts.PIDFile), "nginx -t says what keeps it from starting; systemctl start nginx")
		return all
	case n == nil:
		all.add(Error, "nginx does not run on this machine", "nginx -t says what keeps it from starting; systemctl start nginx. Where it runs elsewhere: nginx -T there, and this with --nginx-dump FILE")
		return all
	case n.contained:
		all.add(Unseen, n.problem, "have it printed there, and give it to this: docker exec NAME nginx -T > FILE; securefiles doctor --nginx-dump FILE")
		return all
	case n.denied:
		all.add(Unseen, "nginx's configuration may not be looked at: "+n.problem, "run this as root")
		return all
	case n.problem != "" && strings.Contains(n.problem, "securefiles"):
		all.add(Error, "nginx refuses its configuration: "+n.problem, halves(n.problem))
		return all
	case n.problem != "":
		all.add(Error, "nginx refuses its configuration: "+n.problem, "mend it: nginx -t tells when it is well; until then a reload changes nothing, and a restart ends nginx")
		return all
	case n.several > 0:
		all.add(Error, fmt.Sprintf("%d nginx run on this machine, and none has anything of what `securefiles nginx` prints", n.several+1), "include it in the right one, or name that with --nginx-pid FILE")
		return all
	}
	if n.master == nil {
		return all
	}
	if n.master.replaced {
		all.add(Warning, fmt.Sprintf("nginx was upgraded, and still runs as it was: %s is another file by now", n.master.binary), "systemctl restart nginx")
	}
	all = append(all, p.reloaded()...)
	for line := range strings.Lines(n.said) {
		_, warned, ok := strings.Cut(line, "[warn]")
		switch {
		case ok && strings.Contains(warned, "conflicting server name"):
			all.add(Error, "two server { } have one name and address, and nginx passes over the second: "+strings.TrimSpace(warned), "take one out, or give it another server_name")
		case ok && !isIdle(warned):
			all.add(Warning, "nginx warns of its configuration: "+strings.TrimSpace(warned), "mend it")
		}
	}
	return all
}

// isIdle reports whether a warning of nginx is about nothing that anybody need do.
func isIdle(warned string) bool {
	return strings.Contains(warned, `"user" directive makes sense only`) || strings.Contains(warned, "could not build optimal")
}

// halves says what to do about the half that is missing.
func halves(problem string) string {
	if strings.Contains(problem, "host not found in upstream") || strings.Contains(problem, "unknown \"securefiles") || strings.Contains(problem, "unknown log format") {
		return "the half for http { } is not included: securefiles nginx --http > /etc/nginx/conf.d/securefiles.conf"
	}
	if strings.Contains(problem, "duplicate") {
		return "a half is included twice: grep -rn securefiles /etc/nginx says where; leave one include of each half"
	}
	if strings.Contains(problem, "open()") {
		return "write the file: docs/operations.md says what it holds"
	}
	return "print both halves again with `securefiles nginx`"
}

// reloaded looks whether nginx has read its files since they were changed.
func (p *patient) reloaded() []Finding {
	var all list
	for _, file := range p.nginx.dump.files {
		info, err := os.Stat(file)
		if err != nil {
			continue
		}
		stale := len(p.nginx.master.workers) > 0
		for _, w := range p.nginx.master.workers {
			// When it started is known to a tick.
			stale = stale && !w.started.IsZero() && info.ModTime().After(w.started.Add(time.Second/ticks))
		}
		if stale {
			all.add(Error, fmt.Sprintf("nginx runs with an older %s: it was changed after nginx was last reloaded", file), "nginx -t && systemctl reload nginx")
			return all
		}
	}
	return all
}

// withoutNginx reports whether nginx serves no download.
func (p *patient) withoutNginx() bool { return len(p.Elsewhere) > 0 && len(p.Downloads) == 0 }

// guards are the servers that hold some of the second half.
func (p *patient) guards() []server {
	if p.nginx == nil {
		return nil
	}
	var all []server
	for _, s := range p.nginx.servers {
		if s.holds(p.Downloads) {
			all = append(all, s)
		}
	}
	return all
}

func (s server) holds(downloads []Download) bool {
	return slices.ContainsFunc(s.in, func(d directive) bool {
		return d.is("location", "=", question) || slices.ContainsFunc(downloads, func(one Download) bool { return d.is("location", "^~", one.URL) })
	})
}

// Where the halves go that nothing includes yet, as the documentation has it.
const (
	httpFile    = "/etc/nginx/conf.d/securefiles.conf"
	serverFile  = "/etc/nginx/snippets/securefiles.conf"
	reloadNginx = "nginx -t && systemctl reload nginx"
)

// printAgain says how both halves are printed to where nginx includes them, or from where
// to include them in the place of what may not be written over: a package's own, and what
// stands in a file with other things.
func (p *patient) printAgain() string {
	http, server := p.halves()
	var then []string
	if problem := p.keeps(http); problem != "" {
		then = append(then, "take out "+problem)
		http = ""
	}
	if problem := p.keeps(server); problem != "" {
		then = append(then, "include "+serverFile+" in the place of "+problem)
		server = ""
	}
	text := fmt.Sprintf("securefiles nginx --http > %s; securefiles nginx > %s", cmp.Or(http, httpFile), cmp.Or(server, serverFile))
	if len(then) > 0 {
		return text + "; then " + strings.Join(then, ", ") + ", and " + reloadNginx
	}
	return text + "; " + reloadNginx
}

// keeps says what must go where a half is not written over: a package's own, and what
// stands in a file with other things; empty where it may be.
func (p *patient) keeps(half string) string {
	if half == "" {
		return ""
	}
	if strings.HasPrefix(half, "/usr/") {
		return half
	}
	inside, err := parseConf(half, p.nginx.dump.texts[half])
	if err != nil || slices.ContainsFunc(inside, func(d directive) bool { return d.name == "server" || d.name == "http" }) {
		return "what stands in " + half
	}
	return ""
}

// halves are the files in which the halves stand; empty for none.
func (p *patient) halves() (http, server string) {
	if p.nginx == nil {
		return "", ""
	}
	for _, d := range p.nginx.http() {
		if d.is("upstream", upstreamName) {
			http = d.file
		}
	}
	for _, d := range p.inServers() {
		if asks(d) {
			server = d.file
		}
	}
	return http, server
}

// maxDifferences are told of a half.
const maxDifferences = 3

// snippet compares nginx's configuration with what would be printed.
func (p *patient) snippet(context.Context) []Finding {
	var all list
	n := p.nginx
	if n == nil || n.dump == nil || n.several > 0 {
		return nil
	}
	if p.Printed.Server == "" {
		return nil // check says why nothing can be printed, or nginx is somebody's own
	}
	guards := p.guards()
	half := slices.ContainsFunc(n.http(), func(d directive) bool { return d.is("upstream", upstreamName) })
	switch {
	case len(guards) == 0 && !half:
		all.add(Error, "nginx's configuration includes nothing of what `securefiles nginx` prints", p.printAgain()+". Then, in your server { }: include snippets/securefiles.conf;")
		return all
	case len(guards) == 0:
		all.add(Error, "no server { } includes what `securefiles nginx` prints: only the half for http { } is there", "securefiles nginx > /etc/nginx/snippets/securefiles.conf; then, in your server { }: include snippets/securefiles.conf;")
		return all
	}
	for _, g := range guards {
		stamp := stampOf(g.in)
		differ, err := p.differences(p.Printed.Server, g.in)
		if err != nil {
			all.add(Error, "what would be printed cannot be read: "+err.Error(), "")
			return all
		}
		switch {
		case stamp != p.Printed.Digest && stamp == "":
			all.add(Error, fmt.Sprintf("the server at %s does not say for which configuration it was printed: it was written by hand, by an older version, or is not whole%s", g.place(), first(differ)), p.printAgain())
		case stamp != p.Printed.Digest:
			all.add(Error, fmt.Sprintf("the server at %s was printed for another configuration, or by another version%s", g.place(), first(differ)), p.printAgain())
		default:
			all = append(all, p.edited(differ)...)
		}
	}
	differ, err := p.differences(p.Printed.HTTP, n.http())
	if err != nil {
		all.add(Error, "what would be printed cannot be read: "+err.Error(), "")
		return all
	}
	if len(all) == 0 {
		all = append(all, p.edited(differ)...)
	}
	return append(all, p.secrets()...)
}

// secrets looks whether nginx has those that the service has. They are told to nobody.
func (p *patient) secrets() []Finding {
	var all list
	var proof []directive
	if p.Proof != "" {
		proof, _ = parseConf("securefiles nginx --proof", p.Proof) // it is our own
	}
	for _, g := range p.guards() {
		var sent, proved []directive
		for _, l := range g.in {
			if asks(l) {
				sent = append(sent, named(l.block, "proxy_set_header")...)
			}
			if l.name == "location" {
				proved = append(proved, named(l.block, "secure_link_md5")...)
			}
		}
		sent = slices.DeleteFunc(sent, func(d directive) bool { return len(d.args) != 2 || !strings.EqualFold(d.args[0], secretHeader) })
		switch {
		case p.IsSecret != nil && len(sent) == 0:
			all.add(Error, fmt.Sprintf("nginx sends no proxy secret, and the service refuses whoever has none: the server at %s", g.place()), "write `proxy_set_header "+secretHeader+" \"THE SECRET\";` into /etc/nginx/securefiles-secret.conf, and reload nginx")
		case p.IsSecret != nil && !p.IsSecret(sent[0].args[1]):
			all.add(Error, fmt.Sprintf("the proxy secret that nginx sends, at %s, is another than that of proxy_secret_file", sent[0].place()), "write the same one there, and reload nginx")
		}
		for _, d := range proved {
			if len(proof) > 0 && !slices.Equal(d.args, proof[0].args) {
				all.add(Error, fmt.Sprintf("the proof's secret that nginx has, at %s, is another than that of proof_secret_file: no answer of the service is believed", d.place()), "(umask 027; securefiles nginx --proof > /etc/nginx/securefiles-proof.conf), and reload nginx")
				break
			}
		}
	}
	return all
}

const secretHeader = "X-Securefiles-Proxy-Secret"

// asks reports whether nginx asks the service in a location: by auth_request, or by
// passing a download on. A page of the service is none.
func asks(d directive) bool {
	return d.is("location", "=", question) || d.name == "location" && !d.is("location", "=", pages) && slices.ContainsFunc(named(d.block, "proxy_set_header"), func(h directive) bool {
		return len(h.args) == 2 && strings.EqualFold(h.args[0], stampHeader)
	})
}

// stampOf is what a server sends as the digest of what it was printed for.
func stampOf(block []directive) string {
	for _, d := range block {
		if asks(d) {
			for _, h := range named(d.block, "proxy_set_header") {
				if len(h.args) == 2 && strings.EqualFold(h.args[0], stampHeader) {
					return h.args[1]
				}
			}
		}
	}
	return ""
}

// A difference is a directive that was taken away or added.
type difference struct {
	added bool
	in    string // the block
	what  directive
}

func (d difference) String() string {
	text := d.what.text()
	if strings.Contains(text, secretHeader) || d.what.name == "secure_link_md5" {
		text = d.what.name + " …" // with a secret
	}
	if d.added {
		return fmt.Sprintf("%s, %q was added", d.in, text)
	}
	return fmt.Sprintf("%s, %q is missing", d.in, text)
}

// first are the first differences, for the end of a sentence.
func first(differ []difference) string {
	for _, d := range differ {
		if !d.added && !strings.Contains(d.what.text(), stampHeader) {
			return ": " + d.String()
		}
	}
	return ""
}

func (p *patient) edited(differ []difference) []Finding {
	var all list
	for _, d := range differ {
		if len(all) == maxDifferences {
			break
		}
		if !d.added {
			all.add(Error, "what `securefiles nginx` printed was edited: "+d.String(), p.printAgain())
		}
	}
	for _, d := range differ {
		if d.added && !isHarmless(d.what) && len(all) < maxDifferences {
			all.add(Warning, fmt.Sprintf("what `securefiles nginx` printed was edited, at %s: %s", d.what.place(), d), "take it out, or see what it does to downloads: docs/operations.md, nginx")
		}
	}
	return all
}

// isHarmless reports whether a directive is one that people are told to add.
func isHarmless(d directive) bool {
	return slices.Contains([]string{"add_header", "access_log", "server", "zone", "include", "keepalive_timeout", "keepalive_requests", "keepalive_time"}, d.name)
}

// differences are those between what would be printed and what a block holds, which may hold
// more.
func (p *patient) differences(printed string, block []directive) ([]difference, error) {
	want, err := parseConf("securefiles nginx", printed)
	if err != nil {
		return nil, err
	}
	var all []difference
	for _, w := range want {
		i := slices.IndexFunc(block, func(d directive) bool { return d.text() == w.text() })
		if i < 0 {
			all = append(all, difference{in: "in " + w.kind(), what: w})
			continue
		}
		all = append(all, p.compare(w.text(), w.block, block[i].block)...)
	}
	return all, nil
}

// kind is where a directive belongs.
func (d directive) kind() string {
	if d.name == "location" {
		return "server { }"
	}
	return "http { }"
}

func (p *patient) compare(where string, want, is []directive) []difference {
	var all []difference
	left := slices.Clone(is)
	for _, w := range want {
		i := slices.IndexFunc(left, func(d directive) bool { return d.text() == w.text() })
		if i < 0 {
			if !p.isUnknown(w) {
				all = append(all, difference{in: "in " + where, what: w})
			}
			continue
		}
		if w.name != "include" { // secrets are the operator's
			all = append(all, p.compare(where+" { "+w.text(), w.block, left[i].block)...)
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, d := range left {
		all = append(all, difference{added: true, in: "in " + where, what: d})
	}
	return all
}

// isUnknown reports whether nginx was built without the module of a directive, whose line
// people are told to remove.
func (p *patient) isUnknown(d directive) bool {
	module := map[string]string{"gzip_static": "http_gzip_static_module", "add_before_body": "http_addition_module", "add_after_body": "http_addition_module"}[d.name]
	return module != "" && p.nginx.modules != "" && !strings.Contains(p.nginx.modules, "--with-"+module)
}

// inherited is what a directive says in a server, or else around it: nginx takes those of
// the nearest level that has any.
func (s server) inherited(name string) []directive {
	if here := named(s.in, name); len(here) > 0 {
		return here
	}
	return named(s.http, name)
}

// A disturber is a directive that no location can take back.
type disturber struct {
	names    []string
	severity Severity
	what     string
	counts   func(server, directive) bool // nil for always
	remedy   string
}

const elsewhere = "set it in the other locations"

func isOn(_ server, d directive) bool { return len(d.args) == 0 || d.args[0] != "off" }

func disturbers() []disturber {
	return []disturber{
		{[]string{"sub_filter"}, Error, "rewrites texts, which lose their ranges, length and ETag", nil, elsewhere},
		{[]string{"source_charset"}, Error, "recodes texts, which lose their ranges, length and ETag", func(s server, d directive) bool {
			to := s.inherited("charset")
			return len(to) > 0 && to[0].args[0] != "off" && !strings.EqualFold(to[0].args[0], d.args[0])
		}, elsewhere},
		{[]string{"add_trailer"}, Warning, "takes the length of files away", nil, elsewhere},
		{[]string{"add_header_inherit"}, Warning, "adds the headers of the server to those of files", func(_ server, d directive) bool { return d.is("add_header_inherit", "merge") }, elsewhere},
		{[]string{"post_action"}, Warning, "has each request logged twice", isOn, elsewhere},
		{[]string{"brotli", "brotli_static", "zstd", "zstd_static", "pagespeed"}, Warning, "compresses or rewrites files, which lose their ranges", isOn, "set it off in `location ^~ /internal/`, or " + elsewhere},
		{[]string{"more_set_headers", "more_clear_headers", "header_filter_by_lua", "header_filter_by_lua_block", "header_filter_by_lua_file"}, Warning, "may change the headers of files", nil, elsewhere},
		{[]string{"body_filter_by_lua", "body_filter_by_lua_block", "body_filter_by_lua_file"}, Warning, "may change the bytes of files", nil, elsewhere},
		{[]string{"rewrite_by_lua", "rewrite_by_lua_block", "rewrite_by_lua_file", "access_by_lua", "access_by_lua_block", "access_by_lua_file", "server_rewrite_by_lua_block"}, Warning, "may answer in the place of the service", nil, elsewhere},
		{[]string{"auth_basic"}, Error, "has nginx ask for a password of its own, before the service is asked", isOn, "set it in the other locations, or have the service believe it: docs/identity.md, A password that nginx checks"},
	}
}

// directives looks for what changes answers or bytes.
func (p *patient) directives(context.Context) []Finding {
	var all list
	if p.nginx == nil || p.nginx.dump == nil {
		return nil
	}
	told := map[string]bool{}
	tell := func(s Severity, d directive, what, remedy string) {
		problem := fmt.Sprintf("%s at %s %s", short(d.text()), d.place(), what)
		if !told[problem] {
			told[problem] = true
			all.add(s, problem, remedy)
		}
	}
	for _, g := range p.guards() {
		p.takers(g, tell)
		p.rewrites(g, tell)
		for _, row := range disturbers() {
			if row.names[0] == "auth_basic" && p.RemoteUser {
				continue
			}
			for _, name := range row.names {
				for _, d := range g.inherited(name) {
					if row.counts == nil || row.counts(g, d) {
						tell(row.severity, d, row.what, row.remedy)
					}
				}
			}
		}
		if basic := g.inherited("auth_basic"); p.RemoteUser && (len(basic) == 0 || basic[0].is("auth_basic", "off")) {
			all.add(Error, fmt.Sprintf("anybody is who they say they are: nginx_value is $remote_user, and auth_basic is off in the server at %s", g.place()), "auth_basic and auth_basic_user_file, in that server { }: docs/identity.md, A password that nginx checks")
		}
		if access := append(g.inherited("allow"), g.inherited("deny")...); len(access) == 1 && access[0].is("deny", "all") {
			tell(Error, access[0], "refuses everybody, before the service is asked", "say who may with `allow`, or "+elsewhere)
		}
	}
	printed, _ := parseConf("securefiles nginx --http", p.Printed.HTTP) // it is our own
	own := map[string]bool{}
	for _, d := range printed {
		own[d.text()] = true
	}
	for _, d := range slices.Concat(p.nginx.http(), p.inServers()) {
		at := map[string]int{"set": 0, "map": 1, "geo": len(d.args) - 1, "split_clients": 1, "js_set": 0, "perl_set": 0}
		if i, ok := at[d.name]; ok && i >= 0 && i < len(d.args) && strings.HasPrefix(d.args[i], "$securefiles_") && !own[d.text()] && !p.sick("snippet") {
			tell(Error, d, "sets a variable that the printed configuration uses", "give it another name")
		}
	}
	return all
}

// inServers are the directives of the servers that guard, but for the blocks in them.
func (p *patient) inServers() []directive {
	var all []directive
	for _, g := range p.guards() {
		all = append(all, g.in...)
	}
	return all
}

func short(text string) string {
	if len(text) > 100 {
		return text[:100] + "…"
	}
	return text
}

// takers are locations that take addresses of a download from the printed one: policy is not
// asked there.
func (p *patient) takers(g server, tell func(Severity, directive, string, string)) {
	for _, l := range g.in {
		if l.name != "location" || len(l.args) == 0 {
			continue
		}
		modifier, prefix := "", l.args[0]
		if len(l.args) == 2 {
			modifier, prefix = l.args[0], l.args[1]
		}
		if strings.HasPrefix(modifier, "~") || strings.HasPrefix(prefix, "@") {
			continue // ^~ keeps them out
		}
		for _, d := range p.Downloads {
			switch {
			case l.is("location", "^~", d.URL), l.is("location", "^~", d.Internal):
			case strings.HasPrefix(prefix, d.URL):
				tell(Error, l, fmt.Sprintf("takes addresses below %s from download %s: nobody asks the service for them", d.URL, d.Name), "take it out, or move it to another address")
			case strings.HasPrefix(prefix, d.Internal):
				tell(Error, l, fmt.Sprintf("takes addresses below %s, which are nginx's own", d.Internal), "take it out, or move it to another address")
			}
		}
	}
}

// rewrites are what the server does before it looks for a location.
func (p *patient) rewrites(g server, tell func(Severity, directive, string, string)) {
	for _, d := range g.in {
		switch {
		case d.name == "return":
			tell(Error, d, "answers everything in this server, before a location is looked for", "put it into a location, or another server { }")
			return
		case d.name == "rewrite" && len(d.args) >= 2:
			form, err := regexp.Compile(d.args[0])
			if err != nil {
				continue // a form that only nginx knows: a probe shows what it does
			}
			for _, one := range p.Downloads {
				uri := one.URL + "securefiles-doctor.txt"
				m := form.FindStringSubmatchIndex(uri)
				flag := ""
				if len(d.args) > 2 {
					flag = d.args[2]
				}
				switch {
				case m == nil:
				case flag == "break":
					tell(Error, d, fmt.Sprintf("makes nginx answer 500 for the files of download %s: it uses no alias after it", one.Name), "write `last`, or no flag")
				case string(form.ExpandString(nil, strings.NewReplacer("$1", "${1}", "$2", "${2}", "$3", "${3}").Replace(d.args[1]), uri, m)) != uri:
					tell(Error, d, fmt.Sprintf("takes the addresses of download %s elsewhere", one.Name), "leave out what begins with "+one.URL)
				}
			}
		}
	}
}

// logs looks whether what is delivered is logged.
func (p *patient) logs(context.Context) []Finding {
	var all list
	if p.nginx == nil || p.nginx.master == nil {
		return nil
	}
	open, err := p.proc.open(p.nginx.master.pid)
	if err != nil {
		if p.DeliveryLog != "" {
			all.add(Unseen, "which logs nginx writes may not be looked at", "run this as root")
		}
		return all
	}
	for _, f := range open {
		if f.removed && f.name != p.DeliveryLog && strings.HasSuffix(f.name, ".log") {
			all.add(Warning, fmt.Sprintf("nginx goes on writing %s, which was removed or renamed", f.name), "nginx -s reopen")
		}
	}
	if p.DeliveryLog == "" || len(p.guards()) == 0 { // what has it written is not there, and told of
		return all
	}
	info, err := os.Stat(p.DeliveryLog)
	switch {
	case errors.Is(err, fs.ErrPermission):
		all.add(Unseen, fmt.Sprintf("the delivery log may not be looked at: %v", err), "run this as root")
		return all
	case err != nil || !slices.ContainsFunc(open, func(f openFile) bool { return os.SameFile(f.info, info) }):
		all.add(Error, fmt.Sprintf("nginx does not write the delivery log %s, but one that was removed or renamed: what is delivered now is told to nobody", p.DeliveryLog), "nginx -s reopen, as logrotate should do it: kill -USR1 $(cat /run/nginx.pid)")
		return all
	case info.Mode()&fs.ModeCharDevice != 0:
		all.add(Warning, fmt.Sprintf("the delivery log %s is a device: what it is told is gone", p.DeliveryLog), "name a file")
	}
	var fill unix.Statfs_t
	if unix.Statfs(path.Dir(p.DeliveryLog), &fill) == nil && fill.Blocks > 0 && fill.Bfree == 0 {
		all.add(Error, fmt.Sprintf("the file system of the delivery log %s is full: nothing more is logged", p.DeliveryLog), "make room")
	}
	return all
}

// errorLog is the file that nginx tells of errors in, for a server; empty for none.
func (p *patient) errorLog(g server) string {
	n := p.nginx
	named := g.inherited("error_log")
	if len(named) == 0 {
		for _, d := range flat(n.conf) {
			if d.name == "error_log" {
				named = append(named, d)
			}
		}
	}
	name := ""
	if len(named) > 0 && len(named[0].args) > 0 {
		name = named[0].args[0]
	} else if n.master != nil {
		name = option(n.master.args, "-e")
		name = cmp.Or(name, p.built("--error-log-path"))
	}
	if name == "" || name == "stderr" || strings.Contains(name, ":") {
		return ""
	}
	return p.prefixed(name)
}

// prefixed is a path as nginx takes it, relative ones from its prefix on.
func (p *patient) prefixed(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	prefix := p.built("--prefix")
	if m := p.nginx.master; m != nil {
		if given := option(m.args, "-p"); given != "" {
			prefix = given
		}
		if !filepath.IsAbs(prefix) {
			dir, _ := os.Readlink(p.proc.path(m.pid, "cwd")) // where it is not seen, the log is not either
			prefix = filepath.Join(dir, prefix)
		}
	}
	return filepath.Join(prefix, name)
}

// built is what an option of configure was.
func (p *patient) built(name string) string {
	for _, word := range strings.Fields(p.nginx.modules) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}

func option(args []string, name string) string {
	for i := 0; i+1 < len(args); i++ {
		if args[i] == name {
			return args[i+1]
		}
	}
	return ""
}
