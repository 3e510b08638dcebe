package integration_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// A neighbour is what somebody wrote into the server of the snippet. Inherited by
// its locations, it makes no difference to what is served, refused, asked and
// logged, but for what the row says.
type neighbour struct {
	directives string
	// differs are the things that are not as in a server without it: "status",
	// "body", "question", a field of a log or the name of a header; refused says that
	// all it does is to refuse more.
	differs []string
	refused bool
	// dresses says that nginx's own pages look otherwise. They hold nothing of
	// anybody's.
	dresses bool
}

// What comes with another length, another type, or another body.
var (
	sized     = []string{"Content-Length", "access.log body_bytes", "access.log content_length", "delivery.log body_bytes", "delivery.log content_length"}
	retyped   = append([]string{"Content-Type", "body"}, sized...) // types stand in the body of two ranges
	rewritten = append([]string{"Accept-Ranges", "Etag", "Content-Range", "status", "access.log status", "delivery.log status", "delivery.log content_range", "Last-Modified",
		"Cross-Origin-Resource-Policy", "X-Content-Type-Options"}, retyped...)
)

// ofPages is what there is of nginx's own pages.
var ofPages = []string{"body", "Content-Length", "Content-Encoding", "Vary", "access.log body_bytes", "access.log content_length", "delivery.log body_bytes", "delivery.log content_length"}

// named is the directive that docs/operations.md must name, where it makes a
// difference.
func (n neighbour) named() string {
	name, _, _ := strings.Cut(n.directives, " ")
	return name
}

var neighbours = []neighbour{
	// What would change bytes, or take ranges away.
	{directives: "gzip on; gzip_types *; gzip_min_length 0; gzip_proxied any; gzip_vary on; gzip_disable none;", dresses: true},
	{directives: "gunzip on;"},
	{directives: "gzip_static on;"},
	{directives: "gzip_static always; gunzip on;"},
	{directives: "ssi on; ssi_types *; ssi_silent_errors on; ssi_last_modified on;", dresses: true},
	{directives: "add_before_body /words;"},
	{directives: "add_after_body /words;"},
	{directives: "add_before_body /words; add_after_body /words; addition_types *;"},
	{directives: "sub_filter 0123 CHANGED; sub_filter_types *; sub_filter_once off; sub_filter_last_modified on;", differs: rewritten, dresses: true},
	{directives: "charset utf-8;", differs: retyped},
	{directives: "charset utf-8; charset_types *; override_charset on;", differs: retyped},
	{directives: "charset utf-8; source_charset koi8-r; charset_types text/plain;", differs: rewritten, dresses: true},
	{directives: "max_ranges 0;"},
	{directives: "max_ranges 1;"},
	{directives: "slice 1k;"},
	{directives: "etag off;"},
	{directives: "if_modified_since off;"},
	{directives: "if_modified_since before;"},
	{directives: "chunked_transfer_encoding off;"},

	// What would add or change headers.
	{directives: "expires max;"},
	{directives: "expires epoch;"},
	{directives: "expires modified +1d;"},
	{directives: "add_header Cache-Control public always;"},
	{directives: "add_header Content-Disposition inline always; add_header Access-Control-Allow-Origin * always;"},
	{directives: "add_trailer X-Trailer x always;", differs: sized, dresses: true},
	{directives: "default_type application/x-other;", differs: retyped},
	{directives: "types { text/x-other txt html; } types_hash_max_size 2048;", differs: []string{"Content-Type"}},
	{directives: "userid on; userid_name visitor;", differs: []string{"Set-Cookie"}},
	{directives: "server_tokens off;", differs: []string{"Server"}, dresses: true},
	{directives: "absolute_redirect on; server_name_in_redirect on; port_in_redirect on;"},
	{directives: "msie_refresh on; msie_padding off;", dresses: true},
	{directives: "keepalive_timeout 0;"},
	{directives: "keepalive_requests 1; keepalive_disable msie6; keepalive_time 1s;"},

	// What would serve another file, or none.
	{directives: "root SITE;"},
	{directives: "index plan.txt;"},
	{directives: "autoindex on; autoindex_format json;"},
	{directives: "try_files /words.txt =410;"},
	{directives: "disable_symlinks on;"},
	{directives: "disable_symlinks off;"},
	{directives: "disable_symlinks if_not_owner;"},
	{directives: "open_file_cache max=100 inactive=1h; open_file_cache_valid 1h; open_file_cache_errors on; open_file_cache_min_uses 1;"},
	{directives: "merge_slashes off;"},
	{directives: "rewrite ^/old/(.*)$ /new/$1 permanent; rewrite_log on;"},
	{directives: "rewrite ^/downloads/(.*)$ /downloads/$1 break;", refused: true}, // alias cannot be used after it: 500,
	{directives: `set $securefiles_location "/protected/private/secret.txt"; set $securefiles_login_url /elsewhere;`, differs: []string{"access.log location"}}, // of what nobody is asked about
	{directives: "stub_status;"},
	{directives: "dav_methods PUT DELETE MKCOL COPY MOVE; create_full_put_path on; dav_access user:rw all:rw;"},
	{directives: "valid_referers none server_names;"},

	// How files are read and sent.
	{directives: "aio threads;"},
	{directives: "aio threads; aio_write on; directio 512; directio_alignment 512; output_buffers 2 32k;"},
	{directives: "directio 4k;"},
	{directives: "sendfile off;"},
	{directives: "sendfile on; sendfile_max_chunk 1k;"},
	{directives: "sendfile on; tcp_nopush on; tcp_nodelay off;"},
	{directives: "output_buffers 1 512;"},
	{directives: "postpone_output 0;"},
	{directives: "read_ahead 1m;"},
	{directives: "limit_rate 4k;"}, // a file of 64k would take 15 s
	{directives: "limit_rate 4k; limit_rate_after 10k;"},
	{directives: "lingering_close always; lingering_time 1s; reset_timedout_connection on;"},
	{directives: "subrequest_output_buffer_size 1;"},

	// Who may.
	{directives: "satisfy any; allow all;"},
	{directives: "satisfy any; deny all;", refused: true},
	{directives: "satisfy any; auth_basic site; auth_basic_user_file SITE/users;", refused: true},
	{directives: "allow 127.0.0.0/8; deny all;"},
	{directives: "deny all;", refused: true},
	{directives: "auth_basic site; auth_basic_user_file SITE/users;", refused: true},
	{directives: "auth_request /always;"},
	{directives: "auth_request /never;"},
	{directives: "auth_request /always; auth_request_set $securefiles_location /protected/private/secret.txt;"},
	{directives: "limit_conn connections 1;"},
	{directives: "limit_conn connections 100; limit_conn_status 404; limit_conn_log_level error;"},
	{directives: "limit_req zone=requests burst=1000 nodelay;"},
	{directives: "limit_req zone=few; limit_req_status 429;", refused: true},
	{directives: "secure_link $arg_md5,$arg_expires; secure_link_md5 secret$uri;"},

	// Whose page.
	{directives: "error_page 400 401 402 403 404 405 406 408 409 410 411 412 413 414 415 416 421 429 431 451 494 495 496 497 =200 /words;"},
	{directives: "error_page 500 501 502 503 504 505 507 =200 /words;"},
	{directives: "error_page 300 301 302 303 304 307 308 =200 /words;"},
	{directives: "error_page 404 =200 /words; recursive_error_pages on;"},
	{directives: "recursive_error_pages on;"},

	// How the service is asked.
	{directives: "proxy_cache hostile; proxy_cache_key $host; proxy_cache_valid any 10m; proxy_cache_use_stale error timeout http_500 http_403 http_404; proxy_cache_lock on;"},
	{directives: "proxy_cache hostile; proxy_cache_key $host; proxy_cache_valid any 10m; proxy_ignore_headers Cache-Control Set-Cookie Vary; proxy_cache_methods GET POST; proxy_cache_convert_head off;"},
	{directives: "proxy_store SITE/stored; proxy_store_access all:rw;"},
	{directives: "proxy_buffering off;"},
	{directives: "proxy_request_buffering off;"},
	{directives: "proxy_buffer_size 4k; proxy_buffers 2 4k; proxy_busy_buffers_size 4k;"},
	{directives: "proxy_intercept_errors on;"},
	{directives: "proxy_pass_request_headers on; proxy_pass_request_body on;"},
	{directives: "proxy_set_header X-Remote-User mallory; proxy_set_header Host evil.example.org; proxy_set_header X-Original-URI /;"},
	{directives: `proxy_set_body "GET / HTTP/1.1\r\n\r\n"; proxy_method POST;`},
	{directives: "proxy_hide_header WWW-Authenticate; proxy_hide_header Location; proxy_hide_header X-Securefiles-Location; proxy_hide_header Retry-After;"},
	{directives: "proxy_pass_header X-Accel-Redirect; proxy_ignore_headers Expires;"},
	{directives: "proxy_redirect ~^(.*)$ https://evil.example.org$1; proxy_cookie_domain ~. evil.example.org; proxy_cookie_path ~. /; proxy_cookie_flags ~ nosecure;"},
	{directives: "proxy_http_version 1.0;"},
	{directives: "proxy_force_ranges on;"},
	{directives: "proxy_limit_rate 4k;"},
	{directives: "proxy_bind 192.0.2.1;"},
	{directives: "proxy_next_upstream off;"},
	{directives: "proxy_next_upstream http_403 http_404 http_429 http_500 http_503 invalid_header;"},
	{directives: "proxy_ignore_client_abort on; proxy_socket_keepalive on;"},
	{directives: "proxy_max_temp_file_size 0; proxy_headers_hash_max_size 1024; proxy_headers_hash_bucket_size 128;"},
	{directives: "proxy_connect_timeout 1ms; proxy_read_timeout 1ms; proxy_send_timeout 1ms;"},
	{directives: "mirror /mirror; mirror_request_body on;"},

	// What is logged.
	{directives: "log_subrequest on;"},
	{directives: "access_log off;"},
	{directives: "access_log SITE/other.log combined; open_log_file_cache max=10; log_not_found off;"},

	// What comes with a request.
	{directives: "client_max_body_size 0;"},
	{directives: "client_max_body_size 10m; client_body_buffer_size 1; client_body_in_file_only on;"},
	{directives: "large_client_header_buffers 8 64k; client_header_buffer_size 16k;"},
	{directives: "underscores_in_headers on; ignore_invalid_headers off;"},
	{directives: "send_timeout 1s; client_body_timeout 1s; client_header_timeout 10s;"},
}

// askedOfEach is what each server is asked.
func askedOfEach(dir string) map[string]string {
	const browser = "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0)" // for which nginx does more than for others
	get := func(path string, say said, headers ...string) string {
		return about("GET", path, say, append(headers, browser, "Accept-Encoding: gzip")...)
	}
	file := func(name string, headers ...string) string {
		return get("/downloads/"+name, allowed("/protected/"+name), headers...)
	}
	requests := map[string]string{
		"text":              file("project/plan.txt"),
		"html":              file("project/page.html"),
		"a page with ssi":   file("project/ssi.html"),
		"binary":            file("large.bin"),
		"a gzip archive":    file("archive.gz"),
		"koi8-r":            file("koi8.txt"),
		"an image":          file("image.png"),
		"a range":           file("large.bin", "Range: bytes=1000-1999"),
		"the last bytes":    file("large.bin", "Range: bytes=-10"),
		"two ranges":        file("large.bin", "Range: bytes=0-1,1000-1001"),
		"a range too far":   file("project/plan.txt", "Range: bytes=99-"),
		"any validator":     file("project/plan.txt", "If-None-Match: *"),
		"not since":         file("project/plan.txt", "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT"),
		"not since later":   file("project/plan.txt", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"),
		"a wrong validator": file("project/plan.txt", `If-Match: "x"`),
		"a stale range":     file("large.bin", "Range: bytes=0-1", `If-Range: "x"`),
		"missing":           file("project/none.txt"),
		"a directory":       file("project"),
		"a link":            file("link.txt"),
		"a wrong location":  get(planPath, allowed("/elsewhere/x")),
		"other site":        get(planPath, allowed(planLocation), "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"),
		"a page":            get(planPath, said{"status": "410", "X-Securefiles-Page": "ended"}),
		"HEAD":              about("HEAD", "/downloads/large.bin", allowed("/protected/large.bin"), browser),
		"HEAD of html":      about("HEAD", "/downloads/project/page.html", allowed("/protected/project/page.html"), browser),
		"DELETE":            about("DELETE", planPath, allowed(planLocation)),
		"OPTIONS":           about("OPTIONS", planPath, allowed(planLocation), "Origin: https://app.example.org"),
		"the internal way":  "GET " + planLocation + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
	}
	for _, status := range strings.Fields("302 400 401 403 404 410 429 451 500") {
		requests["refused with "+status] = get(planPath, said{"status": status, "Location": "/login/?next=x", "WWW-Authenticate": "Basic", "Retry-After": "17", "X-Securefiles-Reason": "policy", "X-Securefiles-User": "alice"})
	}
	return requests
}

var boundary = regexp.MustCompile(`\b\d{20}\b`)

// An observation is what came of a request, as far as it is the same each time.
type observation map[string]string

// observe asks for something. What stands in the logs is there once nginx hangs up.
func (b *stand) observe(address, request string) (observation, error) {
	a, err := b.ask(address, request)
	if err != nil {
		return nil, err
	}
	o := observation{"status": fmt.Sprint(a.status), "body": boundary.ReplaceAllString(a.body, "BOUNDARY")}
	for name, values := range a.header {
		o[name] = boundary.ReplaceAllString(strings.Join(values, " | "), "BOUNDARY")
	}
	delete(o, "Date")
	id := a.header.Get("X-Request-ID")
	o["X-Request-Id"] = fmt.Sprint(len(id))
	for i, q := range a.asked {
		if q.header.Get("X-Request-ID") != id && id != "" {
			return nil, fmt.Errorf("the service is asked about request %q, the client has %q", q.header.Get("X-Request-ID"), id)
		}
		q.header.Del("X-Request-ID")
		o["question"] += fmt.Sprint(i, q.line, q.header)
	}
	for _, log := range []string{"delivery.log", "access.log"} {
		n, text := 0, ""
		for deadline := time.Now().Add(slack); text == ""; time.Sleep(time.Millisecond) { // between polls: it may linger
			if text = b.since(log); time.Now().After(deadline) {
				return nil, fmt.Errorf("%s has no record of %s", log, request)
			}
		}
		for line := range strings.Lines(text) {
			var d map[string]any
			if err := json.Unmarshal([]byte(line), &d); err != nil {
				return nil, fmt.Errorf("%s: %w: %s", log, err, line)
			}
			if id != "" && d["request_id"] != id {
				return nil, fmt.Errorf("%s: a record of another request: %s", log, line)
			}
			n++
			delete(d, "request_id")
			delete(d, "msec")
			delete(d, "duration")
			delete(d, "bytes") // headers have a date
			for name, value := range d {
				o[log+" "+name] = boundary.ReplaceAllString(fmt.Sprint(value), "BOUNDARY")
			}
		}
		o[log] = fmt.Sprint(n, " records")
	}
	return o, nil
}

// differences names what is not the same.
func (o observation) differences(other observation) (names []string) {
	all := maps.Clone(o)
	maps.Copy(all, other)
	for name := range all {
		if o[name] != other[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// The snippet stands in somebody's server, below somebody's http. What it inherits
// changes no byte, range, refusal, question or record; what cannot be reset does
// what its row says, and docs/operations.md names it.
func TestWhatTheServerAroundTheSnippetSetsChangesNothing(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	s := &site{t: t, dir: g.dir}
	s.write("files/archive.gz", gzipped(t, "archived\n"))
	s.write("files/project/page.html.gz", gzipped(t, "CANARY DENY another file\n"))
	s.write("files/koi8.txt", "\xd0\xd2\xc9\xd7\xc5\xd4\n")
	s.write("files/image.png", "\x89PNG\r\n\x1a\n not quite\n")
	s.write("site/words.txt", "words\n")
	s.write("site/users", cheapUsers)
	mtime := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, name := range []string{"project/plan.txt", "project/page.html", "project/ssi.html", "large.bin", "archive.gz", "koi8.txt", "image.png"} {
		if err := os.Chtimes(filepath.Join(g.dir, "files", name), mtime, mtime); err != nil {
			t.Fatal(err)
		}
	}
	manual, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	p := printSnippet(t, g.dir, printedService, "")
	b := g.place(t, newScribe(t))
	p.server = strings.ReplaceAll(p.server, "/LOGS/", filepath.Join(b.dir, "logs")+"/")
	p.http = strings.Replace(p.http, "server "+printedService+" max_conns=512;", "server "+b.scribe.address()+";", 1)

	plain, addresses := b.servers(t, g, p)
	requests := askedOfEach(g.dir)
	want := map[string]observation{}
	for name, request := range requests {
		for range 2 { // twice, so that what is not the same each time is none of the neighbours' doing
			o, err := b.observe(plain, request)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if d := o.differences(want[name]); want[name] != nil && d != nil {
				t.Fatalf("%s: %v are not the same when asked again", name, d)
			}
			want[name] = o
		}
	}
	for i, row := range neighbours {
		t.Run(row.directives, func(t *testing.T) {
			found := map[string]bool{}
			for _, name := range slices.Sorted(maps.Keys(requests)) {
				o, err := b.observe(addresses[i], requests[name])
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if row.refused {
					if strings.HasPrefix(o["status"], "2") && o["status"] != want[name]["status"] || o["status"] == "200" && o["body"] != want[name]["body"] {
						t.Errorf("%s: %s %q, want a refusal or %s", name, o["status"], o["body"], want[name]["status"])
					}
					found["refused"] = found["refused"] || o["status"] != want[name]["status"]
					continue
				}
				for _, d := range o.differences(want[name]) {
					if row.dresses && want[name]["status"] >= "300" && want[name]["X-Page"] == "" && slices.Contains(ofPages, d) {
						continue
					}
					found[d] = true
					if !slices.Contains(row.differs, d) {
						t.Errorf("%s: %s is %.300q, want %.300q", name, d, o[d], want[name][d])
					}
				}
			}
			for _, d := range row.differs {
				if !found[d] {
					t.Errorf("%s is as without it: the row need not name it", d)
				}
			}
			if row.refused && !found["refused"] {
				t.Error("it refuses nothing")
			}
			if len(found) > 0 && !strings.Contains(string(manual), "`"+row.named()) {
				t.Errorf("docs/operations.md does not name `%s`", row.named())
			}
		})
	}
}

// servers starts nginx with a server for each row, each on an address of its own, and one
// with nothing else in it.
func (b *stand) servers(t *testing.T, g *rig, p snippet) (plain string, addresses []string) {
	t.Helper()
	for {
		_, port, err := net.SplitHostPort(freeport.Address(t))
		if err != nil {
			t.Fatal(err)
		}
		network := fmt.Sprintf("127.%d", 1+os.Getpid()%254) // another process that runs this test takes others
		plain, addresses = network+".255.1:"+port, nil
		var servers strings.Builder
		server := func(address, directives string) {
			fmt.Fprintf(&servers, "server { listen %s; server_name localhost; set $gateway_user carol; %s\n"+
				"location = /words { auth_request off; return 200 SORRY; } location = /always { internal; return 204; } location = /never { internal; return 403; } location = /mirror { internal; return 204; }\n%s\n}\n",
				address, strings.ReplaceAll(directives, "SITE", filepath.Join(g.dir, "site")), p.server)
		}
		server(plain, "")
		for i, row := range neighbours {
			addresses = append(addresses, fmt.Sprintf("%s.%d.%d:%s", network, i/200, i%200+1, port))
			server(addresses[i], row.directives)
		}
		zones := "charset_map koi8-r utf-8 { D0 D0BF; } limit_conn_zone $server_addr zone=connections:1m; limit_req_zone $server_addr zone=requests:1m rate=1r/s; limit_req_zone $server_addr zone=few:1m rate=1r/m;\n"
		switch err := b.run(t, zones+p.http, servers.String(), append(addresses, plain)...); {
		case errors.Is(err, errTaken):
			continue
		case err != nil:
			t.Fatal(err)
		}
		return plain, addresses
	}
}

// since is what was added to a log since it was called last, in whole lines.
func (b *stand) since(log string) string {
	f, err := os.Open(filepath.Join(b.dir, "logs", log))
	if err != nil {
		return "" // there may be none
	}
	defer f.Close() // it was read
	text, err := io.ReadAll(io.NewSectionReader(f, b.read[log], 1<<30))
	if err != nil {
		b.rig.t.Fatal(err)
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1] // half a line is not read: the other half is on its way
	b.read[log] += int64(len(text))
	return string(text)
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
