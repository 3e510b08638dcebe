// Bucket serves the files of a directory as a store would have them, for benchmarks: it
// verifies nothing, and begins each answer for a path that ends in `.late` after a delay,
// as a store at some distance does.
//
//	bucket 127.0.0.1:9000 DIRECTORY 20ms
package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: bucket ADDRESS DIRECTORY DELAY")
		os.Exit(2)
	}
	delay, err := time.ParseDuration(os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bucket:", err)
		os.Exit(2)
	}
	files := http.FileServer(http.Dir(os.Args[2]))
	err = http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".late") {
			time.Sleep(delay)
		}
		files.ServeHTTP(w, r)
	}))
	fmt.Fprintln(os.Stderr, "bucket:", err)
	os.Exit(1)
}
