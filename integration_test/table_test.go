package integration_test

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"securefiles/internal/audit"
	"securefiles/internal/freeport"
)

// A combination is a column of the table of docs/web-servers.md: a web server, and where
// the files are.
type combination struct {
	name   string
	front  string // of the configuration, or direct
	store  string // the kind; empty for a directory
	follow bool   // the client is sent to the store
}

var combinations = []combination{
	{name: "nginx", front: "nginx"}, {name: "classic", front: "classic"}, {name: "apache", front: "apache"}, {name: "lighttpd", front: "lighttpd"}, {name: "caddy", front: "caddy"}, {name: "direct", front: "direct"},
	{name: "nginx, S3", front: "nginx", store: "s3"}, {name: "nginx, Azure", front: "nginx", store: "azure"}, {name: "nginx, GCS", front: "nginx", store: "gcs"},
	{name: "redirect, S3", front: "nginx", store: "s3", follow: true},
}

// A tabled site is one of a combination, with all that it is offered.
type tabled struct {
	*site
	combination
	store   *bucket
	refused map[string]string // what check says of what it is not offered
}

// An option is something that a configuration may ask for, and check may refuse.
type option struct{ name, download, limit string }

var optional = []option{
	{"listing", ", listing: true", ""},
	{"cors_origins", ", cors_origins: ['https://app.example.org']", ""},
	{"compress", ", compress: true", ""},
	{"bytes", "", ", {name: bytes, of: [carol], per: subject, bytes: 3KiB/1h}"},
	{"rate", "", ", {name: rate, of: [dave], per: subject, rate: 100KiB/s}"},
	{"downloads", "", ", {name: places, of: [erin], per: subject, downloads: 1}"},
}

// refusal is a cell of what check refuses, each such with a sentence and its place.
func (s *tabled) refusal(options ...string) string {
	for _, name := range options {
		switch said := s.refused[name]; {
		case said == "" && name == options[0]:
			return ""
		case !strings.Contains(said, "securefiles.yaml:") || !strings.Contains(said, ": "):
			return fmt.Sprintf("%s is refused by %q", name, said)
		}
	}
	return "refused by `check`"
}

// get asks as a client does that goes where it is sent, if that is the store; the id of
// the request stays with the answer.
func (s *tabled) get(user, path string, edit ...func(*http.Request)) reply {
	s.t.Helper()
	first := s.site.get(user, path, edit...)
	location := first.header.Get("Location")
	if !s.follow || first.status != 302 || !strings.HasPrefix(location, s.store.server.URL+"/") {
		return first
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, location, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range edit {
		e(req)
	}
	req.Header.Del("Authorization")
	req.Header.Del("Cookie")
	r, err := do(newClient(), req)
	if err != nil {
		s.t.Fatal(err)
	}
	r.header.Set("X-Request-Id", first.header.Get("X-Request-Id"))
	return r
}

// A capability is a row of the table: what a combination does.
type capability struct {
	name   string
	stores bool // of a client that is sent there, the store alone says
	find   func(*tabled) string
}

// told is a yes, or what came instead.
func told(r reply, ok bool) string {
	if ok {
		return "yes"
	}
	return fmt.Sprintf("%d %q %v", r.status, r.body, r.header)
}

var capabilities = []capability{
	{"every file name", false, func(s *tabled) string {
		for path := range s.texts {
			name, ok := strings.CutPrefix(path, "names/")
			r := s.get("alice", "/downloads/names/"+url.PathEscape(name))
			switch {
			case !ok || r.status == 200 && r.body == s.texts[path]:
			case r.status == 404 && strings.Contains(name, "?"): // told of below
			default:
				return fmt.Sprintf("%q: %d %q", name, r.status, r.body)
			}
		}
		if r := s.get("alice", "/downloads/names/q%3F.txt"); r.status == 404 {
			return "but `?`: 404"
		}
		return "yes"
	}},
	{"HEAD", false, func(s *tabled) string {
		r := s.get("alice", "/downloads/project/plan.txt", func(r *http.Request) { r.Method = http.MethodHead })
		return told(r, r.status == 200 && r.body == "" && r.header.Get("Content-Length") == "11")
	}},
	{"the headers of a file", false, func(s *tabled) string {
		r := s.get("alice", "/downloads/project/plan.txt")
		want := map[string]string{
			"Content-Type": "text/plain", "Content-Disposition": `attachment; filename="plan.txt"; filename*=UTF-8''plan.txt`, "Cache-Control": "private, no-store", "Content-Security-Policy": "default-src 'none'",
			"Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff", "Accept-Ranges": "bytes",
		}
		var missing []string
		for name, value := range want {
			switch values := r.header.Values(name); {
			case len(values) == 0:
				missing = append(missing, name)
			case len(values) != 1 || !strings.HasPrefix(values[0], value):
				return fmt.Sprintf("%s: %q", name, values)
			}
		}
		slices.Sort(missing)
		if len(missing) > 0 {
			return "but " + strings.Join(missing, ", ")
		}
		return told(r, len(r.header.Get("X-Request-Id")) == 32)
	}},
	{"a range, and one beyond the end", true, func(s *tabled) string {
		r := s.get("alice", "/downloads/project/plan.txt", with("Range", "bytes=2-4"))
		beyond := s.get("alice", "/downloads/project/plan.txt", with("Range", "bytes=100-"))
		return told(r, r.status == 206 && r.body == "234" && beyond.status == 416)
	}},
	{"several ranges", true, func(s *tabled) string {
		r := s.get("alice", "/downloads/project/plan.txt", with("Range", "bytes=0-1,4-5"))
		if r.status == 200 && r.body == "0123456789\n" {
			return "the whole file"
		}
		return told(r, r.status == 206 && strings.Contains(r.body, "45"))
	}},
	{"ETag, If-None-Match, If-Match", true, func(s *tabled) string {
		r := s.get("alice", "/downloads/project/plan.txt")
		tag := r.header.Get("ETag")
		if tag == "" {
			return "no"
		}
		same, other := s.get("alice", "/downloads/project/plan.txt", with("If-None-Match", tag)), s.get("alice", "/downloads/project/plan.txt", with("If-Match", `"other"`))
		if same.status == 304 && other.status == 200 {
			return "but If-Match"
		}
		return told(r, same.status == 304 && other.status == 412)
	}},
	{"resumed by ETag", true, func(s *tabled) string {
		tag := s.get("alice", "/downloads/project/plan.txt").header.Get("ETag")
		if tag == "" {
			return "no"
		}
		same, other := s.get("alice", "/downloads/project/plan.txt", with("Range", "bytes=5-"), with("If-Range", tag)), s.get("alice", "/downloads/project/plan.txt", with("Range", "bytes=5-"), with("If-Range", `"other"`))
		return told(same, same.status == 206 && same.body == "56789\n" && other.status == 200 && other.body == "0123456789\n")
	}},
	{"resumed by date", true, func(s *tabled) string {
		date := s.get("alice", "/downloads/project/plan.txt").header.Get("Last-Modified")
		same, other := s.get("alice", "/downloads/project/plan.txt", with("Range", "bytes=5-"), with("If-Range", date)),
			s.get("alice", "/downloads/project/plan.txt", with("Range", "bytes=5-"), with("If-Range", "Thu, 01 Jan 2015 00:00:00 GMT"))
		return told(same, same.status == 206 && same.body == "56789\n" && other.status == 200)
	}},
	{"If-Modified-Since", true, func(s *tabled) string {
		r := s.get("alice", "/downloads/project/plan.txt", with("If-Modified-Since", s.get("alice", "/downloads/project/plan.txt").header.Get("Last-Modified")))
		return told(r, r.status == 304)
	}},
	{"other methods: 405", false, func(s *tabled) string {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
			if r := s.get("alice", "/downloads/project/plan.txt", func(r *http.Request) { r.Method = method }); r.status != 405 {
				return told(r, false)
			}
		}
		return "yes"
	}},
	{"401 and a challenge, or a login page", false, func(s *tabled) string {
		r := s.get("", "/downloads/project/plan.txt")
		browser := s.get("", "/downloads/project/plan.txt", with("Accept", "text/html"))
		return told(r, r.status == 401 && strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Basic") && browser.status == 302 && browser.header.Get("Location") == "/login/?next=%2Fdownloads%2Fproject%2Fplan.txt")
	}},
	{"links", false, func(s *tabled) string {
		r := s.get("", s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--filename", "Plan.txt"))
		if s.follow && r.status == 200 && strings.Contains(r.header.Get("Content-Disposition"), `"plan.txt"`) {
			return "but their file name"
		}
		return told(r, r.status == 200 && r.body == "0123456789\n" && strings.Contains(r.header.Get("Content-Disposition"), `"Plan.txt"`))
	}},
	{"links with a password, and their pages", false, func(s *tabled) string {
		cmd := s.command(binary, "link", "create", "/project/plan.txt", "--as", "alice", "--password", "--config", filepath.Join(s.dir, "securefiles.yaml"))
		cmd.Stdin = strings.NewReader("correct horse\n")
		out, err := cmd.Output()
		if err != nil {
			return err.Error()
		}
		link := strings.TrimSpace(string(out))
		page := s.get("", link)
		if page.status != 403 || !strings.Contains(page.body, `type="password"`) || !strings.HasPrefix(page.header.Get("Content-Security-Policy"), "default-src 'none'") {
			return told(page, false)
		}
		r := s.form(newClient(), link, "correct horse")
		if r.status != 303 {
			return told(r, false)
		}
		r = s.get("", link, cookieOf(r))
		return told(r, r.status == 200 && r.body == "0123456789\n")
	}},
	{"links that are counted", false, func(s *tabled) string {
		out, err := s.command(binary, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1", "--config", "securefiles.yaml").Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && strings.Contains(string(exit.Stderr), "tells nothing of what it sends") {
			return "refused when made"
		}
		link := strings.TrimSpace(string(out))
		r := s.get("", link, cookieOf(s.form(newClient(), link, "")))
		another := s.get("", link)
		return told(another, r.status == 200 && r.body == "0123456789\n" && another.status == 410)
	}},
	{"limits of requests", false, func(s *tabled) string {
		for range 3 {
			if r := s.get("bob", "/downloads/public/welcome.txt"); r.status != 200 {
				return told(r, false)
			}
		}
		r := s.get("bob", "/downloads/public/welcome.txt")
		return told(r, r.status == 429 && r.header.Get("Retry-After") != "" && r.header.Get("RateLimit") != "" && r.header.Get("RateLimit-Policy") != "")
	}},
	{"limits of bytes", false, func(s *tabled) string {
		if cell := s.refusal("bytes"); cell != "" {
			return cell
		}
		first := s.get("carol", "/downloads/public/part.bin") // which holds 1000 bytes; all of 3072 is reserved
		if first.status != 200 {
			return told(first, false)
		}
		part := with("Range", "bytes=0-999")
		var second reply
		s.eventually("what was delivered takes the place of what was reserved", func() bool { second = s.get("carol", "/downloads/public/part.bin", part); return second.status == 206 })
		s.delivered(second.header.Get("X-Request-Id"))
		third, fourth := s.get("carol", "/downloads/public/part.bin", part), s.get("carol", "/downloads/public/part.bin", part)
		return told(fourth, third.status == 206 && fourth.status == 429 && fourth.header.Get("Retry-After") != "")
	}},
	{"limits of a rate", false, func(s *tabled) string {
		if cell := s.refusal("rate"); cell != "" {
			return cell
		}
		begin := time.Now()
		r := s.get("dave", "/downloads/public/rest.bin") // three seconds' worth, of which one may be free
		return told(reply{status: r.status, header: r.header}, r.status == 200 && len(r.body) == 300<<10 && time.Since(begin) > 1500*time.Millisecond)
	}},
	{"limits of downloads at a time", false, func(s *tabled) string {
		if cell := s.refusal("downloads"); cell != "" {
			return cell
		}
		held := s.open("/downloads/public/large.bin", func(r *http.Request) { r.SetBasicAuth("erin", "erin") })
		second := s.get("erin", "/downloads/public/part.bin")
		if err := held.Body.Close(); err != nil || held.StatusCode != 200 {
			return fmt.Sprint(held.StatusCode, err)
		}
		s.eventually("the place is free again", func() bool { return s.get("erin", "/downloads/public/part.bin").status == 200 })
		return told(second, second.status == 429)
	}},
	{"`cors_origins`", false, func(s *tabled) string {
		if cell := s.refusal("cors_origins"); cell != "" {
			return cell
		}
		r := s.get("alice", "/downloads/project/plan.txt", with("Origin", "https://app.example.org"))
		if s.follow && r.status == 200 && r.header.Get("Access-Control-Allow-Origin") != "https://app.example.org" {
			return "the store's own"
		}
		return told(r, r.status == 200 && r.header.Get("Access-Control-Allow-Origin") == "https://app.example.org")
	}},
	{"`compress`", false, func(s *tabled) string {
		if cell := s.refusal("compress"); cell != "" {
			return cell
		}
		r := s.get("alice", "/downloads/public/long.txt", with("Accept-Encoding", "gzip"))
		if r.status == 200 && r.header.Get("Content-Encoding") == "" && r.body == s.texts["public/long.txt"] {
			return "as it is"
		}
		_, err := gzip.NewReader(strings.NewReader(r.body))
		return told(reply{status: r.status, header: r.header}, r.status == 200 && r.header.Get("Content-Encoding") == "gzip" && err == nil)
	}},
	{"folders are listed", false, func(s *tabled) string {
		if cell := s.refusal("listing"); cell != "" {
			return cell
		}
		r := s.get("alice", "/downloads/project/", with("Accept", "application/json"))
		var d shown
		err := json.Unmarshal([]byte(r.body), &d)
		if s.store != nil {
			return strings.Replace(told(r, r.status == 200 && err == nil && d.String() == "page.html plan.txt sub/"), "yes", "by name", 1)
		}
		return told(r, r.status == 200 && err == nil && d.String() == "sub/ page.html plan.txt")
	}},
	{"records of decisions", false, func(s *tabled) string {
		for _, id := range []string{s.get("alice", "/downloads/project/plan.txt").header.Get("X-Request-Id"), s.get("alice", "/downloads/private/secret.txt").header.Get("X-Request-Id")} {
			text, err := os.ReadFile(filepath.Join(s.dir, "audit.jsonl"))
			if err != nil || len(id) != 32 || !strings.Contains(string(text), id) {
				return fmt.Sprintf("%q is not recorded: %v", id, err)
			}
		}
		return "yes"
	}},
	{"records of deliveries, complete or aborted", false, func(s *tabled) string {
		if _, err := os.Stat(filepath.Join(s.dir, "logs/deliveries.log")); errors.Is(err, os.ErrNotExist) {
			return "no" // it is configured, and whoever serves writes none
		}
		id := s.get("alice", "/downloads/project/plan.txt").header.Get("X-Request-Id")
		if s.follow { // the decision is all that there is
			text, err := os.ReadFile(filepath.Join(s.dir, "audit.jsonl"))
			if err != nil || len(id) != 32 || !strings.Contains(string(text), `"reason":"redirect"`) {
				return fmt.Sprintf("%q is not recorded as a redirect: %v", id, err)
			}
			return "no"
		}
		aborted := s.open("/downloads/public/large.bin", func(r *http.Request) { r.SetBasicAuth("dave", "dave") })
		if err := aborted.Body.Close(); err != nil {
			return err.Error()
		}
		of := s.delivered(id, aborted.id)
		if of[id].Delivery != audit.Complete || of[aborted.id].Delivery != audit.Aborted {
			return fmt.Sprintf("%s %s", of[id].Delivery, of[aborted.id].Delivery)
		}
		return "yes"
	}},
	{"the service is away: 503, Retry-After", false, func(s *tabled) string {
		end(s.daemon)
		if _, err := s.try(newClient(), "alice", "/downloads/project/plan.txt"); s.front == "direct" && err != nil {
			return "it is the service"
		}
		r := s.get("alice", "/downloads/project/plan.txt")
		if r.status == 503 && r.header.Get("Retry-After") == "" {
			return "but Retry-After"
		}
		return told(r, r.status == 503)
	}},
}

// startTabled brings up a combination, with all that check lets it have.
func startTabled(t *testing.T, c combination) *tabled {
	t.Helper()
	s := &tabled{combination: c, refused: map[string]string{}}
	files := someFiles()
	for _, name := range hardNames() {
		files["names/"+name] = "name " + name + "\n"
	}
	for name, size := range map[string]int{"part.bin": 1000, "long.txt": 2000, "rest.bin": 300 << 10, "large.bin": 8 << 20} {
		files["public/"+name] = strings.Repeat("x", size)
	}
	where := "root: ROOT, front: " + c.front
	switch {
	case c.store != "":
		s.store = newBucketOf(t, c.store)
		s.store.server.Start()
		for name, text := range files {
			s.store.put("files", "site/"+name, text)
		}
		where = "storage: {" + s.store.storage() + "}"
		if c.follow {
			where += ", deliver: redirect"
		}
	case c.front == "direct":
		where = "root: ROOT"
	}
	const few = "{name: few, of: [bob], per: subject, requests: 3/1h}"
	p := plan{
		policy: alicesPolicy + "p, editor, /names/**, read, allow\np, editor, /project/**, share, allow\np, editor, /project/**, list, allow\np, editor, /project/hr/**, list, deny\n", files: files,
		direct: c.front == "direct", printed: c.front == "nginx" || c.front == "classic", stored: true, // where there is a root, it is this site's from the beginning
		extra: "downloads: [{name: main, url: /downloads/, internal: /protected/, " + where + "}]\nlimits: [" + few + "]\nnginx: {delivery_log: LOGS/deliveries.log, access_log: 'off'}\n" +
			"links: {keys_file: link-keys.json}\nstate: {file: state.db}\nadmin_token_file: token\naudit: {file: audit.jsonl}\nlogin_url: /login/\n",
		before: func(made *site) {
			s.site = made
			if s.store != nil {
				s.write("credentials", s.store.key)
			} else {
				s.edit("securefiles.yaml", "ROOT", s.root)
			}
			s.edit("securefiles.yaml", "LOGS", s.dir+"/logs")
			s.write("token", strings.Repeat("t", 32)+"\n")
			users := cheapUsers
			for _, name := range []string{"carol", "dave", "erin"} {
				hash, err := bcrypt.GenerateFromPassword([]byte(name), bcrypt.MinCost)
				if err != nil {
					t.Fatal(err)
				}
				users += name + ":" + string(hash) + "\n"
			}
			s.write("users.htpasswd", users)
			s.run(0, "link", "key", "new")
			past := time.Now().Add(-time.Hour) // a date says what version a file is where a second is not enough
			if err := os.Chtimes(filepath.Join(s.root, "project/plan.txt"), past, past); err != nil {
				t.Error(err)
			}
			if err := os.MkdirAll(filepath.Join(s.dir, "logs"), 0o777); err != nil {
				t.Error(err)
			}
			for _, o := range optional {
				text, err := os.ReadFile(filepath.Join(s.dir, "securefiles.yaml"))
				if err != nil {
					t.Fatal(err)
				}
				s.edit("securefiles.yaml", "}]\nlimits: ["+few, o.download+"}]\nlimits: ["+few+o.limit)
				out, err := s.command(binary, "check", "--config", "securefiles.yaml").CombinedOutput()
				if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 2 {
					s.refused[o.name] = string(out)
					s.write("securefiles.yaml", string(text))
				} else if err != nil {
					t.Fatalf("check: %v\n%s", err, out)
				}
			}
		},
	}
	if c.front == "apache" || c.front == "lighttpd" || c.front == "caddy" {
		p.front = c.front
	}
	start(t, p)
	return s
}

// The table says what each web server does with each store: each cell is what was found
// here.
func TestTheTableOfWebServersIsWhatTheyDo(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/web-servers.md")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	found := map[string]map[string]string{}
	t.Run("each", func(t *testing.T) {
		for _, c := range combinations {
			t.Run(strings.ReplaceAll(c.name, ", ", " "), func(t *testing.T) {
				t.Parallel()
				s := startTabled(t, c)
				for _, capability := range capabilities {
					cell := ""
					if s.follow && capability.stores {
						cell = sentToTheStore(s)
					} else {
						cell = capability.find(s)
					}
					mu.Lock()
					if found[capability.name] == nil {
						found[capability.name] = map[string]string{}
					}
					found[capability.name][c.name] = cell
					mu.Unlock()
				}
			})
		}
	})
	head, line := "|", "|---"
	for _, c := range combinations {
		head, line = head+" | "+c.name, line+"|---"
	}
	if want := head + " |\n" + line + "|\n"; !strings.Contains(string(text), want) {
		t.Errorf("docs/web-servers.md does not say:\n%s", want)
	}
	for _, c := range capabilities {
		row := "| " + c.name
		for _, of := range combinations {
			row += " | " + found[c.name][of.name]
		}
		if row += " |"; !strings.Contains(string(text), row+"\n") {
			t.Errorf("docs/web-servers.md does not say:\n%s", row)
		}
	}
}

// sentToTheStore is the cell of what the store says by itself: its URL was given.
func sentToTheStore(s *tabled) string {
	r := s.site.get("alice", "/downloads/project/plan.txt")
	if r.status == 302 && strings.HasPrefix(r.header.Get("Location"), s.store.server.URL+"/files/site/project/plan.txt?") {
		return "the store's own"
	}
	return told(r, false)
}

// What is in a store is sent by nginx that asks, and by nothing else: check says so of each
// other web server, and the service does not start with it, nor as a web server itself.
func TestStoresBehindOtherFrontsAreRefused(t *testing.T) {
	t.Parallel()
	for _, kind := range bucketKinds {
		b := newBucketOf(t, kind)
		b.server.Start()
		for _, deliver := range []string{"proxy", "redirect"} {
			for _, front := range []string{"nginx", "classic", "apache", "lighttpd", "caddy", "direct"} {
				s := &site{t: t, dir: publicDir(t), log: &logBuffer{}}
				s.write("policy.csv", alicesPolicy)
				s.write("users.htpasswd", cheapUsers)
				s.write("credentials", b.key)
				conf := "listen: " + freeport.Address(t) + "\nadmin: " + freeport.Address(t) + "\nidentity: [{htpasswd: users.htpasswd}]\npolicy: {file: policy.csv}\ndownloads: [{name: main, url: /downloads/, internal: /protected/, storage: {" + b.storage() + "}, deliver: " + deliver
				args, says := []string{"serve", "--config", "securefiles.yaml"}, "downloads[0].front: what is in a store is fetched by nginx's snippet"
				if front == "direct" {
					args, says = append(args, "--direct", "--listen", freeport.Address(t)), "downloads[0]: there is no directory to serve: --direct serves downloads that have a root"
				} else {
					conf += ", front: " + front
				}
				s.write("securefiles.yaml", conf+"}]\n")
				at := kind + ", " + deliver + ", " + front
				if out, err := s.command(binary, "check", "--config", "securefiles.yaml").CombinedOutput(); (err == nil) != (front == "nginx" || front == "direct") || err != nil && !strings.Contains(string(out), says) {
					t.Errorf("check of %s: %v\n%s", at, err, out)
				}
				if front == "nginx" {
					continue
				}
				out, err := s.command(binary, args...).CombinedOutput()
				if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !strings.Contains(string(out), says) {
					t.Errorf("serve of %s: %v\n%s", at, err, out)
				}
			}
		}
	}
}
