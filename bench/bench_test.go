package bench_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"securefiles/authz"
	"securefiles/internal/frontend"
	"securefiles/internal/identity"
	"securefiles/internal/metrics"
	"securefiles/policy"
)

// BenchmarkAuthorize is GET /authorize in process, as serve wires it: chi,
// identity from a header, a real policy of so many lines, metrics.
func BenchmarkAuthorize(b *testing.B) {
	for _, lines := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("lines=%d", lines), func(b *testing.B) {
			var csv strings.Builder
			for i := range lines {
				fmt.Fprintf(&csv, "p, user%d, /u/%d/**, read, allow\n", i, i)
			}
			file := filepath.Join(b.TempDir(), "policy.csv")
			if err := os.WriteFile(file, []byte(csv.String()), 0o600); err != nil {
				b.Fatal(err)
			}
			store, err := policy.Open(b.Context(), policy.Files{Policy: file}, nil)
			if err != nil {
				b.Fatal(err)
			}
			header, err := identity.NewHeader(identity.HeaderOptions{Header: "X-Remote-User"})
			if err != nil {
				b.Fatal(err)
			}
			counters := metrics.New("", "", []string{"main"}, []string{"header"}, func() metrics.Policy { return metrics.Policy{} })
			downloads, err := authz.NewDownloads(&authz.Download{Name: "main", URL: "/downloads/", Internal: "/protected/"})
			if err != nil {
				b.Fatal(err)
			}
			guard, err := authz.New(downloads, identity.Chain{header}, store, nil)
			if err != nil {
				b.Fatal(err)
			}
			front, err := frontend.NewAuthRequest(guard, &frontend.Options{Observe: counters.Observe})
			if err != nil {
				b.Fatal(err)
			}
			routes := chi.NewRouter()
			routes.Use(counters.InFlight)
			routes.Method(http.MethodGet, "/authorize", front)
			r := httptest.NewRequest(http.MethodGet, "/authorize", nil)
			r.Header.Set("X-Original-URI", "/downloads/u/7/report.pdf")
			r.Header.Set("X-Original-Method", "GET")
			r.Header.Set("X-Real-IP", "192.0.2.1")
			r.Header.Set("X-Remote-User", "user7")
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				routes.ServeHTTP(w, r)
				if w.Code != http.StatusNoContent {
					b.Fatalf("status %d", w.Code)
				}
			}
		})
	}
}
