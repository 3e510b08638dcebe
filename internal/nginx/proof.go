package nginx

import (
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// secretForm keeps the secret a literal of one line.
var secretForm = regexp.MustCompile(`^[A-Za-z0-9_+/=-]{32,}$`)

// asked are what an answer is proved to: the request's id, target, client's address and
// host, and the headers by which nginx says who asks, or that it clears, not what a
// client sent under their names. Whoever hands on a question with others in their place
// gets an answer that proves nothing.
func (v view) asked() []Header {
	vouched := slices.DeleteFunc(slices.Clone(v.Headers), func(h Header) bool { return strings.HasPrefix(h.Value, "$http_") })
	return append([]Header{{"X-Request-ID", "$request_id"}, {"X-Original-URI", "$request_uri"}, {"X-Real-IP", "$remote_addr"}, {"Host", "$host"}}, vouched...)
}

// Asked is what an answer is proved to, as a quoted literal.
func (v view) Asked() string {
	var values []string
	for _, h := range v.asked() {
		values = append(values, strings.Trim(h.Value, `"`))
	}
	return literalLines(strings.Join(values, "\n"))
}

// Prover returns what proves an answer to a question of nginx, whose secure_link module
// makes the same digest. The identity is the configuration's, and whether nginx asks any
// store; the secret is asked for each time.
func Prover(identity []Header, stores bool, secret func() string) func(question *http.Request, status int, reason, page, login, location, upstream string) string {
	var names []string
	for _, h := range newView(Config{Identity: identity}).asked() {
		names = append(names, http.CanonicalHeaderKey(h.Name))
	}
	return func(question *http.Request, status int, reason, page, login, location, upstream string) string {
		values := make([]string, len(names), len(names)+7)
		for i, name := range names {
			values[i] = strings.Join(question.Header[name], ",")
			if name == "Host" { // which net/http takes out of the header
				values[i] = question.Host
			}
		}
		answer := []string{strconv.Itoa(status), reason, page, login, location}
		if stores {
			answer = append(answer, upstream)
		}
		digest := md5.Sum([]byte(proofText(values, answer, secret())))
		return base64.RawURLEncoding.EncodeToString(digest[:])
	}
}

// WriteProof prints the file that the server half includes where Proof is set; what is
// proved goes by whether nginx asks any store. It holds the secret: write it where only root and nginx read.
func WriteProof(w io.Writer, stores bool, secret string) error {
	if !secretForm.MatchString(secret) {
		return errors.New("nginx configuration: the secret cannot be written as a literal: make one of at least 32 letters and digits with `openssl rand -hex 32`")
	}
	answer := []string{"$securefiles_last_status", "$securefiles_reason", "$securefiles_page", "$securefiles_login_url", "$securefiles_location"}
	if stores {
		answer = append(answer, "$securefiles_upstream")
	}
	text := proofText([]string{"$securefiles_asked"}, answer, secret)
	_, err := fmt.Fprintf(w, "secure_link_md5 \"%s\";\n", literalLines(text))
	return err
}

// proofText is what a proof is the digest of: what was asked, the answer, and the
// secret. Each is a line, which no header can hold, so no two have one text.
func proofText(asked, answer []string, secret string) string {
	return strings.Join(append(append(asked, answer...), secret), "\n")
}

// literalLines writes lines as a quoted literal of nginx has them.
func literalLines(text string) string { return strings.ReplaceAll(text, "\n", `\n`) }
