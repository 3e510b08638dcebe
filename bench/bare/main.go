// Bare is what bench/page.sh compares the service with: a net/http handler
// that allows one file without looking at the question.
//
//	bare 127.0.0.1:9180 /protected/public/1k.bin
package main

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: bare HOST:PORT LOCATION")
		os.Exit(2)
	}
	location := os.Args[2]
	name := path.Base(location)
	server := &http.Server{
		Addr: os.Args[1], IdleTimeout: 2 * time.Minute,
		// What the service answers, header by header.
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h["X-Securefiles-Location"] = []string{location}
			h["X-Securefiles-Disposition"] = []string{`attachment; filename="` + name + `"; filename*=UTF-8''` + name}
			h["X-Securefiles-Cache-Control"] = []string{"private, no-store"}
			h["X-Securefiles-Csp"] = []string{"default-src 'none'; style-src 'unsafe-inline'; sandbox"}
			h["X-Securefiles-Limit-Rate"] = []string{"0"}
			h["X-Securefiles-Decision"] = []string{"g1:policy.csv:1"}
			h["X-Securefiles-User"] = []string{"alice"}
			h["X-Securefiles-Reason"] = []string{"policy"}
			w.WriteHeader(http.StatusNoContent)
		}),
	}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}
