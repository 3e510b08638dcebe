// Package storetest opens stores for tests.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/world"
)

// OpenModel opens a policy under a model of package world.
func OpenModel(t *testing.T, model, text string) *policy.Store {
	t.Helper()
	source := policy.Files{Model: world.ModelFile(t, model), Policy: filepath.Join(t.TempDir(), "policy.csv")}
	world.Write(t, source.Policy, text)
	s, err := policy.Open(t.Context(), source, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// OpenRandom opens a random policy under a model of package world, and returns its
// files.
func OpenRandom(t *testing.T, random *rand.Rand, model string, lines int) (*policy.Store, policy.Files) {
	t.Helper()
	source := policy.Files{Model: world.ModelFile(t, model), Policy: filepath.Join(t.TempDir(), "policy.csv")}
	world.Write(t, source.Policy, world.RandomPolicy(random, world.Model(t, model), lines))
	s, err := policy.Open(t.Context(), source, nil)
	if err != nil {
		t.Fatalf("%s: %v\n%s", model, err, world.File(t, source.Policy))
	}
	return s, source
}

// Open opens a store for a policy in a file of its own.
func Open(t testing.TB, text string, opts *policy.Options) (*policy.Store, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.csv")
	world.Write(t, file, text)
	s, err := policy.Open(t.Context(), policy.Files{Policy: file}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s, file
}

// Answer decides a query, as nginx's log would show it.
func Answer(t testing.TB, s *policy.Store, q authz.Query) string {
	t.Helper()
	d, err := s.Decide(t.Context(), q)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %s", d.Effect, d)
}

// ContractPolicy is a policy for the built-in model, with a deny, a role and a
// group that has it.
const ContractPolicy = `p, @authenticated, /shared/**,   read, allow
p, project_member, /project/**,  read, allow
p, project_member, /project/hr/**, read, deny
g, alice, project_member
g, @contractors, project_member
`

// OpenText opens a policy under a model.
func OpenText(t *testing.T, model, text string) *policy.Store {
	t.Helper()
	dir := t.TempDir()
	source := policy.Files{Model: dir + "/model.conf", Policy: dir + "/policy.csv"}
	world.Write(t, source.Model, model)
	world.Write(t, source.Policy, text)
	s, err := policy.Open(t.Context(), source, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// OpenDrawn opens a policy that was drawn, without the lines that are refused, and
// returns what is left of it. The store is nil where the model is refused, or the
// whole policy.
func OpenDrawn(t interface{ Fatalf(string, ...any) }, model, text string) (*policy.Store, string) {
	for {
		s, err := policy.Open(context.Background(), texts{model, text}, &policy.Options{AllowShrink: true})
		if err == nil {
			return s, text
		}
		var refused *policy.LoadError
		if !errors.As(err, &refused) {
			t.Fatalf("load: %v", err)
		}
		var ok bool
		if text, ok = world.WithoutRefused(text, err); !ok {
			return nil, ""
		}
	}
}

// texts is a source of a model and a policy that are no files.
type texts struct{ model, policy string }

// Open is policy.Source's.
func (t texts) Open(context.Context) (*policy.Text, error) {
	return &policy.Text{ModelName: "model.conf", Model: t.model, PolicyName: "policy.csv", Policy: io.NopCloser(strings.NewReader(t.policy))}, nil
}

// String is policy.Source's.
func (texts) String() string { return "policy.csv" }
