package pattern

import (
	"slices"
	"strings"
	"testing"
)

// Samples of a pattern are paths, and the pattern matches some of them.
func TestSamplePaths(t *testing.T) {
	for _, tt := range []struct{ function, pattern, want string }{
		{"==", "/a/b", "/a/b"},
		{"keyMatch", "/a/*", "/a/x /a/x/y /a"},
		{"keyMatch", "/a", "/a"},
		{"keyMatch2", "/a/:id/b", "/a/x/b"},
		{"keyMatch2", "/a/*", "/a/x /a/x/y /a"},
		{"keyMatch3", "/a/{id}", "/a/x"},
		{"keyMatch4", "/{a}/{a}", "/x/x"},
		{"keyMatch5", "/{a}/*", "/x/x /x/x/y /x"},
		{"globMatch", "/a/**", "/a/x /a/x/y /a"},
		{"globMatch", "/a/*", "/a/x"},
		{"globMatch", "/**/secret", "/secret /x/secret /x/y/secret"},
		{"globMatch", "/a/*.pdf", "/a/x.pdf"},
		{"globMatch", `/a/\[1\].{pdf,t?t}`, "/a/[1].pdf /a/[1].txt"},
		{"globMatch", "/[ab]", "/a /x /0 /_"},
		{"globMatch", "/**.pdf", "/x.pdf"},
		{"globMatch", "/{a,b/{c,d}}/**", "/a/x /a/x/y /a /b/c/x /b/c/x/y /b/c /b/d/x /b/d/x/y /b/d"},
		{"regexMatch", "^/a/(b|c)$", "/a/b /a/b/x /x/a/b /x/a/c /a/c"},
		{"regexMatch", "c$", "/c /x/c /xc"},
		{"regexMatch", "^/[0-9]{4}/", "/0000/x"},
	} {
		got := strings.Join(named(t, tt.function).Samples(tt.pattern), " ")
		if tt.function == "regexMatch" {
			for _, path := range strings.Fields(tt.want) {
				if !slices.Contains(strings.Fields(got), path) {
					t.Errorf("%s %s: %s is missing in %s", tt.function, tt.pattern, path, got)
				}
			}
			continue
		}
		if got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.function, tt.pattern, got, tt.want)
		}
	}
}

// Whatever the pattern, samples are few and look like paths.
func FuzzSamplePaths(f *testing.F) {
	for _, pattern := range []string{"/a/**", "/{a,b}/[^c]*", `\`, "[", "{", "/:x/*", "^/(a|b)+/[^/]{2,}$", "**", "/{,}/x"} {
		f.Add(pattern)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		if len(pattern) > 200 {
			return
		}
		for _, function := range []string{"==", "keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "regexMatch"} {
			paths := named(t, function).Samples(pattern)
			if len(paths) > maxSamples {
				t.Fatalf("%d samples", len(paths))
			}
			for _, p := range paths {
				if !IsPath(p) {
					t.Fatalf("%q is no path", p)
				}
			}
		}
	})
}
