package identity

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"securefiles/authz"
)

// Whoever is sent to the login page comes back with what was refused: an endless
// login. Each row says how a refusal is to end instead.
func TestWhatALoginWouldNotHelp(t *testing.T) {
	keys := loaded(t, KeysOptions{}, public("p256"))
	inCookie := newTestJWT(t, keys, JWTOptions{Cookie: "token", GroupsClaim: "groups", GroupsOptional: true})
	byEmail := newTestJWT(t, keys, JWTOptions{Cookie: "token", SubjectClaim: "email"})
	cookie := func(changes map[string]any) *authz.Question {
		return headers("Cookie: token=" + token(t, "p256", jose.ES256, changes))
	}
	header := newTestHeader(t)
	certificate := must(NewCertificateSource(CertificateOptions{}))(t)
	session := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Cookie("sessionid") // it is always there
		switch c.Value {
		case "group":
			answerJSON(`{"subject": "@staff", "groups": []}`)(w, r)
		case "large":
			w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
		case "forbidden":
			w.WriteHeader(http.StatusForbidden)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}), nil)
	const again, final, forbidden, subject = "to log in again", "401, no login", "403", "403, subject"
	for _, row := range []struct {
		name    string
		source  authz.Authenticator
		request *authz.Question
		want    string
	}{
		{"an expired token", inCookie, cookie(map[string]any{"exp": noon.Unix() - 60}), again},
		{"a token for others", inCookie, cookie(map[string]any{"aud": "mail"}), again},
		{"a token with a subject that is a group", inCookie, cookie(map[string]any{"sub": "@staff"}), subject},
		{"a token of anonymous", inCookie, cookie(map[string]any{"sub": "anonymous"}), subject},
		{"a token without a subject", inCookie, cookie(map[string]any{"sub": nil}), subject},
		{"a token with a number for a subject", inCookie, cookie(map[string]any{"sub": 7}), subject},
		{"a token with a long subject", inCookie, cookie(map[string]any{"sub": strings.Repeat("a", 257)}), subject},
		{"a token with a group that is none", inCookie, cookie(map[string]any{"groups": []string{"@staff"}}), subject},
		{"a token with too many groups", inCookie, cookie(map[string]any{"groups": strings.Split(strings.Repeat("g", 257), "")}), subject},
		{"an email that is not verified", byEmail, cookie(map[string]any{"email_verified": false}), subject},
		{"a token that is too large", inCookie, headers("Cookie: token=" + strings.Repeat("a", 8193)), forbidden},
		{"two tokens", inCookie, headers("Cookie: token=a; token=b"), final},
		{"an unknown session", session, headers("Cookie: sessionid=stale"), again},
		{"a session whose user is a group", session, headers("Cookie: sessionid=group"), subject},
		{"a session that the application refuses", session, headers("Cookie: sessionid=forbidden"), forbidden},
		{"a session that is too large for it", session, headers("Cookie: sessionid=large"), forbidden},
		{"a session that is too large", session, headers("Cookie: sessionid=" + strings.Repeat("a", 16385)), forbidden},
		{"two sessions", session, headers("Cookie: sessionid=a; sessionid=b"), final},
		{"a header with a group for a user", header, headers("X-Remote-User: @staff"), final},
		{"two users", header, headers("X-Remote-User: alice", "X-Remote-User: bob"), final},
		{"a certificate of a group", certificate, headers(HeaderVerify+": SUCCESS", HeaderDN+": CN=@staff"), final},
		{"a certificate that is not verified", certificate, headers(HeaderVerify + ": FAILED:expired"), final},
	} {
		_, err := authz.Identify(t.Context(), row.source, row.request)
		var bad *authz.CredentialsError
		got := fmt.Sprint("another end: ", err)
		switch {
		case !errors.As(err, &bad):
		case errors.Is(err, authz.ErrReservedSubject):
			got = subject
		case bad.Forbidden && bad.Final:
			got = forbidden
		case bad.Final:
			got = final
		case !bad.Forbidden:
			got = again
		}
		if got != row.want || bad != nil && (bad.Source == "" || bad.Problem == "") {
			t.Errorf("%s: %s, %v; want %s", row.name, got, err, row.want)
		}
	}
}
