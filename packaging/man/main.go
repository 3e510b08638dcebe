// Man writes the manual of the command line into a directory:
//
//	SOURCE_DATE_EPOCH=1795728312 man DIR
//
// The date on the pages is that of SOURCE_DATE_EPOCH, in seconds since 1970.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"securefiles/internal/cli"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: man DIR")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	pages, err := cli.ManPages(time.Unix(seconds, 0))
	if err != nil {
		return err
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
