package lint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"
)

// What people do with real models has no finding, errors and warnings alike; it is
// served, and decides as stock Casbin does and as its expect.txt says: lines of effect,
// subject, path (a _ for each blank in it), action, then groups and what the model asks.
func TestGoodPolicies(t *testing.T) {
	dirs, err := filepath.Glob("testdata/good/*")
	if err != nil || len(dirs) < 40 {
		t.Fatal(len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			source := policy.Files{Policy: filepath.Join(dir, "policy.csv")}
			text := model.Default
			if file := filepath.Join(dir, "model.conf"); exists(file) {
				source.Model, text = file, world.File(t, file)
			}
			for _, f := range Check(t.Context(), source, lintOptions()) {
				t.Error(f)
			}
			s, err := policy.Open(t.Context(), source, nil)
			if err != nil {
				t.Fatal(err)
			}
			m, err := model.Parse("model.conf", text)
			if err != nil {
				t.Fatal(err)
			}
			stock, err := world.NewStock(m, world.File(t, source.Policy))
			if err != nil {
				t.Fatal(err)
			}
			seen := map[bool]int{}
			for line := range strings.Lines(world.File(t, filepath.Join(dir, "expect.txt"))) {
				want, q := expectation(t, line)
				if m.Effect == model.SubjectPriority {
					q.Principal.Groups = nil // stock Casbin takes one role of each name
				}
				seen[want]++
				d, err := s.Decide(t.Context(), q)
				if err != nil || (d.Effect == authz.Allow) != want {
					t.Errorf("%s: the service says %v, %v", strings.TrimSpace(line), d.Effect, err)
				}
				if out, err := stock.Decide(&q); err != nil || out.Allowed != want {
					t.Errorf("%s: stock Casbin says %t, %v", strings.TrimSpace(line), out.Allowed, err)
				}
			}
			if seen[true] == 0 || seen[false] == 0 {
				t.Errorf("expect.txt has %d allowed and %d denied requests", seen[true], seen[false])
			}
		})
	}
}

// expectation reads a line of an expect.txt.
func expectation(t *testing.T, line string) (allow bool, q authz.Query) {
	t.Helper()
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[0] != "allow" && fields[0] != "deny" {
		t.Fatalf("not understood: %q", line)
	}
	q = authz.Query{Object: strings.ReplaceAll(fields[2], "_", " "), Action: fields[3], Domain: "main"}
	p := authz.Principal{Subject: fields[1]}
	for _, f := range fields[4:] {
		switch key, value, ok := strings.Cut(f, "="); {
		case !ok:
			p.Groups = append(p.Groups, f)
		case key == "dom":
			q.Domain = value
		case key == "ip":
			q.IP = value
		case key == "host":
			q.Host = value
		default:
			t.Fatalf("not understood: %q", line)
		}
	}
	if p.Subject == authz.Anonymous {
		q.Principal = authz.AnonymousPrincipal()
	} else {
		q.Principal = p.WithBuiltinGroups()
	}
	return fields[0] == "allow", q
}

// No policy of testdata is there twice, and each file has its purpose.
func TestGoodPoliciesHaveTheirFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*/*")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, file := range files {
		switch name := filepath.Base(file); name {
		case "model.conf", "expect.txt":
		case "policy.csv":
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := seen[string(b)]; ok {
				t.Errorf("%s is %s", file, other)
			}
			seen[string(b)] = file
		default:
			t.Errorf("%s is never read", file)
		}
	}
}
