package world

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy/internal/model"
)

// Models are models whose policies randomPolicy can write.
func Models() []string {
	return []string{
		"default", "default", "allow", "basic", "open", "priority", "prioritylast", "subject", "subjectpriority", "subjectdomain",
		"domain", "keymatch2", "keymatch3", "keymatch5", "regex", "operator", "superuser", "address", "resource", "rule",
	}
}

func pick[T any](random *rand.Rand, from ...T) T { return from[random.IntN(len(from))] }

// Names in random policies.
func randomUser(random *rand.Rand) string { return pick(random, "u0", "u1", "u2", "u3", "u4", "root") }

func randomRole(random *rand.Rand) string { return fmt.Sprintf("r%d", random.IntN(5)) }

func randomGroup(random *rand.Rand) string {
	return pick(random, "@g0", "@g1", authz.GroupAuthenticated, authz.GroupAnyone)
}

// RandomPath returns a path that random policies are about.
func RandomPath(random *rand.Rand) string {
	return pick(random, "/a", "/b", "/c", "/a/b", "/a/c", "/b/c", "/a/b/c", "/b/a", "/a/b/c/d", "/r0")
}

// RandomPolicy writes a policy that loads under a model, small enough that its
// lines meet in most requests.
func RandomPolicy(random *rand.Rand, def *model.Model, lines int) string {
	patterns := []string{"/a", "/a/b", "/b/c", "/a/b/c"} // compared by ==
	switch regexp.MustCompile(`(\w+)\(r_obj, p_obj\)|=~ p_obj`).FindStringSubmatch(def.Matcher + " (r_obj, p_obj)")[1] {
	case "globMatch":
		patterns = []string{"/a/**", "/a/*", "/a/b", "/**", "/a/b/*", "/*/c", "/**/c", "/[ab]/c", "/b/**", "/a/?"}
	case "keyMatch":
		patterns = []string{"/a/*", "/a/b", "/b*", "/*", "/a/b/*"}
	case "keyMatch2":
		patterns = []string{"/a/:x", "/:x/c", "/a/*", "/a/b", "/:x"}
	case "keyMatch3", "keyMatch5":
		patterns = []string{"/a/{x}", "/{x}/c", "/a/*", "/a/b", "/{x}"}
	case "regexMatch":
		patterns = []string{"^/a/", "^/a/b$", "c$", "^/(a|b)/c$", "^/[ab]$"}
	}
	if strings.Contains(def.Matcher, "=~") {
		patterns = []string{"^/a/", "^/a/b$", "c$", "^/(a|b)/c$", "^/[ab]$"}
	}
	name := func() string {
		switch n := random.IntN(10); {
		case n < 4:
			return randomUser(random)
		case n < 8:
			return randomRole(random)
		}
		return randomGroup(random)
	}
	var out strings.Builder
	used := map[string]bool{"operators": strings.Contains(def.Matcher, "operators")}
	for range 1 + random.IntN(lines) {
		out.WriteString("p")
		for _, f := range def.Policy {
			value := "x"
			switch f {
			case "sub":
				value = name()
			case "obj":
				value = pick(random, patterns...)
			case "act":
				value = pick(random, "read", "read", "list")
				if def.File == "default.conf" && random.IntN(4) == 0 {
					value = "*"
				}
			case "eft":
				value = pick(random, "allow", "allow", "deny")
				if def.Effect == model.AllowOverride {
					value = "allow"
				}
			case "dom":
				value = pick(random, "main", "media")
			case "net":
				value = pick(random, "10.0.0.0/8", "192.0.2.1")
			case "priority":
				value = fmt.Sprint(random.IntN(4))
			case "from", "until":
				value = "_"
			case "rule":
				value = `"` + pick(random, `r.sub == ""u0""`, `r.sub != ""u1""`, `g(r.sub, ""r1"")`) + `"`
			}
			used[strings.Trim(value, `"`)] = true
			out.WriteString(", " + value)
		}
		out.WriteString("\n")
	}
	for _, definition := range slices.Sorted(maps.Keys(def.Roles)) { // the same policy each time
		fields := def.Roles[definition]
		parent := map[string]bool{}
		for range random.IntN(lines + 1) {
			from, to := name(), randomRole(random)
			if definition != "g" {
				from = RandomPath(random)
			}
			if from >= "r" && from < "rz" && from != "root" && from <= to { // roles form no cycle
				continue
			}
			if !used[to] && !def.Evaluates {
				if !used["operators"] {
					continue
				}
				to = "operators"
			}
			domain := ""
			if fields == 3 {
				domain = ", " + pick(random, "main", "media")
			}
			if parent[from+domain] && def.Effect == model.SubjectPriority {
				continue
			}
			parent[from+domain] = true
			fmt.Fprintf(&out, "%s, %s, %s%s\n", definition, from, to, domain)
		}
	}
	return out.String()
}

// RandomQuery asks what randomPolicy may answer.
func RandomQuery(random *rand.Rand) authz.Query {
	p := authz.Principal{Subject: pick(random, randomUser(random), randomUser(random), randomUser(random), authz.Anonymous, "stranger", randomRole(random))}
	if p.Subject != authz.Anonymous && random.IntN(3) == 0 {
		p.Groups = append(p.Groups, pick(random, "@g0", "@g1"))
	}
	return authz.Query{
		Principal: p.WithBuiltinGroups(), Object: RandomPath(random), Action: pick(random, "read", "read", "list"),
		Domain: pick(random, "main", "media"), IP: pick(random, "10.1.2.3", "192.0.2.1", "2001:db8::1", ""), Host: "files.example.org",
	}
}

// Share returns how much of a long test runs: the whole where
// SECUREFILES_TEST_LONG is set.
func Share(whole, part int) int {
	if os.Getenv("SECUREFILES_TEST_LONG") != "" {
		return whole
	}
	return part
}
