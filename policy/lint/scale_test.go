package lint

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"securefiles/policy"
	"securefiles/policy/internal/world"
)

// A check costs a few passes over the policy, however large it is.
func BenchmarkCheck(b *testing.B) {
	for _, p := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("lines=%d", p), func(b *testing.B) {
			if testing.Short() && p > 10_000 {
				b.Skip("it takes seconds")
			}
			var text bytes.Buffer
			if err := world.Scale(&text, p, p/10, p/100); err != nil {
				b.Fatal(err)
			}
			file := filepath.Join(b.TempDir(), "policy.csv")
			if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(text.Len()))
			b.ReportAllocs()
			for b.Loop() {
				// Its denials are of files that nobody may have.
				if findings := Check(b.Context(), policy.Files{Policy: file}, &Options{Disable: []string{"deny-unmet"}}); len(findings) > 0 {
					b.Fatal(findings[0])
				}
			}
		})
	}
}
