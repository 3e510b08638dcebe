package config

import (
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Session asks an application who a session cookie belongs to.
type Session struct {
	// URL is asked with GET: http or https.
	URL string `yaml:"url"`
	// InsecureHTTP permits http to other hosts, which shows the cookies to
	// the network between.
	InsecureHTTP bool `yaml:"insecure_http"`
	// Socket is a unix socket to connect to instead of the URL's host.
	Socket string `yaml:"socket"`
	// Cookies and Headers are what of the caller's request is sent.
	Cookies []string `yaml:"cookies"`
	Headers []string `yaml:"headers"`
	// Send are headers that are the same in every call.
	Send map[string]string `yaml:"send"`
	// SubjectHeader and GroupsHeader are headers of the answer.
	SubjectHeader string `yaml:"subject_header"`
	GroupsHeader  string `yaml:"groups_header"`
	// SubjectPath and GroupsPath lead into a JSON answer: `user.name`.
	SubjectPath string `yaml:"subject_path"`
	GroupsPath  string `yaml:"groups_path"`
	// Timeout bounds a call.
	Timeout Duration `yaml:"timeout"`
	// Remember and RememberRefused are how long answers are not asked again.
	Remember        Duration `yaml:"remember"`
	RememberRefused Duration `yaml:"remember_refused"`
	// CAFile holds the certificates that vouch for an https URL.
	CAFile string `yaml:"ca_file"`
	// MaxCalls bounds the calls at one time.
	MaxCalls int `yaml:"max_calls"`
}

// maxSessionTimeout leaves the service time to answer nginx, which waits for
// two seconds.
const maxSessionTimeout = 1500 * time.Millisecond

const maxSessionRemember = time.Hour

var (
	// tokenPattern is a name of RFC 9110 section 5.6.2, as cookies have.
	tokenPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	pathPattern  = regexp.MustCompile(`^[^.\s]+(?:\.[^.\s]+)*$`)
	// credentialPattern are the request headers that may carry a session.
	credentialPattern = regexp.MustCompile(`(?i)^(?:Authorization|X-[A-Za-z0-9-]+)$`)
	// nginxPattern are the request headers that nginx tells the service
	// something with, or may.
	nginxPattern = regexp.MustCompile(`(?i)^X-(?:(?:Original|Securefiles|Accel|Forwarded)-|Real-IP$|Request-ID$)`)
)

func (s *Session) fill() {
	if s.SubjectHeader == "" && s.SubjectPath == "" && s.GroupsPath == "" && s.GroupsHeader == "" {
		s.SubjectPath, s.GroupsPath = "subject", "groups"
	}
	if s.Timeout == 0 {
		s.Timeout = Duration(time.Second)
	}
	if s.Remember == 0 {
		s.Remember = Duration(30 * time.Second)
	}
	if s.RememberRefused == 0 {
		s.RememberRefused = min(Duration(5*time.Second), s.Remember)
	}
	if s.MaxCalls == 0 {
		s.MaxCalls = 64
	}
}

// session checks one source that asks an application.
func (v *validator) session(path string, s *Session) {
	v.sessionURL(path, s)
	if len(s.Cookies)+len(s.Headers) == 0 || len(s.Cookies)+len(s.Headers) > 16 {
		v.add(path, "name the cookies or headers that carry the session, at most 16: cookies: [sessionid]")
	}
	for i, name := range s.Cookies {
		v.match(indexed(path+".cookies", i), name, tokenPattern, "is not a cookie's name")
		if slices.Contains(s.Cookies[:i], name) {
			v.add(indexed(path+".cookies", i), "%q stands there twice", name)
		}
	}
	for i, name := range s.Headers {
		v.match(indexed(path+".headers", i), name, credentialPattern, "cannot carry a session: Authorization, or a name that begins with X-")
		if nginxPattern.MatchString(name) {
			v.add(indexed(path+".headers", i), "%q is nginx's word, not the client's: use a header of its own, such as X-Session-Token", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Send)) {
		if !headerPattern.MatchString(name) || !fieldPattern.MatchString(s.Send[name]) {
			v.add(path+".send", "%q: names are letters, digits and -, values printable ASCII", name)
		}
		if strings.EqualFold(name, "Cookie") || strings.EqualFold(name, "Authorization") {
			v.add(path+".send", "%q carries credentials: those of the caller are named in cookies and headers, and secrets have no place in this file", name)
		}
	}
	v.sessionAnswer(path, s)
	if s.Timeout > Duration(maxSessionTimeout) {
		v.add(path+".timeout", "%s is too long: nginx waits for 2s, so at most %s", time.Duration(s.Timeout), maxSessionTimeout)
	}
	if s.Remember > Duration(maxSessionRemember) {
		v.add(path+".remember", "%s is too long: who has logged out would keep access so long; at most %s", time.Duration(s.Remember), maxSessionRemember)
	}
	if s.RememberRefused > s.Remember {
		v.add(path+".remember_refused", "%s is longer than remember, %s: who logs in would wait for it", time.Duration(s.RememberRefused), time.Duration(s.Remember))
	}
	if s.MaxCalls < 1 || s.MaxCalls > 1024 {
		v.add(path+".max_calls", "%d is out of range: 1 to 1024 calls", s.MaxCalls)
	}
}

func (v *validator) sessionURL(path string, s *Session) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		// It is not quoted: it may hold a password.
		v.add(path+".url", "write http://HOST/PATH or https://HOST/PATH, without a user, password and fragment")
		return
	}
	if s.Socket != "" && (!filepath.IsAbs(s.Socket) || len(s.Socket) > 107) {
		v.add(path+".socket", "%q: a unix socket needs an absolute path of at most 107 bytes", s.Socket)
	}
	host := u.Hostname()
	ip, err := netip.ParseAddr(host)
	local := s.Socket != "" || host == "localhost" || err == nil && ip.IsLoopback()
	if u.Scheme == "http" && !local && !s.InsecureHTTP {
		v.add(path+".url", "%q shows session cookies to the network between: use https, or set insecure_http: true", u.Host)
	}
	if s.CAFile != "" && u.Scheme != "https" {
		v.add(path+".ca_file", "belongs to an https url")
	}
}

func (v *validator) sessionAnswer(path string, s *Session) {
	fromHeader, fromJSON := s.SubjectHeader != "" || s.GroupsHeader != "", s.SubjectPath != "" || s.GroupsPath != ""
	switch {
	case fromHeader && fromJSON:
		v.add(path, "the answer is read from headers (subject_header, groups_header) or from JSON (subject_path, groups_path), not from both")
	case fromHeader && s.SubjectHeader == "":
		v.add(path+".groups_header", "groups are nobody's without a subject: set subject_header too")
	case !fromHeader && s.SubjectPath == "":
		v.add(path+".groups_path", "groups are nobody's without a subject: set subject_path too")
	case fromHeader:
		v.match(path+".subject_header", s.SubjectHeader, headerPattern, "is not a header name: letters, digits and -")
		if s.GroupsHeader != "" {
			v.match(path+".groups_header", s.GroupsHeader, headerPattern, "is not a header name: letters, digits and -")
		}
	default:
		v.match(path+".subject_path", s.SubjectPath, pathPattern, "is not a path into JSON: names with dots between, such as user.name")
		if s.GroupsPath != "" {
			v.match(path+".groups_path", s.GroupsPath, pathPattern, "is not a path into JSON: names with dots between, such as user.groups")
		}
	}
}

// sessions checks what sources mean for each other. A header that a client may
// set for one source must not be what another believes, and a source whose
// credentials an earlier one takes would never be asked.
func (v *validator) sessions(sources []Identity) {
	for i, id := range sources {
		if id.Session == nil {
			continue
		}
		path := indexed("identity", i) + ".session"
		for j, name := range id.Session.Headers {
			for k, other := range sources {
				if strings.EqualFold(name, other.Header) || strings.EqualFold(name, other.GroupsHeader) {
					v.add(indexed(path+".headers", j), "%q is what identity[%d] believes of nginx: the client would set it", name, k)
				}
			}
		}
		for k, other := range sources[i+1:] {
			if id.Session.takes(other) {
				v.add(indexed("identity", i+1+k), "is never asked: identity[%d] decides on its credentials; put it after this one, or name other cookies or headers", i)
			}
		}
	}
}

// takes reports whether all credentials that the other source reads are among
// those of s.
func (s *Session) takes(other Identity) bool {
	authorization := slices.ContainsFunc(s.Headers, func(h string) bool { return strings.EqualFold(h, "Authorization") })
	switch {
	case other.Htpasswd != "":
		return authorization
	case other.JWT != nil && other.JWT.Cookie == "":
		return authorization
	case other.JWT != nil:
		return slices.Contains(s.Cookies, other.JWT.Cookie)
	case other.Session != nil:
		cookies := !slices.ContainsFunc(other.Session.Cookies, func(c string) bool { return !slices.Contains(s.Cookies, c) })
		headers := !slices.ContainsFunc(other.Session.Headers, func(h string) bool {
			return !slices.ContainsFunc(s.Headers, func(mine string) bool { return strings.EqualFold(mine, h) })
		})
		return cookies && headers
	}
	return false
}
