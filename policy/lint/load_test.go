package lint

import (
	"path/filepath"
	"strings"
	"testing"

	"securefiles/policy"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"

	"github.com/google/go-cmp/cmp"
)

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	empty, good := filepath.Join(dir, "empty.csv"), filepath.Join(dir, "good.csv")
	world.Write(t, empty, "")
	world.Write(t, good, storetest.ContractPolicy)
	for _, tt := range []struct {
		name   string
		source policy.Files
		opts   *policy.Options
		want   string
	}{
		{"an empty policy", policy.Files{Policy: empty}, nil, "error: there is no p line, so everybody would be refused: add one, or set policy.allow_shrink to mean it [policy-empty]"},
		{"a policy that is not there", policy.Files{Policy: filepath.Join(dir, "no.csv")}, nil, "error: cannot be read: no such file or directory [read]"},
		{"a directory", policy.Files{Policy: dir}, nil, "error: cannot be read: is not a regular file [read]"},
		{"a device", policy.Files{Policy: "/dev/null"}, nil, "error: cannot be read: is not a regular file [read]"},
		{"a model that is not there", policy.Files{Model: filepath.Join(dir, "no.conf"), Policy: good}, nil, "error: cannot be read: no such file or directory [read]"},
		{"a bad model", policy.Files{Model: "../internal/model/testdata/badmodel/second-m.conf", Policy: good}, nil, "15: error: m stands here a second time: Casbin would let the last one win [model-duplicate]"},
		{"several downloads and a model that asks for none", policy.Files{Policy: good}, &policy.Options{RequireDomain: true}, "error: there are several downloads, and the model does not ask for dom: add dom to request_definition, policy_definition and the matcher [model-domain]"},
	} {
		s, err := policy.Open(t.Context(), tt.source, tt.opts)
		if s != nil || err == nil {
			t.Errorf("%s: opened, %v", tt.name, err)
		}
		var opts Options
		if tt.opts != nil {
			opts.Options = *tt.opts
		}
		findings := Check(t.Context(), tt.source, &opts)
		if len(findings) != 1 || !strings.HasSuffix(findings[0].String(), tt.want) {
			t.Errorf("%s: %v", tt.name, findings)
			continue
		}
		at := tt.source.Policy
		switch {
		case strings.Contains(tt.name, "a model that is not there"), strings.Contains(tt.name, "a bad model"):
			at = tt.source.Model
		case tt.opts != nil:
			at = "the built-in model"
		}
		if findings[0].File != at {
			t.Errorf("%s: is told of %s", tt.name, findings[0].File)
		}
	}
	file := filepath.Join(dir, "domain.csv")
	world.Write(t, file, "p, alice, main, /**, read, allow\n")
	if _, err := policy.Open(t.Context(), policy.Files{Model: world.ModelFile(t, "domain"), Policy: file}, &policy.Options{RequireDomain: true}); err != nil {
		t.Errorf("a model that asks for dom: %v", err)
	}
}

// A check tells the warnings of both files, beside errors too.
func TestCheckTellsWarnings(t *testing.T) {
	model := world.ModelFile(t, "open")
	warning := model + ":11: warning: everybody, without credentials too, may have everything that no line denies [model-effect]"
	file := filepath.Join(t.TempDir(), "policy.csv")
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"p, alice, /a, read, deny\n", []string{warning}},
		{"p, alice, /a, read, deny\np, alice, /a, read, deny\n", []string{warning, file + ":2: warning: says what line 1 says: remove one [duplicate]"}},
		{"p, alice, /a, read, deny\np, alice, /a, read, deni\n", []string{warning, file + ":2: error: the effect is \"deni\", which Casbin would ignore: write allow or deny [effect]"}},
	} {
		world.Write(t, file, tt.text)
		var got []string
		for _, f := range Check(t.Context(), policy.Files{Model: model, Policy: file}, nil) {
			got = append(got, f.String())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// Where some identity source may vouch for any name, a name in no g line can be
// taken, unless it says that it is a role's, or could be no role's.
func TestNamesThatAreFreeForTheTaking(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.csv")
	const rest = ", /docs/**, read, allow\n"
	for _, tt := range []struct {
		name, text string
		users      []User
		want       bool
	}{
		{"a role whose last g line is gone", "p, editor" + rest, nil, true},
		{"a role that somebody has", "p, editor" + rest + "g, alice, editor\n", nil, false},
		{"a user who has a role", "p, alice, /home/**, read, allow\np, editor" + rest + "g, alice, editor\n", nil, false},
		{"a user whom a file lists", "p, alice" + rest, []User{{"alice", "users", 1}}, false},
		{"a group", "p, @editors" + rest, nil, false},
		{"a marked role", "p, role:editor" + rest + "g, alice, role:editor\n", nil, false},
		{"a mail address", "p, alice@example.org" + rest, nil, false},
		{"a distinguished name", "p, \"CN=Alice,O=Example\"" + rest, nil, false},
		{"a number of an identity provider", "p, auth0|5f7c8ec7c33c" + rest, nil, false},
		{"whoever has no credentials", "p, anonymous, /docs/**, read, deny\np, @anyone" + rest, nil, false},
	} {
		world.Write(t, file, tt.text)
		got := false
		for _, f := range Check(t.Context(), policy.Files{Policy: file}, &Options{OpenNames: true, Users: tt.users}) {
			got = got || f.Rule == "subject-free"
		}
		if got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
		for _, f := range Check(t.Context(), policy.Files{Policy: file}, nil) {
			if f.Rule == "subject-free" {
				t.Errorf("%s: no source is open: %s", tt.name, f)
			}
		}
	}
}
