package identity

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"securefiles/authz"
)

// S34: a line that denies a group misses whoever has it and does not say so. Each row
// is a caller whose groups are configured and missing, or cannot be read: nobody can
// tell, and says which form it is.
func TestMissingGroupsAreNotNoGroups(t *testing.T) {
	keys := loaded(t, KeysOptions{}, public("p256"))
	bearer := func(changes map[string]any) *authz.Question {
		return headers("Authorization: Bearer " + token(t, "p256", jose.ES256, changes))
	}
	jwt := func(claim string, optional bool) authz.Authenticator {
		return newTestJWT(t, keys, JWTOptions{GroupsClaim: claim, GroupsOptional: optional})
	}
	header := func(_ string, optional bool) authz.Authenticator {
		return must(NewHeaderSource(HeaderOptions{Header: "X-User", GroupsHeader: "X-Groups", GroupsOptional: optional}))(t)
	}
	certificate := func(_ string, optional bool) authz.Authenticator {
		return must(NewCertificateSource(CertificateOptions{Groups: GroupsOU, GroupsOptional: optional}))(t)
	}
	elsewhere := map[string]any{"groups": "src1"}
	sources := map[string]any{"src1": map[string]any{"endpoint": "https://graph.example/me"}}
	for _, row := range []struct {
		name     string
		source   func(claim string, optional bool) authz.Authenticator
		claim    string
		request  *authz.Question
		want     string // in what the operator reads
		optional bool   // whether groups: optional lets the caller in
	}{
		{"a token without the claim", jwt, "groups", bearer(nil), "the token has no claim groups", true},
		{"a token with null", jwt, "groups", bearer(map[string]any{"groups": jsonNull{}}), "or null there", true},
		{"a token without the object around it", jwt, "resource_access.files.roles", bearer(nil), "the token has no claim resource_access.files.roles", true},
		{"a distributed claim", jwt, "groups", bearer(map[string]any{"_claim_names": elsewhere, "_claim_sources": sources}), "by _claim_names", false},
		{"a distributed claim beside some groups", jwt, "groups", bearer(map[string]any{"groups": []string{"staff"}, "_claim_names": elsewhere}), "by _claim_names", false},
		{"a distributed claim of another form", jwt, "groups", bearer(map[string]any{"_claim_names": "groups"}), "by _claim_names", false},
		{"the object around it, distributed", jwt, "realm_access.groups", bearer(map[string]any{"_claim_names": map[string]any{"realm_access": "src1"}}), "by _claim_names", false},
		{"hasgroups", jwt, "groups", bearer(map[string]any{"hasgroups": true}), "by hasgroups", false},
		{"hasgroups as a text", jwt, "groups", bearer(map[string]any{"hasgroups": "true"}), "by hasgroups", false},
		{"groups:src1", jwt, "groups", bearer(map[string]any{"groups:src1": "https://graph.example/me"}), "by groups:src", false},
		{"an object", jwt, "groups", bearer(map[string]any{"groups": map[string]any{"staff": true}}), "neither a list nor a text", false},
		{"a number", jwt, "groups", bearer(map[string]any{"groups": 7}), "neither a list nor a text", false},
		{"a list of numbers", jwt, "groups", bearer(map[string]any{"groups": []int{7}}), "is no text", false},
		{"a list with null", jwt, "groups", bearer(map[string]any{"groups": []any{"staff", nil}}), "is no text", false},
		{"no header of groups", header, "", headers("X-User: alice"), "X-Groups did not come", true},
		{"a header of groups in another spelling", header, "", headers("X-User: alice", "X_Groups: staff"), "X-Groups did not come", true},
		{"a certificate without a unit", certificate, "", headers(HeaderVerify+": SUCCESS", HeaderDN+": CN=alice,O=Example"), "no organizational unit", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, err := row.source(row.claim, false).Authenticate(t.Context(), row.request)
			var down *authz.UnavailableError
			if !errors.As(err, &down) || down.Source == "" || p.Subject != "" || !strings.Contains(message(err), row.want) || !strings.Contains(message(err), "nobody can tell which groups") {
				t.Errorf("got %+v, %v", p, err)
			}
			p, err = row.source(row.claim, true).Authenticate(t.Context(), row.request)
			if (err == nil) != row.optional || row.optional && (p.Subject != "alice" || p.Groups != nil) {
				t.Errorf("with groups: optional: %+v, %v", p, err)
			}
		})
	}
	for _, row := range []struct {
		name    string
		source  authz.Authenticator
		request *authz.Question
		want    []string
	}{
		{"no groups", jwt("groups", false), bearer(map[string]any{"groups": []string{}}), nil},
		{"other claims are elsewhere", jwt("roles", false), bearer(map[string]any{"roles": []string{"staff"}, "_claim_names": elsewhere, "hasgroups": true}), []string{"@staff"}},
		{"hasgroups says no", jwt("groups", false), bearer(map[string]any{"groups": []string{"staff"}, "hasgroups": false}), []string{"@staff"}},
		{"an empty header", header("", false), headers("X-User: alice", "X-Groups: "), nil},
		{"a unit", certificate("", false), headers(HeaderVerify+": SUCCESS", HeaderDN+": CN=alice,OU=staff"), []string{"@staff"}},
		{"no groups are configured", must(NewHeaderSource(HeaderOptions{Header: "X-User"}))(t), headers("X-User: alice"), nil},
	} {
		if p, err := row.source.Authenticate(t.Context(), row.request); err != nil || p.Subject != "alice" || !slices.Equal(p.Groups, row.want) {
			t.Errorf("%s: %+v, %v", row.name, p, err)
		}
	}
}

// jsonNull is a null that claims does not take for "remove it".
type jsonNull struct{}

func (jsonNull) MarshalJSON() ([]byte, error) { return []byte("null"), nil }
