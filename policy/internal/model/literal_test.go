package model

import (
	"slices"
	"testing"
)

func TestLiterals(t *testing.T) {
	for _, tt := range []struct {
		expr string
		want []string
	}{
		{`r.sub == p.sub`, nil},
		{`r.act in ("a", 'b')`, []string{`"a"`, `'b'`}},
		{`r.sub == "it's" || x`, []string{`"it'`, `" || x`}},
		{`"a\"b`, []string{`"a\"`}},
		{`""`, []string{`""`}},
		{`"`, []string{`"`}},
	} {
		if got := literals(tt.expr); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q", tt.expr, got)
		}
	}
}
