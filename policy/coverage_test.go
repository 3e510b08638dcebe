package policy

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"securefiles/authz"
)

func TestCoverage(t *testing.T) {
	s, _ := open(t, "p, alice, /a/**, read, allow\np, staff, /a/x, read, deny\np, bob, /b, read, allow\ng, alice, staff\ng, root, staff\n", nil)
	missed := func(c *Coverage) []int {
		lines, all := c.Missed()
		if all != 3 {
			t.Errorf("%d lines in all", all)
		}
		var numbers []int
		for _, l := range lines {
			numbers = append(numbers, l.Line)
		}
		return numbers
	}
	for _, tt := range []struct {
		name string
		ask  []authz.Query
		want []int
	}{
		{"nothing", nil, []int{1, 2, 3}},
		{"one line", []authz.Query{read("alice", "/a/y")}, []int{2, 3}},
		{"a line that another overrides", []authz.Query{read("alice", "/a/x")}, []int{3}},
		{"who may not ask", []authz.Query{read("staff", "/a/x"), read("@x", "/b")}, []int{1, 2, 3}},
		{"all", []authz.Query{read("alice", "/a/x"), read("bob", "/b")}, nil},
	} {
		c := s.Coverage()
		for _, q := range tt.ask {
			if err := c.Add(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(tt.want, missed(c)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Coverage().Add(ctx, read("alice", "/a")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
