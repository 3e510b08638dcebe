package config

import "time"

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
	CAFile string `yaml:"ca_file" path:"file"`
	// MaxCalls bounds the calls at one time.
	MaxCalls int `yaml:"max_calls"`
}

// maxSessionTimeout leaves the service time to answer nginx, which waits for
// two seconds.
const maxSessionTimeout = 1500 * time.Millisecond

const maxSessionRemember = time.Hour

// session checks the ranges of one source that asks an application.
func (v *validator) session(path string, s *Session) {
	if s.Timeout > Duration(maxSessionTimeout) {
		v.add(path+".timeout", "%s is too long: nginx waits for 2s, so at most %s", time.Duration(s.Timeout), maxSessionTimeout)
	}
	if s.Remember > Duration(maxSessionRemember) {
		v.add(path+".remember", "%s is too long: who has logged out would keep access so long; at most %s", time.Duration(s.Remember), maxSessionRemember)
	}
	if s.MaxCalls < 0 || s.MaxCalls > 1024 {
		v.add(path+".max_calls", "%d is out of range: 1 to 1024 calls", s.MaxCalls)
	}
}
