package identity

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"slices"

	"securefiles/authz"
)

// MaxRequest bounds a request that is written down, in bytes: what the service takes
// from nginx.
const MaxRequest = 64 << 10

// ParseRequest reads a request that somebody wrote down, as a server does: whole
// (GET /path HTTP/1.1 and header lines), or header lines alone. Its error quotes nothing.
func ParseRequest(text []byte) (*authz.Question, error) {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	if !bytes.Contains(first, []byte(" HTTP/1.")) {
		text = slices.Concat([]byte("GET / HTTP/1.1\r\n"), text)
	}
	text = slices.Concat(bytes.TrimRight(text, "\r\n"), []byte("\r\n\r\n"))
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		return nil, errors.New("not a request: give `GET /path HTTP/1.1` and header lines `Name: value`, or header lines alone")
	}
	return &authz.Question{Method: r.Method, Target: r.RequestURI, Host: r.Host, Action: authz.ActionRead, Header: r.Header}, nil
}
